"""Section: who is found by which attack."""

from ldm_privacy.evidence.agreement import TARGET_FPR, AttackAgreement
from ldm_privacy.registry import SECTIONS
from ldm_privacy.report.evaluation import Evaluation
from ldm_privacy.report.page.blocks import Block, DataTable, Paragraph, Section
from ldm_privacy.report.tables import short
from ldm_privacy.types import AuditKey

CAPTIONS = {
    "agreement": "Members by the attacks that find them: each bar counts those that exactly the attacks with a dot find; the "
    "largest sets. Hatched: found by one attack alone, be it in several calibrated forms."
}


@SECTIONS.register("agreement")
def agreement(evaluation: Evaluation) -> Section | None:
    """Who is found by which, what the union costs, how far pairs overlap; None where a single attack ranks anybody."""
    found, key = evaluation.evidence.agreement, evaluation.evidence.exposure.key
    if found is None or len(found.keys) < 2:
        return None
    rows = [_row(found, each) for each in found.keys]
    columns = ("attack", "members found", "by it alone", "held-out found", "members at the union's errors")
    by_attack = DataTable(
        columns,
        rows,
        f"Who is found at a false-positive rate of {_percent(found.target_fpr)}.",
        emphasised=[place for place, each in enumerate(found.keys) if each == key],
        note="Shares with exact binomial intervals over samples, taken as independent. Last column: what one attack finds that "
        "may take as many held-out images for members as all of them together do.",
    )
    blocks: list[Block] = [Paragraph(_union(found, key)), *evaluation.pictures(CAPTIONS), by_attack]
    if pairs := [
        (str(one), str(other), short(overlap.jaccard), f"{overlap.chance:.3f}".removeprefix("0"))
        for (one, other), overlap in found.overlaps.items()
    ]:
        caption = "How far attacks point at the same members: of those that either finds, the share that both find (Jaccard)."
        note = "Exact binomial intervals, given how many either finds. By chance: if each found as many members at random."
        blocks.append(DataTable(("attack", "and", "both of either", "by chance"), pairs, caption, num_texts=2, note=note))
    return Section("Who is found by which attack", _alone(found, key), blocks, place=55)


def _alone(found: AttackAgreement, key: AuditKey) -> str:
    """How many exposed members rest on one attack."""
    level = f"At a false-positive rate of {_percent(found.target_fpr)}"
    if found.target_fpr > TARGET_FPR:
        level += f", the smallest that so few held-out images resolve ({_percent(TARGET_FPR)} needs more)"
    if key not in found.keys:
        return f"{key} gives every sample the same score and finds nobody."
    num_found, num_alone = found.rests_on_one(key)
    members = f"{num_found} of {int(found.is_member.sum())} members"
    if len(set(found.families)) == 1:
        family = found.families[0]
        return f"{level}, {key} finds {members}. All rest on one attack, {family}: no other was run to confirm it."
    alone = f"{num_alone} of them rest on one attack alone: no other finds them"
    return f"{level}, {key} finds {members}. {alone}. An attack and its calibrated forms count as one."


def _union(found: AttackAgreement, key: AuditKey) -> str:
    best = key if key in found.keys else found.keys[0]
    return (
        f"Any of the {len(found.keys)} finds {short(found.union_tpr)} of the members, and takes {short(found.union_fpr)} of "
        f"the held-out images for members; {best} alone, allowed to err as often, finds {short(found.tpr_at_union_fpr(best))}."
    )


def _row(found: AttackAgreement, key: AuditKey) -> tuple[str, ...]:
    counts = found.rests_on_one(key)[0], found.num_alone(key)
    return (str(key), *map(str, counts), short(found.fpr(key)), short(found.tpr_at_union_fpr(key)))


def _percent(rate: float) -> str:
    return f"{100 * rate:.2g}%"

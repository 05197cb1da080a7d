"""Section: which images are exposed."""

from ldm_privacy.evidence.exposure import TOP_SHARE
from ldm_privacy.registry import SECTIONS
from ldm_privacy.report.evaluation import Evaluation
from ldm_privacy.report.page.blocks import Block, DataTable, ImagePairs, Paragraph, Section
from ldm_privacy.report.tables import short


@SECTIONS.register("images")
def images(evaluation: Evaluation) -> Section:
    """The most exposed members beside their nearest held-out image; agreement of ranks."""
    evidence, exposure = evaluation.evidence, evaluation.evidence.exposure
    lead = (
        f"Members by their score under {exposure.key}. {exposure.num_above_all} of {len(exposure.sample_index)} score above "
        "every reported held-out sample. Beside each the held-out image that looks most like it: what draws a score may be "
        "the kind of image."
    )
    pairs = []
    for place, (heldout, similarity) in enumerate(zip(*(each.tolist() for each in evidence.neighbours))):
        caption = f"rank {place + 1}, found at FPR ≤ {float(exposure.fpr[place]):.2g}; similarity {similarity:.2f}"
        pairs.append(evaluation.pair(int(exposure.sample_index[place]), heldout, caption))
    blocks: list[Block] = [ImagePairs(pairs, "The most exposed members, each beside its nearest held-out image.")]
    if evidence.agreement:
        rows = [
            (str(key), short(each.correlation), f"{each.top.value:.0%} (chance {each.top.chance:.0%})")
            for key, each in evidence.agreement.items()
        ]
        columns = ("attack", f"rank correlation with {evidence.key}", f"common in the top {TOP_SHARE:.0%}")
        caption = "Whether attacks point at the same members (Spearman, members only)."
        note = "Intervals are over samples, taken as independent, and leave out the randomness of training."
        blocks.append(DataTable(columns, rows, caption, note=note))
    if evidence.by_epoch:
        by_epoch = [(str(epoch), short(estimate)) for epoch, estimate in evidence.by_epoch.items()]
        caption = "How early they could be seen: rank correlation of each audit's member scores with those of this one."
        blocks.append(DataTable(("epoch", "rank correlation"), by_epoch, caption))
    listed = (
        "exposed.csv beside this report lists every audited member: rank, score, the FPR at which it is found, and "
        "whether it was of the calibration half."
    )
    return Section("Which images are exposed", lead, [*blocks, Paragraph(listed)], place=50)

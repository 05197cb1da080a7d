"""Section: attacks under other conditions, and planted duplicates."""

from ldm_privacy.audit.row import GROUPS
from ldm_privacy.evidence.conditions import said_of_conditions
from ldm_privacy.registry import SECTIONS
from ldm_privacy.report.evaluation import Evaluation
from ldm_privacy.report.page.blocks import Block, DataTable, Section
from ldm_privacy.report.tables import repeats_rows, view_rows


@SECTIONS.register("conditions")
def conditions(evaluation: Evaluation) -> Section | None:
    """What attacks find without the condition and with somebody else's; how exposed planted duplicates are."""
    report = evaluation.evidence.report
    blocks: list[Block] = []
    if rows := view_rows(report):
        blocks += evaluation.pictures({"conditions": "AUROC of each audit under the own condition, none, and another image's."})
        blocks.append(
            DataTable(
                ("attack", "condition", "AUROC", "own condition", "difference"),
                rows,
                "Attacks under other conditions than the images' own.",
                num_texts=2,
                note="'null': no condition, as it is dropped in training; 'shuffled': another audited image's, the same in "
                "every audit. Differences are paired on the same images.",
            )
        )
    if repeated := repeats_rows(report):
        assert report.data.repeats is not None
        count = int((report.data.repeats > 1).sum())
        blocks += evaluation.pictures({"planted": "AUROC of each audit: planted duplicates, and the other members."})
        blocks.append(
            DataTable(
                ("attack", *GROUPS),
                repeated,
                f"AUROC of {count} planted duplicates and of the other members, each against all held-out images.",
                note="Planted duplicates come more often in training: a positive control. An attack that doesn't find them "
                "finds nobody.",
            )
        )
    if not blocks:
        return None
    lead = said_of_conditions(report, evaluation.evidence.insider) or "Some members were planted to be memorized."
    return Section("The image or its condition", lead, blocks, place=15)

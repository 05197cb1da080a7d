"""Section: which images are exposed."""

from pathlib import PurePath

from ldm_privacy.registry import SECTIONS
from ldm_privacy.report.evaluation import Evaluation
from ldm_privacy.report.exposed_file import exposed_rows
from ldm_privacy.report.page.blocks import Block, DataTable, ImagePairs, Paragraph, Section
from ldm_privacy.report.tables import short


@SECTIONS.register("images")
def images(evaluation: Evaluation) -> Section:
    """The most exposed members beside their nearest held-out image; how early they ranked so."""
    evidence, exposure = evaluation.evidence, evaluation.evidence.exposure
    lead = (
        f"Members by their score under {exposure.key}. {exposure.num_above_all} of {len(exposure.sample_index)} score above "
        "every held-out sample of their half. Beside each the held-out image that looks most like it: what draws a score may "
        "be the kind of image."
    )
    pairs = []
    several = evidence.agreement is not None and len(set(evidence.agreement.families)) > 1
    rows = exposed_rows(evidence, files=evaluation.files)
    for row, heldout, similarity in zip(rows, *(each.tolist() for each in evidence.neighbours)):
        named = f" ({PurePath(row['file']).name})" if row["file"] else ""
        caption = f"rank {row['rank']}{named}, found at FPR ≤ {row['fpr']:.2g}; similarity {similarity:.2f}"
        caption += f"; since {evaluation.unit} {onset}" if (onset := row["onset_epoch"]) is not None else ""
        caption += "; by one attack alone" if several and row["num_attacks"] == 1 else ""
        pairs.append(evaluation.pair(row["sample_index"], heldout, caption))
    blocks: list[Block] = [ImagePairs(pairs, "The most exposed members, each beside its nearest held-out image.")]
    if evidence.by_epoch:
        by_epoch = [(str(epoch), short(estimate)) for epoch, estimate in evidence.by_epoch.items()]
        caption = "How early they could be seen: rank correlation of each audit's member scores with those of this one."
        blocks.append(DataTable(("epoch", "rank correlation"), by_epoch, caption))
    listed = (
        "exposed.csv beside this report lists every audited member: its file where the data name one, rank (by the score, on "
        "the scale of both halves), score, "
        "the FPR at which it is found (among the held-out images of its half), which half it was of (is_calibration), "
        f"{'' if evaluation.epoch is None else 'its onset, '}and the attacks that find it."
    )
    return Section("Which images are exposed", lead, [*blocks, Paragraph(listed)], place=50)

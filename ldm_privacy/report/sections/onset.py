"""Section: when memorization set in."""

from ldm_privacy.registry import SECTIONS
from ldm_privacy.report.evaluation import Evaluation
from ldm_privacy.report.page.blocks import Block, Paragraph, Section

CAPTIONS = {
    "onset": "Three signs of memorization on one time axis, each with its own onset.",
    "memorization": "AUROC of each audit with its interval; at 0 the denoiser is untrained.",
}


@SECTIONS.register("onset")
def onset(evaluation: Evaluation) -> Section | None:
    """Each onset and forecast in words, the curves of the training; None where the training is not known."""
    said = *evaluation.onsets, *evaluation.forecasts
    blocks: list[Block] = [*map(Paragraph, said), *evaluation.pictures(CAPTIONS)]
    lead = "When it set in. A rise counts from the audit of the untrained denoiser; looking again and again is paid for."
    return Section("Memorization over the training", lead, blocks, place=30) if blocks else None

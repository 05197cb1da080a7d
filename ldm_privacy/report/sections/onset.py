"""Section: when memorization set in."""

from ldm_privacy.registry import SECTIONS
from ldm_privacy.report.evaluation import Evaluation
from ldm_privacy.report.page.blocks import Block, Paragraph, Section

CAPTIONS = {
    "onset": "Signs of memorization on one time axis, each with its own onset.",
    "memorization": "AUROC of each audit with its interval; at 0 the denoiser is untrained.",
}
FIRST = (
    "How well {attack} tells members from held-out images at each audit of the training, unmasked and with every mask; .5 is "
    "guessing, the dotted line is the onset where there is one."
)


@SECTIONS.register("onset")
def onset(evaluation: Evaluation) -> Section | None:
    """Each onset and forecast in words, the curves of the training; None where the training is not known."""
    attack = evaluation.evidence.key.attack
    first = evaluation.pictures({f"attack_{attack}": FIRST.format(attack=attack)})
    said = *evaluation.onsets, *evaluation.forecasts
    blocks: list[Block] = [*first, *map(Paragraph, said), *evaluation.pictures(CAPTIONS)]
    lead = "When it set in. A rise counts from the audit of the untrained denoiser; looking again and again is paid for."
    return Section("Memorization over the training", lead, blocks, place=5) if blocks else None

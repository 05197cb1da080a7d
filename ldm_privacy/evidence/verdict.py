"""The verdict in three sentences: who is exposed, how sure that is, what it means."""

from dataclasses import dataclass
from typing import Literal

from ldm_privacy.evidence.gather import Evidence

Tone = Literal["exposed", "safe", "unclear", "leak"]

RULED_OUT = 0.6
"""An audit whose interval ends below this AUROC is called safe: it rules out more than a weak attack, not every attack."""


@dataclass(frozen=True)
class Verdict:
    """Three sentences and their tone."""

    sentences: tuple[str, str, str]
    tone: Tone


def verdict_of(evidence: Evidence) -> Verdict:
    """What the evidence says, by fixed rules that look at the primary attack and mask alone.

    * leak: the model-free control tells the two image sets apart; then no attack's number speaks of the model.
    * exposed: the AUROC's interval lies above 0.5 and permuted labels reach it rarely.
    * safe: it does not, and the interval lies between 1 - `RULED_OUT` and `RULED_OUT`: an attack that is certain the wrong
      way round tells the sides apart as well.
    * unclear: neither.
    """
    report, key = evidence.report, evidence.key
    row = report.row(key)
    area, tpr, rates = row.metrics.auroc, row.metrics.tpr_at_fpr[0], row.carried[0]
    p_value = evidence.permuted[key].band.p_value
    alpha = 1 - report.confidence
    exposed = area.lower > 0.5 and p_value <= alpha
    leaks = evidence.model_free is not None and evidence.model_free.leaks
    possible = max(area.upper, 1 - area.lower)
    tone: Tone = "leak" if leaks else "exposed" if exposed else "safe" if possible < RULED_OUT else "unclear"

    found = {
        "leak": f"The split leaks: {key} has",
        "exposed": f"Members are exposed: {key} tells them from held-out images with",
        "safe": f"No exposure found: {key} has",
        "unclear": f"Not decided: {key} has",
    }[tone]
    who = (
        f"{found} AUROC {area.value:.3f} [{area.lower:.3f}, {area.upper:.3f}] ({row.metrics.num_members} members, "
        f"{row.metrics.num_heldout} held-out; .5 is guessing) and finds {rates.tpr.value:.1%} of the members at the threshold "
        f"that was set for {tpr.target_fpr:.1%} false positives ({rates.fpr.value:.1%} in fact)."
    )
    band = evidence.permuted[key].band
    sure = (
        f"Under permuted labels the same procedure gives {band.lower:.3f} to {band.upper:.3f} (p = {p_value:.3g}); "
        f"{_controls(evidence)}"
    )
    meaning = {
        "leak": "The two image sets differ by themselves, so none of this is evidence about the model: draw the split at "
        "random and audit again.",
        "exposed": f"Who has an image can learn whether it was in the training set; {evidence.exposure.num_above_all} of "
        f"{len(evidence.exposure.sample_index)} members score above every held-out image. Treat the checkpoint like the data "
        "it was trained on, or take an earlier one.",
        "safe": f"These attacks find no member; an AUROC of {possible:.3f} or more is excluded for them, not for stronger "
        "attacks or another training.",
        "unclear": f"Too few samples to tell: an AUROC up to {possible:.3f} can't be excluded. Audit more images before this "
        "checkpoint is called safe.",
    }[tone]
    if tone == "unclear" and area.upper < 0.5:
        meaning = (
            "Held-out images score above members: the same scores turned round tell the sides apart, so find out why before "
            "this checkpoint is called safe."
        )
    return Verdict((who, sure, meaning), tone)


def _controls(evidence: Evidence) -> str:
    if evidence.model_free is None:
        blind = "there were too few samples for a classifier on the images alone"
    else:
        best = max(evidence.model_free.auroc.values(), key=lambda estimate: estimate.lower)
        blind = f"a classifier that sees the images and no model reaches {best.value:.3f} [{best.lower:.3f}, {best.upper:.3f}]"
    telling = [name for name, each in evidence.denoiser_free.items() if not each.lower <= 0.5 <= each.upper]
    alone = (
        f"without the denoiser {' and '.join(telling)} already tell{'s' if len(telling) == 1 else ''} the sides apart"
        if telling
        else ("without the denoiser nothing tells the sides apart")
    )
    return f"{blind}; {alone}."

"""EDPB Opinion 28/2024: who was in the training data can't be told."""

from ldm_privacy.evidence.limits.limit import Limit
from ldm_privacy.evidence.requirements.every_attack import tpr_limits
from ldm_privacy.evidence.requirements.requirement import Case, Requirement, leaking
from ldm_privacy.registry import REQUIREMENTS

FPR, TPR = 0.01, 0.05
"""Ours: those who are surest to be found, not the average that an AUROC is."""


@REQUIREMENTS.register("edpb_membership")
class Membership(Requirement):
    """The share of members that are found at a small false positive rate, by anybody."""

    reference = "EDPB Opinion 28/2024: membership"
    says = (
        "Paragraphs 43 and 55: a model counts as anonymous only where the likelihood that personal data of those it was "
        'trained on are extracted, or obtained by queries, is "insignificant for any data subject", with all means that '
        "are reasonably likely to be used; tests against membership inference are among what authorities look at."
    )
    held_to = (
        f"The Opinion names no number. Held here, and ours: the upper bound of the share of members found at {FPR:.0%} false "
        f"positives is at most {TPR:g}, for every attack without a mask and for whoever has the run's checkpoints too. A share "
        "of the audited images says nothing of one certain person. Undecided where the images of both sides differ without "
        "any model."
    )
    source = "https://www.edpb.europa.eu/system/files/2024-12/edpb_opinion_202428_ai-models_en.pdf"
    lacks = f"{1 / FPR:g} held-out images at least, and {FPR:g} among audit.target_fprs"
    more = "audit.max_samples, or more held-out images"

    def limits(self, case: Case) -> list[Limit]:
        return tpr_limits(TPR, case.found, target_fpr=FPR)

    def obstacle(self, case: Case) -> tuple[str, str] | None:
        return leaking(case)

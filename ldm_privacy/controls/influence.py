"""Control: does the decoder's influence tell the sides apart?"""

from ldm_privacy.controls.finding import WITHOUT_DENOISER, Case, Finding
from ldm_privacy.registry import CONTROLS
from ldm_privacy.types import Influence, MembershipScore


def influence_score(influence: Influence) -> MembershipScore:
    """Sum of log influence: sum_i 1/2 ln(G_ii + 1e-12), float64 (batch,). No network passes, no randomness.

    Args:
        influence: (batch, channels, height, width), >= 0.
    """
    return 0.5 * (influence.double() + 1e-12).log().flatten(1).sum(dim=1)


@CONTROLS.register("influence")
def influence(case: Case) -> Finding | None:
    """`influence_score`; None where there is no influence (pixel space)."""
    if case.samples.influence is None:
        return None
    meaning = "the decoder's influence itself tells the sides apart, so a mask ranked by it carries membership"
    return Finding("influence", WITHOUT_DENOISER, meaning=meaning, score=influence_score(case.samples.influence))

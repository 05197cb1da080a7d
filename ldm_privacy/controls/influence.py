"""Control: does the decoder's influence tell the sides apart?"""

from ldm_privacy.controls.finding import WITHOUT_DENOISER, Case, Finding
from ldm_privacy.device import of_rows
from ldm_privacy.registry import CONTROLS


@CONTROLS.register("influence")
def influence(case: Case) -> Finding | None:
    """Sum of log influence, sum_i 1/2 ln(G_ii + 1e-12); no network passes; None where there is no influence (pixel space)."""
    value = case.samples.influence
    if value is None:
        return None
    meaning = "the decoder's influence itself tells the sides apart, so a mask ranked by it carries membership"
    score = of_rows(lambda influence: 0.5 * (influence.double() + 1e-12).log().flatten(1).sum(dim=1), value)
    return Finding("influence", WITHOUT_DENOISER, meaning=meaning, score=score)

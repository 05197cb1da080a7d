"""Control: do the latents themselves differ in size?"""

from ldm_privacy.controls.finding import WITHOUT_DENOISER, Case, Finding
from ldm_privacy.device import of_rows
from ldm_privacy.registry import CONTROLS


@CONTROLS.register("latent_norm")
def latent_norm(case: Case) -> Finding:
    """Euclidean norm of the latent, (sum_i z_i^2)^(1/2); no network passes."""
    meaning = "the latents themselves differ in size, so the encoder or the images tell the sides apart"
    score = of_rows(lambda latent: latent.flatten(1).double().norm(dim=1), case.samples.latent)
    return Finding("latent norm", WITHOUT_DENOISER, meaning=meaning, score=score)

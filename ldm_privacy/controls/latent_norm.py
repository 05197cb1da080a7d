"""Control: do the latents themselves differ in size?"""

from ldm_privacy.controls.finding import WITHOUT_DENOISER, Case, Finding
from ldm_privacy.registry import CONTROLS
from ldm_privacy.types import Latent, MembershipScore


def latent_norm_score(latent: Latent) -> MembershipScore:
    """Euclidean norm of the latent: (sum_i z_i^2)^(1/2), float64 (batch,). No network passes, no randomness.

    Args:
        latent: (batch, channels, height, width).
    """
    return latent.flatten(1).double().norm(dim=1)


@CONTROLS.register("latent_norm")
def latent_norm(case: Case) -> Finding:
    """`latent_norm_score`."""
    meaning = "the latents themselves differ in size, so the encoder or the images tell the sides apart"
    return Finding("latent norm", WITHOUT_DENOISER, meaning=meaning, score=latent_norm_score(case.samples.latent))

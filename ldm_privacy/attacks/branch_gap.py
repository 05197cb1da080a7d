"""Branch gap: how far the condition moves the predicted noise."""

from collections.abc import Sequence

from torch import Tensor

from ldm_privacy.attacks.base import Attack
from ldm_privacy.attacks.query import DenoiserQuery
from ldm_privacy.registry import ATTACKS
from ldm_privacy.types import Contribution, Latent


@ATTACKS.register("branch_gap")
class BranchGap(Attack):
    """`(epsilon(z_t, t, c) - epsilon(z_t, t, null))^2`, **larger = more member-like**.

    The sum over dimensions is ||eps_c - eps_u||^2 of guidance, which ranks as the published norm does. It is a detector of
    captions: published at pure noise, where only the caption can know the image (AUROC .99 on Stable Diffusion's memorized
    prompts). Where little noise is added, a denoiser that memorized an image knows it without its caption too, and the gap
    closes: look at large timesteps. No gap where the condition is ignored.

    One normal noise per (sample, timestep), the same for both conditions. Two queries per timestep.

    Source: Wen et al., "Detecting, Explaining, and Mitigating Memorization in Diffusion Models", ICLR 2024, arXiv 2407.21720.
    """

    higher_means_member = True
    num_draws = 1
    log_scale = True
    views = ("null",)

    def contributions(self, query: DenoiserQuery, latent: Latent, timesteps: list[int], noise: Tensor) -> Contribution:
        """(timesteps, *latent.shape), >= 0. See `Attack.contributions`."""
        state = query.noisy(latent, noise, timesteps)
        return (query(state, timesteps) - query.under("null")(state, timesteps)).square()

    def num_queries(self, timesteps: Sequence[int]) -> int:
        """Two per timestep."""
        return 2 * len(timesteps)

"""PFAMI: how much the denoising loss rises from a sample to crops of it."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ldm_privacy.attacks.base import Attack
from ldm_privacy.attacks.query import DenoiserQuery
from ldm_privacy.errors import UserError
from ldm_privacy.registry import ATTACKS
from ldm_privacy.types import Contribution, Latent, Statistic


@ATTACKS.register("pfami")
class PFAMI(Attack):
    """`mean over crops of (L(crop) - L(z0)) / L(z0)`, **larger = more member-like**; one number for all timesteps.

    L(z) is the mean over the attack's own timesteps (and over dimensions, which cancels) of `(n - epsilon(z_t, t))^2`; with
    a mask, both L are sums over the kept dimensions. A crop is the centre of `int(height * share)` rows and
    `int(width * share)` columns, from row `(height - rows) // 2` and likewise, resized back bilinearly (corners not
    aligned); on small latents several crops coincide. One normal noise per (sample, timestep), the same for the sample and
    its crops. `(1 + num_crops) * timesteps` queries, 110 by default.

    Source: Fu et al., "A Probabilistic Fluctuation based Membership Inference Attack for Diffusion Models", arXiv
    2308.12143.

    Args:
        timesteps: Its own; those given to `attack_statistics` are not used.
        num_crops: Shares of the side from `largest_crop` down to `smallest_crop`, evenly spaced; at least 1.
        largest_crop, smallest_crop: In (0, 1].

    Raises:
        UserError: A crop without a pixel, a mask that keeps no dimension of a sample.
    """

    higher_means_member = True
    num_draws = 1
    per_timestep = False

    def __init__(
        self,
        *,
        timesteps: Sequence[int] = tuple(range(0, 500, 50)),
        num_crops: int = 10,
        largest_crop: float = 0.95,
        smallest_crop: float = 0.7,
    ):
        if num_crops < 1:
            raise UserError(f"attack 'pfami': num_crops is {num_crops}; it must be at least 1.")
        if not 0 < smallest_crop <= largest_crop <= 1:
            raise UserError(
                f"attack 'pfami': crops from {largest_crop} down to {smallest_crop}; "
                "smallest_crop <= largest_crop must both lie in (0, 1]."
            )
        self.timesteps = list(timesteps)
        self.num_crops = num_crops
        self.largest_crop, self.smallest_crop = largest_crop, smallest_crop

    def contributions(
        self, query: DenoiserQuery, latent: Latent, timesteps: list[int], noise: Tensor
    ) -> tuple[Contribution, Contribution]:
        """Squared errors of the crops (mean over crops) and of the sample, means over timesteps: each (1, *latent.shape)."""

        def error(clean: Latent) -> Tensor:
            return (noise - query.at_noise(clean, noise, timesteps)).square().mean(0, keepdim=True)

        crops = torch.zeros_like(latent)[None]
        for share in torch.linspace(self.largest_crop, self.smallest_crop, self.num_crops, dtype=torch.float64).tolist():
            crops += error(centre_crop(latent, share)) / self.num_crops
        return crops, error(latent)

    def combine(self, *sums: Tensor) -> Statistic:
        """L(crops) / L(z0) - 1."""
        crops, original = sums
        if not original.all():
            raise UserError("attack 'pfami': a mask keeps no dimension of a sample, so its loss there is 0: keep at least one.")
        return crops / original - 1

    def grid(self, timesteps: Sequence[int], num_train_timesteps: int) -> list[int]:
        """The attack's own timesteps, checked."""
        return super().grid(self.timesteps, num_train_timesteps)

    def num_queries(self, timesteps: Sequence[int]) -> int:
        """(1 + crops) * own timesteps."""
        return (1 + self.num_crops) * len(self.timesteps)


def centre_crop(latent: Latent, share: float) -> Latent:
    """The centre of a latent, `share` of its sides, resized back to its shape."""
    height, width = latent.shape[-2:]
    rows, columns = int(height * share), int(width * share)
    if not rows or not columns:
        raise UserError(f"attack 'pfami': a crop of {share:.2f} of {height}x{width} latents is empty; raise smallest_crop.")
    top, left = (height - rows) // 2, (width - columns) // 2
    crop = latent[..., top : top + rows, left : left + columns]
    return functional.interpolate(crop, size=(height, width), mode="bilinear", align_corners=False)

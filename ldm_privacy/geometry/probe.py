"""Influence by random probes: unbiased, one backward pass a probe for all dimensions at once."""

import math
from dataclasses import KW_ONLY, dataclass
from typing import Literal

import torch
from torch import Tensor

from ldm_privacy.errors import UserError
from ldm_privacy.geometry.estimate import (
    InfluenceEstimate,
    check_counts,
    check_influence,
    check_sample_index,
    concatenate,
    mask_overlap,
)
from ldm_privacy.geometry.jacobian import DecoderJacobian, at_least_float32, in_parts
from ldm_privacy.geometry.masks import check_keep_fraction, keep_largest, num_kept
from ldm_privacy.randomness import normal, rademacher
from ldm_privacy.registry import INFLUENCE_ESTIMATORS
from ldm_privacy.types import Decoder, Latent

ProbeDistribution = Literal["gaussian", "rademacher"]


@INFLUENCE_ESTIMATORS.register("probe")
@dataclass(frozen=True)
class ProbeInfluence:
    """G_ii = ||dD/dz_i||^2 by probes v in image space: G_ii ≈ mean_k (J^T v_k)_i^2.

    Unbiased. With Gaussian probes each (J^T v)_i is normal, so the estimate is G_ii chi^2_K / K: relative variance exactly
    2 / num_probes, the same for every dimension. With Rademacher probes the variance is smaller, 2 (G_ii^2 - sum_p J_pi^4)
    / num_probes, and differs between dimensions. Source: Rao, Qu, Moyer 2025 (2511.20592); Hutchinson 1990.

    Cost: one decoder forward pass a sample and one backward pass a probe.

    Args:
        num_probes, seed: As in `ldm_privacy.geometry`; K = num_probes >= 1.
        distribution: "gaussian" or "rademacher".
        keep_fraction: Of the masks whose stability is measured, in (0, 1].
        probe_batch_size: None: 1 on the CPU, where a loop over probes was the fastest; elsewhere 8, or what fits in memory.
    """

    num_probes: int = 16
    _: KW_ONLY
    distribution: ProbeDistribution = "gaussian"
    seed: int = 0
    keep_fraction: float = 0.6
    probe_batch_size: int | None = None

    def __post_init__(self) -> None:
        check_counts(1, num_probes=self.num_probes, probe_batch_size=self.probe_batch_size)
        if self.distribution not in ("gaussian", "rademacher"):
            raise UserError(f"distribution: unknown distribution '{self.distribution}'. Use 'gaussian' or 'rademacher'.")
        check_keep_fraction(self.keep_fraction)

    def products_per_sample(self, num_dimensions: int, num_pixels: int) -> int:
        """One J^T v a probe."""
        return self.num_probes

    def __call__(
        self, decoder: Decoder, latent: Latent, sample_index: Tensor, probes: Tensor | None = None
    ) -> InfluenceEstimate:
        """Influence of each sample; see `InfluenceEstimator`.

        Its standard error is influence * sqrt(2 / num_probes) (an upper bound for Rademacher probes); from two probes on there
        is mask stability. `probes`: (batch, probes, *image) to use instead of drawn ones, any number of them, standard normal
        for the law above to hold.
        """
        check_sample_index(latent, sample_index)
        if probes is not None and (len(probes) != len(latent) or probes.ndim < 3 or not probes.shape[1]):
            raise UserError(
                f"probes of shape {tuple(probes.shape)} don't fit {len(latent)} samples: (batch, probes, *image) is needed."
            )

        def estimate(jacobian: DecoderJacobian, rows: slice) -> InfluenceEstimate:
            return self._estimate(jacobian, latent[rows], sample_index[rows], None if probes is None else probes[rows])

        return concatenate(in_parts(estimate, decoder, latent))

    def draw(self, sample_index: Tensor, probe: int, shape: torch.Size, device: torch.device) -> Tensor:
        """One probe for each sample: (batch, *shape), a function of (seed, sample index, probe)."""
        draw = normal if self.distribution == "gaussian" else rademacher
        return draw("probe", (self.seed, sample_index.to(device), probe), shape, device)

    def _estimate(
        self, jacobian: DecoderJacobian, latent: Latent, sample_index: Tensor, probes: Tensor | None
    ) -> InfluenceEstimate:
        image = jacobian.image
        num_probes = self.num_probes if probes is None else probes.shape[1]
        per_pass = self.probe_batch_size or (1 if image.device.type == "cpu" else jacobian.vectors_within(8))
        # Sums of squares over the first half of the probes, the second, and the odd one out.
        sums = torch.zeros(3, *latent.shape, dtype=at_least_float32(latent), device=latent.device)
        num_half = num_probes // 2
        for start in range(0, num_probes, per_pass):
            chosen = range(start, min(start + per_pass, num_probes))
            if probes is None:
                vectors = torch.stack([self.draw(sample_index, probe, image.shape[1:], image.device) for probe in chosen])
            else:
                vectors = probes[:, start : chosen.stop].transpose(0, 1).to(image.device)
            products = jacobian.transpose_times(vectors, vectors_per_pass=per_pass)
            for probe, product in zip(chosen, products):
                part = probe // num_half if num_half else 2
                sums[part] += product.to(sums.dtype).square()
        influence = sums.sum(0) / num_probes
        check_influence(influence, sample_index)
        standard_error = influence * math.sqrt(2 / num_probes)
        if not num_half:
            return InfluenceEstimate(influence, standard_error)
        halves = (sums[:2] / num_half).transpose(0, 1)
        return InfluenceEstimate(influence, standard_error, half_stability(halves, self.keep_fraction), halves)


def half_stability(halves: Tensor, keep_fraction: float) -> Tensor:
    """(batch,), overlap of the masks that the two halves of the probes, (batch, 2, ...), give."""
    count = num_kept(halves.shape[2:].numel(), keep_fraction)
    return mask_overlap(keep_largest(halves[:, 0], count), keep_largest(halves[:, 1], count))

"""Variance of ln influence: how unequally the decoder stretches the dimensions of the latent."""

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor

from ldm_privacy.losses.base import Autoencoded, CodecLoss, ShareOfBatch, Weight
from ldm_privacy.registry import LOSSES


@LOSSES.register("influence_variance")
class InfluenceVariance(CodecLoss):
    """Variance over the dimensions i of ln G_ii, with G_ii = ||dD/dz_i||^2 averaged over the batch's posterior means.

    Unlike the relaxed distortion it sees dead dimensions, and doesn't see correlations. G_ii is the mean of (J^T v)_i^2 over
    samples and probes v ~ N(0, I) in image space. It is averaged before the logarithm, for ln of few squares is dominated by
    the least; with K of them in all, what is left of their noise adds about 2 / K to the value. Latents are given, so the
    encoder gets no gradient. Cost of a sample: one decoder pass and a product for each probe, each with their gradients.

    Args:
        weight, first_step, every, share: See `CodecLoss`.
        num_probes: Of each sample.
    """

    needs_decoder = True

    def __init__(
        self,
        *,
        weight: Weight = 1.0,
        first_step: NonNegativeInt = 0,
        every: PositiveInt = 1,
        share: ShareOfBatch = 1.0,
        num_probes: PositiveInt = 1,
    ):
        super().__init__(weight=weight, first_step=first_step, every=every, share=share)
        self.num_probes = num_probes

    @property
    def passes(self) -> dict[str, tuple[int, int]]:
        return {"decoder": (1, 0), "decoder products": (self.num_probes, 0)}

    def __call__(self, batch: Autoencoded) -> Tensor:
        assert batch.decode is not None
        latent = batch.mean.detach().requires_grad_()
        image = batch.decode(latent)
        probes = [batch.normal(f"influence probe {number}", image) for number in range(self.num_probes)]
        products = [torch.autograd.grad(image, latent, probe, create_graph=True)[0] for probe in probes]
        influence = batch.over_all(torch.stack([each.square().mean(0) for each in products]).mean(0))
        return (influence + 1e-12).log().var(correction=0)

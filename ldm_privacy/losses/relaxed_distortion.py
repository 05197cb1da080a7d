"""Relaxed distortion: how far the pullback metric of the decoder is from a multiple of the identity."""

import torch
from torch import Tensor

from ldm_privacy.losses.base import Autoencoded, CodecLoss
from ldm_privacy.registry import LOSSES

MARGIN = 0.2
"""How far beyond the two latents a mixed one may lie."""


@LOSSES.register("relaxed_distortion")
class RelaxedDistortion(CodecLoss):
    """D * E[tr H^2] / E[tr H]^2 of the pullback metric H = J^T J, at latents between the batch's.

    That is 1 + the squared coefficient of variation of the eigenvalues of all H: 1 where every H is the same multiple of the
    identity, and the same for any scale of the decoder (Lee, Yoon, Son, Park, ICLR 2022, regularized autoencoders for
    isometric representation learning). Expectations are over the batch before the ratio is taken. Latents are a z + (1 - a) z'
    with z' of another sample and a ~ U(-.2, 1.2), drawn for each; they are given, so the encoder gets no gradient.

    One probe u ~ N(0, I) in image space a sample: tr H = E |J^T u|^2 and tr H^2 = E |J J^T u|^2. Both together have the law of
    |J v|^2 and |J^T J v|^2 with v ~ N(0, I) in latent space, and cost a product less. Cost of a sample: one decoder pass and
    two products, each with their gradients.
    """

    needs_decoder = True

    @property
    def passes(self) -> dict[str, tuple[int, int]]:
        return {"decoder": (1, 0), "decoder products": (2, 0)}

    def __call__(self, batch: Autoencoded) -> Tensor:
        assert batch.decode is not None
        latent = self.mixed(batch).requires_grad_()
        image = batch.decode(latent)
        probe = batch.normal("relaxed distortion", image).requires_grad_()
        (pulled,) = torch.autograd.grad(image, latent, probe, create_graph=True)
        # J w at w = J^T u is the derivative in u of <J^T u, w>.
        (pushed,) = torch.autograd.grad(pulled, probe, pulled, create_graph=True)
        trace, trace_of_square = batch.over_all(
            torch.stack([each.square().flatten(1).sum(1).mean() for each in (pulled, pushed)])
        )
        return latent[0].numel() * trace_of_square / trace.square()

    @staticmethod
    def mixed(batch: Autoencoded) -> Tensor:
        """The latents at which it looks, (batch, channels, height, width)."""
        everyone = batch.of_all(batch.mean)
        # The order of a batch is drawn anew in each epoch, so the next sample is any other one.
        other = everyone[(batch.places + 1) % len(everyone)]
        share = (1 + 2 * MARGIN) * batch.uniform("mixing", batch.mean) - MARGIN
        return share * batch.mean.detach() + (1 - share) * other

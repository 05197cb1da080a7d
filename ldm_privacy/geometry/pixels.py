"""Influence seen from the image: how strongly each pixel answers to a step in latent space."""

import torch
from torch import Tensor

from ldm_privacy.errors import UserError
from ldm_privacy.geometry.estimate import check_counts, check_influence, check_sample_index
from ldm_privacy.geometry.jacobian import DecoderJacobian, at_least_float32, in_parts
from ldm_privacy.randomness import normal
from ldm_privacy.types import Decoder, Image, Latent


def pixel_influence(
    decoder: Decoder,
    latent: Latent,
    sample_index: Tensor,
    *,
    num_probes: int = 32,
    seed: int = 0,
    vectors_per_pass: int = 1,
) -> tuple[Tensor, Image]:
    """diag(J J^T), summed over image channels: the expected squared change of a pixel, E ||(J v)_pixel||^2, v ~ N(0, I).

    Estimated by the mean of ||(J v_k)_pixel||^2 over Gaussian probes in latent space. Unbiased. Relative variance
    2 tr(B^2) / (num_probes tr(B)^2), B the pixel's block of J J^T (image channels x image channels): exactly 2 / num_probes
    for one image channel, less for more. Summed over the pixels it estimates tr(J J^T) = tr(J^T J), as influence does
    summed over latent dimensions.

    Cost: one decoder forward pass a sample and one J v product (two to three passes) a probe. Arguments, precision and
    errors as in `ldm_privacy.geometry`; a decoder that makes no images is an error too.

    Returns:
        (batch, image_height, image_width), >= 0, and the decoded images, as the decoder makes them.
    """
    check_counts(1, num_probes=num_probes, vectors_per_pass=vectors_per_pass)
    check_sample_index(latent, sample_index)

    def of_part(jacobian: DecoderJacobian, rows: slice) -> tuple[Tensor, Image]:
        part, key = latent[rows], sample_index[rows].to(latent.device)
        if jacobian.image.ndim != 4:
            raise UserError(
                f"the decoder made shape {tuple(jacobian.image.shape)}; pixels need images (batch, channels, height, width)."
            )
        total = torch.zeros_like(jacobian.image[:, 0], dtype=at_least_float32(latent))
        for chosen in torch.arange(num_probes).split(vectors_per_pass):
            probes = [normal("pixel probe", (seed, key, int(probe)), part.shape[1:], latent.device) for probe in chosen]
            products = jacobian.times(torch.stack(probes), vectors_per_pass=vectors_per_pass)
            total += products.to(total.dtype).square().sum(2).sum(0)
        influence = (total / num_probes).to(latent.device)
        check_influence(influence, sample_index[rows])
        return influence, jacobian.image

    influences, images = zip(*in_parts(of_part, decoder, latent))
    return torch.cat(influences), torch.cat(images)

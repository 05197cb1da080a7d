"""Influence seen from the image: how strongly each pixel answers to a step in latent space."""

import torch
from torch import Tensor

from ldm_privacy.errors import UserError
from ldm_privacy.geometry.estimate import check_counts, check_finite, check_sample_index
from ldm_privacy.geometry.jacobian import DecoderJacobian
from ldm_privacy.randomness import normal
from ldm_privacy.types import Decoder, Image, Latent


def pixel_influence(
    decoder: Decoder,
    latent: Latent,
    sample_index: Tensor,
    *,
    num_probes: int = 32,
    seed: int = 0,
    decode_batch_size: int = 64,
    vectors_per_pass: int = 1,
) -> tuple[Tensor, Image]:
    """diag(J J^T), summed over image channels: the expected squared change of a pixel, E ||(J v)_pixel||^2, v ~ N(0, I).

    Estimated by the mean of ||(J v_k)_pixel||^2 over Gaussian probes in latent space. Unbiased. Relative variance
    2 tr(B^2) / (num_probes tr(B)^2), B the pixel's block of J J^T (image channels x image channels): exactly 2 / num_probes
    for one image channel, less for more. Summed over the pixels it estimates tr(J J^T) = tr(J^T J), as influence does
    summed over latent dimensions.

    Probes are a function of (seed, sample index, probe) alone. Cost: one decoder forward pass a sample and one J v product
    (two to three passes) a probe.

    Args:
        decoder: Latent -> image, samples independent of each other.
        latent: (batch, channels, height, width).
        sample_index: (batch,) int; seeds the probes.
        num_probes: At least 1.
        seed: Of the probes.
        decode_batch_size: Samples that are decoded together (memory: their activations).
        vectors_per_pass: Probes that go through the decoder together (memory: that many times as much).

    Returns:
        (batch, image_height, image_width), >= 0, on the latent's device, in its precision but at least float32; and the
        decoded images, as the decoder makes them.

    Raises:
        UserError: num_probes < 1, a batch size < 1, a latent that the decoder can't take, a decoder that makes no images,
            or a result that is not finite.
    """
    check_counts(1, num_probes=num_probes, decode_batch_size=decode_batch_size, vectors_per_pass=vectors_per_pass)
    check_sample_index(latent, sample_index)
    dtype = torch.promote_types(latent.dtype, torch.float32)
    influences, images = [], []
    for part, index in zip(latent.split(decode_batch_size), sample_index.split(decode_batch_size), strict=True):
        jacobian = DecoderJacobian(decoder, part)
        if jacobian.image.ndim != 4:
            raise UserError(
                f"the decoder made shape {tuple(jacobian.image.shape)}; pixels need images (batch, channels, height, width)."
            )
        total = torch.zeros_like(jacobian.image[:, 0], dtype=dtype)
        for chosen in torch.arange(num_probes).split(vectors_per_pass):
            key = index.to(latent.device)
            probes = [normal("pixel probe", (seed, key, int(probe)), part.shape[1:], latent.device) for probe in chosen]
            products = jacobian.times(torch.stack(probes), vectors_per_pass=vectors_per_pass)
            total += products.to(dtype).square().sum(2).sum(0)
        influence = (total / num_probes).to(latent.device)
        check_finite(influence, index)
        influences.append(influence)
        images.append(jacobian.image)
    return torch.cat(influences), torch.cat(images)

"""Counts the rows that really go through the networks, and whose they are."""

from collections import Counter
from contextlib import contextmanager

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DModel

from ldm_privacy.audit import measure
from ldm_privacy.data.complexity import image_complexity
from ldm_privacy.geometry.jacobian import DecoderJacobian


class Passes:
    """Rows by network, named as in `recipes.plan.Cost`; rows by content of what is encoded and decoded without gradients.

    `compressed`: images whose complexity is measured, which takes no network.
    """

    def __init__(self):
        self.rows = Counter()
        self.encoded = Counter()
        self.reconstructed = Counter()
        self.compressed = 0
        self._inside = False


def _each(rows):
    return [row.detach().cpu().numpy().tobytes() for row in rows]


@contextmanager
def counted_passes():
    """Inside, passes of AutoencoderKL, UNet2DModel, products with the decoder's Jacobian and complexities are counted."""
    found = Passes()
    encode, decode, denoise = AutoencoderKL.encode, AutoencoderKL.decode, UNet2DModel.forward
    products = {"transpose_times": DecoderJacobian.transpose_times, "times": DecoderJacobian.times}

    def counting_encode(self, image, *arguments, **options):
        found.rows["autoencoder" if self.training else "encoder"] += len(image)
        if not self.training:
            found.encoded.update(_each(image))
        return encode(self, image, *arguments, **options)

    def counting_decode(self, latent, *arguments, **options):
        if not self.training and not found._inside:
            found.rows["decoder"] += len(latent)
            if not torch.is_grad_enabled():
                found.reconstructed.update(_each(latent))
        return decode(self, latent, *arguments, **options)

    def counting_denoise(self, sample, *arguments, **options):
        found.rows["denoiser"] += len(sample)
        return denoise(self, sample, *arguments, **options)

    def counting(name):
        def count(self, vectors, **options):
            found.rows["decoder products"] += vectors.shape[0] * vectors.shape[1]
            found._inside = True  # forward mode decodes again: that is the product itself
            try:
                return products[name](self, vectors, **options)
            finally:
                found._inside = False

        return count

    def counting_complexity(images):
        found.compressed += len(images)
        return image_complexity(images)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "image_complexity", counting_complexity)
        patch.setattr(AutoencoderKL, "encode", counting_encode)
        patch.setattr(AutoencoderKL, "decode", counting_decode)
        patch.setattr(UNet2DModel, "forward", counting_denoise)
        for name in products:
            patch.setattr(DecoderJacobian, name, counting(name))
        yield found

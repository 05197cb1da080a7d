"""Image features that need no trained weights: random convolutions at several scales."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, conv2d, interpolate, pad

from ldm_privacy.device import in_passes, rows_within
from ldm_privacy.quality.pyramid import halved
from ldm_privacy.randomness import normal, uniform
from ldm_privacy.types import Image

CHANNELS = (24, 48)
"""Of the two convolutions."""
GAINS = (6.0, 3.0)
"""Standard deviation of a convolution's output where its inputs are independent, of mean 0 and variance 1."""
LARGEST, SMALLEST = 64, 4
"""Pixels of a side: larger images are averaged down first, and no scale is smaller."""
_NUM_NOISE = 64
SEED = 0
"""The same in every run, so that distances compare."""


class RandomFeatures:
    """Two random 3 x 3 convolutions, each followed by a cosine, at each scale of an image, averaged over its quarters.

    `cos(w * x + b)` are random Fourier features of patches (Rahimi & Recht 2007): averaged, they tell the laws of patches
    apart, and the second layer those of patches of patches. Scales: the image (averaged down to 64 pixels a side where it is
    larger), half, a quarter, ... down to 4 pixels; the same filters at each. Every feature is centred and scaled by its mean
    and deviation over 64 smooth random images, which depend on the size alone: the features are a fixed function
    of the image. 192 of a scale.

    They tell brightness, contrast, sharpness, noise, strokes and roughly where in the image they are, and so whether a set
    has lost part of its variety. They know nothing of objects: what needs a trained network to see, they don't. A KID of them
    is comparable with others of the same image size alone, and with no published one.

    """

    name = f"random convolutions, seed {SEED}"

    def __init__(self) -> None:
        self._scale: dict[torch.Size, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def __call__(self, image: Image) -> Tensor:
        """(batch, features), float32 on the CPU, of images (batch, 1 or 3, height, width) in [-1, 1]; no network passes."""
        shape = image.shape[1:]
        if shape not in self._scale:
            noise = self._raw(_smooth_noise((shape[0], *_seen(shape))))
            self._scale[shape] = noise.mean(0), noise.std(0)
        mean, std = self._scale[shape]
        # Of the largest scale what goes into the second convolution unfolded, and both outputs with their cosines.
        bytes_per_image = 4 * (9 * CHANNELS[0] + 2 * sum(CHANNELS)) * min(shape[-2:].numel(), LARGEST**2) + 4 * shape.numel()
        raw = in_passes(self._raw, image.float(), rows_within(bytes_per_image, image.device)).cpu()
        return (raw - mean) / std

    def _raw(self, image: Image) -> Tensor:
        if max(image.shape[-2:]) > LARGEST:
            image = adaptive_avg_pool2d(image, _seen(image.shape))
        filters = [(weight.to(image), phase.to(image)) for weight, phase in self._filters(image.shape[1])]
        found = []
        while True:
            state = image
            for weight, phase in filters:
                state = torch.cos(conv2d(pad(state, (1, 1, 1, 1), mode="replicate"), weight, phase))
            found.append(adaptive_avg_pool2d(state, 2).flatten(1))
            if min(image.shape[-2:]) < 2 * SMALLEST:
                return torch.cat(found, 1)
            image = halved(image)

    def _filters(self, channels: int) -> list[tuple[Tensor, Tensor]]:
        """Weights and phases of each layer."""
        filters = []
        for layer, (wanted, gain) in enumerate(zip(CHANNELS, GAINS)):
            key = (SEED, layer, torch.arange(wanted))
            weight = normal("random features", key, (channels, 3, 3)) * gain / (9 * channels) ** 0.5
            filters.append((weight, 2 * math.pi * uniform("random features' phases", key, ())))
            channels = wanted
        return filters


def _seen(shape: Sequence[int]) -> tuple[int, int]:
    """Height and width that the largest scale has, of images of that shape."""
    height, width = shape[-2:]
    longest = max(LARGEST, height, width)
    return max(1, height * LARGEST // longest), max(1, width * LARGEST // longest)


def _smooth_noise(shape: Sequence[int]) -> Image:
    """Random images in [-1, 1] with as much of every scale: noise of 1, 2, 4, ... pixels a side, enlarged and added."""
    size, side, parts = tuple(shape[1:]), 1, []
    while side <= min(LARGEST, *size):
        noise = normal("smooth noise", (SEED, side, torch.arange(_NUM_NOISE)), (shape[0], side, side))
        parts.append(interpolate(noise, size=size, mode="bilinear"))
        side *= 2
    return torch.tanh(torch.stack(parts).sum(0) / 2)

"""The critic of the adversarial loss: which patches of an image look real."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from ldm_privacy.errors import UserError
from ldm_privacy.types import Image

SMALLEST = 6
"""Pixels of an image's side from which a patch can be seen."""
_WIDTHS = (64, 128, 256, 512)


def num_halvings(size: int) -> int:
    """How many convolutions of stride 2 leave an output of an image of that side: the published three from 24 pixels on.

    Raises UserError below `SMALLEST`.
    """
    if size < SMALLEST:
        raise UserError(f"the critic needs images of {SMALLEST} pixels a side, and these have {size}.")
    return max(number for number in (1, 2, 3) if size // 2**number >= 3)


class Critic(nn.Sequential):
    """4x4 convolutions of 64 (stride 2), 128 (2), 256 (2), 512 (1) and 1 (1) channels: a number for every patch of an image.

    LeakyReLU of slope .2 between them, InstanceNorm without affine on all but the first and the last, weights N(0, .02), biases
    0 (Isola et al., 1611.07004; Rao, Qu, Moyer, 2509.25003). Images under 24 pixels have nothing left after three halvings:
    they get fewer, and as many layers less (PatchGAN's `n_layers`).

    Args:
        image_channels: 1 or 3.
        resolution: Height and width of the images.
        seed: Of the weights; other random numbers are not touched.

    Raises:
        UserError: The images are too small.
    """

    def __init__(self, *, image_channels: int, resolution: int, seed: int):
        halvings = num_halvings(resolution)
        widths = (image_channels, *_WIDTHS[: halvings + 1], 1)
        layers: list[nn.Module] = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for number, (before, width) in enumerate(pairwise(widths)):
                convolution = nn.Conv2d(before, width, 4, stride=2 if number < halvings else 1, padding=1)
                nn.init.normal_(convolution.weight, 0.0, 0.02)
                nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
                layers.append(convolution)
                if 0 < number <= halvings:
                    layers.append(nn.InstanceNorm2d(width))
                if number <= halvings:
                    layers.append(nn.LeakyReLU(0.2))
        super().__init__(*layers)

    def forward(self, image: Image) -> Tensor:
        """(batch, 1, rows, columns), in the image's dtype."""
        return super().forward(image).to(image)


def hinge(real: Tensor, fake: Tensor) -> Tensor:
    """mean relu(1 - real) / 2 + mean relu(1 + fake) / 2: what the critic minimises."""
    return ((1 - real).relu().mean() + (1 + fake).relu().mean()) / 2


def scores(critic: nn.Module, image: Image, reconstruction: Image) -> tuple[Tensor, Tensor]:
    """What the critic says of images and of their reconstructions, in one pass."""
    real, fake = critic(torch.cat([image, reconstruction])).chunk(2)
    return real, fake

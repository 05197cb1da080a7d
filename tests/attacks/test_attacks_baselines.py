"""What the benchmark of the attacks compares with computes the same statistics."""

import pytest
import torch

from benchmarks.attacks import PUBLISHED, Network, largest_difference


@pytest.mark.parametrize("name", PUBLISHED)
def test_batched_code_with_the_same_noise_agrees(name):
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(3, 4, 8, 8, generator=generator)
    masks = torch.rand(2, *latent.shape, generator=generator) < 0.6
    assert largest_difference(name, Network(), latent, [0, 10, 20], masks) < 1e-4

"""Patch sliced Wasserstein: against scipy in one dimension, its derivative, the pyramid."""

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance

from ldm_privacy.quality.sliced import patches, sliced_wasserstein, wasserstein

GENERATOR = torch.Generator().manual_seed(0)


def test_one_dimension_is_scipys_with_ties_and_unequal_numbers():
    first = torch.randn(3, 13, generator=GENERATOR, dtype=torch.float64)
    second = torch.randn(3, 9, generator=GENERATOR, dtype=torch.float64) + 0.5
    second[:, :4] = first[:, :4]
    value, _, _ = wasserstein(first, second)
    expected = [wasserstein_distance(a, b) for a, b in zip(first.numpy(), second.numpy())]
    np.testing.assert_allclose(value.numpy(), expected, rtol=1e-12)
    assert wasserstein(first, first[:, torch.randperm(13)])[0].tolist() == [0, 0, 0]


def test_the_potentials_are_the_derivatives_in_the_weights():
    first = torch.randn(1, 8, generator=GENERATOR, dtype=torch.float64)
    second = torch.randn(1, 5, generator=GENERATOR, dtype=torch.float64) + 0.7
    _, of_first, of_second = wasserstein(first, second)
    step = 1e-6

    def slopes(values, others):
        found = []
        for row in range(len(values)):
            both = []
            for size in (step, -step):
                weight = np.full(len(values), (1 - size) / len(values))
                weight[row] += size
                both.append(wasserstein_distance(values, others, weight))
            found.append((both[0] - both[1]) / (2 * step))
        return np.array(found)

    for potential, values, others in ((of_first, first, second), (of_second, second, first)):
        centred = (potential - potential.mean()).numpy()[0]
        np.testing.assert_allclose(centred, slopes(values[0].numpy(), others[0].numpy()), atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1, 8, 8), [(4, 49)]),
        ((3, 32, 32), [(16, 147), (16, 147), (4, 147)]),
        ((1, 5, 9), [(3, 35)]),
        ((3, 512, 512), [(16, 147)] * 6 + [(4, 147)]),
    ],
)
def test_the_pyramid_goes_down_to_eight_pixels_a_side(shape, expected):
    found = patches(torch.zeros(2, *shape))
    assert [tuple(each.shape) for each in found] == [(2, *each) for each in expected]


def test_bands_hold_what_the_smaller_copies_lack():
    image = torch.rand(4, 1, 16, 16, generator=GENERATOR)
    fine, coarse = patches(image + 0.25)
    torch.testing.assert_close(fine, patches(image)[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(coarse, patches(image)[1] + 0.25)


def test_it_is_symmetric_zero_of_one_set_and_resamples_whole_groups():
    one, other = (patches(torch.rand(count, 1, 8, 8, generator=GENERATOR)) for count in (12, 9))
    there, back = sliced_wasserstein(one, other), sliced_wasserstein(other, one)
    assert there.value == pytest.approx(back.value, rel=1e-12)
    torch.testing.assert_close(there.of_reference, back.of_generated)
    assert sliced_wasserstein(one, one).value == 0
    assert sliced_wasserstein(one, other, seed=1).value != there.value
    assert len(sliced_wasserstein(one, other, group=torch.arange(9) // 2).of_reference) == 5
    group = torch.arange(len(one[0])) // 2
    assert len(sliced_wasserstein(one, other, generated_group=group).of_generated) == len(group.unique())

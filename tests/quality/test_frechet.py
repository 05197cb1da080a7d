"""FID: against scipy's matrix root, and its derivative in the weight of each image."""

import numpy as np
import pytest
import torch

from ldm_privacy.metrics.resampling import SideResampler
from ldm_privacy.quality.frechet import frechet
from tests.reference.quality import weighted_fid

GENERATOR = np.random.default_rng(1)


def sets(features, generations=30, references=25):
    mix = GENERATOR.normal(size=(features, features)) / features**0.5
    return GENERATOR.normal(0.2, 1, (generations, features)) @ mix, GENERATOR.normal(size=(references, features))


def test_the_value_is_scipys():
    generated, reference = sets(4)
    found = frechet(torch.from_numpy(generated), torch.from_numpy(reference))
    from scipy.linalg import sqrtm

    cov = [np.cov(each.T) for each in (generated, reference)]
    expected = ((generated.mean(0) - reference.mean(0)) ** 2).sum() + np.trace(
        cov[0] + cov[1] - 2 * sqrtm(cov[0] @ cov[1]).real
    )
    assert found.value == pytest.approx(expected, rel=1e-8)
    assert frechet(torch.from_numpy(reference), torch.from_numpy(reference)).value == pytest.approx(0, abs=1e-8)


def test_what_an_image_moves_is_the_derivative_in_its_weight():
    generated, reference = sets(4)
    even, step = np.full(len(generated), 1 / len(generated)), 1e-5

    def moved(row, size):
        weight = (1 - size) * even
        weight[row] += size
        return weighted_fid(generated, reference, weight)

    slope = np.array([(moved(row, step) - moved(row, -step)) / (2 * step) for row in range(len(generated))])
    expected = SideResampler(len(generated)).mean_deviations(slope[None])[0]
    found = frechet(torch.from_numpy(generated), torch.from_numpy(reference))
    # Of torchmetrics' covariances, which divide by one image less.
    np.testing.assert_allclose(found.of_generated.numpy(), expected, atol=0.02 * np.abs(expected).max())


def test_with_fewer_images_than_features_the_interval_is_finite_and_both_sides_are_alike():
    generated, reference = (torch.from_numpy(each) for each in sets(12, generations=8, references=9))
    found, other = frechet(generated, reference), frechet(reference, generated)
    assert found.value == pytest.approx(other.value, rel=1e-6)
    assert found.estimate().lower > -np.inf
    torch.testing.assert_close(found.of_generated, other.of_reference)
    torch.testing.assert_close(found.of_reference, other.of_generated)
    group = torch.arange(9) // 3
    assert len(frechet(generated, reference, group=group).of_reference) == 3

"""Random convolutions: a fixed function of the image, of any size, and what a KID of them tells apart."""

import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn.functional import avg_pool2d, pad

from ldm_privacy.quality.kernel import kid
from ldm_privacy.quality.random_features import RandomFeatures

GENERATOR = torch.Generator().manual_seed(0)
DIGITS = torch.tensor(load_digits().images, dtype=torch.float32)[torch.randperm(1797, generator=GENERATOR), None] / 8 - 1
REAL, OTHERS = DIGITS[:256], DIGITS[256:512]
NOISE = torch.randn(OTHERS.shape, generator=GENERATOR)
SPOILED = {
    "noise": (OTHERS + 0.1 * NOISE).clamp(-1, 1),
    "blurred": avg_pool2d(pad(OTHERS, (1, 1, 1, 1), mode="replicate"), 3, 1),
    "darker": 0.9 * (OTHERS + 1) - 1,
    "less variety": OTHERS[:32].repeat(8, 1, 1, 1),
    "mirrored": OTHERS.flip(3),
    "moved": OTHERS.roll(1, 3),
}


@pytest.mark.parametrize(("shape", "scales"), [((1, 8, 8), 2), ((3, 32, 32), 4), ((3, 512, 512), 5), ((3, 20, 12), 2)])
def test_every_size_has_features_of_its_scales(shape, scales):
    image = torch.rand(2, *shape, generator=GENERATOR) * 2 - 1
    found = RandomFeatures()(image)
    assert found.shape == (2, 192 * scales)
    assert found.isfinite().all()


def test_they_are_a_fixed_function_of_the_image(monkeypatch):
    whole = RandomFeatures()(REAL[:40])
    torch.testing.assert_close(RandomFeatures()(REAL[7:8]), whole[7:8], atol=1e-4, rtol=1e-4)
    monkeypatch.setattr("ldm_privacy.quality.random_features.rows_within", lambda size, device: 9)
    torch.testing.assert_close(RandomFeatures()(REAL[:40]), whole, atol=1e-4, rtol=1e-4)


def test_smooth_random_images_have_mean_0_and_deviation_1():
    from ldm_privacy.quality.random_features import _smooth_noise

    noise = _smooth_noise(REAL.shape[1:])
    assert noise.abs().max() <= 1
    found = RandomFeatures()(noise)
    torch.testing.assert_close(found.mean(0), torch.zeros(384), atol=1e-3, rtol=0)
    torch.testing.assert_close(found.std(0), torch.ones(384), atol=1e-3, rtol=0)


def test_other_images_of_the_same_kind_are_at_no_distance_and_spoiled_ones_are():
    features = RandomFeatures()
    real = features(REAL)
    same = kid(features(OTHERS), real).estimate(0.999)
    assert not same.leaves_out(0)
    for name, image in SPOILED.items():
        assert kid(features(image), real).estimate().lower > 0, name

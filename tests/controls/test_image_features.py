"""Image features: they mean what their names say, and belong to each image alone."""

import importlib

import numpy as np
import pytest
import torch

from ldm_privacy.controls.image_features import image_features
from ldm_privacy.errors import UserError

module = importlib.import_module("ldm_privacy.controls.image_features")


def images(samples=20, channels=3, side=32, seed=0):
    pixels = torch.randint(0, 256, (samples, channels, side, side), generator=torch.Generator().manual_seed(seed))
    return pixels.float() / 127.5 - 1


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 8), (1, 28), (3, 32), (4, 17), (3, 2), (1, 3)])
def test_every_size_gives_finite_named_features(channels, side):
    features = image_features(images(5, channels, side))
    assert {(value.dtype, value.shape) for value in features.values()} == {(torch.float32, (5,))}
    assert all(value.isfinite().all() for value in features.values())
    assert len(features) == sum(1 for group in module._GROUPS for _ in group(images(5, channels, side))), "a name twice"
    assert ("vertical step across 8x8 blocks" in features) == (side >= 16)


def test_moments_and_quantiles_are_numpys():
    value = images(side=33)
    features, red = image_features(value), value[:, 0].flatten(1).double().numpy()
    expected = {
        "mean of red": red.mean(1),
        "standard deviation of red": red.std(1),
        "minimum of red": red.min(1),
        "maximum of red": red.max(1),
        "25% quantile of red": np.quantile(red, 0.25, axis=1, method="nearest"),
        "50% quantile of red": np.quantile(red, 0.5, axis=1, method="nearest"),
    }
    for name, numbers in expected.items():
        np.testing.assert_allclose(features[name].numpy(), numbers, atol=1e-5)
    grey = np.stack([np.corrcoef(image[0].flatten(), image[2].flatten())[0, 1] for image in value.numpy()])
    np.testing.assert_allclose(features["correlation of red and blue"].numpy(), grey, atol=1e-5)


def test_histograms_share_out_the_pixels_in_level_order():
    features = image_features(images())
    bins = torch.stack([features[f"histogram of green, bin {index} of 8"] for index in range(1, 9)], dim=1)
    levels = ((images()[:, 1].flatten(1) + 1) * 127.5).round()
    expected = torch.stack([(levels // 32 == index).float().mean(dim=1) for index in range(8)], dim=1)
    torch.testing.assert_close(bins, expected)


def test_thumbnail_is_the_mean_of_a_sixteenth():
    features, value = image_features(images()), images()
    torch.testing.assert_close(features["blue at row 1, column 4 of 4x4"], value[:, 2, :8, 24:].mean(dim=(1, 2)))


def test_clipped_and_repeated_values_are_counted():
    value = images(1, 3, 8).clamp(-0.5, 0.5)
    value[0, :, 0, 0] = -1
    value[0, 0, 1, 0] = 1
    value[0, :, 5] = 0.25
    features = image_features(value)
    assert features["share of black values"].item() == pytest.approx(3 / 192)
    assert features["share of white values"].item() == pytest.approx(1 / 192)
    equal = (value[0, :, :, 1:] == value[0, :, :, :-1]).all(dim=0).float().mean().item()
    assert equal >= 1 / 8
    assert features["pixels equal to their right neighbour"].item() == pytest.approx(equal)


def test_finer_patterns_lie_in_higher_rings():
    place = torch.arange(32.0)
    for ring, cycles in ((1, 3), (2, 7), (3, 11), (4, 15)):
        wave = 0.5 * torch.sin(2 * torch.pi * cycles * place / 32).expand(1, 1, 32, 32)
        features = image_features(wave)
        energies = [features[f"Fourier energy, ring {band} of 4"].item() for band in range(1, 5)]
        assert int(np.argmax(energies)) == ring - 1


def test_block_edges_show_whichever_way_they_run():
    blocks = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(1)).repeat_interleave(8, 2).repeat_interleave(8, 3)
    blocky, plain = image_features(blocks), image_features(images(6, 1))
    for name in ("horizontal", "vertical"):
        assert (blocky[f"{name} step across 8x8 blocks"] > 2).all()
        assert (plain[f"{name} step across 8x8 blocks"].abs() < 0.5).all()


def test_features_belong_to_the_image_alone():
    value, order = images(), torch.randperm(20, generator=torch.Generator().manual_seed(2))
    whole, some = image_features(value), image_features(value[order[:7]])
    for name, feature in some.items():
        torch.testing.assert_close(feature, whole[name][order[:7]], rtol=1e-5, atol=1e-5)


def test_images_of_one_pixel_are_refused():
    with pytest.raises(UserError, match="1x8 pixels"):
        image_features(torch.zeros(2, 3, 1, 8))

"""The mask ranked by the deviation of each latent dimension: same rule, same counts, another ranking."""

import numpy as np
import pytest
import torch

from ldm_privacy.errors import UserError
from ldm_privacy.geometry.deviation import latent_deviation, latent_mean
from ldm_privacy.geometry.masks import KeepTopDeviation, KeepTopInfluence

SHAPE = (4, 8, 8)


def latents(samples=300, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scale = 0.1 + torch.rand(SHAPE, generator=generator)
    return torch.randn(samples, *SHAPE, generator=generator) * scale + 50 * torch.randn(SHAPE, generator=generator)


def test_deviation_is_numpys_in_float64():
    value = latents(2500)
    expected = value.numpy().astype(np.float64).std(axis=0)
    assert latent_deviation(value).dtype == torch.float64
    np.testing.assert_allclose(latent_deviation(value).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("num_bytes", [None, 1, 16 * 256 * 7])
def test_the_mean_is_numpys_in_float64_whatever_the_memory(num_bytes, limit_memory):
    if num_bytes:
        limit_memory(num_bytes)
    value = latents(50)
    assert latent_mean(value).dtype == torch.float64
    np.testing.assert_allclose(latent_mean(value).numpy(), value.numpy().astype(np.float64).mean(axis=0), rtol=1e-12)


def test_deviation_keeps_its_digits_beside_a_large_mean():
    value = torch.arange(8.0).reshape(8, 1, 1, 1) + 2.0**20
    assert latent_deviation(value).item() == pytest.approx((63 / 12) ** 0.5, rel=1e-14)


def test_deviation_of_one_sample_is_zero():
    assert (latent_deviation(latents(1)) == 0).all()


@pytest.mark.parametrize("rule", ["count", "percentile"])
@pytest.mark.parametrize("keep_fraction", [0.1, 0.6, 1.0])
def test_mask_is_the_top_rule_on_the_deviation(keep_fraction, rule):
    deviation, index = latent_deviation(latents()).expand(5, *SHAPE), torch.arange(5)
    mask = KeepTopDeviation(keep_fraction, rule=rule)(deviation, index)
    assert torch.equal(mask, KeepTopInfluence(keep_fraction, rule=rule)(deviation, index))
    assert (mask == mask[0]).all()
    kept, dropped = deviation[mask], deviation[~mask]
    assert not len(dropped) or kept.min() > dropped.max()


def test_mask_does_not_change_when_all_latents_are_scaled_or_shifted():
    value, index = latents(), torch.arange(1)
    mask = KeepTopDeviation()(latent_deviation(value)[None], index)
    assert torch.equal(mask, KeepTopDeviation()(latent_deviation(3 * value - 7)[None], index))
    whitened = value / latent_deviation(value)
    assert not torch.equal(mask, KeepTopDeviation()(latent_deviation(whitened)[None], index))


def test_bad_input():
    value = latents(4)
    value[2, 0, 3, 3] = float("nan")
    with pytest.raises(UserError, match="row 2"):
        latent_deviation(value)
    with pytest.raises(UserError, match="no latents"):
        latent_deviation(value[:0])
    with pytest.raises(UserError, match="keep_fraction"):
        KeepTopDeviation(0)

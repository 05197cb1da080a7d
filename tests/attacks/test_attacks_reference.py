"""Every attack against the authors' numbers and against the same attack written plainly."""

import numpy as np
import pytest
import torch
from torch.nn.functional import conv2d

from ldm_privacy.attacks.base import get_attack
from ldm_privacy.attacks.pfami import centre_crop
from ldm_privacy.attacks.runner import attack_statistics, draw_noise
from ldm_privacy.errors import UserError
from tests.reference import attacks as plain


class ConvolutionPredictor:
    """epsilon(z, t) = tanh(conv2d(z, weight, padding=1) + bias t / 1000)."""

    def __init__(self, weight, bias, alphas_cumprod):
        self.weight, self.bias, self.alphas_cumprod = weight, bias, alphas_cumprod

    def __call__(self, noisy_latent, timestep, condition):
        shift = self.bias[None, :, None, None] * timestep[:, None, None, None] / 1000
        return torch.tanh(conv2d(noisy_latent, self.weight.to(noisy_latent), padding=1) + shift.to(noisy_latent))


PUBLISHED = {
    # row: attack, first timestep, schedule, masked, tolerance
    "simarepo_sima": ("sima", {}, 0, "abar_linear", 1e-4),
    "simarepo_pia": ("pia", {}, 10, "abar_linear", 1e-4),
    "simarepo_pian": ("pian", {}, 10, "abar_linear", 1e-4),
    "simarepo_secmi": ("secmi", {"interval": 10}, 0, "abar_linear", 5e-4),
    "simarepo_loss": ("loss", {"power": 2}, 10, "abar_linear", 1e-4),
    "masked_sima": ("sima", {}, 0, "abar_scaled_linear", 1e-4),
    "masked_pia": ("pia", {}, 0, "abar_scaled_linear", 1e-4),
    "masked_loss": ("loss", {"power": 4}, 0, "abar_scaled_linear", 1e-4),
    "masked_secmi": ("secmi", {"interval": 10}, 0, "abar_scaled_linear", 5e-4),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("row", PUBLISHED)
def test_the_authors_numbers(shared_file, row, dtype):
    name, hyperparameters, first, schedule, tolerance = PUBLISHED[row]
    with np.load(shared_file("reference/attacks.npz")) as stored:
        array = {key: torch.from_numpy(stored[key]) for key in stored}
    expected = array[row]
    timesteps = list(range(first, first + 10 * len(expected), 10))
    latent = array["z0"].to(dtype)
    kept = array["keep_mask"].reshape(latent.shape)
    keep = kept if row.startswith("masked") else torch.ones_like(kept)
    noise = array[f"{row}_noise"].to(dtype) if f"{row}_noise" in array else None
    predictor = ConvolutionPredictor(array["conv_weight"], array["time_bias"], array[schedule])
    statistics = attack_statistics(get_attack(name, **hyperparameters), predictor, latent, timesteps, keep[None], noise=noise)
    assert statistics.shape == (1, *expected.shape)
    torch.testing.assert_close(statistics[0], expected.double(), rtol=tolerance, atol=0)


@pytest.fixture
def setting():
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(3, 3, 3, 3, generator=generator, dtype=torch.float64) / 5
    bias = torch.randn(3, generator=generator, dtype=torch.float64)
    abar = (1 - torch.linspace(1e-4, 2e-2, 1000, dtype=torch.float64)).cumprod(0)
    latent = torch.randn(5, 3, 8, 6, generator=generator, dtype=torch.float64)
    keep = torch.rand(3, *latent.shape, generator=generator) < 0.5
    predictor = ConvolutionPredictor(weight, bias, abar)

    def predict(states, timestep):
        return predictor(states, torch.full((len(states),), timestep), {})

    return predictor, predict, abar.tolist(), latent, keep


TIMESTEPS = [40, 0, 90, 10]
PLAIN = {
    "sima": {},
    "sima_mc": {"num_draws": 3},
    "sima_mc_of_mean": {"num_draws": 3},
    "loss": {},
    "pia": {},
    "pian": {},
    "secmi": {},
    "dime": {"num_draws": 3, "gamma": 0.7, "phi": 0.4},
    "t_mc": {},
}


@pytest.mark.parametrize("name", PLAIN)
def test_the_plain_version(setting, name):
    predictor, predict, abar, latent, keep_masks = setting
    attack = get_attack(name, **PLAIN[name])
    statistics = attack_statistics(attack, predictor, latent, TIMESTEPS, keep_masks, seed=5)
    noise = draw_noise(attack, latent, TIMESTEPS, seed=5)
    extra = {key: value for key, value in PLAIN[name].items() if key != "num_draws"}
    for mask, keep in enumerate(keep_masks):
        for place, timestep in enumerate(TIMESTEPS):
            drawn = {"noise": noise[..., place, :, :, :, :]} if attack.num_draws else {}
            expected = getattr(plain, name)(predict, abar, latent, timestep, keep, **drawn, **extra)
            torch.testing.assert_close(statistics[mask, place], expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize(("name", "hyperparameters"), [("loss", {"power": 4}), ("secmi", {"interval": 5}), ("secmi", {})])
def test_the_plain_version_with_other_hyperparameters(setting, name, hyperparameters):
    predictor, predict, abar, latent, keep_masks = setting
    attack = get_attack(name, **hyperparameters)
    statistics = attack_statistics(attack, predictor, latent, [15], keep_masks)
    drawn = {"noise": draw_noise(attack, latent, [15])[0]} if attack.num_draws else {}
    expected = getattr(plain, name)(predict, abar, latent, 15, keep_masks[1], **drawn, **hyperparameters)
    torch.testing.assert_close(statistics[1, 0], expected, rtol=1e-9, atol=0)


def test_timesteps_of_other_remainders_change_no_number_of_secmi(setting):
    predictor, predict, abar, latent, keep_masks = setting
    timesteps = [15, 0, 7, 20]
    statistics = attack_statistics(get_attack("secmi"), predictor, latent, timesteps, keep_masks)
    for place, timestep in enumerate(timesteps):
        expected = plain.secmi(predict, abar, latent, timestep, keep_masks[1])
        torch.testing.assert_close(statistics[1, place], expected, rtol=1e-9, atol=0)


def test_pfami_against_the_plain_version(setting):
    predictor, predict, abar, latent, keep_masks = setting
    attack = get_attack("pfami")
    grid = list(range(0, 500, 50))
    statistics = attack_statistics(attack, predictor, latent, [7], keep_masks, seed=5)
    assert statistics.shape == (3, 1, 5)
    noise = draw_noise(attack, latent, grid, seed=5)
    for mask, keep in enumerate(keep_masks):
        expected = plain.pfami(predict, abar, latent, keep, noise, grid)
        torch.testing.assert_close(statistics[mask, 0], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "options", [{"num_crops": 1, "largest_crop": 1.0}, {"num_crops": 3, "largest_crop": 0.7, "smallest_crop": 0.7}]
)
def test_the_crops_of_pfami_are_as_large_as_they_say(setting, options):
    """With one crop, or crops of one size, the statistic is that of a crop of `largest_crop`, to the last pixel."""
    predictor, predict, abar, latent, _ = setting
    latent = latent.repeat(1, 1, 2, 2)[..., :10, :10]  # 0.7 of 10 is 7 pixels, in single precision 6
    attack = get_attack("pfami", timesteps=[40], **options)
    keep = torch.ones_like(latent, dtype=torch.bool)
    statistics = attack_statistics(attack, predictor, latent, [7], keep[None], seed=5)[0, 0]
    noise = draw_noise(attack, latent, [40], seed=5)[0]
    side = int(10 * options["largest_crop"])
    crop = latent[..., (10 - side) // 2 :, (10 - side) // 2 :][..., :side, :side]
    crop = torch.nn.functional.interpolate(crop, (10, 10), mode="bilinear", align_corners=False)
    losses = [plain.loss(predict, abar, clean, 40, keep, noise) for clean in (crop, latent)]
    torch.testing.assert_close(statistics, losses[0] / losses[1] - 1, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 8), (8, 1)])
def test_a_crop_of_less_than_a_pixel_is_refused(shape):
    with pytest.raises(UserError, match=r"a crop of 0\.95 of .* latents is empty"):
        centre_crop(torch.zeros(1, 1, *shape), 0.95)
    assert torch.equal(centre_crop(torch.ones(1, 1, *shape), 1.0), torch.ones(1, 1, *shape))

"""Which timesteps are trained on: each sampler against the density that it states."""

import math

import pytest
import torch
from scipy.stats import chi2

from ldm_privacy.config.check import Component
from ldm_privacy.registry import TIMESTEP_SAMPLERS
from tests.training.test_stepwise import denoiser, fit

CPU = torch.device("cpu")


def sampler(name, num_train_timesteps=1000, **arguments):
    return Component(TIMESTEP_SAMPLERS, name, arguments).build(num_train_timesteps=num_train_timesteps)


def probabilities(density, count):
    """Of each timestep: the integral of a density over its part of [0, 1], by the midpoint rule."""
    fine = (torch.arange(count * 400, dtype=torch.float64) + 0.5) / (count * 400)
    masses = density(fine).reshape(count, -1).mean(1) / count
    assert float(masses.sum()) == pytest.approx(1, abs=1e-4)
    return masses


def as_published(slope):
    """exp(a u) or its mirror image, each half of the time."""

    def one_sided(u):
        return slope * (slope * u).exp() / (math.exp(slope) - 1)

    return lambda u: (one_sided(u) + one_sided(1 - u)) / 2


def logit_normal(mean, std):
    def density(u):
        return (-(u.logit() - mean).square() / (2 * std**2)).exp() / (std * math.sqrt(2 * math.pi) * u * (1 - u))

    return density


@pytest.mark.parametrize(
    ("name", "arguments", "density"),
    [
        ("uniform", {}, torch.ones_like),
        ("u_shaped", {}, as_published(4.0)),
        ("u_shaped", {"slope": 9.0}, as_published(9.0)),
        ("logit_normal", {}, logit_normal(0.0, 1.0)),
        ("logit_normal", {"mean": 0.5, "std": 0.7}, logit_normal(0.5, 0.7)),
    ],
)
def test_timesteps_follow_the_density(name, arguments, density):
    """Pearson's chi-square over 25 timesteps; its law for so many draws is the textbook's, exceeded once in a million seeds."""
    torch.manual_seed(0)
    drawn = sampler(name, 25, **arguments)(200_000, CPU)
    assert drawn.dtype == torch.int64
    expected = 200_000 * probabilities(density, 25)
    statistic = ((drawn.bincount(minlength=25) - expected).square() / expected)[expected >= 5].sum()
    assert float(statistic) < chi2.ppf(1 - 1e-6, 24)


def test_a_u_has_its_ends_cosh_of_half_the_slope_times_as_dense_as_the_middle():
    masses = probabilities(as_published(4.0), 1001)
    assert float(masses[0] / masses[500]) == pytest.approx(math.cosh(2), rel=5e-3)
    torch.testing.assert_close(masses, masses.flip(0))


@pytest.mark.parametrize("name", [*TIMESTEP_SAMPLERS])
@pytest.mark.parametrize("num_train_timesteps", [1, 7, 1000])
def test_every_sampler_stays_within_the_schedule(name, num_train_timesteps):
    drawn = sampler(name, num_train_timesteps)(20_000, CPU)
    assert drawn.shape == (20_000,)
    assert set(drawn.tolist()) <= set(range(num_train_timesteps))
    assert len(drawn.unique()) > 0.9 * num_train_timesteps


def test_uniform_ones_are_those_that_were_always_drawn():
    torch.manual_seed(3)
    drawn = sampler("uniform")(50, CPU)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.randint(1000, (50,)))


@pytest.mark.parametrize("name", [*TIMESTEP_SAMPLERS])
def test_a_training_that_stops_goes_on_as_if_it_had_not(name, tmp_path):
    from lightning.pytorch import Trainer

    def build():
        return denoiser(timesteps=sampler(name))

    whole, begun = fit(build()), fit(build(), max_epochs=1)
    begun.trainer.save_checkpoint(tmp_path / "begun.ckpt")
    options = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False}
    resumed = build()
    trainer = Trainer(max_epochs=2, accelerator="cpu", gradient_clip_val=1.0, **options)
    trainer.fit(resumed, ckpt_path=tmp_path / "begun.ckpt", weights_only=True)
    for mine, other in zip(resumed.parameters(), whole.parameters()):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("name", [*TIMESTEP_SAMPLERS])
def test_two_processes_train_on_the_timesteps_of_one(name, monkeypatch):
    asked = []

    def step(share):
        module = denoiser(timesteps=sampler(name), batch_size=16)
        monkeypatch.setattr(module, "_objective", lambda *given: asked.append(given[5]) or given[3].sum())
        module._share = share
        torch.manual_seed(1)
        module.loss(torch.arange(16))

    for share in (slice(None), slice(0, 7), slice(7, 16)):
        step(share)
    assert torch.equal(torch.cat(asked[1:]), asked[0])

"""The decomposition: against a slow one, on trajectories that are known exactly, and what it is invariant to."""

import weakref

import numpy as np
import pytest
import torch

from ldm_privacy.models.ideal import MembershipBlindPredictor
from ldm_privacy.randomness import normal
from ldm_privacy.trajectories import decompose, deviation, memoriser_coefficients
from tests.trajectories.conftest import ABAR, AGAINST_NORMAL, AGAINST_ZERO, LATENT, NOISE, SHAPE

STATES = normal("states", (torch.arange(5)[:, None], torch.arange(3)), SHAPE).double() + 0.3
MEAN = normal("mean", (0,), SHAPE).double()


@pytest.mark.parametrize("mean", [None, MEAN, MEAN + LATENT])
def test_it_is_least_squares(mean):
    found = decompose(STATES, LATENT, NOISE, mean=mean)
    for row in range(3):
        columns = [LATENT[row], NOISE[row]] + ([] if mean is None else [mean.expand_as(LATENT)[row]])
        design = torch.stack([column.flatten() for column in columns], 1).numpy()
        for step in range(5):
            target = STATES[step, row].flatten().numpy()
            weight, rest, *_ = np.linalg.lstsq(design, target)
            ours = [found.clean, found.noise] + ([] if mean is None else [found.mean])
            np.testing.assert_allclose([float(each[step, row]) for each in ours], weight, rtol=1e-9, atol=1e-12)
            assert float(found.r_squared[step, row]) == pytest.approx(1 - rest[0] / (target @ target), abs=1e-12)
        unit = design / np.linalg.norm(design, axis=0)
        assert float(found.condition_number[row]) == pytest.approx(np.linalg.cond(unit), rel=1e-9)
        assert float(found.cosine[row]) == pytest.approx(unit[:, 0] @ unit[:, 1], abs=1e-12)


@pytest.mark.parametrize(
    ("guidance_scale", "unconditional", "d1", "d2"),
    [
        (1.0, AGAINST_ZERO, -2.743, -0.104),
        (3.0, AGAINST_ZERO, 47.378, -0.104),
        (7.5, AGAINST_ZERO, 160.151, -0.104),
        (1.0, AGAINST_NORMAL, -2.743, -0.104),
        (3.0, AGAINST_NORMAL, 17.406, 9.515),
        (7.5, AGAINST_NORMAL, 36.215, 16.963),
    ],
)
def test_the_recursion_is_the_decomposition_of_simulated_trajectories(known, guidance_scale, unconditional, d1, d2):
    found = decompose((step.state for step in known.steps(guidance_scale, unconditional)), LATENT, NOISE)
    exact = memoriser_coefficients(known.schedule.abar, guidance_scale, against_normal=unconditional is AGAINST_NORMAL)
    assert found.clean.shape == found.noise.shape == (50, 3)
    torch.testing.assert_close(found.clean, exact.clean.expand(50, 3), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.noise, exact.noise.expand(50, 3), rtol=1e-6, atol=1e-6)
    assert found.r_squared.min() > 1 - 1e-9, "nothing else is in these states"
    given = deviation(found, known.schedule.abar[1:])
    torch.testing.assert_close(given.d1, torch.full((3,), d1, dtype=torch.float64), rtol=0, atol=6e-4)
    torch.testing.assert_close(given.d2, torch.full((3,), d2, dtype=torch.float64), rtol=0, atol=6e-4)


def test_the_abar_before_the_update_shifts_everyone_alike(known):
    for guidance_scale in (1.0, 7.5):
        exact = memoriser_coefficients(known.schedule.abar, guidance_scale)
        right, wrong = (deviation(exact, abar) for abar in (known.schedule.abar[1:], known.schedule.abar[:-1]))
        assert float(wrong.d1 - right.d1) == pytest.approx(0.924, abs=6e-4)
        assert float(wrong.d2 - right.d2) == pytest.approx(0.968, abs=6e-4)


def test_the_first_steps_alone(known):
    exact = memoriser_coefficients(known.schedule.abar, 3.0)
    early = deviation(exact, known.schedule.abar[1:], num_steps=10)
    assert float(early.d1) == pytest.approx(float((exact.clean[:10, 0] - known.schedule.abar[1:11].sqrt()).sum()))


def test_deviation_wants_the_abar_of_each_state(known):
    with pytest.raises(ValueError, match="50 states"):
        deviation(memoriser_coefficients(known.schedule.abar), known.schedule.abar)


def test_a_mean_that_leaks_into_the_unconditional_branch_is_the_third_column(known):
    """Against the exact denoiser of N(mean, I) the states lie in the plane of x, x_T and the mean."""
    shifted = MembershipBlindPredictor(torch.stack([MEAN + 1, MEAN - 1]), ABAR)
    states = [step.state for step in known.steps(3.0, shifted)]
    two, three = decompose(states, LATENT, NOISE), decompose(states, LATENT, NOISE, mean=MEAN)
    assert three.r_squared.min() > 1 - 1e-9
    assert two.r_squared.min() < 0.999
    exact = memoriser_coefficients(known.schedule.abar, 3.0, against_normal=True)
    torch.testing.assert_close(three.clean, exact.clean.expand(50, 3), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(three.noise, exact.noise.expand(50, 3), rtol=1e-6, atol=1e-6)


def test_a_trajectory_does_not_depend_on_its_batch(known):
    whole = decompose((step.state for step in known.steps(3.0)), LATENT, NOISE)
    rows = torch.tensor([2, 0])
    part = decompose((step.state for step in known.steps(3.0, rows=rows)), LATENT[rows], NOISE[rows])
    torch.testing.assert_close(part.clean, whole.clean[:, rows], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(part.noise, whole.noise[:, rows], rtol=1e-12, atol=1e-12)


def test_it_is_linear_in_the_states_and_blind_to_the_scale_of_its_columns():
    plain = decompose(STATES, LATENT, NOISE, mean=MEAN)
    scaled = decompose(2 * STATES, 1e-6 * LATENT, NOISE, mean=1e5 * MEAN)
    torch.testing.assert_close(scaled.clean, 2e6 * plain.clean)
    torch.testing.assert_close(scaled.noise, 2 * plain.noise)
    torch.testing.assert_close(scaled.condition_number, plain.condition_number)
    torch.testing.assert_close(scaled.r_squared, plain.r_squared)


def test_float32_states_are_decomposed_in_float64():
    states, latent, noise = STATES.float(), LATENT.float(), NOISE.float()
    found, exact = decompose(states, latent, noise), decompose(states.double(), latent.double(), noise.double())
    assert found.clean.dtype == torch.float64
    assert torch.equal(found.clean, exact.clean)


def test_dependent_columns_share_the_weight_and_a_column_of_zeros_has_none():
    same = decompose(STATES, NOISE, NOISE)
    one = (STATES * NOISE).flatten(2).sum(2) / NOISE.flatten(1).square().sum(1)
    torch.testing.assert_close(same.clean, one / 2)
    torch.testing.assert_close(same.noise, one / 2)
    assert (same.condition_number > 1e7).all()
    empty = decompose(STATES, torch.zeros_like(LATENT), NOISE)
    assert not empty.clean.any()
    torch.testing.assert_close(empty.noise, one)
    assert ((empty.r_squared >= 0) & (empty.r_squared <= 1)).all()


def test_a_generator_of_states_is_not_held(known):
    alive = []

    def states():
        for step in known.steps(1.0):
            assert sum(each() is not None for each in alive) <= 1
            alive.append(weakref.ref(step.state))
            yield step.state
            del step

    decompose(states(), LATENT, NOISE)
    assert len(alive) == 50

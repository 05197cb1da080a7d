"""Rise of the loss gap: Welch's bound on paired changes, groups, an untouched denoiser, what is refused."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from ldm_privacy.errors import UserError
from ldm_privacy.metrics import loss_gap_rise


def losses(generator, num_members, num_heldout, gap=0.0):
    """Per-sample losses of the untrained denoiser and of a later one, with skewed difficulties; members gain `gap` more."""
    is_member = torch.arange(num_members + num_heldout) < num_members
    difficulty = generator.lognormal(size=len(is_member))
    before = torch.from_numpy(difficulty + 0.1 * generator.normal(size=len(is_member)))
    after = torch.from_numpy(0.5 * difficulty + 0.1 * generator.normal(size=len(is_member))) - gap * is_member
    return after, before, is_member


def test_the_loss_gap_rise_is_welchs_bound_on_the_change_of_each_sample():
    loss, baseline, is_member = losses(np.random.default_rng(5), 60, 90, gap=0.2)
    found = loss_gap_rise(loss, baseline, is_member, confidence=0.9)
    change = (loss - baseline).numpy()
    welch = stats.ttest_ind(change[60:], change[:60], equal_var=False, alternative="greater")
    assert found.value == pytest.approx(change[60:].mean() - change[:60].mean())
    assert found.lower == pytest.approx(welch.confidence_interval(0.9).low)
    # Difficulty that both audits share cancels.
    shift = torch.from_numpy(np.random.default_rng(6).normal(size=150))
    moved = loss_gap_rise(loss + shift, baseline + shift, is_member, confidence=0.9)
    assert moved.lower == pytest.approx(found.lower)


def test_groups_of_the_loss_gap_are_units():
    loss, baseline, is_member = losses(np.random.default_rng(7), 80, 80)
    single = loss_gap_rise(loss, baseline, is_member, group=torch.arange(160))
    assert single.lower == pytest.approx(loss_gap_rise(loss, baseline, is_member).lower)
    # Every sample four times over is no new evidence: with groups the bound stays, without it tightens.
    index = torch.arange(160).repeat_interleave(4)
    grouped = loss_gap_rise(loss[index], baseline[index], is_member[index], group=index)
    assert (grouped.value, grouped.lower) == pytest.approx((single.value, single.lower))
    assert loss_gap_rise(loss[index], baseline[index], is_member[index]).lower > single.lower
    one_group = torch.where(is_member, 0, torch.arange(160))
    assert loss_gap_rise(loss, baseline, is_member, group=one_group).lower == -math.inf


def test_the_loss_gap_of_an_untouched_denoiser_is_exactly_zero():
    loss, _, is_member = losses(np.random.default_rng(8), 20, 20)
    found = loss_gap_rise(loss, loss, is_member)
    assert (found.value, found.lower, found.upper) == (0.0, 0.0, math.inf)


@pytest.mark.parametrize(("num_members", "num_heldout"), [(2, 2), (2, 9), (9, 2)])
def test_two_samples_a_side_have_a_bound_and_one_has_none(num_members, num_heldout):
    loss, baseline, is_member = losses(np.random.default_rng(11), num_members, num_heldout)
    change = (loss - baseline).numpy()
    welch = stats.ttest_ind(change[num_members:], change[:num_members], equal_var=False, alternative="greater")
    found = loss_gap_rise(loss, baseline, is_member, confidence=0.9)
    assert (found.lower, found.upper) == (pytest.approx(welch.confidence_interval(0.9).low), math.inf)
    for chosen in (slice(num_members - 1, None), slice(num_members + 1)):
        one = loss_gap_rise(loss[chosen], baseline[chosen], is_member[chosen])
        value = change[chosen][~is_member[chosen]].mean() - change[chosen][is_member[chosen]].mean()
        assert (one.value, one.lower, one.upper) == (pytest.approx(value), -math.inf, math.inf)


def test_a_change_that_is_the_same_for_every_sample_of_a_side_is_known_exactly():
    is_member = torch.arange(7) < 3
    found = loss_gap_rise(torch.where(is_member, 1.25, 2.0), torch.full((7,), 0.5), is_member)
    assert (found.value, found.lower, found.upper) == (0.75, 0.75, math.inf)


def test_the_loss_gap_names_what_is_wrong():
    loss, baseline, is_member = losses(np.random.default_rng(10), 20, 20)
    loss[3] = math.inf
    with pytest.raises(UserError, match=r"^the denoising loss at place 3 is inf: lower denoiser.learning_rate\.$"):
        loss_gap_rise(loss, baseline, is_member)
    with pytest.raises(UserError, match="group 0 has members and held-out"):
        loss_gap_rise(baseline, baseline, is_member, group=torch.zeros(40, dtype=torch.int64))

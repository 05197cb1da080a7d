"""Membership scores of each fold from masked sums."""

import pytest
import torch

from ldm_privacy.attacks.base import Attack, get_attack
from ldm_privacy.audit.oriented import oriented

SUMS = torch.randn(3, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
IS_MEMBER = torch.arange(20) % 3 == 0
HALVES = [torch.arange(20) < 10, torch.arange(20) >= 10]


class Shifted(Attack):
    """The mean of the members that it was fitted on is taken away; higher = member."""

    higher_means_member = True
    mean = 0.0

    def calibrated(self, sums, is_member):
        fit = Shifted()
        fit.mean = sums[0][:, is_member].mean()
        return fit

    def combine(self, *sums):
        return sums[0] - self.mean


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scores_are_made_in_double_precision_and_have_that_of_the_sums(dtype):
    sums = SUMS.to(dtype)
    score = oriented(Shifted(), [sums], IS_MEMBER, HALVES)
    expected = torch.stack([sums.double() - sums.double()[:, half & IS_MEMBER].mean() for half in HALVES]).to(dtype)
    assert score.dtype == dtype
    assert torch.equal(score, expected)
    assert torch.equal(oriented(Shifted(), [sums], IS_MEMBER, HALVES[:1]), expected[:1])


def test_where_nothing_is_fitted_the_folds_are_one_tensor():
    score = oriented(get_attack("sima"), [SUMS], IS_MEMBER, HALVES)
    assert torch.equal(score, -SUMS.expand(2, -1, -1))
    assert score.stride(0) == 0


def test_what_is_fitted_to_other_sums_is_made_of_these():
    other = torch.randn(3, 20, generator=torch.Generator().manual_seed(1), dtype=torch.float32)
    score = oriented(Shifted(), [SUMS], IS_MEMBER, HALVES, fitted_to=[other])
    assert torch.equal(score, torch.stack([SUMS - other.double()[:, half & IS_MEMBER].mean() for half in HALVES]))


@pytest.mark.parametrize("part", ["calibrated", "combine"])
def test_an_error_is_told_to_be_the_attacks_own(part, monkeypatch):
    attack = Shifted()

    def fails(*given):
        raise ZeroDivisionError

    monkeypatch.setattr(attack, part, fails)
    monkeypatch.setattr(attack, "calibrated" if part == "combine" else "combine", lambda *given: attack)
    with pytest.raises(ZeroDivisionError) as caught:
        oriented(attack, [SUMS], IS_MEMBER, HALVES)
    assert caught.value.blamed_on is attack


def test_a_statistic_of_another_shape_is_not_taken(monkeypatch):
    monkeypatch.setattr(Shifted, "combine", lambda attack, *sums: sums[0][0])
    with pytest.raises(ValueError, match=r"^combine: it returns torch.float64 \(3, 20\), not a tensor of shape \(1, 3, 20\)$"):
        oriented(Shifted(), [SUMS], IS_MEMBER, HALVES)

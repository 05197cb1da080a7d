"""Who is exposed: ranks and false-positive rates against loops."""

from dataclasses import replace

import pytest
import torch

from ldm_privacy.audit.report import report_of
from ldm_privacy.evidence.exposure import exposure_of
from ldm_privacy.types import AuditKey
from tests.evidence.synthetic import QUICK, make_scores

KEY = AuditKey("sima", "all")


def tied(data, decimals):
    return replace(data, scores={key: score.round(decimals=decimals) for key, score in data.scores.items()})


@pytest.mark.parametrize("decimals", [8, 0])
def test_ranks_and_rates_equal_a_loop_over_all_held_out_samples(decimals):
    data = tied(make_scores(50, 70, strength=1.0), decimals)
    report = report_of(data, intervals=QUICK)
    exposure = exposure_of(report, KEY)
    score = dict(zip(data.sample_index.tolist(), report.scores_at(KEY).tolist()))
    side = dict(zip(data.sample_index.tolist(), data.is_member.tolist()))
    members = sorted((-score[index], index) for index in score if side[index])
    assert exposure.sample_index.tolist() == [index for _, index in members]
    assert exposure.score.tolist() == [-value for value, _ in members]
    choosing = dict(zip(data.sample_index.tolist(), data.is_calibration.tolist()))
    heldout = [score[index] for index in score if not side[index] and not choosing[index]]
    num_as_high = [sum(other >= -value for other in heldout) for value, _ in members]
    assert exposure.fpr.tolist() == pytest.approx([(count + 1) / (len(heldout) + 1) for count in num_as_high])
    assert exposure.num_above_all == num_as_high.count(0)
    assert exposure.is_calibration.tolist() == [choosing[index] for _, index in members]


def fitted(data):
    """The same with what each half fitted: other scores in each fold, on scales of their own."""
    noise = torch.randn(2, 3, len(data.is_member), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    score = (data.scores[KEY] + noise) * torch.tensor([1.0, 30.0])[:, None, None]
    return replace(data, scores=data.scores | {KEY: score})


@pytest.mark.parametrize("decimals", [8, 0])
def test_with_both_halves_a_rate_is_among_the_held_out_samples_of_the_members_own_half(decimals):
    data = tied(fitted(make_scores(50, 70, strength=1.0, num_folds=2)), decimals)
    report = report_of(data, intervals=QUICK)
    exposure, standing = exposure_of(report, KEY), report.scores_at(KEY).tolist()
    sides = list(zip(data.sample_index.tolist(), data.is_member.tolist(), data.is_calibration.tolist(), standing))
    members = sorted((-score, index, half) for index, is_member, half, score in sides if is_member)
    assert exposure.sample_index.tolist() == [index for _, index, _ in members]
    rates = []
    for value, _, half in members:
        heldout = [score for _, is_member, other, score in sides if not is_member and other == half]
        rates.append((sum(score >= -value for score in heldout) + 1) / (len(heldout) + 1))
    assert exposure.fpr.tolist() == pytest.approx(rates)
    lowest = {half: 1 / (1 + int((~data.is_member & (data.is_calibration == half)).sum())) for half in (False, True)}
    assert exposure.num_above_all == sum(rate == lowest[half] for rate, (_, _, half) in zip(rates, members))


@pytest.mark.parametrize("half", [True, False])
def test_of_samples_that_cannot_be_told_apart_each_rate_comes_once(half):
    """Conformal: whichever of n + 1 images of a half is the member, its rate takes each of 1 / (n + 1), ..., 1 once.

    What ranks them was chosen and fitted by the other half, so that the labels of their own change no score.
    """
    data = fitted(make_scores(20, 28, num_folds=2))
    data = replace(data, scores={KEY: data.scores[KEY]})
    places = ((data.is_calibration == half) & ~data.is_member).nonzero()[:, 0]
    rates = []
    for place in places:
        is_member = data.is_member.clone()
        is_member[place] = True
        exposure = exposure_of(report_of(replace(data, is_member=is_member), intervals=QUICK), KEY)
        rates.append(float(exposure.fpr[exposure.sample_index == data.sample_index[place]]))
    count = len(places)
    assert sorted(rates) == pytest.approx([rank / count for rank in range(1, count + 1)])


@pytest.mark.parametrize("num_folds", [1, 2])
def test_both_halves_are_ranked(num_folds):
    data = make_scores(50, 70, num_folds=num_folds)
    exposure = exposure_of(report_of(data, intervals=QUICK), KEY)
    assert set(exposure.sample_index.tolist()) == set(data.sample_index[data.is_member].tolist())
    own = dict(zip(data.sample_index.tolist(), data.is_calibration.tolist()))
    assert exposure.is_calibration.tolist() == [own[index] for index in exposure.sample_index.tolist()]


def test_a_member_that_ties_with_the_highest_held_out_sample_is_not_above_all():
    data = make_scores(20, 20, timesteps=(0,))
    score = torch.where(data.is_member, 1.0, 0.0).double()[None, None]
    place = int((~data.is_member & ~data.is_calibration).nonzero()[0])
    num_reported = int((~data.is_member & ~data.is_calibration).sum())
    score[..., place] = 1.0
    report = report_of(replace(data, scores={**data.scores, KEY: score}), intervals=QUICK)
    exposure = exposure_of(report, KEY)
    assert exposure.num_above_all == 0
    assert exposure.fpr.tolist() == pytest.approx([2 / (num_reported + 1)] * 20)

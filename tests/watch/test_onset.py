"""Onset: the price of repeated looks, false alarms by simulation, detection, state."""

import json
import math

import numpy as np
import pytest
import torch
from scipy import stats

from ldm_privacy.errors import UserError
from ldm_privacy.metrics import auroc_difference, loss_gap_rise
from ldm_privacy.types import Estimate
from ldm_privacy.watch.onset import Baseline, OnsetDetector


def auroc_rise(score, baseline, is_member):
    """What a detector asks the attack for: confidence -> rise."""
    return lambda confidence: auroc_difference(score, baseline, is_member, confidence=confidence, alternative="greater")


def audits(generator, num_looks, num_samples, rise=0.0, leak=0.5, memory=0.9):
    """Scores of the untrained denoiser's audit, then of each later one: autoregressive, members drifting up by `rise` a look.

    The members stand `leak` above the held-out from the start, as an autoencoder trained on them makes them.
    """
    is_member = np.arange(2 * num_samples) < num_samples
    noise = generator.normal(size=2 * num_samples)
    for look in range(num_looks + 1):
        yield torch.from_numpy(noise + (leak + rise * look) * is_member), torch.from_numpy(is_member)
        noise = memory * noise + math.sqrt(1 - memory**2) * generator.normal(size=2 * num_samples)


def test_spent_levels_sum_to_alpha():
    detector = OnsetDetector(confidence=0.9)
    levels = [1 - detector.confidence_at(look) for look in range(1, 100_001)]
    assert levels[0] == pytest.approx(0.1 * 6 / math.pi**2)
    assert levels[3] == pytest.approx(levels[0] / 16)
    assert 0.1 - 0.1 * 6 / math.pi**2 / 1e5 < sum(levels) < 0.1


@pytest.mark.parametrize(("num_consecutive", "expected"), [(1, 2), (2, 6), (3, 6), (4, None)])
def test_onset_is_the_first_of_the_consecutive_audits(num_consecutive, expected):
    detector = OnsetDetector(num_consecutive=num_consecutive)
    lowers = {0: -0.1, 2: 0.01, 4: 0.0, 6: 0.02, 8: 0.03, 10: 0.05, 12: -0.01}
    known = [detector.update(epoch, lower) for epoch, lower in lowers.items()]
    assert known[-1] == detector.onset_epoch == expected
    if expected == 6:
        # Known only at the last of the consecutive audits, and kept when the bound falls again.
        first_known = next(i for i, onset in enumerate(known) if onset is not None)
        assert first_known == 3 + num_consecutive - 1
        assert known[first_known:] == [6] * (len(known) - first_known)


def test_rise_is_the_paired_difference_at_the_spent_level():
    generator = np.random.default_rng(0)
    detector = OnsetDetector(confidence=0.8)
    (baseline, is_member), *later = audits(generator, 3, 100, rise=0.2)
    for look, (score, _) in enumerate(later, start=1):
        rise = detector.look(10 * look, auroc_rise(score, baseline, is_member))
        expected = auroc_difference(
            score, baseline, is_member, confidence=1 - 0.2 * 6 / (math.pi * look) ** 2, alternative="greater"
        )
        assert (rise.epoch, rise.look) == (10 * look, look)
        assert (rise.value, rise.lower) == pytest.approx((expected.value, expected.lower))
        assert rise.confidence == 1 - (1 - detector.confidence) * 6 / (math.pi * look) ** 2
    assert detector.num_looks == 3


def test_false_alarms_under_a_membership_blind_denoiser_stay_below_alpha():
    generator = np.random.default_rng(1)
    alpha, num_runs, alarms = 0.1, 100, {1: 0, 2: 0}
    for _ in range(num_runs):
        detectors = {num: OnsetDetector(num_consecutive=num, confidence=1 - alpha) for num in alarms}
        (baseline, is_member), *later = audits(generator, 20, 100)
        for epoch, (score, _) in enumerate(later, start=1):
            rise = detectors[1].look(epoch, auroc_rise(score, baseline, is_member))
            detectors[2].update(epoch, rise.lower)
        for num, detector in detectors.items():
            alarms[num] += detector.onset_epoch is not None
    assert alarms[2] <= alarms[1] <= stats.binom.isf(1e-4, num_runs, alpha)


def test_untouched_denoiser_never_alarms():
    (baseline, is_member), *_ = audits(np.random.default_rng(2), 1, 50)
    detector = OnsetDetector(num_consecutive=1)
    rises = [detector.look(epoch, auroc_rise(baseline, baseline, is_member)) for epoch in range(1, 6)]
    assert all(rise.lower == 0.0 and rise.onset_epoch is None for rise in rises)


def test_rising_scores_are_detected_and_the_leak_at_the_start_is_not():
    generator = np.random.default_rng(3)
    detector = OnsetDetector()
    (baseline, is_member), *later = audits(generator, 20, 400, rise=0.05, leak=1.5)
    rises = [detector.look(5 * look, auroc_rise(score, baseline, is_member)) for look, (score, _) in enumerate(later, 1)]
    assert rises[0].lower < 0
    assert detector.onset_epoch is not None
    first = next(i for i, rise in enumerate(rises) if rise.onset_epoch is not None)
    assert rises[first].onset_epoch == rises[first - 1].epoch == detector.onset_epoch
    assert rises[first].lower > 0
    assert rises[first - 1].lower > 0


def test_state_survives_a_round_trip_through_json_and_repeated_epochs_change_nothing():
    generator = np.random.default_rng(4)
    (baseline, is_member), *later = audits(generator, 12, 200, rise=0.15)
    straight, stopped = OnsetDetector(), OnsetDetector()
    for epoch, (score, _) in enumerate(later, start=1):
        expected = straight.look(epoch, auroc_rise(score, baseline, is_member))
        first = stopped.look(epoch, auroc_rise(score, baseline, is_member))
        resumed = OnsetDetector()
        resumed.load_state_dict(json.loads(json.dumps(stopped.state_dict())))
        again = resumed.look(epoch, auroc_rise(score, baseline, is_member))
        assert first == again == expected
        assert resumed.num_looks == epoch
        # Another number for an epoch already seen is not a second look.
        assert resumed.update(epoch, -1.0) == straight.onset_epoch
        assert resumed.state_dict() == straight.state_dict()
        stopped = resumed
    assert straight.onset_epoch is not None


def test_state_holds_the_newest_rise_or_that_there_is_none():
    detector = OnsetDetector(num_consecutive=1)
    for epoch, lower in ((None, None), (3, -0.2), (5, 0.1)):
        if epoch is not None:
            rise = detector.look(epoch, lambda confidence: Estimate(0.3, lower, 1.0))  # noqa: B023
            known = {"p/onset_epoch": 5.0} if epoch == 5 else {}
            assert rise.series("p/") == {"p/rise": 0.3, "p/rise_lower": lower, **known}
            assert detector.rise == rise
        resumed = OnsetDetector(num_consecutive=1)
        resumed.load_state_dict(json.loads(json.dumps(detector.state_dict())))
        assert resumed.rise == detector.rise
        assert (resumed.num_looks, resumed.onset_epoch) == (detector.num_looks, detector.onset_epoch)
        assert resumed.state_dict() == detector.state_dict()
    # What was seen before the state was read is forgotten.
    detector.load_state_dict(OnsetDetector().state_dict())
    assert (detector.rise, detector.num_looks, detector.onset_epoch) == (None, 0, None)


def test_baseline_pairs_by_sample_index():
    baseline = Baseline(torch.tensor([2, 3, 5, 7, 11]), torch.tensor([0.2, 0.3, 0.5, 0.7, 1.1]))
    for copy in (baseline, Baseline(*baseline.state())):
        has, value = copy.paired(torch.tensor([1, 3, 4, 7, 8, 11, 12]))
        assert has.tolist() == [False, True, False, True, False, True, False]
        assert value.tolist() == pytest.approx([0.3, 0.7, 1.1])
        assert copy.paired(torch.tensor([4]))[1].numel() == 0


def test_bad_input():
    with pytest.raises(UserError, match="num_consecutive is 0"):
        OnsetDetector(num_consecutive=0)
    for confidence in (0.0, 1.0, 95, math.nan):
        with pytest.raises(UserError, match=f"confidence is {confidence}: "):
            OnsetDetector(confidence=confidence)
    detector = OnsetDetector()
    detector.update(10, 0.1)
    with pytest.raises(ValueError, match="epoch 5 came after that of epoch 10"):
        detector.update(5, 0.1)
    with pytest.raises(ValueError, match="not a number"):
        detector.update(20, float("nan"))


def test_false_alarms_of_the_loss_gap_stay_below_alpha():
    # Skewed difficulties, which the paired change forgets; the detector's own levels, taken from it.
    generator = np.random.default_rng(9)
    alpha, num_runs, alarms = 0.1, 120, 0
    is_member = torch.arange(200) < 100
    for _ in range(num_runs):
        detector = OnsetDetector(num_consecutive=1, confidence=1 - alpha)
        for epoch in range(1, 9):
            difficulty = generator.lognormal(size=200)
            before, after = (torch.from_numpy(part * difficulty + 0.1 * generator.normal(size=200)) for part in (1.0, 0.5))
            detector.look(epoch, lambda confidence: loss_gap_rise(after, before, is_member, confidence=confidence))  # noqa: B023
        alarms += detector.onset_epoch is not None
    assert alarms <= stats.binom.isf(1e-4, num_runs, alpha)

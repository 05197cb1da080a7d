"""Who is exposed: ranks and false-positive rates against loops, and whether attacks agree."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from ldm_privacy.audit.report import report_of
from ldm_privacy.evidence.exposure import attack_agreement, exposure_of
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


def test_both_halves_are_ranked():
    data = make_scores(50, 70)
    exposure = exposure_of(report_of(data, intervals=QUICK), KEY)
    assert set(exposure.sample_index.tolist()) == set(data.sample_index[data.is_member].tolist())


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


def test_agreement_is_spearmans_among_members_with_each_other_attack_unmasked():
    data = make_scores(60, 40, attacks=("sima", "loss", "pia"), strength=2.0)
    scores = data.scores
    # pia ranks as sima does, whatever the scale.
    scores = {**scores, AuditKey("pia", "all"): torch.exp(scores[KEY])}
    report = report_of(replace(data, scores=scores), intervals=QUICK)
    agreement = attack_agreement(report, KEY)
    assert list(agreement) == [AuditKey("loss", "all"), AuditKey("pia", "all")]
    assert agreement[AuditKey("pia", "all")].correlation.value == 1.0
    assert agreement[AuditKey("pia", "all")].top.value == 1.0
    member = data.is_member.numpy()
    both = [report.scores_at(key).numpy()[member] for key in (KEY, AuditKey("loss", "all"))]
    expected = stats.spearmanr(*both).statistic
    assert agreement[AuditKey("loss", "all")].correlation.value == pytest.approx(expected, abs=1e-12)
    # Over both sides together the two would agree, because both see membership.
    everyone = stats.spearmanr(*(report.scores_at(key).numpy() for key in (KEY, AuditKey("loss", "all")))).statistic
    assert everyone > 0.3 > abs(expected)
    assert np.isfinite(expected)

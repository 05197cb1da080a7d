"""Scores of earlier audits, compared by rank."""

from dataclasses import replace

import pytest
import torch
from scipy.stats import spearmanr

from ldm_privacy.audit.kept import KeptScores, kept_of
from ldm_privacy.audit.report import report_of
from ldm_privacy.audit.scores import AuditScores
from ldm_privacy.evidence.exposure import epoch_agreement
from ldm_privacy.types import AuditKey
from tests.evidence.synthetic import QUICK

KEY = AuditKey("sima", "all")


@pytest.fixture
def report():
    generator = torch.Generator().manual_seed(0)
    index = torch.arange(100, 180)
    score = torch.randn(1, 1, 80, generator=generator, dtype=torch.float64)
    halves = index % 2 == 0
    data = AuditScores(index, torch.arange(80) < 40, halves, None, {"sima": [50]}, {KEY: score}, {KEY: 1.0})
    return report_of(data, intervals=QUICK)


def test_each_epoch_is_compared_on_the_members_that_both_audits_have(report):
    generator = torch.Generator().manual_seed(1)
    index = torch.randperm(80, generator=generator)[:60] + 100
    earlier = torch.randn(60, generator=generator, dtype=torch.float64)

    def kept(score, key=KEY):
        return KeptScores(index, {}, {}, {key: score})

    other = kept(earlier, AuditKey("loss", "all"))
    found = epoch_agreement(report, KEY, {3: kept(earlier), 5: kept(earlier * 0), 7: other})
    assert list(found) == [3], "constant scores have no ranks, and scores of another attack are not compared"
    members = [place for place in range(60) if index[place] < 140]
    now = report.data.scores[KEY][0, 0]
    expected = spearmanr([earlier[place] for place in members], [now[index[place] - 100] for place in members]).statistic
    assert found[3].value == pytest.approx(expected)
    assert found[3].lower < found[3].value < found[3].upper


def test_its_intervals_have_the_confidence_of_the_report(report):
    earlier = torch.arange(80, dtype=torch.float64).sin()
    history = {3: KeptScores(report.data.sample_index, {"sima": [50]}, {}, {KEY: earlier})}
    half = report_of(report.data, intervals=replace(QUICK, confidence=0.5))
    wide, narrow = (epoch_agreement(each, KEY, history)[3] for each in (report, half))
    assert wide.lower < narrow.lower < wide.value == narrow.value < narrow.upper < wide.upper


def test_the_same_scores_agree_fully(report):
    assert epoch_agreement(report, KEY, {1: kept_of(report)})[1].value == pytest.approx(1.0)

"""Scores of earlier audits: stored by epoch, compared by rank."""

import pytest
import torch
from scipy.stats import spearmanr

from ldm_privacy.audit import AuditScores, SampleTable, report_of
from ldm_privacy.errors import UserError
from ldm_privacy.evidence import epoch_agreement
from ldm_privacy.training.score_history import ScoreHistory
from ldm_privacy.types import AuditKey

KEY = AuditKey("sima", "all")


@pytest.fixture
def report():
    generator = torch.Generator().manual_seed(0)
    index = torch.arange(100, 180)
    score = torch.randn(1, 80, generator=generator, dtype=torch.float64)
    halves = index % 2 == 0
    data = AuditScores(index, torch.arange(80) < 40, halves, None, {"sima": [50]}, {KEY: score}, {KEY: 1.0})
    return report_of(data, num_bootstrap=20)


def test_each_epoch_is_compared_on_the_members_that_both_audits_have(report):
    generator = torch.Generator().manual_seed(1)
    index = torch.randperm(80, generator=generator)[:60] + 100
    earlier = torch.randn(60, generator=generator, dtype=torch.float64)
    found = epoch_agreement(report, KEY, {3: SampleTable(index, earlier), 5: SampleTable(index, earlier * 0)})
    assert list(found) == [3], "constant scores have no ranks"
    members = [place for place in range(60) if index[place] < 140]
    now = report.data.scores[KEY][0]
    expected = spearmanr([earlier[place] for place in members], [now[index[place] - 100] for place in members]).statistic
    assert found[3].value == pytest.approx(expected)
    assert found[3].lower < found[3].value < found[3].upper


def test_the_same_scores_agree_fully(report):
    same = SampleTable(report.data.sample_index, report.data.scores[KEY][0].exp())
    assert epoch_agreement(report, KEY, {1: same})[1].value == pytest.approx(1.0)


def test_a_history_gives_back_what_was_stored_up_to_an_epoch(tmp_path):
    history = ScoreHistory(tmp_path / "scores")
    assert history.read(KEY, until=100) == {}
    for epoch in (10, 2, 30):
        history.write(epoch, KEY, torch.tensor([5, 3]), torch.tensor([0.5, epoch]))
    history.write(2, KEY, torch.tensor([5, 3]), torch.tensor([0.25, 2.0]))
    found = history.read(KEY, until=10)
    assert list(found) == [2, 10]
    assert found[2][torch.tensor([3, 5])].tolist() == [2.0, 0.25]
    assert history.read(AuditKey("loss", "all"), until=10) == {}, "scores of another attack are not compared"


def test_a_damaged_file_is_named(tmp_path):
    history = ScoreHistory(tmp_path)
    (tmp_path / "epoch-4.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(UserError, match=r"epoch-4\.parquet: can't be read"):
        history.read(KEY, until=9)

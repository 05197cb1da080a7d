"""What is kept of an audit."""

from dataclasses import replace

import pytest
import torch

from ldm_privacy.audit.kept import KeptScores, Memory, kept_of, spread_over
from ldm_privacy.audit.report import report_of
from ldm_privacy.audit.scores import Derived
from ldm_privacy.errors import UserError
from ldm_privacy.types import AuditKey
from tests.evidence.synthetic import QUICK, make_scores

KEY = AuditKey("sima", "top60")


@pytest.mark.parametrize("num_folds", [1, 2])
def test_scores_of_configured_attacks_and_the_standing_of_every_row_are_kept(num_folds):
    data = make_scores(20, 20, attacks=("sima", "combined"), masks=("all", "top60"), fractions=(0.5, 1.0), num_folds=num_folds)
    derived = {key: Derived(AuditKey("sima", key.mask), True) for key in data.scores if key.attack == "combined"}
    data = replace(data, derived=derived, num_fitted=dict.fromkeys(derived, 2))
    data.scores[KEY][0, 1, 3:5] = torch.tensor([1e300, -1e300], dtype=torch.float64)
    report = report_of(data, intervals=QUICK)
    kept = kept_of(report)
    assert list(kept.scores) == [AuditKey("sima", mask) for mask in ("all", "top60")]
    assert list(kept.standing) == [row.key for row in report.rows]
    assert {AuditKey("sima", "tuned"), AuditKey("combined", "all")} < kept.standing.keys()
    assert kept.made.keys() == {row.key for row in report.rows} - kept.scores.keys(), "calibrated scores and tuned"
    assert kept.timesteps == data.timesteps
    assert kept.num_fitted == report.data.num_fitted != {}
    for key, score in kept.made.items():
        assert torch.equal(score.expand(num_folds, -1, -1), report.data.scores[key].float())
    expected = data.scores[KEY][:1].float()
    expected[0, 1, 3], expected[0, 1, 4] = torch.finfo(torch.float32).max, torch.finfo(torch.float32).min
    assert torch.equal(kept.scores[KEY], expected), "where nothing is fitted, once"
    tuned = AuditKey("sima", "tuned")
    assert torch.equal(kept.standing[tuned], report.scores_at(tuned).float())


def two_folds(seed=0):
    """What is kept of an audit where one attack is fitted on each half and the other isn't."""
    data = make_scores(20, 20, masks=("all", "top60"), num_folds=2, seed=seed)
    noise = torch.randn(2, 1, 40, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    scores = {key: score + noise if key.attack == "loss" else score for key, score in data.scores.items()}
    return replace(data, scores=scores), kept_of(report_of(replace(data, scores=scores), intervals=QUICK))


def test_of_what_each_half_fits_both_folds_are_kept():
    data, kept = two_folds()
    for key, score in data.scores.items():
        expected = score.float() if key.attack == "loss" else score[:1].float()
        assert torch.equal(kept.scores[key], expected)


def test_a_history_in_memory_goes_through_a_checkpoint_to_the_last_bit(tmp_path):
    memory = Memory()
    for time in (0, 5, 3):
        memory.write(time, two_folds(time)[1])
    torch.save(memory.state(), tmp_path / "state")
    again = Memory.of(torch.load(tmp_path / "state", weights_only=True))
    assert list(again.read()) == list(memory.read()) == [0, 3, 5]
    for time, kept in memory.read().items():
        found = again.read()[time]
        assert torch.equal(found.sample_index, kept.sample_index)
        assert found.timesteps == kept.timesteps
        for mine, its in zip(found.parts, kept.parts):
            assert list(mine) == list(its)
            assert all(mine[key].dtype == torch.float32 and torch.equal(mine[key], score) for key, score in its.items())


def test_a_history_is_read_up_to_a_time_and_spread_over_its_audits():
    memory, kept = Memory(), two_folds()[1]
    for time in range(0, 100, 10):
        memory.write(time, kept)
    memory.write(20, again := two_folds(1)[1])
    assert list(memory.read(until=39)) == [0, 10, 20, 30]
    assert list(memory.read(until=-1)) == []
    assert memory.read()[20] is again, "an audit that is repeated replaces its earlier scores"
    assert list(memory.read(most=3)) == [0, 40, 90]
    assert list(memory.read(until=30, most=1)) == [30]
    assert spread_over([4, 7], None) == spread_over([4, 7], 5) == [4, 7]
    assert spread_over([], 3) == []


def test_which_samples_it_has():
    kept = KeptScores(torch.tensor([9, 2, 5]), {}, {}, {})
    assert kept.has(torch.tensor([2, 9]))
    assert kept.has(torch.tensor([], dtype=torch.int64))
    assert not kept.has(torch.tensor([2, 3]))


def test_samples_are_taken_in_any_order_and_one_that_is_missing_is_named():
    score = torch.tensor([[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]])
    made = AuditKey("sima_history", "top60")
    index, timesteps = torch.tensor([9, 2, 5]), {"sima": [10, 20]}
    kept = KeptScores(index, timesteps, {KEY: score}, {KEY: score[0, 1]}, {made: score[:, :1]}, {made: 3})
    found = kept.at(torch.tensor([2, 9]))
    assert found.sample_index.tolist() == [2, 9]
    assert found.scores[KEY].tolist() == [[[2.0, 1.0], [5.0, 4.0]]]
    assert found.standing[KEY].tolist() == [5.0, 4.0]
    assert found.made[made].tolist() == [[[2.0, 1.0]]]
    assert (found.timesteps, found.num_fitted) == (timesteps, {made: 3})
    with pytest.raises(
        UserError, match=r"^sample 7 has no scores in an earlier audit \(2 of 3 have none\): .*max_samples\)\.$"
    ):
        kept.at(torch.tensor([5, 7, 8]))

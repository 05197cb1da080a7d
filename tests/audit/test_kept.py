"""What is kept of an audit."""

from dataclasses import replace

import pytest
import torch

from ldm_privacy.audit.kept import KeptScores, kept_of
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
    data = replace(data, derived=derived)
    data.scores[KEY][0, 1, 3] = 1e300
    report = report_of(data, intervals=QUICK)
    kept = kept_of(report)
    assert list(kept.scores) == [AuditKey("sima", mask) for mask in ("all", "top60")]
    assert list(kept.standing) == [row.key for row in report.rows]
    assert {AuditKey("sima", "tuned"), AuditKey("combined", "all")} < kept.standing.keys()
    assert kept.timesteps == {"sima": [0, 10, 20]}
    expected = data.scores[KEY][:1].float()
    expected[0, 1, 3] = torch.finfo(torch.float32).max
    assert torch.equal(kept.scores[KEY], expected), "where nothing is fitted, once"
    tuned = AuditKey("sima", "tuned")
    assert torch.equal(kept.standing[tuned], report.scores_at(tuned).float())


def test_samples_are_taken_in_any_order_and_one_that_is_missing_is_named():
    score = torch.tensor([[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]])
    kept = KeptScores(torch.tensor([9, 2, 5]), {"sima": [10, 20]}, {KEY: score}, {KEY: score[0, 1]})
    found = kept.at(torch.tensor([2, 9]))
    assert found.sample_index.tolist() == [2, 9]
    assert found.scores[KEY].tolist() == [[[2.0, 1.0], [5.0, 4.0]]]
    assert found.standing[KEY].tolist() == [5.0, 4.0]
    with pytest.raises(
        UserError, match=r"^sample 7 has no scores in an earlier audit \(2 of 3 have none\): .*max_samples\)\.$"
    ):
        kept.at(torch.tensor([5, 7, 8]))

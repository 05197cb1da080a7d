"""Label permutation of rows that were fitted: the fits aren't repeated, so the band is wider by what they share."""

from dataclasses import replace

import pytest

from ldm_privacy.audit.report import report_of
from ldm_privacy.evidence.null import label_permutation
from ldm_privacy.types import AuditKey
from tests.evidence.synthetic import QUICK, make_scores

KEY = AuditKey("sima", "all")


@pytest.mark.parametrize("num_folds", [1, 2])
def test_crosswise_fits_spread_the_permuted_aurocs_as_if_both_halves_were_one(num_folds):
    data = make_scores(160, 240, attacks=("sima",), masks=("all",), timesteps=(0,))
    score = data.scores[KEY][:1].expand(num_folds, -1, -1)
    plain, fitted = (
        report_of(replace(data, scores={KEY: score}, num_fitted=numbers), intervals=QUICK) for numbers in ({}, {KEY: 3})
    )
    bands = [label_permutation(each, num_permutations=200)[KEY].band for each in (plain, fitted)]
    wider = num_folds**0.5  # one half's fit has no part in the only half that reports
    assert bands[1].upper - bands[1].lower == pytest.approx(wider * (bands[0].upper - bands[0].lower))

"""History: the known answer, scikit-learn by hand, and what is fitted with how many samples."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ldm_privacy.calibrations.base import SAMPLES_PER_NUMBER
from ldm_privacy.calibrations.calibrated import HistoryAndComplexity
from ldm_privacy.calibrations.history import History, spread_out
from ldm_privacy.calibrations.logistic import MOST_FEATURES, log_odds
from ldm_privacy.errors import UserError
from tests.calibrations.synthetic import KEY, area, make_known


def separation(*, signal, noise, audits):
    """Mahalanobis distance of the sides where the level now and `audits` earlier ones share the difficulty, of variance 1."""
    covariance = np.ones((1 + audits, 1 + audits)) + noise**2 * np.eye(1 + audits)
    return signal * np.sqrt(np.linalg.inv(covariance)[0, 0])


@pytest.mark.parametrize("audits", [1, 3])
def test_it_reaches_the_best_that_any_linear_score_can_and_the_plain_level_does_not(audits):
    known = make_known(16_000, audits=audits)
    found = History()(known)
    assert found.num_fitted == 1 + audits
    distances = {"plain": separation(signal=0.5, noise=0.3, audits=0), "best": separation(signal=0.5, noise=0.3, audits=audits)}
    expected = {name: float(torch.special.ndtr(torch.tensor(each / 2**0.5))) for name, each in distances.items()}
    assert expected["best"] > expected["plain"] + 0.15
    # 4,000 a side: an AUROC's standard deviation is at most sqrt(1 / 12) * sqrt(2 / 4000); the fit costs less by far.
    tolerance = 4 * (2 / 12 / 4000) ** 0.5
    assert area(known.level, known) == pytest.approx(expected["plain"], abs=tolerance)
    assert area(found.score[0], known) == pytest.approx(expected["best"], abs=tolerance)


@pytest.mark.parametrize("inverse_penalty", [1.0, 0.02])
def test_the_fit_is_scikit_learns(inverse_penalty):
    known = make_known(200, audits=3)
    found = History(inverse_penalty=inverse_penalty)(known)
    columns = [known.level, *(known.earlier[place][KEY] for place in (2, 0, 1))]
    features, chooses = torch.stack(columns, dim=1).numpy(), known.chooses.numpy()
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=inverse_penalty, max_iter=1000))
    pipeline.fit(features[chooses], known.is_member.numpy()[chooses])
    np.testing.assert_allclose(found.score[0], pipeline.decision_function(features), rtol=1e-9, atol=1e-9)
    assert list(found.coefficients) == ["now", "audit-1", "audit-3", "audit-2"]
    assert list(found.coefficients.values()) == pytest.approx(pipeline[-1].coef_[0].tolist())
    if inverse_penalty == 1.0:
        assert found.coefficients["now"] > 0 > found.coefficients["audit-1"]


@pytest.mark.parametrize("audits", [0, 4])
def test_where_one_number_is_all_that_can_be_borne_or_known_it_is_the_level(audits):
    known = make_known(76 if audits else 400, audits=audits)
    assert known.capacity == 1 or not audits
    found = History()(known)
    assert torch.equal(found.score, known.level[None])
    assert (found.coefficients, found.num_fitted) == ({}, 0)


@pytest.mark.parametrize(
    ("calibration", "num_audits", "expected"),
    [
        (History, 1, ["now", "audit-1"]),
        (History, 3, ["now", "audit-1", "audit-3", "audit-2"]),
        (History, 9, ["now", "audit-1", "audit-9", "audit-5"]),
        (HistoryAndComplexity, 9, ["now", "audit-1", "audit-9", "audit-5"]),
    ],
)
def test_features_are_taken_in_their_order_as_far_as_the_smaller_side_bears_them(calibration, num_audits, expected):
    known = make_known(160, audits=num_audits)
    members, heldout = (int((side & known.chooses).sum()) for side in (known.is_member, ~known.is_member))
    smaller = min(members, heldout)
    assert known.capacity == smaller // SAMPLES_PER_NUMBER == 3
    assert list(calibration()(known).coefficients) == expected[:3]
    # One side as small as can be: a number is always there.
    few = replace(known, chooses=known.chooses & (known.is_member | (torch.arange(160) < 12)))
    assert few.capacity == 1


def test_no_more_than_a_hundred_numbers_are_fitted():
    known = make_known(5000, audits=0, keys=(KEY,))
    features = {str(number): known.level for number in range(MOST_FEATURES + 5)}
    assert known.capacity > MOST_FEATURES
    assert list(log_odds(features, known, inverse_penalty=1.0).coefficients) == list(features)[:MOST_FEATURES]


@pytest.mark.parametrize("count", range(40))
def test_audits_come_spread_out_whatever_their_number(count):
    order = spread_out(count)
    assert sorted(order) == list(range(count))
    assert order[:2] == [count - 1, 0][:count]
    assert order[2:3] == [(count - 1) // 2][: max(0, count - 2)]
    for length in range(2, count):
        gaps = np.diff(sorted(order[:length]))
        # Halved over and over: with k of them in, no gap is longer than that of the largest power of two below.
        assert gaps.max() <= np.ceil((count - 1) / 2 ** int(np.log2(length - 1)))


def test_a_features_scale_and_mean_change_nothing():
    known = make_known(200, audits=3)
    level = [each[KEY] for each in known.earlier]
    one = log_odds(dict(zip("abc", level)), known, inverse_penalty=0.02)
    other = log_odds(dict(zip("abc", (1e-3 * level[0] + 7, -level[1], 1e3 * level[2]))), known, inverse_penalty=0.02)
    np.testing.assert_allclose(other.score, one.score, rtol=1e-6, atol=1e-9)
    signs = [1, -1, 1]
    assert [sign * each for sign, each in zip(signs, other.coefficients.values())] == pytest.approx(
        list(one.coefficients.values())
    )


def test_a_feature_that_is_the_same_for_all_has_no_part():
    known = make_known()
    found = log_odds({"level": known.level, "constant": torch.full_like(known.level, 7.0)}, known, inverse_penalty=1.0)
    assert found.coefficients["constant"] == 0
    assert area(found.score[0], known) == area(known.level, known)


def test_what_cannot_be_fitted_is_refused_in_one_line():
    known = make_known()
    for penalty in (0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match=r"^inverse_penalty: .* it must be above 0 and finite\.$"):
            History(inverse_penalty=penalty)
    level = known.level.clone()
    level[17] = float("inf")
    with pytest.raises(UserError, match=r"^sima/all: audit-1 of the sample at place 17 is not finite\.$"):
        log_odds({"now": known.level, "audit-1": level}, known, inverse_penalty=1.0)

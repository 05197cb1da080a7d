"""Combined: everything that is known, in its order."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ldm_privacy.calibrations.combined import Combined
from ldm_privacy.types import AuditKey
from tests.calibrations.synthetic import KEY, OTHERS, area, make_known

ORDER = [
    *("sima", "loss", "pia"),
    *("sima/audit-1", "sima/audit-3", "sima/audit-2"),
    *("loss/audit-1", "loss/audit-3", "loss/audit-2"),
    *("pia/audit-1", "pia/audit-3", "pia/audit-2"),
    *("sima/place0", "sima/place2", "loss/place0", "loss/place2", "pia/place0", "pia/place2"),
]


@pytest.mark.parametrize(("count", "num_features"), [(2000, 18), (160, 3), (240, 5), (400, 9)])
def test_features_come_in_their_order_as_far_as_the_half_bears_them(count, num_features):
    """Attacks under the primary mask, each at its own timestep; the primary one's history; the others'; other timesteps."""
    known = make_known(count, audits=3)
    found = Combined()(known)
    assert min(known.capacity, len(ORDER)) == num_features
    assert list(found.coefficients) == ORDER[:num_features]
    assert found.num_fitted == num_features


def test_it_is_scikit_learns_regression_of_what_complexity_leaves():
    known = make_known(3000, audits=2, slope=0.7)
    known = replace(known, places={**known.places, OTHERS[0]: 2})
    columns = [known.now[KEY][1], known.now[OTHERS[0]][2], known.now[OTHERS[1]][1]]
    for key in (KEY, *OTHERS):
        columns += [known.earlier[1][key], known.earlier[0][key]]
    for key, places in ((KEY, (0, 2)), (OTHERS[0], (0, 1)), (OTHERS[1], (0, 2))):
        columns += [known.now[key][place] for place in places]
    heldout, chooses = (known.chooses & ~known.is_member).numpy(), known.chooses.numpy()
    complexity = known.complexity.numpy()
    levels = [level.numpy() for level in columns]
    residuals = [level - np.polyval(np.polyfit(complexity[heldout], level[heldout], 1), complexity) for level in levels]
    features = np.stack(residuals, axis=1)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    pipeline.fit(features[chooses], known.is_member.numpy()[chooses])
    np.testing.assert_allclose(Combined()(known).score[0], pipeline.decision_function(features), rtol=1e-6, atol=1e-6)


def test_an_attack_that_an_earlier_audit_lacks_is_left_out_there_alone():
    known = make_known(2000, audits=3)
    middle = {key: level for key, level in known.earlier[1].items() if key.attack != "loss"}
    some = replace(known, earlier=[known.earlier[0], middle, known.earlier[2]])
    assert list(Combined()(some).coefficients) == [name for name in ORDER if name != "loss/audit-2"]
    assert list(Combined()(replace(known, earlier=[])).coefficients) == [name for name in ORDER if "audit" not in name]


def test_it_looks_at_the_attacks_with_the_primary_mask_the_primary_one_first():
    masked = AuditKey("pia", "top60")
    keys = [OTHERS[0], KEY, masked, OTHERS[1]]
    assert list(Combined().attacks(KEY, keys)) == [KEY, *OTHERS]
    assert list(Combined().attacks(masked, keys)) == [masked]


def test_attacks_that_see_different_parts_of_the_signal_add_up():
    """Three attacks with noise of their own: of the signal's variance each has .5^2 / (1 + .09); together they have more."""
    known = make_known(4000, audits=0, noise=1.0)
    single = max(area(known.now[key][known.places[key]], known) for key in (KEY, *OTHERS))
    assert area(Combined()(known).score[0], known) > single + 0.02


def test_the_order_of_other_masks_and_attacks_of_the_audit_does_not_matter():
    known = make_known(400, audits=1)
    fewer = {key: level for key, level in known.now.items() if key.mask == "all"}
    assert torch.equal(Combined()(replace(known, now=fewer)).score, Combined()(known).score)

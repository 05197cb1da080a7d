"""Attacks that ask for another condition in an audit: what is fitted on a half is used on the other, masked as everything."""

import pytest
import torch

from ldm_privacy import randomness
from ldm_privacy.attacks.base import get_attack
from ldm_privacy.attacks.runner import masked_sums
from ldm_privacy.audit.audit import Audit
from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.errors import UserError
from ldm_privacy.geometry.masks import KeepAll, KeepRandom
from ldm_privacy.testing import CountingPredictor
from ldm_privacy.types import AuditKey, Intervals
from tests.reference import attacks as plain

SHAPE = (2, 3, 3)
INDEX = torch.arange(80) * 3 + 1
NAMES = ["branch_gap", "clid", "curvature", "dsm"]
MASKS = {"half": KeepRandom(0.5), "all": KeepAll()}


def samples_of(**columns):
    latent, own, null = (
        randomness.normal(name, (INDEX,), shape).double() for name, shape in (("z", SHAPE), ("c", ()), ("n", ()))
    )
    told = {"condition": {"c": own}, "views": {"null": {"c": null}}, **columns}
    return AuditedSamples(latent, torch.arange(80) % 2 == 0, INDEX, **told)


def audit_of(samples, **options):
    return Audit(
        samples, {name: get_attack(name) for name in NAMES}, MASKS, [10, 50], intervals=Intervals(num_bootstrap=20), **options
    )


def test_each_half_of_clid_is_mixed_as_the_other_fitted_it(limit_memory):
    samples, predictor = samples_of(), CountingPredictor(SHAPE)
    limit_memory(100_000)
    audit = audit_of(samples)
    data = audit.scores(audit.collect(predictor))
    assert predictor.num_rows == audit.num_passes == 80 * (4 + 6 + 4 + 6)
    keep_masks = torch.stack([samples.keep(rule) for rule in MASKS.values()])
    told = {"condition": samples.condition, "views": samples.views, "sample_index": INDEX}
    own, less = masked_sums(get_attack("clid"), predictor, samples.latent, [0], keep_masks, **told)
    for place, label in enumerate(MASKS):
        key = AuditKey("clid", label)
        assert data.num_fitted[key] == 1
        for found, fold in zip(data.scores[key], data.folds, strict=True):
            parts = -own[place, 0], (less - own)[place, 0]
            expected, _ = plain.clid_scores(*parts, samples.is_member, fold.chooses)
            torch.testing.assert_close(found[0], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_samples_without_that_condition_are_refused_before_any_pass(name):
    with pytest.raises(UserError, match=f"audit.attacks.{name}: it asks for the condition 'null'"):
        Audit(samples_of(views={}), {name: get_attack(name)}, MASKS, [10])

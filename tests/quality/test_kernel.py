"""KID and CMMD: against scikit-learn's kernels pair by pair, torchmetrics, and leaving images out one after the other."""

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import polynomial_kernel, rbf_kernel
from torchmetrics.image.kid import KernelInceptionDistance

from ldm_privacy.quality.cmmd import cmmd
from ldm_privacy.quality.distance import gap
from ldm_privacy.quality.frechet import frechet
from ldm_privacy.quality.kernel import kid
from tests.reference.quality import unbiased_mmd

GENERATOR = np.random.default_rng(0)
GENERATED, REFERENCE, MEMBERS = (GENERATOR.normal(shift, 1, (count, 5)) for shift, count in ((0.3, 14), (0, 11), (0.1, 11)))
LABEL = np.array([3, 3, 1, 7, 7, 7, 2, 4, 5, 6, 8])


def of(distance, generated=GENERATED, reference=REFERENCE, label=None):
    group = None if label is None else torch.from_numpy(label)
    return distance(torch.from_numpy(generated), torch.from_numpy(reference), group=group)


def cubic(a, b):
    return polynomial_kernel(a, b, degree=3, gamma=1 / a.shape[1], coef0=1)


def gaussian(a, b):
    a, b = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (a, b))
    return 1000 * rbf_kernel(a, b, gamma=1 / (2 * 10**2))


@pytest.mark.parametrize("label", [None, LABEL], ids=["single", "groups"])
@pytest.mark.parametrize(("distance", "kernel"), [(kid, cubic), (cmmd, gaussian)])
def test_the_value_is_that_of_scikit_learns_kernel_pair_by_pair(distance, kernel, label):
    found = of(distance, label=label)
    assert found.value == pytest.approx(unbiased_mmd(GENERATED, REFERENCE, kernel, label), rel=1e-10)
    assert len(found.of_reference) == (11 if label is None else 8)


@pytest.mark.parametrize("distance", [kid, cmmd, frechet])
def test_generations_come_in_groups_as_reference_images_do(distance):
    group, sides = torch.from_numpy(LABEL), [torch.from_numpy(each) for each in (GENERATED, REFERENCE)]
    found, turned = distance(*sides, group=group), distance(*reversed(sides), generated_group=group)
    assert turned.value == pytest.approx(found.value, rel=1e-9)
    torch.testing.assert_close(turned.of_generated, found.of_reference)
    torch.testing.assert_close(turned.of_reference, found.of_generated)


@pytest.mark.parametrize("label", [None, LABEL], ids=["single", "groups"])
def test_what_an_image_moves_is_the_value_without_it(label):
    found = of(kid, label=label)
    without = [unbiased_mmd(np.delete(GENERATED, row, 0), REFERENCE, cubic, label) for row in range(len(GENERATED))]
    units = np.arange(11) if label is None else label
    kept = [units != unit for unit in np.unique(units)]
    of_reference = [unbiased_mmd(GENERATED, REFERENCE[rows], cubic, units[rows]) for rows in kept]
    for values, moved in ((without, found.of_generated), (of_reference, found.of_reference)):
        expected = (np.mean(values) - values) * ((len(values) - 1) / len(values)) ** 0.5
        np.testing.assert_allclose(moved.numpy(), expected, rtol=1e-8)
    spread = np.sqrt(sum(float(each.square().sum()) for each in (found.of_generated, found.of_reference)))
    assert found.estimate(0.95).upper == pytest.approx(found.value + 1.959964 * spread)


def test_it_is_torchmetrics_with_one_subset_of_all_images():
    metric = KernelInceptionDistance(feature=torch.nn.Identity(), subsets=1, subset_size=11)
    metric.update(torch.from_numpy(REFERENCE), real=True)
    metric.update(torch.from_numpy(GENERATED[:11]), real=False)
    assert float(metric.compute()[0]) == pytest.approx(of(kid, GENERATED[:11]).value, rel=1e-10)


def test_a_gap_is_paired_over_the_generations():
    members, heldout = of(kid, reference=MEMBERS), of(kid)
    found = gap(members, heldout)
    assert found.value == pytest.approx(members.value - heldout.value)
    paired = members.of_generated - heldout.of_generated
    moved = torch.cat([paired, members.of_reference, heldout.of_reference])
    assert found.upper - found.value == pytest.approx(1.959964 * float(moved.square().sum().sqrt()))
    same = gap(heldout, heldout)
    assert same.value == 0
    assert float(paired.square().sum()) < float(members.of_generated.square().sum() + heldout.of_generated.square().sum())


def test_many_rows_come_in_parts(monkeypatch):
    whole = of(kid, label=LABEL)
    monkeypatch.setattr("ldm_privacy.quality.kernel._ROWS_AT_ONCE", 3)
    parts = of(kid, label=LABEL)
    assert parts.value == pytest.approx(whole.value, rel=1e-12)
    torch.testing.assert_close(parts.of_reference, whole.of_reference)

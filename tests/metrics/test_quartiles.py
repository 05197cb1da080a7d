"""AUROC by quartile against scikit-learn, known answers and the laws of its assignment."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from ldm_privacy.errors import UserError
from ldm_privacy.metrics import auroc_by_quartile, auroc_interval


def make(seed, num_samples, num_timesteps=3):
    generator = np.random.default_rng(seed)
    is_member = torch.from_numpy(generator.permutation(num_samples) < num_samples // 2)
    score = torch.from_numpy(generator.normal(size=(num_timesteps, num_samples))) + is_member
    return score, is_member, torch.from_numpy(generator.normal(size=num_samples))


def test_each_quartile_equals_sklearn_on_numpys_quartiles():
    score, is_member, value = make(0, 204)
    found = auroc_by_quartile(score, is_member, value)
    edges = np.quantile(value, [0.25, 0.5, 0.75])
    quartile = np.searchsorted(edges, value)
    for row, areas in zip(score, found.auroc, strict=True):
        for number, area in enumerate(areas):
            chosen = quartile == number
            assert area.value == pytest.approx(roc_auc_score(is_member[chosen], row[chosen]), abs=1e-14)
            assert area == auroc_interval(row[chosen], is_member[chosen])
    assert found.quartile.tolist() == quartile.tolist()
    assert found.num_members == [int(is_member[quartile == number].sum()) for number in range(4)]
    assert found.num_heldout == [int((~is_member)[quartile == number].sum()) for number in range(4)]


def test_a_score_that_tells_members_in_the_top_quartile_only():
    _, is_member, value = make(1, 200)
    score = (is_member & (value > value.quantile(0.75))).double()
    (areas,) = auroc_by_quartile(score[None], is_member, value).auroc
    assert [area.value for area in areas] == [0.5, 0.5, 0.5, 1.0]
    assert areas[3].lower > 0.5
    assert all(area.lower < 0.5 < area.upper for area in areas[:3])


def test_the_order_of_samples_and_increasing_maps_of_the_value_change_nothing():
    score, is_member, value = make(2, 90)
    group = torch.arange(90) // 2
    is_member = is_member[group]
    order = torch.from_numpy(np.random.default_rng(3).permutation(90))
    for labels in (None, group):
        found = auroc_by_quartile(score, is_member, value, group=labels, num_bootstrap=20)
        mapped = auroc_by_quartile(score, is_member, value.exp(), group=labels, num_bootstrap=20)
        assert mapped.auroc == found.auroc
        assert torch.equal(mapped.quartile, found.quartile)
    plain = auroc_by_quartile(score, is_member, value)
    permuted = auroc_by_quartile(score[:, order], is_member[order], value[order])
    assert torch.equal(permuted.quartile, plain.quartile[order])
    assert torch.equal(permuted.edges, plain.edges)
    assert permuted.num_members == plain.num_members
    for row, other in zip(permuted.auroc, plain.auroc):
        for area, same in zip(row, other):
            assert (area.value, area.lower, area.upper) == pytest.approx((same.value, same.lower, same.upper), abs=1e-12)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("num_samples", range(4, 14))
def test_sizes_differ_by_at_most_one_and_edges_lie_between(num_samples, tied):
    score, is_member, value = make(num_samples, num_samples, num_timesteps=1)
    value = value.round() if tied else value
    found = auroc_by_quartile(score, is_member, value)
    sizes = [members + heldout for members, heldout in zip(found.num_members, found.num_heldout)]
    assert sum(sizes) == num_samples
    assert max(sizes) - min(sizes) <= 1
    assert found.quartile.bincount(minlength=4).tolist() == sizes
    for number, edge in enumerate(found.edges):
        low, high = value[found.quartile <= number].max(), value[found.quartile > number].min()
        assert low <= edge <= high
        assert low < edge < high or low == high


def test_equal_values_are_ranked_in_the_order_given():
    score, is_member, _ = make(4, 8, num_timesteps=1)
    found = auroc_by_quartile(score, is_member, torch.zeros(8))
    assert found.quartile.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    score, is_member, value = make(7, 200, num_timesteps=1)
    ranked = sorted(range(200), key=value.round().tolist().__getitem__)
    quartile = auroc_by_quartile(score, is_member, value.round()).quartile
    assert quartile[ranked].tolist() == [4 * rank // 200 for rank in range(200)]


def test_edges_are_midpoints_in_float64_whatever_the_dtype_of_the_value():
    score, is_member, _ = make(4, 8, num_timesteps=1)
    odd = 2 * torch.arange(8) + 2**23 + 1
    for value in (odd, odd.float(), odd.double().requires_grad_()):
        assert auroc_by_quartile(score, is_member, value).edges.tolist() == [2**23 + 4, 2**23 + 8, 2**23 + 12]
    # 2^24 - 1 and 2^24 have no float32 between them.
    value = torch.tensor([0.0, 2**24 - 1, 2**24, 2**24 + 2, 2**24 + 4, 2**24 + 6, 2**24 + 8, 2**24 + 10])
    assert auroc_by_quartile(score, is_member, value[[0, 0, 1, 2, 3, 4, 5, 6]]).edges[0] == 2**23 - 0.5
    assert auroc_by_quartile(score, is_member, value[[0, 1, 2, 3, 4, 5, 6, 7]]).edges[0] == 2**24 - 0.5


def test_a_quartile_with_one_of_a_side_has_no_auroc():
    is_member = torch.tensor([True, False, False, True, True, False, False, True, False, True, True, True])
    found = auroc_by_quartile(torch.rand(2, 12), is_member, torch.arange(12.0))
    assert all(math.isnan(number) for row in found.auroc for area in row for number in (area.value, area.lower, area.upper))
    assert found.num_members == [1, 2, 1, 3]
    wider = auroc_by_quartile(torch.rand(2, 16), torch.arange(16) % 2 == 0, torch.arange(16.0))
    assert all(0 <= area.lower <= area.value <= area.upper <= 1 for row in wider.auroc for area in row)


def test_groups_and_confidence_reach_the_intervals():
    score, is_member, value = make(5, 240, num_timesteps=1)
    group = torch.where(is_member, 0, 1) + 2 * (torch.arange(240) % 30)
    grouped = auroc_by_quartile(score, is_member, value, group=group, num_bootstrap=200, seed=7)
    narrow = auroc_by_quartile(score, is_member, value, confidence=0.5)
    wide = auroc_by_quartile(score, is_member, value)
    assert (grouped.confidence, narrow.confidence) == (0.95, 0.5)
    for number in range(4):
        chosen = wide.quartile == number
        expected = auroc_interval(score[0, chosen], is_member[chosen], group=group[chosen], num_bootstrap=200, seed=7)
        assert grouped.auroc[0][number] == expected
        assert wide.auroc[0][number].lower < narrow.auroc[0][number].lower


def test_bad_input_is_named():
    score, is_member, value = make(6, 20)
    with pytest.raises(UserError, match=r"^the value of sample 3 is nan: quartiles need finite values\.$"):
        auroc_by_quartile(score, is_member, value.index_fill(0, torch.tensor([3]), math.nan))
    with pytest.raises(UserError, match="one value per sample"):
        auroc_by_quartile(score, is_member, value[:-1])
    with pytest.raises(UserError, match="at least 4"):
        auroc_by_quartile(score[:, :3], torch.tensor([True, False, True]), value[:3])
    with pytest.raises(UserError, match="confidence"):
        auroc_by_quartile(score, is_member, value, confidence=1.0)
    with pytest.raises(UserError, match="members and held-out"):
        auroc_by_quartile(score, is_member, value, group=torch.zeros(20, dtype=torch.int64))
    with pytest.raises(ValueError, match="timesteps, samples"):
        auroc_by_quartile(score[0], is_member, value)

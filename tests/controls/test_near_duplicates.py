"""Nearest neighbours and near-duplicates across the sides."""

import importlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ldm_privacy.controls.thumbnails import nearest, thumbnail_features


def images(samples=60, channels=3, side=32, seed=0):
    """Smooth random images within [-0.6, 0.6]."""
    coarse = torch.rand(samples, channels, 4, 4, generator=torch.Generator().manual_seed(seed)) - 0.5
    return torch.nn.functional.interpolate(coarse, size=side, mode="bilinear", align_corners=False)


near_duplicates = importlib.import_module("ldm_privacy.controls.near_duplicates")


def find(value, is_member, sample_index):
    """What the control finds in images of these samples."""
    samples = SimpleNamespace(is_member=is_member, sample_index=sample_index)
    return near_duplicates.near_duplicates(SimpleNamespace(thumbnails=thumbnail_features(value), samples=samples))


def sides(members, samples):
    return torch.arange(samples) < members


@pytest.mark.parametrize("exclude_same", [False, True])
def test_nearest_is_the_full_table(monkeypatch, exclude_same):
    module = importlib.import_module("ldm_privacy.controls.thumbnails")
    monkeypatch.setattr(module, "_PRODUCTS_AT_ONCE", 7 * 50)
    base = thumbnail_features(images(50))
    query = base if exclude_same else thumbnail_features(images(23, seed=1))
    table = query.double().numpy() @ base.double().numpy().T
    if exclude_same:
        np.fill_diagonal(table, -np.inf)
    row, similarity = nearest(query, base, exclude_same=exclude_same)
    assert np.array_equal(row.numpy(), table.argmax(axis=1))
    np.testing.assert_allclose(similarity.numpy(), table.max(axis=1), atol=1e-6)


def test_features_do_not_see_brightness_white_balance_and_contrast():
    value, cast = images(), torch.tensor([0.2, -0.1, 0.0])[:, None, None]
    assert thumbnail_features(value).shape == (60, 3 * 16 * 16)
    torch.testing.assert_close(thumbnail_features(0.5 * value + cast), thumbnail_features(value), atol=1e-5, rtol=0)
    torch.testing.assert_close(thumbnail_features(value).norm(dim=1), torch.ones(60))
    assert thumbnail_features(images(5, 1, 8)).shape == (5, 64)


def test_images_of_one_colour_are_similar_to_nothing():
    flat = torch.cat([torch.full((3, 3, 32, 32), 0.3), images(5)])
    _, similarity = nearest(thumbnail_features(flat), thumbnail_features(flat), exclude_same=True)
    assert (similarity[:3] == 0).all()


def test_planted_near_duplicates_are_found_and_only_they(monkeypatch):
    monkeypatch.setattr(near_duplicates, "THRESHOLD", 0.98)
    value, index = images(60), 1000 + 7 * torch.arange(60)
    value[40] = value[3] * 0.9 + 0.1
    value[50] = value[5].clone()
    value[50, :, 10:12, 10:12] += 0.2
    value[55] = value[6]
    found = find(value, sides(40, 60), index)
    assert {pair[:2] for pair in found.pairs} == {tuple(index[list(pair)].tolist()) for pair in ((3, 40), (5, 50), (6, 55))}
    assert found.pairs[-1][:2] == tuple(index[[5, 50]].tolist())
    assert found.pairs[0].caption == "similarity 1.000" > found.pairs[-1].caption >= "similarity 0.980"
    assert found.numbers == {"count": 3, "expected": 0}
    assert "3 of 20 held-out images" in found.sentence
    assert "about 0" in found.sentence


def test_expected_count_comes_from_the_members_and_their_ratio():
    value = images(60)
    value[1], value[2] = value[0], value[0]
    found = find(value, sides(40, 60), torch.arange(60))
    assert found.numbers == {"count": 0, "expected": 1.5}  # three members have one among the other 39


def test_under_a_random_split_the_count_is_the_expected_one():
    """Both counts have the same mean where the split is random: 300 pairs and 400 images alone, 30 splits."""
    value = images(700, side=8)
    value = torch.cat([value[:300] + 0.01, value])
    differences = []
    for seed in range(30):
        is_member = torch.randperm(1000, generator=torch.Generator().manual_seed(seed)) < 500
        found = find(value, is_member, torch.arange(1000))
        differences.append(found.numbers["count"] - found.numbers["expected"])
    error = np.std(differences, ddof=1) / len(differences) ** 0.5
    assert abs(np.mean(differences)) < 5 * error


def test_rows_may_come_in_any_order():
    value, index, is_member = images(60), torch.arange(60), sides(40, 60)
    value[41:45] = value[1:5]
    order = torch.randperm(60, generator=torch.Generator().manual_seed(3))
    found = find(value, is_member, index)
    shuffled = find(value[order], is_member[order], index[order])
    assert [sorted(pair[:2] for pair in each.pairs) for each in (found, shuffled)] == [[(1, 41), (2, 42), (3, 43), (4, 44)]] * 2

"""Splits by fair coins: fair, independent of everything else, and stored as what they are."""

import numpy as np
import pytest
import torch
from scipy import stats

from ldm_privacy.audit.samples import is_calibration
from ldm_privacy.data.bounded import digest_of_pixels
from ldm_privacy.data.draw import draw_split, split_from_index_file
from ldm_privacy.data.duplicates import find_duplicates, remove_duplicates
from ldm_privacy.data.split import Split
from ldm_privacy.randomness import uniform

RARE = 1e-4


def tossed(num_rows, count, *, seed=0, **options):
    return draw_split(num_rows, num_members=count, num_heldout=count, seed=seed, by_coins=True, **options)


def test_the_rows_of_a_draw_by_counts_take_part_and_a_hash_of_each_decides():
    coins, counts = (
        tossed(200, 60, num_public=30, seed=3),
        draw_split(200, num_members=60, num_heldout=60, num_public=30, seed=3),
    )
    assert coins.by_coins
    assert not counts.by_coins
    assert torch.equal(coins.audited_index, counts.audited_index)
    assert torch.equal(coins.public_index, counts.public_index)
    assert coins.member_index.tolist() == [
        row for row in coins.audited_index.tolist() if float(uniform("split-coin", (3, row), ())) < 0.5
    ]
    more = tossed(200, 80, seed=3)
    assert {*coins.member_index.tolist()} <= {*more.member_index.tolist()}
    assert {*coins.heldout_index.tolist()} <= {*more.heldout_index.tolist()}


def test_coins_are_fair_and_say_nothing_of_halves_neighbours_or_other_seeds():
    split, other = tossed(20_000, 10_000), tossed(20_000, 10_000, seed=1)
    coin = split.is_member(torch.arange(20_000))
    num_members = int(coin.sum())
    assert stats.binom.ppf(RARE, 20_000, 0.5) < num_members < stats.binom.isf(RARE, 20_000, 0.5)
    assert num_members != 10_000
    half = is_calibration(torch.arange(20_000))
    for beside in (half, coin.roll(1), other.is_member(torch.arange(20_000)), torch.arange(20_000) % 2 == 0):
        agree = int((coin == beside).sum())
        assert stats.binom.ppf(RARE, 20_000, 0.5) < agree < stats.binom.isf(RARE, 20_000, 0.5)


def test_a_whole_group_has_one_coin():
    group = torch.arange(400) // 4
    split = tossed(400, 100, group=group)
    sides = split.is_member(split.audited_index)
    assert len(sides) == 200
    for each in group[split.audited_index].unique():
        assert len(sides[group[split.audited_index] == each].unique()) == 1
    expected = uniform("split-coin", (0, group[split.audited_index]), ()) < 0.5
    assert torch.equal(sides, expected)


def test_a_split_by_coins_is_another_one_than_the_same_rows_by_counts(tmp_path):
    coins = tossed(50, 20)
    rows = Split(coins.member_index, coins.heldout_index, coins.public_index, 50)
    assert coins.hash != rows.hash
    assert coins.difference(rows) == rows.difference(coins) == "one was drawn by coins, the other was not"
    assert str(coins) == f"{rows} (a fair coin each)"
    for split in (coins, rows):
        split.save(tmp_path / "split.npz")
        assert Split.load(tmp_path / "split.npz").hash == split.hash
        assert Split.from_state_dict(split.state_dict()).hash == split.hash
    with np.load(tmp_path / "split.npz") as arrays:
        np.savez(tmp_path / "unsaid.npz", **{name: each for name, each in arrays.items() if name != "by_coins"})
    assert not Split.load(tmp_path / "unsaid.npz").by_coins
    # The rows of a file may have been chosen by what they show: nobody tossed coins for them.
    coins.save(tmp_path / "split.npz")
    assert not split_from_index_file(tmp_path / "split.npz", num_rows=50).by_coins


@pytest.mark.parametrize("seed", range(8))
def test_of_identical_images_the_first_stays_whatever_the_coins_said(seed):
    split = tossed(40, 20, seed=seed)
    pixels = torch.arange(40, dtype=torch.uint8)[:, None, None, None].repeat(1, 1, 2, 2)
    pixels[[11, 30]] = pixels[7].clone()
    pixels[25] = pixels[24].clone()
    digests = dict(enumerate(map(digest_of_pixels, pixels)))
    found = find_duplicates(digests, pixels.shape[1:], split)
    assert found.pairs.tolist() == [[7, 11], [24, 25], [7, 30]]
    assert str(found) == "3 images are copies of others and were taken out"
    kept = remove_duplicates(split, found)
    assert kept.by_coins
    assert kept.audited_index.tolist() == [row for row in range(40) if row not in (11, 25, 30)]
    assert torch.equal(kept.is_member(kept.audited_index), split.is_member(kept.audited_index))
    again = find_duplicates(digests, pixels.shape[1:], kept)
    assert (again.content_hash, len(again.pairs)) == (found.content_hash, 0)

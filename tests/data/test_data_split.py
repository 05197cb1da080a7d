"""Splits: drawn, grouped, read from files, stored, hashed."""

import hashlib
import struct

import numpy as np
import pyarrow.parquet
import pytest
import torch

from ldm_privacy.data.draw import choose_groups, draw_split, split_from_index_file, split_from_sides
from ldm_privacy.data.split import Split
from ldm_privacy.errors import UserError
from ldm_privacy.randomness import uniform
from tests.reference.subset_sum import largest_sum_within


def split_of(members, heldout, public=(), num_rows=100):
    return Split(*(torch.tensor(list(rows), dtype=torch.int64) for rows in (members, heldout, public)), num_rows)


def rows_of(split):
    return [part.tolist() for part in (split.member_index, split.heldout_index, split.public_index)]


def test_drawn_parts_are_disjoint_and_of_the_wanted_size():
    split = draw_split(1000, num_members=300, num_heldout=200, num_public=500, seed=3)
    members, heldout, public = rows_of(split)
    assert (len(members), len(heldout), len(public)) == (300, 200, 500)
    assert sorted(members + heldout + public) == list(range(1000))


def test_drawing_is_a_function_of_the_seed_and_leaves_global_generators_alone():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = draw_split(500, num_members=50, num_heldout=60, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.hash == draw_split(500, num_members=50, num_heldout=60, seed=1).hash
    assert first.hash != draw_split(500, num_members=50, num_heldout=60, seed=2).hash


def slow_order(count, seed):
    """Rows by a random number of their own."""
    return sorted(range(count), key=lambda row: float(uniform("split", (seed, row), ())))


def test_a_draw_is_a_beginning_an_end_and_what_follows_the_beginning_of_a_random_order(index_file):
    order = slow_order(40, 7)
    split = draw_split(40, num_members=12, num_heldout=9, num_public=5, seed=7)
    assert rows_of(split) == [sorted(rows) for rows in (order[:12], order[-9:], order[12:17])]
    # Of an index file: the first so many of each set in the same order; public ones, where it has none, of the other rows.
    path = index_file(mia_train_idxs=np.arange(0, 20), mia_eval_idxs=np.arange(20, 30))
    drawn = split_from_index_file(path, num_rows=40, num_members=6, num_heldout=3, num_public=4, seed=7)
    among = [[row for row in order if row in rows] for rows in (range(20), range(20, 30), range(30, 40))]
    assert rows_of(drawn) == [sorted(rows[:count]) for rows, count in zip(among, (6, 3, 4))]
    unsaid = split_from_index_file(path, num_rows=40, num_members=6, num_public=4)
    assert rows_of(unsaid) == rows_of(split_from_index_file(path, num_rows=40, num_members=6, num_public=4, seed=0))


def test_drawn_groups_are_the_chosen_ones_in_a_random_order_of_their_own(index_file):
    group = torch.tensor([row * row % 23 for row in range(60)])

    def drawn(free, count):
        names = sorted({int(group[row]) for row in free}, key=lambda name: float(uniform("split-group", (7, name), ())))
        rows = [[row for row in free if group[row] == name] for name in names]
        return sorted(row for place in first_choice([len(each) for each in rows], count) for row in rows[place])

    split, free, expected = (
        draw_split(60, num_members=20, num_heldout=14, num_public=9, seed=7, group=group),
        list(range(60)),
        [],
    )
    for count in (20, 14, 9):
        expected.append(drawn(free, count))
        free = [row for row in free if row not in expected[-1]]
    assert rows_of(split) == expected
    path = index_file(mia_train_idxs=expected[0], mia_eval_idxs=expected[1])
    free = [row for row in range(60) if row not in expected[0] + expected[1]]
    of_file = split_from_index_file(path, num_rows=60, num_public=7, seed=7, group=group)
    assert rows_of(of_file) == [*expected[:2], drawn(free, 7)]


def test_more_members_never_change_who_is_held_out():
    small = draw_split(500, num_members=50, num_heldout=60, seed=1)
    large = draw_split(500, num_members=400, num_heldout=60, seed=1)
    assert torch.equal(small.heldout_index, large.heldout_index)
    assert torch.isin(small.member_index, large.member_index).all()


def test_every_row_is_equally_likely_to_be_a_member():
    seeds = 600
    drawn = torch.stack([draw_split(20, num_members=5, num_heldout=5, seed=seed).member_index for seed in range(seeds)])
    share = torch.bincount(drawn.flatten(), minlength=20) / seeds
    # Binomial: standard deviation sqrt(p (1 - p) / seeds) with p = 1/4; five of them.
    assert (share - 0.25).abs().max() < 5 * (0.25 * 0.75 / seeds) ** 0.5


def test_hash_is_fixed_and_is_what_it_says():
    split = split_of([5, 1, 3], [2, 4], [0], num_rows=7)
    expected = hashlib.sha256(b"split 1")
    for numbers in ([7], [1, 3, 5], [2, 4], [0]):
        expected.update(struct.pack(f"<q{len(numbers)}q", len(numbers), *numbers))
    assert split.hash == expected.hexdigest()
    assert split.hash == "f5dc8e71c027204f100f2686547a1ccdf8546865cd730a8185f8578137046f56"


def test_hash_ignores_order_and_notices_everything_else():
    split = split_of([5, 1, 3], [2, 4], [0])
    assert split.hash == split_of([1, 3, 5], [4, 2], [0]).hash
    assert rows_of(split) == [[1, 3, 5], [2, 4], [0]]
    assert str(split) == "3 members, 2 held-out, 1 public"
    others = [
        split_of([1, 3, 5], [2, 4], [0], num_rows=101),
        split_of([1, 3], [2, 4, 5], [0]),
        split_of([1, 3, 5], [0, 2, 4]),
        split_of([2, 4], [1, 3, 5], [0]),
        split_of([1, 3, 6], [2, 4], [0]),
    ]
    assert len({split.hash, *(other.hash for other in others)}) == 6


def test_how_splits_differ_is_said_with_numbers_and_rows():
    split = split_of([1, 3, 5], [2, 4], [0])
    for other, words in (
        (split_of([5, 3, 1], [4, 2], [0]), "nothing differs"),
        (split_of([1, 3, 5], [2, 4], [0], num_rows=101), "a source of 101 rows, not 100"),
        (split_of([1, 3, 6], [2, 4], [0]), "1 members differ: rows 5, 6"),
        (split_of([1, 3], [2, 4], [0]), "1 members differ (2, not 3): rows 5"),
        (split_of([1, 3, 5, 7, 8], [2, 4], [0]), "2 members differ (5, not 3): rows 7, 8"),
        (split_of([1, 3, 5], [9, 10], [0]), "2 held-out differ: rows 2, 4, 9, 10"),
        (split_of([1, 3, 5], [2, 4]), "1 public differ (0, not 1): rows 0"),
        (
            split_of([1, 3, 5], range(10, 16), [7]),
            "6 held-out differ (6, not 2): rows 2, 4, 10, 11, 12, ...; 1 public differ: rows 0, 7",
        ),
        (split_of([1, 3, 5], [10, 11, 12, 13], [0]), "4 held-out differ (4, not 2): rows 2, 4, 10, 11, 12, ..."),
        (split_of([1, 3, 5], [2, 11, 12, 13], [0]), "3 held-out differ (4, not 2): rows 4, 11, 12, 13"),
        (split_of([1, 3, 5], [11, 12, 13], [0]), "3 held-out differ (3, not 2): rows 2, 4, 11, 12, 13"),
    ):
        assert split.difference(other) == words


def test_membership_by_sample_index():
    split = split_of([5, 1], [2, 4], [0])
    assert split.is_member(torch.tensor([4, 5, 0, 1])).tolist() == [False, True, False, True]
    assert split.audited_index.tolist() == [1, 2, 4, 5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, 2, 3], [3, 2]), r"2 rows are in both member_index and heldout_index: 2, 3\."),
        (([1], [2], [1]), "1 rows are in both member_index and public_index: 1"),
        (([1, 100], [2]), r"member_index has 1 rows outside the source, which has 100 rows \(0 to 99\): 100"),
        (([1], [-1]), "heldout_index has 1 rows outside"),
        (([1, 1], [2]), "member_index names 1 rows more than once: 1"),
        (([7, 5, 1, 7, 5, 3, 5], [2]), "member_index names 3 rows more than once: 5, 5, 7"),
    ],
)
def test_impossible_splits(arguments, message):
    with pytest.raises(UserError, match=message):
        split_of(*arguments)


def test_the_first_and_the_last_row_of_the_source_can_be_in_a_split():
    assert rows_of(split_of([99], [0], range(1, 99))) == [[99], [0], list(range(1, 99))]


@pytest.mark.parametrize(
    "index", [torch.tensor([0.5]), torch.tensor([1j]), torch.tensor([True]), torch.tensor([[0]]), torch.tensor(0)], ids=range(5)
)
def test_row_numbers_must_be_whole_numbers(index):
    with pytest.raises(UserError, match="member_index must be a list of row numbers"):
        Split(index, torch.tensor([1]), torch.tensor([2]), 5)


def test_row_numbers_of_any_width_are_kept_as_int64():
    split = Split(*(torch.tensor([row], dtype=torch.uint8) for row in range(3)), 5)
    assert {part.dtype for part in split.parts().values()} == {torch.int64}
    assert split.hash == split_of([0], [1], [2], num_rows=5).hash


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (
            {"num_members": 60, "num_heldout": 30, "num_public": 11},
            r"data\.num_members=60, data\.num_heldout=30 and data\.num_public=11 are 101 rows together, .* has 100",
        ),
        ({"num_members": 0, "num_heldout": 30}, r"data\.num_members=0: at least 1"),
        ({"num_members": 1, "num_heldout": 0}, r"data\.num_heldout=0"),
        ({"num_members": 1, "num_heldout": 1, "num_public": -1}, r"data\.num_public=-1: at least 0"),
        ({"num_members": -1, "num_heldout": 1}, r"data\.num_members=-1: at least 1"),
    ],
)
def test_impossible_counts(counts, message):
    with pytest.raises(UserError, match=message):
        draw_split(100, seed=0, **counts)


@pytest.mark.parametrize("seed", range(5))
def test_groups_stay_on_one_side_and_counts_are_never_exceeded(seed):
    group = torch.randint(0, 60, (400,), generator=torch.Generator().manual_seed(seed))
    split = draw_split(400, num_members=150, num_heldout=100, num_public=50, seed=seed, group=group)
    sides = [set(group[part].tolist()) for part in (split.member_index, split.heldout_index, split.public_index)]
    assert len(set.union(*sides)) == sum(len(side) for side in sides)
    for part, names in zip((split.member_index, split.heldout_index, split.public_index), sides):
        assert len(part) == sum(int((group == name).sum()) for name in names)
    assert [len(part) for part in rows_of(split)] == [150, 100, 50]


def test_groups_that_can_not_make_up_a_count_come_as_near_as_they_can():
    group = torch.arange(30) // 6
    split = draw_split(30, num_members=13, num_heldout=11, seed=0, group=group)
    assert [len(part) for part in rows_of(split)] == [12, 6, 0]
    with pytest.raises(UserError, match=r"data\.num_heldout=5: no group .* fits; the smallest has 6 rows"):
        draw_split(30, num_members=12, num_heldout=5, seed=0, group=group)


@pytest.mark.parametrize("seed", range(30))
def test_chosen_groups_against_every_subset(seed):
    generator = np.random.default_rng(seed)
    sizes = generator.integers(1, 12, 9).tolist()
    count = int(generator.integers(1, sum(sizes) + 5))
    chosen = choose_groups(sizes, count)
    assert len(set(chosen)) == len(chosen)
    assert sum(sizes[position] for position in chosen) == largest_sum_within(sizes, count)


def first_choice(sizes, count):
    """By trying every subset: groups that still fit, one after the other, or those of the shortest beginnings that do it."""
    greedy, left = [], count
    for place, size in enumerate(sizes):
        if size <= left:
            greedy, left = [*greedy, place], left - size
    if left == 0:
        return greedy
    total, chosen = largest_sum_within(sizes, count), []
    while total:
        last = next(end for end in range(len(sizes)) if largest_sum_within(sizes[: end + 1], total) == total)
        chosen, total, sizes = [last, *chosen], total - sizes[last], sizes[:last]
    return chosen


@pytest.mark.parametrize("seed", range(30))
def test_which_groups_are_chosen(seed):
    generator = np.random.default_rng(seed)
    sizes = generator.integers(1, 9, 8).tolist()
    for count in (1, int(generator.integers(2, sum(sizes))), sum(sizes), sum(sizes) + 3):
        assert choose_groups(sizes, count) == first_choice(sizes, count)


def test_no_group_no_choice():
    assert choose_groups([], 3) == choose_groups([4, 5], 3) == choose_groups([4, 5], 0) == []
    assert choose_groups([3], 3) == [0]


def test_groups_of_one_row_are_an_ordinary_draw():
    split = draw_split(3000, num_members=1500, num_heldout=1500, seed=0, group=torch.arange(3000))
    assert [len(part) for part in rows_of(split)] == [1500, 1500, 0]


def test_a_draw_may_use_every_row_and_has_as_many_groups_as_rows():
    assert rows_of(draw_split(2, num_members=1, num_heldout=1, seed=0)) in ([[0], [1], []], [[1], [0], []])
    with pytest.raises(ValueError, match=r"group: expected shape \(3,\), got \(2,\)"):
        draw_split(3, num_members=1, num_heldout=1, seed=0, group=torch.arange(2))


def test_an_index_file_can_give_all_it_has(index_file):
    path = index_file(mia_train_idxs=np.uint8([3]), mia_eval_idxs=[7])
    whole = split_from_index_file(path, num_rows=9, num_members=1, num_heldout=1, num_public=7)
    assert rows_of(whole) == [[3], [7], [0, 1, 2, 4, 5, 6, 8]]
    group = torch.tensor([0, 0, 0, 1, 2, 2, 2, 3, 2])
    with pytest.raises(UserError, match=r"^data\.num_public=2: no group .* fits; the smallest has 3 rows"):
        split_from_index_file(path, num_rows=9, num_public=2, group=group)


def test_stored_and_loaded_again(tmp_path):
    split = draw_split(90, num_members=30, num_heldout=20, num_public=10, seed=4)
    split.save(tmp_path / "split.npz")
    assert Split.load(tmp_path / "split.npz").hash == split.hash
    torch.save({"split": split.state_dict()}, tmp_path / "a.ckpt")
    state = torch.load(tmp_path / "a.ckpt", weights_only=True)["split"]
    assert Split.from_state_dict(state).hash == split.hash
    again = split_from_index_file(tmp_path / "split.npz", num_rows=90)
    assert rows_of(again)[:2] == rows_of(split)[:2]
    with pytest.raises(UserError, match="heldout_index"):
        Split.from_state_dict({"member_index": torch.tensor([1])})


@pytest.fixture
def index_file(tmp_path):
    def write(**arrays):
        path = tmp_path / "index.npz"
        np.savez(path, **arrays)
        return path

    return write


def test_index_file_whole_and_in_part(index_file):
    path = index_file(mia_train_idxs=np.arange(0, 40), mia_eval_idxs=np.arange(40, 80), ratio=0.5)
    whole = split_from_index_file(path, num_rows=100)
    assert rows_of(whole) == [list(range(40)), list(range(40, 80)), []]
    part = split_from_index_file(path, num_rows=100, num_members=10, num_heldout=5, num_public=20, seed=2)
    members, heldout, public = rows_of(part)
    assert (len(members), len(heldout)) == (10, 5)
    assert set(members) < set(range(40))
    assert set(heldout) < set(range(40, 80))
    assert public == list(range(80, 100))
    other = split_from_index_file(path, num_rows=100, num_members=10, num_heldout=5, num_public=20, seed=3)
    assert rows_of(other)[0] != members


def test_index_file_order_changes_nothing(index_file):
    shuffled = np.random.default_rng(0).permutation(40)
    one = split_from_index_file(index_file(mia_train_idxs=np.arange(40), mia_eval_idxs=[50]), num_rows=60, num_members=9)
    two = split_from_index_file(index_file(mia_train_idxs=shuffled, mia_eval_idxs=[50]), num_rows=60, num_members=9)
    assert one.hash == two.hash


def test_index_file_with_public_rows(index_file):
    path = index_file(mia_train_idxs=np.arange(0, 40), mia_eval_idxs=np.arange(40, 60), public_idxs=np.arange(90, 100))
    assert rows_of(split_from_index_file(path, num_rows=100))[2] == []
    assert rows_of(split_from_index_file(path, num_rows=100, num_public=None))[2] == list(range(90, 100))
    few = rows_of(split_from_index_file(path, num_rows=100, num_public=4, seed=1))[2]
    assert len(few) == 4
    assert set(few) < set(range(90, 100))
    with pytest.raises(UserError, match=r"data\.num_public=11: .* names 10"):
        split_from_index_file(path, num_rows=100, num_public=11)
    group = torch.arange(100).where(torch.arange(100) != 39, 95)  # a member in the group of a public row
    with pytest.raises(UserError, match="groups are in both member_index and public_index, among them that of row 39"):
        split_from_index_file(path, num_rows=100, num_public=None, group=group)
    assert rows_of(split_from_index_file(path, num_rows=100, group=group))[2] == []  # without the public rows nothing is shared
    path = index_file(mia_train_idxs=np.arange(0, 40), mia_eval_idxs=np.arange(40, 60))
    with pytest.raises(UserError, match="no array 'public_idxs'"):
        split_from_index_file(path, num_rows=100, num_public=None)


def test_stored_split_is_an_index_file(tmp_path):
    split = draw_split(90, num_members=30, num_heldout=20, num_public=10, seed=4)
    split.save(tmp_path / "split.npz")
    again = split_from_index_file(tmp_path / "split.npz", num_rows=90, num_public=None, seed=7)
    assert again.hash == split.hash


def test_index_file_with_groups(index_file):
    group = torch.arange(100) // 10
    path = index_file(mia_train_idxs=np.arange(0, 35), mia_eval_idxs=np.arange(40, 60))
    split = split_from_index_file(path, num_rows=100, num_public=25, group=group)
    # Row 35 to 39 belong to a member's group; of the free groups of ten only two fit into 25.
    assert len(split.public_index) == 20
    assert not torch.isin(group[split.public_index], group[split.audited_index]).any()
    path = index_file(mia_train_idxs=np.arange(0, 35), mia_eval_idxs=np.arange(35, 60))
    with pytest.raises(
        UserError, match=rf"^index file {path}: 1 groups are in both member_index and heldout_index, among them that of row 30;"
    ):
        split_from_index_file(path, num_rows=100, group=group)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_members": 6},
        {"num_members": 6, "num_heldout": 3, "num_public": 4, "seed": 7},
        {"num_heldout": 5, "num_public": None},
        {"num_public": 9, "group": torch.arange(40) // 4},
        {"num_members": 7, "num_public": 9, "seed": 3, "group": torch.arange(40) // 4},
    ],
)
def test_a_source_with_its_sides_is_an_index_file_that_names_its_rows(index_file, options):
    sides = ["heldout"] * 8 + ["elsewhere", None] * 6 + ["member"] * 20
    path = index_file(mia_train_idxs=np.arange(20, 40), mia_eval_idxs=np.arange(8), public_idxs=np.arange(0))
    found = split_from_sides(sides, num_rows=40, **options)
    assert not found.by_coins
    assert found.hash == split_from_index_file(path, num_rows=40, **options).hash


def test_sides_that_do_not_fit_the_counts_the_groups_or_coins_are_refused():
    sides = ["member"] * 6 + ["heldout"] * 4
    with pytest.raises(UserError, match=r"^data\.num_members=7: data\.source names 6 of them"):
        split_from_sides(sides, num_rows=10, num_members=7)
    with pytest.raises(UserError, match=r"^data\.source: 1 groups are in both member_index and heldout_index, .* of row 5;"):
        split_from_sides(sides, num_rows=10, group=torch.tensor([0, 0, 1, 1, 2, 3, 3, 4, 5, 6]))
    with pytest.raises(UserError, match="comes with its sides, so no coins are tossed"):
        split_from_sides(sides, num_rows=10, by_coins=True)


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ({"train": [1], "test": [2]}, {}, r"no array 'mia_train_idxs'\. Arrays in it: test, train"),
        ({"mia_train_idxs": [1]}, {}, r"no array 'mia_eval_idxs'\. Arrays in it: mia_train_idxs"),
        ({"mia_train_idxs": [1, 2, 3], "mia_eval_idxs": [2, 3, 4]}, {}, "2 rows are in both .*: 2, 3"),
        ({"mia_train_idxs": [1, 50], "mia_eval_idxs": [2]}, {}, r"1 rows outside the source.*50"),
        ({"mia_train_idxs": [1, 1], "mia_eval_idxs": [2]}, {}, "more than once"),
        ({"mia_train_idxs": [0.5], "mia_eval_idxs": [2]}, {}, "'mia_train_idxs' must be a list of whole numbers"),
        ({"mia_train_idxs": ["a"], "mia_eval_idxs": [2]}, {}, "must be a list of whole numbers"),
        ({"mia_train_idxs": [[1]], "mia_eval_idxs": [2]}, {}, "must be a list of whole numbers"),
        ({"mia_train_idxs": [1], "mia_eval_idxs": [2]}, {"num_members": 2}, r"data\.num_members=2: .* names 1"),
        ({"mia_train_idxs": [1], "mia_eval_idxs": [2]}, {"num_heldout": 0}, r"data\.num_heldout=0"),
        ({"mia_train_idxs": [1], "mia_eval_idxs": [2]}, {"num_public": 49}, r"data\.num_public=49: 48 of the 50 rows"),
        ({"mia_train_idxs": [1], "mia_eval_idxs": [2]}, {"num_public": -1}, r"data\.num_public=-1: 48 of the 50 rows"),
        (
            {"mia_train_idxs": [1], "mia_eval_idxs": [2], "public_idxs": [2]},
            {"num_public": None},
            "heldout_index and public_index: 2",
        ),
        ({"mia_train_idxs": [], "mia_eval_idxs": [2]}, {}, "whole numbers"),
        ({"mia_train_idxs": np.array([{}], dtype=object), "mia_eval_idxs": [2]}, {}, "not a readable .npz"),
    ],
)
def test_bad_index_files(index_file, arrays, options, message):
    path = index_file(**arrays)
    with pytest.raises(UserError, match=message) as caught:
        split_from_index_file(path, num_rows=50, **options)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x93NUMPY", b"PK\x03\x04 and no more"])
def test_files_that_are_no_index_file(tmp_path, content):
    path = tmp_path / "index.npz"
    with pytest.raises(UserError, match="there is no such file"):
        split_from_index_file(path, num_rows=5)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"index\.npz: not a readable \.npz") as caught:
        split_from_index_file(path, num_rows=5)
    assert "allow_pickle" not in str(caught.value)
    np.save(tmp_path / "one.npy", np.arange(3))
    with pytest.raises(UserError, match="a single array"):
        split_from_index_file(tmp_path / "one.npy", num_rows=5)


def test_published_cifar10_split(shared_file):
    split = split_from_index_file(shared_file("data/splits/CIFAR10_train_ratio0.5.npz"), num_rows=50_000)
    assert (len(split.member_index), len(split.heldout_index), len(split.public_index)) == (25_000, 25_000, 0)
    files = [shared_file(f"data/cifar10/train-0000{part}-of-00003.parquet") for part in range(3)]
    tables = [pyarrow.parquet.read_table(file, columns=["label"]) for file in files]
    label = torch.from_numpy(np.concatenate([table["label"].to_numpy() for table in tables]))
    for index in (split.member_index, split.heldout_index):
        assert torch.bincount(label[index]).tolist() == [2500] * 10

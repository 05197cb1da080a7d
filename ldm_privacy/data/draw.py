"""Where a split comes from: drawn by seed, whole groups where there are groups; read from an index file; or with the source."""

import itertools
import os
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ldm_privacy.data.split import HELDOUT_KEY, MEMBER_KEY, PUBLIC_KEY, SIDES, Split, read_index_arrays
from ldm_privacy.errors import UserError
from ldm_privacy.randomness import uniform


def draw_split(
    num_rows: int,
    *,
    num_members: int,
    num_heldout: int,
    num_public: int = 0,
    seed: int,
    group: Tensor | None = None,
    by_coins: bool = False,
) -> Split:
    """Rows drawn at random, disjoint, the same for a seed on every machine.

    Rows stand in a random order; members are its beginning, held-out its end, public follows the members. So with one
    seed more members never change who is held out. With `group`, whole groups take the place of rows and the counts are
    upper bounds: members, then held-out, then public each get the largest number of rows not above its count that whole
    groups of those still free can make up; each must get at least one row.

    With `by_coins` these members and held-out rows only say who takes part: then a fair coin of its own, a hash of seed and row
    (of seed and group, one coin for the whole of it), decides of each on which side it is. So half of them are members on
    average, neither side has a fixed number, and with one seed larger counts change no coin.

    Args:
        num_rows: Rows of the source.
        num_members, num_heldout: At least 1.
        num_public: May be 0.
        seed: Of the order.
        group: (num_rows,) integers; rows of equal number stay on one side (or out of the split altogether).
        by_coins: See above; membership is then independent between units, as a bound on epsilon needs it.

    Raises UserError for a count below its least, more rows wanted than there are, or no group small enough.
    """
    counts = {"members": num_members, "heldout": num_heldout, "public": num_public}
    for side, count in counts.items():
        if count < (least := int(side != "public")):
            raise UserError(f"data.num_{side}={count}: at least {least} is needed.")
    total = sum(counts.values())
    if total > num_rows:
        raise UserError(
            f"data.num_members={num_members}, data.num_heldout={num_heldout} and data.num_public={num_public} are "
            f"{total} rows together, but the source has {num_rows}; lower one of them."
        )
    if group is None:
        order = _random_order(num_rows, seed)
        heldout = order[num_rows - num_heldout :]
        drawn = Split(order[:num_members], heldout, order[num_members : num_members + num_public], num_rows)
        return _toss(drawn, drawn.audited_index, seed) if by_coins else drawn
    if group.shape != (num_rows,):
        raise ValueError(f"group: expected shape ({num_rows},), got {tuple(group.shape)}")
    free = torch.ones(num_rows, dtype=torch.bool)
    parts = []
    for side, count in counts.items():
        parts.append(_take_groups(group, free, count, side, seed))
        free[parts[-1]] = False
    drawn = Split(parts[0], parts[1], parts[2], num_rows)
    return _toss(drawn, group[drawn.audited_index], seed) if by_coins else drawn


def split_from_index_file(
    path: str | os.PathLike[str],
    *,
    num_rows: int,
    num_members: int | None = None,
    num_heldout: int | None = None,
    num_public: int | None = 0,
    seed: int = 0,
    group: Tensor | None = None,
) -> Split:
    """The split of an `.npz` file with `mia_train_idxs` (members) and `mia_eval_idxs` (held-out), as SecMI stores it.

    The file may also name rows for the autoencoder, as `public_idxs`, which `Split.save` writes. Raises UserError: no such
    file, keys missing, rows outside the source, on both sides, or fewer than wanted.

    Args:
        path: The file; read without pickles.
        num_rows: Rows of the source.
        num_members: Take so many of the file's members, at random by seed; all of them when None.
        num_heldout: The same for held-out.
        num_public: The same for the file's public rows; a number also where it has none: rows drawn from those that it
            doesn't name.
        seed: Of the drawing.
        group: (num_rows,) integers; then a group in two sets that are used is an error, and public rows that are drawn are
            whole groups that the file doesn't touch (at most num_public rows).
    """
    needed = (MEMBER_KEY, HELDOUT_KEY) if num_public is not None else (MEMBER_KEY, HELDOUT_KEY, PUBLIC_KEY)
    arrays = read_index_arrays(path, needed, optional=(PUBLIC_KEY,) if num_public else ())
    public = arrays.get(PUBLIC_KEY, torch.empty(0, dtype=torch.int64))
    try:
        whole = Split(arrays[MEMBER_KEY], arrays[HELDOUT_KEY], public, num_rows)
    except UserError as error:
        raise UserError(f"index file {path}: {error}") from None
    if group is not None:
        _check_groups(whole, group, f"index file {path}")
    counts = {"num_members": num_members, "num_heldout": num_heldout, "num_public": num_public}
    return _some_of(whole, counts, group, seed, str(path))


def split_from_sides(
    sides: Sequence[str],
    *,
    num_rows: int,
    num_members: int | None = None,
    num_heldout: int | None = None,
    num_public: int | None = 0,
    seed: int = 0,
    group: Tensor | None = None,
    by_coins: bool = False,
) -> Split:
    """The split that a source comes with; the same as if an index file named its rows.

    Args:
        sides: Of each row, "member" or "heldout"; whatever else is on neither side.
        num_rows, num_members, num_heldout, num_public, seed, group: As of `split_from_index_file`.
        by_coins: UserError, for the sides are decided.
    """
    if by_coins:
        raise UserError(
            "data.split=coin: data.source comes with its sides, so no coins are tossed; take data.split out (or, of imagenet, "
            "the sides: data.source.heldout_path=null data.source.heldout_per_class=0)."
        )
    member, heldout = (torch.tensor([row for row, each in enumerate(sides) if each == side]).long() for side in SIDES)
    whole = Split(member, heldout, torch.empty(0, dtype=torch.int64), num_rows)
    if group is not None:
        _check_groups(whole, group, "data.source")
    counts = {"num_members": num_members, "num_heldout": num_heldout, "num_public": num_public}
    return _some_of(whole, counts, group, seed, "data.source")


def _some_of(whole: Split, counts: Mapping[str, int | None], group: Tensor | None, seed: int, named_by: str) -> Split:
    """Of the sets that a file or a source names, so many rows each, at random by seed; None: all."""
    order = _random_order(whole.num_rows, seed)

    def some(key: str, index: Tensor, *, least: int) -> Tensor:
        wanted = len(index) if (count := counts[key]) is None else count
        if not least <= wanted <= len(index):
            raise UserError(
                f"data.{key}={wanted}: {named_by} names {len(index)} of them; at least {least} is needed, at most all."
            )
        return order[torch.isin(order, index)][:wanted]

    members = some("num_members", whole.member_index, least=1)
    heldout = some("num_heldout", whole.heldout_index, least=1)
    if (num_public := counts["num_public"]) and not len(whole.public_index):
        public = _draw_public(whole, num_public, order, group, seed, named_by)
    else:
        public = some("num_public", whole.public_index, least=0)
    return Split(members, heldout, public, whole.num_rows)


def _toss(drawn: Split, unit: Tensor, seed: int) -> Split:
    """The same rows on the sides that coins say; `unit` is whose coin each of the audited rows has."""
    index, is_member = drawn.audited_index, uniform("split-coin", (seed, unit), ()) < 0.5
    return Split(index[is_member], index[~is_member], drawn.public_index, drawn.num_rows, by_coins=True)


def _random_order(count: int, seed: int) -> Tensor:
    return uniform("split", (seed, torch.arange(count)), ()).argsort(stable=True)


def _check_groups(split: Split, group: Tensor, where: str) -> None:
    """Refuse a group that is in two of the sets that a file or a source names."""
    for (name, index), (other_name, other) in itertools.combinations(split.parts().items(), 2):
        shared = index[torch.isin(group[index], group[other])]
        if len(shared):
            raise UserError(
                f"{where}: {len(group[shared].unique())} groups are in both {name} and {other_name}, among them "
                f"that of row {int(shared[0])}; leave data.group_column out or mend who is where."
            )


def _draw_public(split: Split, count: int, order: Tensor, group: Tensor | None, seed: int, named_by: str) -> Tensor:
    """Rows (whole groups) that are on neither side."""
    free = torch.ones(split.num_rows, dtype=torch.bool)
    if group is not None:
        free = ~torch.isin(group, group[split.audited_index])
    free[split.audited_index] = False
    left = int(free.sum())
    if not 0 <= count <= left:
        rows = f"{left} of the {split.num_rows} rows"
        raise UserError(f"data.num_public={count}: {rows} are on neither side of {named_by} and can be drawn; lower it.")
    return order[free[order]][:count] if group is None else _take_groups(group, free, count, "public", seed)


def choose_groups(sizes: Sequence[int], count: int) -> list[int]:
    """Positions, ascending, of groups whose sizes sum to the largest number not above `count` that any choice reaches.

    Earlier groups are preferred: in a random order the choice is random. If taking each group that still fits reaches the
    count, that is the choice; otherwise groups are taken from the last one that the sum needs. Empty when no group fits.
    O(len(sizes) * count / 8) bytes (subset sums, Bellman 1957).
    """
    chosen, left = [], count
    for position, size in enumerate(sizes):
        if size <= left:
            chosen.append(position)
            left -= size
    if left == 0:
        return chosen
    reachable = [1]  # bit s of the k-th number: whether some of the first k groups sum to s
    for size in sizes:
        reachable.append((reachable[-1] | reachable[-1] << size) & (2 << count) - 1)
        if reachable[-1] >> count:
            break
    chosen, total = [], reachable.pop().bit_length() - 1
    while total:
        while reachable and reachable[-1] >> total & 1:
            reachable.pop()
        chosen.append(len(reachable) - 1)
        total -= sizes[chosen[-1]]
    return chosen[::-1]


def _take_groups(group: Tensor, free: Tensor, count: int, side: str, seed: int) -> Tensor:
    if count == 0:
        return torch.empty(0, dtype=torch.int64)
    names, sizes = group[free].unique(return_counts=True)
    order = uniform("split-group", (seed, names), ()).argsort(stable=True)
    chosen = choose_groups(sizes[order].tolist(), count)
    if not chosen:
        raise UserError(
            f"data.num_{side}={count}: no group of data.group_column that is still free fits; the smallest has "
            f"{int(sizes.min())} rows. Raise this count or lower the others."
        )
    return torch.nonzero(torch.isin(group, names[order[chosen]]) & free).flatten()

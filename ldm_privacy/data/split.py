"""Which rows of the source are members, held-out and public: drawn by seed, read from a file, stored, hashed."""

import hashlib
import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ldm_privacy.data.subset_sum import choose_groups
from ldm_privacy.errors import UserError
from ldm_privacy.randomness import uniform

MEMBER_KEY = "mia_train_idxs"
HELDOUT_KEY = "mia_eval_idxs"
PUBLIC_KEY = "public_idxs"


@dataclass(frozen=True, eq=False)
class Split:
    """Disjoint sets of rows of one source.

    Args:
        member_index: Rows that the denoiser trains on, int64, (num_members,).
        heldout_index: Rows that it never sees, int64, (num_heldout,).
        public_index: Rows for the autoencoder alone, int64, (num_public,); may be empty.
        num_rows: Rows of the source.

    The indices are kept sorted, so that the order in which they were given changes nothing.

    Raises:
        UserError: A row twice in one set, or in two sets, or outside the source.
    """

    member_index: Tensor
    heldout_index: Tensor
    public_index: Tensor
    num_rows: int

    def __post_init__(self) -> None:
        for field, index in self._parts().items():
            if index.dim() != 1 or index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
                raise UserError(f"split: {field} must be a list of row numbers, got {index.dtype} {tuple(index.shape)}.")
            object.__setattr__(self, field, index.detach().to("cpu", torch.int64).sort().values)
        for field, index in self._parts().items():
            outside = index[(index < 0) | (index >= self.num_rows)]
            if len(outside):
                raise UserError(
                    f"split: {field} has {len(outside)} rows outside the source, which has {self.num_rows} rows "
                    f"(0 to {self.num_rows - 1}): {_examples(outside)}."
                )
            repeated = index[1:][index[1:] == index[:-1]]
            if len(repeated):
                raise UserError(f"split: {field} names {len(repeated)} rows more than once: {_examples(repeated)}.")
        parts = list(self._parts().items())
        for position, (field, index) in enumerate(parts):
            for other_field, other in parts[position + 1 :]:
                shared = index[torch.isin(index, other)]
                if len(shared):
                    raise UserError(
                        f"split: {len(shared)} rows are in both {field} and {other_field}: {_examples(shared)}. "
                        "The sets must be disjoint."
                    )

    def _parts(self) -> dict[str, Tensor]:
        return {
            "member_index": self.member_index,
            "heldout_index": self.heldout_index,
            "public_index": self.public_index,
        }

    @property
    def hash(self) -> str:
        """SHA-256 over the three sets and the number of rows, in hexadecimal; the same on every machine."""
        digest = hashlib.sha256(b"split 1")
        for numbers in (np.array([self.num_rows]), *(index.numpy() for index in self._parts().values())):
            digest.update(len(numbers).to_bytes(8, "little"))
            digest.update(numbers.astype("<i8").tobytes())
        return digest.hexdigest()

    @property
    def audited_index(self) -> Tensor:
        """Members and held-out together, sorted."""
        return torch.cat([self.member_index, self.heldout_index]).sort().values

    def is_member(self, sample_index: Tensor) -> Tensor:
        """Bool, like `sample_index`."""
        return torch.isin(sample_index, self.member_index.to(sample_index.device))

    def difference(self, other: "Split") -> str:
        """How another split differs from this one, in words; "nothing differs" where the hashes are equal."""
        found = [] if self.num_rows == other.num_rows else [f"a source of {other.num_rows} rows, not {self.num_rows}"]
        names = {"member_index": "members", "heldout_index": "held-out", "public_index": "public"}
        for field, mine in self._parts().items():
            theirs = other._parts()[field]
            gone, new = mine[~torch.isin(mine, theirs)], theirs[~torch.isin(theirs, mine)]
            if len(gone) or len(new):
                sizes = "" if len(mine) == len(theirs) else f" ({len(theirs)}, not {len(mine)})"
                rows = _examples(torch.cat([gone, new]))
                found.append(f"{max(len(gone), len(new))} {names[field]} differ{sizes}: rows {rows}")
        return "; ".join(found) or "nothing differs"

    def state_dict(self) -> dict[str, Any]:
        """Plain tensors and an integer, for a checkpoint that is loaded with `weights_only=True`."""
        return {**self._parts(), "num_rows": self.num_rows}

    @staticmethod
    def from_state_dict(state: Mapping[str, Any]) -> "Split":
        """The inverse of `state_dict`."""
        try:
            return Split(state["member_index"], state["heldout_index"], state["public_index"], int(state["num_rows"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"the stored split is not one of this program (no usable {error}).") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an `.npz` that is an index file too (`split_from_index_file`)."""
        with open(path, "wb") as file:  # given a name, np.savez would add a suffix of its own
            np.savez(
                file,
                mia_train_idxs=self.member_index.numpy(),
                mia_eval_idxs=self.heldout_index.numpy(),
                public_idxs=self.public_index.numpy(),
                num_rows=np.array([self.num_rows]),
            )

    @staticmethod
    def load(path: str | os.PathLike[str]) -> "Split":
        """The inverse of `save`; nothing in the file is ever run."""
        arrays = _read_npz(path, (MEMBER_KEY, HELDOUT_KEY, PUBLIC_KEY, "num_rows"))
        return Split(arrays[MEMBER_KEY], arrays[HELDOUT_KEY], arrays[PUBLIC_KEY], int(arrays["num_rows"][0]))


def draw_split(
    num_rows: int, *, num_members: int, num_heldout: int, num_public: int = 0, seed: int, group: Tensor | None = None
) -> Split:
    """Rows drawn at random, disjoint, the same for a seed on every machine.

    Rows stand in a random order; members are its beginning, held-out its end, public follows the members. So with one
    seed more members never change who is held out. With `group`, whole groups take the place of rows and the counts are
    upper bounds: members, then held-out, then public each get the largest number of rows not above its count that whole
    groups of those still free can make up; each must get at least one row.

    Args:
        num_rows: Rows of the source.
        num_members: At least 1.
        num_heldout: At least 1.
        num_public: May be 0.
        seed: Of the order.
        group: (num_rows,) integers; rows of equal number stay on one side (or out of the split altogether).

    Raises:
        UserError: A count below its least, more rows wanted than there are, or no group small enough.
    """
    for key, count, least in (("members", num_members, 1), ("heldout", num_heldout, 1), ("public", num_public, 0)):
        if count < least:
            raise UserError(f"data.num_{key}={count}: at least {least} is needed.")
    total = num_members + num_heldout + num_public
    if total > num_rows:
        raise UserError(
            f"data.num_members={num_members}, data.num_heldout={num_heldout} and data.num_public={num_public} are "
            f"{total} rows together, but the source has {num_rows}; lower one of them."
        )
    if group is not None:
        return _draw_groups(num_rows, {"members": num_members, "heldout": num_heldout, "public": num_public}, seed, group)
    order = _random_order(num_rows, seed)
    heldout = order[num_rows - num_heldout :]
    return Split(order[:num_members], heldout, order[num_members : num_members + num_public], num_rows)


def split_from_index_file(
    path: str | os.PathLike[str],
    *,
    num_rows: int,
    num_members: int | None = None,
    num_heldout: int | None = None,
    num_public: int = 0,
    seed: int = 0,
    group: Tensor | None = None,
) -> Split:
    """The split of an `.npz` file with `mia_train_idxs` (members) and `mia_eval_idxs` (held-out), as SecMI stores it.

    Args:
        path: The file; read without pickles.
        num_rows: Rows of the source.
        num_members: Take so many of the file's members, at random by seed; all of them when None.
        num_heldout: The same for held-out.
        num_public: Rows drawn from those that the file names on neither side.
        seed: Of the drawing.
        group: (num_rows,) integers; then a group on both sides of the file is an error, and public rows are whole
            groups that the file doesn't touch (at most num_public rows).

    Raises:
        UserError: No such file, keys missing, rows outside the source, on both sides, or fewer than wanted.
    """
    arrays = _read_npz(path, (MEMBER_KEY, HELDOUT_KEY))
    nothing = torch.empty(0, dtype=torch.int64)
    try:
        whole = Split(arrays[MEMBER_KEY], arrays[HELDOUT_KEY], nothing, num_rows)
    except UserError as error:
        raise UserError(f"index file {path}: {error}") from None
    free = torch.ones(num_rows, dtype=torch.bool)
    if group is not None:
        shared = group[whole.member_index][torch.isin(group[whole.member_index], group[whole.heldout_index])].unique()
        if len(shared):
            row = int(whole.member_index[group[whole.member_index] == shared[0]][0])
            raise UserError(
                f"index file {path}: {len(shared)} groups are on both sides, among them that of row {row}; "
                "leave data.group_column out or mend the file."
            )
        free = ~torch.isin(group, group[whole.audited_index])
    free[whole.audited_index] = False
    order = _random_order(num_rows, seed)
    parts = []
    for key, count, index in (
        ("num_members", num_members, whole.member_index),
        ("num_heldout", num_heldout, whole.heldout_index),
    ):
        wanted = len(index) if count is None else count
        if not 1 <= wanted <= len(index):
            raise UserError(f"data.{key}={wanted}: {path} names {len(index)} of them; at least 1 is needed, at most all.")
        parts.append(order[torch.isin(order, index)][:wanted])
    if not 0 <= num_public <= int(free.sum()):
        raise UserError(
            f"data.num_public={num_public}: {int(free.sum())} of the {num_rows} rows are on neither side of {path} and "
            "can be drawn; lower it."
        )
    public = order[free[order]][:num_public]
    if group is not None and num_public:
        public = _take_groups(group, free, num_public, "public", seed)
    return Split(parts[0], parts[1], public, num_rows)


def is_calibration(sample_index: Tensor, seed: int = 0, *, group: Tensor | None = None) -> Tensor:
    """Which samples choose (timestep, keep fraction); the others report. Bool, like `sample_index`.

    A fair coin per sample index (or per group, so that a group is never on both halves): independent of membership, of
    the split, of epochs and of machines.
    """
    keys = sample_index if group is None else group
    return uniform("calibration-half", (seed, keys), (), device=keys.device) < 0.5


def _random_order(count: int, seed: int) -> Tensor:
    return uniform("split", (seed, torch.arange(count)), ()).argsort(stable=True)


def _draw_groups(num_rows: int, counts: Mapping[str, int], seed: int, group: Tensor) -> Split:
    if group.shape != (num_rows,):
        raise ValueError(f"group: expected shape ({num_rows},), got {tuple(group.shape)}")
    free = torch.ones(num_rows, dtype=torch.bool)
    parts = {}
    for side, count in counts.items():
        parts[side] = _take_groups(group, free, count, side, seed)
        free[parts[side]] = False
    return Split(parts["members"], parts["heldout"], parts["public"], num_rows)


def _take_groups(group: Tensor, free: Tensor, count: int, side: str, seed: int) -> Tensor:
    if count == 0:
        return torch.empty(0, dtype=torch.int64)
    names, sizes = group[free].unique(return_counts=True)
    order = uniform("split-group", (seed, names), ()).argsort(stable=True)
    chosen = choose_groups(sizes[order].tolist(), count)
    if not chosen:
        smallest = f"the smallest has {int(sizes.min())} rows" if len(sizes) else "none is left"
        raise UserError(
            f"data.num_{side}={count}: no group of data.group_column that is still free fits; {smallest}. "
            "Raise this count or lower the others."
        )
    return torch.nonzero(torch.isin(group, names[order[chosen]]) & free).flatten()


def _read_npz(path: str | os.PathLike[str], keys: tuple[str, ...]) -> dict[str, Tensor]:
    file = Path(path).expanduser()
    try:
        loaded = np.load(file, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise UserError(f"index file {file}: a single array; an .npz file with {' and '.join(keys)} is needed.")
        with loaded as stored:
            missing = [key for key in keys if key not in stored]
            if missing:
                raise UserError(
                    f"index file {file}: no array '{missing[0]}'. Arrays in it: {', '.join(sorted(stored)) or 'none'}."
                )
            arrays = {key: stored[key] for key in keys}
    except FileNotFoundError:
        raise UserError(f"index file {file}: there is no such file.") from None
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        # What numpy says of a ValueError advises to load pickles; that advice must not reach the user.
        reason = "it is something else, or holds pickled objects" if isinstance(error, ValueError) else str(error)
        raise UserError(
            f"index file {file}: not a readable .npz file of number arrays ({reason}); it needs the arrays {', '.join(keys)}."
        ) from error
    for key, array in arrays.items():
        if array.dtype.kind not in "iu" or array.ndim != 1:
            raise UserError(
                f"index file {file}: '{key}' must be a list of whole numbers, got {array.dtype} of shape {array.shape}."
            )
    return {key: torch.from_numpy(array.astype(np.int64)) for key, array in arrays.items()}


def _examples(rows: Tensor) -> str:
    shown = ", ".join(str(row) for row in rows[:5].tolist())
    return f"{shown}, ..." if len(rows) > 5 else shown

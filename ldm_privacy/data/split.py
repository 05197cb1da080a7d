"""Which rows of the source are members, held-out and public: checked, stored, hashed."""

import hashlib
import itertools
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

from ldm_privacy.errors import UserError

MEMBER_KEY, HELDOUT_KEY, PUBLIC_KEY = KEYS = ("mia_train_idxs", "mia_eval_idxs", "public_idxs")
"""What an index file calls the three sets."""
MEMBER, HELDOUT = SIDES = ("member", "heldout")
"""What a source that comes with its sides calls them."""
BY_COINS = "by_coins"
"""Of a stored split; one that doesn't say is not."""


@dataclass(frozen=True, eq=False)
class Split:
    """Disjoint sets of rows of one source.

    Args:
        member_index: Rows that the denoiser trains on, int64, (num_members,).
        heldout_index: Rows that it never sees, int64, (num_heldout,).
        public_index: Rows for the autoencoder alone, int64, (num_public,); may be empty.
        num_rows: Rows of the source.
        by_coins: A fair coin of its own decided of each image (of each group), independently of all else, on which side it is;
            otherwise the sizes of the sides were fixed, or a file named them.

    The indices are kept sorted, so that the order in which they were given changes nothing. Raises UserError for a row twice
    in one set, or in two sets, or outside the source.
    """

    member_index: Tensor
    heldout_index: Tensor
    public_index: Tensor
    num_rows: int
    by_coins: bool = False

    def __post_init__(self) -> None:
        for field, index in self.parts().items():
            if index.dim() != 1 or index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
                raise UserError(f"split: {field} must be a list of row numbers, got {index.dtype} {tuple(index.shape)}.")
            index = index.detach().to("cpu", torch.int64).sort().values
            object.__setattr__(self, field, index)
            outside = index[(index < 0) | (index >= self.num_rows)]
            if len(outside):
                inside = f"{self.num_rows} rows (0 to {self.num_rows - 1})"
                found = f"{len(outside)} rows outside the source, which has {inside}: {_examples(outside)}"
                raise UserError(f"split: {field} has {found}.")
            repeated = index[1:][index[1:] == index[:-1]]
            if len(repeated):
                raise UserError(f"split: {field} names {len(repeated)} rows more than once: {_examples(repeated)}.")
        for (field, index), (other_field, other) in itertools.combinations(self.parts().items(), 2):
            shared = index[torch.isin(index, other)]
            if len(shared):
                both = f"{field} and {other_field}: {_examples(shared)}"
                raise UserError(f"split: {len(shared)} rows are in both {both}. The sets must be disjoint.")

    def parts(self) -> dict[str, Tensor]:
        """The three sets by their names."""
        return {field: getattr(self, field) for field in ("member_index", "heldout_index", "public_index")}

    @property
    def hash(self) -> str:
        """SHA-256 over the three sets, the number of rows and how it was drawn, in hexadecimal; the same on every machine."""
        digest = hashlib.sha256(b"split 1 by coins" if self.by_coins else b"split 1")
        for numbers in (np.array([self.num_rows]), *(index.numpy() for index in self.parts().values())):
            digest.update(len(numbers).to_bytes(8, "little"))
            digest.update(numbers.astype("<i8").tobytes())
        return digest.hexdigest()

    def __str__(self) -> str:
        sizes = (f"{len(index)} {name}" for index, name in zip(self.parts().values(), ("members", "held-out", "public")))
        return ", ".join(sizes) + (" (a fair coin each)" if self.by_coins else "")

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
        found += [] if self.by_coins == other.by_coins else ["one was drawn by coins, the other was not"]
        names = {"member_index": "members", "heldout_index": "held-out", "public_index": "public"}
        for (field, mine), theirs in zip(self.parts().items(), other.parts().values()):
            gone, new = mine[~torch.isin(mine, theirs)], theirs[~torch.isin(theirs, mine)]
            if len(gone) or len(new):
                sizes = "" if len(mine) == len(theirs) else f" ({len(theirs)}, not {len(mine)})"
                rows = _examples(torch.cat([gone, new]))
                found.append(f"{max(len(gone), len(new))} {names[field]} differ{sizes}: rows {rows}")
        return "; ".join(found) or "nothing differs"

    def state_dict(self) -> dict[str, Any]:
        """Plain tensors and numbers, for a checkpoint that is loaded with `weights_only=True`."""
        return {**self.parts(), "num_rows": self.num_rows, BY_COINS: self.by_coins}

    @staticmethod
    def from_state_dict(state: Mapping[str, Any]) -> "Split":
        """The inverse of `state_dict`."""
        try:
            members, heldout, public = (state[name] for name in ("member_index", "heldout_index", "public_index"))
            return Split(members, heldout, public, int(state["num_rows"]), state.get(BY_COINS) is True)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"the stored split is not one of this program (no usable {error}).") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an `.npz` that is an index file too (`split_from_index_file`)."""
        with open(path, "wb") as file:  # given a name, np.savez would add a suffix of its own
            members, heldout, public = (index.numpy() for index in self.parts().values())
            rows, coins = np.array([self.num_rows]), np.array([int(self.by_coins)])
            np.savez(file, mia_train_idxs=members, mia_eval_idxs=heldout, public_idxs=public, num_rows=rows, by_coins=coins)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> "Split":
        """The inverse of `save`; nothing in the file is ever run."""
        members, heldout, public, num_rows, *coins = read_index_arrays(path, (*KEYS, "num_rows"), optional=(BY_COINS,)).values()
        return Split(members, heldout, public, int(num_rows[0]), any(bool(each.any()) for each in coins))


def read_index_arrays(path: str | os.PathLike[str], keys: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """The arrays of whole numbers of an index file; nothing in it is ever run. Raises UserError where `keys` aren't there."""
    file = Path(path).expanduser()
    where = f"index file {file}"
    try:
        loaded = np.load(file, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise UserError(f"{where}: a single array; an .npz file with {' and '.join(keys)} is needed.")
        with loaded as stored:
            missing = [key for key in keys if key not in stored]
            if missing:
                raise UserError(f"{where}: no array '{missing[0]}'. Arrays in it: {', '.join(sorted(stored)) or 'none'}.")
            arrays = {key: stored[key] for key in (*keys, *optional) if key in stored}
    except FileNotFoundError:
        raise UserError(f"{where}: there is no such file.") from None
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        # What numpy says of a ValueError advises to load pickles; that advice must not reach the user.
        reason = "it is something else, or holds pickled objects" if isinstance(error, ValueError) else str(error)
        raise UserError(
            f"{where}: not a readable .npz file of number arrays ({reason}); it needs the arrays {', '.join(keys)}."
        ) from error
    for key, array in arrays.items():
        if array.dtype.kind not in "iu" or array.ndim != 1:
            raise UserError(f"{where}: '{key}' must be a list of whole numbers, got {array.dtype} of shape {array.shape}.")
    return {key: torch.from_numpy(array.astype(np.int64)) for key, array in arrays.items()}


def _examples(rows: Tensor) -> str:
    shown = ", ".join(str(row) for row in rows[:5].tolist())
    return f"{shown}, ..." if len(rows) > 5 else shown

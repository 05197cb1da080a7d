"""Byte-identical images on both sides of a split: a held-out copy of a member is no held-out image.

Where coins decided, every copy is taken out but the first row, whatever the coins said: what is left must not tell of them.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ldm_privacy.data.split import Split
from ldm_privacy.errors import UserError


@dataclass(frozen=True, eq=False)
class Duplicates:
    """What was found among the converted images (equal in every pixel at the resolution in use).

    Args:
        pairs: (pairs, 2) int64: a sample index that is taken out of a drawn split (second column), and whose copy it is (first
            column; the one of the lowest index): held-out copies of members; by coins, any copies among members and held-out.
            Each is there once.
        num_member_repeats: Members that are a copy of another member of lower index: seen more often in training.
        num_public_member: Public images that are a copy of a member.
        num_public_heldout: Public images that are a copy of a held-out image.
        content_hash: SHA-256 in hexadecimal over the pixels with their sample indices and groups, without what is taken out.
        by_coins: Whether the split is.
    """

    pairs: Tensor
    num_member_repeats: int
    num_public_member: int
    num_public_heldout: int
    content_hash: str
    by_coins: bool = False

    def __str__(self) -> str:
        copies = "images are copies of others" if self.by_coins else "held-out images are copies of members"
        counts = (
            (len(self.pairs), f"{copies} and were taken out"),
            (self.num_member_repeats, "members are copies of other members"),
            (self.num_public_member, "public images are copies of members"),
            (self.num_public_heldout, "public images are copies of held-out images"),
        )
        return "; ".join(f"{count} {what}" for count, what in counts if count) or "no identical images"


def find_duplicates(digest: Mapping[int, bytes], shape: torch.Size, split: Split, *, group: Tensor | None = None) -> Duplicates:
    """Compare all images of a split by the SHA-256 of their pixels.

    Args:
        digest: Of the image of each sample index; every sample of the split must be there.
        shape: (channels, height, width) of the images.
        split: The sets.
        group: int64, (rows of the source,), where there are groups: they decide halves and intervals, so they are content.

    Returns:
        The record; nothing depends on the order of the samples.
    """
    members, heldout, public = (index.tolist() for index in (split.member_index, split.heldout_index, split.public_index))
    originals, others = (split.audited_index.tolist(),) * 2 if split.by_coins else (members, heldout)
    first: dict[bytes, int] = {}
    for index in originals:
        first.setdefault(digest[index], index)
    pairs = [(first[digest[index]], index) for index in others if first.get(digest[index], index) != index]
    content = hashlib.sha256(str(tuple(shape)).encode())
    copies = {copy for _, copy in pairs}  # taken out of a drawn split: a stored one has the same hash
    kept_members = [digest[index] for index in members if index not in copies]
    member_digests, heldout_digests = {*kept_members}, {digest[index] for index in heldout}
    for index in sorted({*members, *heldout, *public} - copies):
        of_group = b"" if group is None else int(group[index]).to_bytes(8, "little")
        content.update(index.to_bytes(8, "little") + digest[index] + of_group)
    return Duplicates(
        pairs=torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2),
        num_member_repeats=len(kept_members) - len(member_digests),
        num_public_member=sum(digest[index] in member_digests for index in public),
        num_public_heldout=sum(digest[index] in heldout_digests for index in public),
        content_hash=content.hexdigest(),
        by_coins=split.by_coins,
    )


def remove_duplicates(split: Split, duplicates: Duplicates) -> Split:
    """The split without copies, see `Duplicates.pairs`. Raises UserError where no other held-out image would be left."""
    members, heldout = (side[~torch.isin(side, duplicates.pairs[:, 1])] for side in (split.member_index, split.heldout_index))
    if len(heldout) == 0:
        raise UserError(
            f"data: all {len(split.heldout_index)} held-out images are identical to members at this resolution; "
            "choose other rows or a higher data.resolution."
        )
    return replace(split, member_index=members, heldout_index=heldout)

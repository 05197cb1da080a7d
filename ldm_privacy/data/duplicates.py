"""Byte-identical images on both sides of a split: a held-out copy of a member is no held-out image."""

import hashlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ldm_privacy.data.split import Split
from ldm_privacy.errors import UserError


@dataclass(frozen=True, eq=False)
class Duplicates:
    """What was found among the converted images (equal in every pixel at the resolution in use).

    Args:
        pairs: (pairs, 2) int64: a held-out sample index that is a copy of a member (second column), and that member
            (first column; the one of the lowest index). Each such held-out image is there once.
        num_member_repeats: Members that are a copy of another member of lower index: seen more often in training.
        num_public_member: Public images that are a copy of a member.
        num_public_heldout: Public images that are a copy of a held-out image.
        content_hash: SHA-256 in hexadecimal over the pixels with their sample indices and groups, without the held-out copies.
    """

    pairs: Tensor
    num_member_repeats: int
    num_public_member: int
    num_public_heldout: int
    content_hash: str

    @property
    def num_heldout_copies(self) -> int:
        """Held-out images that are a copy of a member."""
        return len(self.pairs)

    def __str__(self) -> str:
        counts = (
            (self.num_heldout_copies, "held-out images are copies of members"),
            (self.num_member_repeats, "members are copies of other members"),
            (self.num_public_member, "public images are copies of members"),
            (self.num_public_heldout, "public images are copies of held-out images"),
        )
        return "; ".join(f"{count} {what}" for count, what in counts if count) or "no identical images"


def find_duplicates(pixels: Tensor, sample_index: Tensor, split: Split, *, group: Tensor | None = None) -> Duplicates:
    """Compare all images of a split by the SHA-256 of their pixels.

    Args:
        pixels: uint8, (rows, channels, height, width).
        sample_index: int64, (rows,): which sample each is; every sample of the split must be there.
        split: The sets.
        group: int64, (rows of the source,), where there are groups: they decide halves and intervals, so they are content.

    Returns:
        The record; nothing depends on the order of the rows. One hash per image.
    """
    digest = {
        int(index): hashlib.sha256(image.numpy().tobytes()).digest() for index, image in zip(sample_index.tolist(), pixels)
    }
    members, heldout, public = (index.tolist() for index in (split.member_index, split.heldout_index, split.public_index))
    first_member: dict[bytes, int] = {}
    for index in members:
        first_member.setdefault(digest[index], index)
    heldout_digests = {digest[index] for index in heldout}
    pairs = [(first_member[digest[index]], index) for index in heldout if digest[index] in first_member]
    content = hashlib.sha256(str(tuple(pixels.shape[1:])).encode())
    copies = {heldout_copy for _, heldout_copy in pairs}  # taken out of a drawn split: a stored one has the same hash
    for index in sorted({*members, *heldout, *public} - copies):
        of_group = b"" if group is None else int(group[index]).to_bytes(8, "little")
        content.update(index.to_bytes(8, "little") + digest[index] + of_group)
    return Duplicates(
        pairs=torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2),
        num_member_repeats=len(members) - len(first_member),
        num_public_member=sum(digest[index] in first_member for index in public),
        num_public_heldout=sum(digest[index] in heldout_digests for index in public),
        content_hash=content.hexdigest(),
    )


def remove_duplicates(split: Split, duplicates: Duplicates) -> Split:
    """The split without the held-out images that are copies of members. Raises UserError where no other would be left."""
    kept = split.heldout_index[~torch.isin(split.heldout_index, duplicates.pairs[:, 1])]
    if len(kept) == 0:
        raise UserError(
            f"data: all {len(split.heldout_index)} held-out images are identical to members at this resolution; "
            "choose other rows or a higher data.resolution."
        )
    return replace(split, heldout_index=kept)

"""Images of the run among the suspects, found without any model; whether enough others are left."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ldm_privacy.controls.model_free import NUM_FOLDS
from ldm_privacy.controls.near_duplicates import THRESHOLD
from ldm_privacy.controls.thumbnails import nearest, thumbnail_features
from ldm_privacy.data.images import to_float
from ldm_privacy.errors import UserError
from ldm_privacy.evidence.own_generations import more_often

MIN_IMAGES = 2 * NUM_FOLDS
"""Of a suspect set, and of the held-out images that it is compared with: what cross-fitted classifiers need."""
MIN_SIDE = 5
"""Members, and held-out images, that each half of the audit needs."""


@dataclass(frozen=True)
class Copies:
    """What is known of the suspects without any model.

    Attributes:
        of_members, of_heldout: Suspects that are an image of the run in every pixel.
        near_members: Suspects that are at least `THRESHOLD` similar to a member (`thumbnail_features`), copies among them.
        expected: As many of as many held-out images.
        p_value: That members have no more often a near-duplicate among the suspects than held-out images have: Fisher's exact
            test, exact for suspects of any kind where chance drew the sides. A group counts once.
        member_index, heldout_index: Sample indices of the images of the run that are among the suspects.
    """

    of_members: int
    of_heldout: int
    near_members: int
    expected: float
    p_value: float
    member_index: Tensor
    heldout_index: Tensor


class Looks(NamedTuple):
    """What copies are found by: the SHA-256 of each image's pixels, and its `thumbnail_features`."""

    digests: Sequence[bytes]
    thumbnails: Tensor

    @classmethod
    def of(cls, chunks: Iterable[Tensor]) -> "Looks":
        """Of uint8 images, (images, channels, height, width), chunk by chunk."""
        digests, thumbnails = list[bytes](), list[Tensor]()
        for chunk in chunks:
            digests += [hashlib.sha256(image.numpy().tobytes()).digest() for image in chunk]
            thumbnails.append(thumbnail_features(to_float(chunk)))
        return cls(digests, torch.cat(thumbnails))


def copies_of(suspects: Looks, run: Looks, run_index: Tensor, is_member: Tensor, *, group: Tensor | None = None) -> Copies:
    """Suspects that are, or nearly are, images of the run, which are all members and held-out images.

    `group`: (images,) labels of the run's groups, which lie on one side whole; None where it has none.
    """
    known = {*suspects.digests}
    among = torch.tensor([digest in known for digest in run.digests])
    members = {digest for digest, side in zip(run.digests, is_member.tolist()) if side}
    heldout = {*run.digests} - members
    near = (nearest(suspects.thumbnails, run.thumbnails[is_member])[1] >= THRESHOLD).sum()
    usual = (nearest(run.thumbnails[~is_member], run.thumbnails[is_member])[1] >= THRESHOLD).double().mean()
    is_shown = nearest(run.thumbnails, suspects.thumbnails)[1] >= THRESHOLD
    _, unit = (run_index if group is None else group).unique(return_inverse=True)
    counts = [(len(unit[side & is_shown].unique()), len(unit[side].unique())) for side in (is_member, ~is_member)]
    return Copies(
        sum(digest in members for digest in suspects.digests),
        sum(digest in heldout for digest in suspects.digests),
        int(near),
        float(usual) * len(suspects.digests),
        more_often(*counts),
        run_index[among & is_member],
        run_index[among & ~is_member],
    )


def check_enough(where: str, copies: Copies, is_member: Tensor, chooses: Tensor, *, num_members: int, num_heldout: int) -> None:
    """Raise UserError where too few images of the run are left to choose by and to compare with.

    Args:
        where: The suspect folder.
        copies: Of it.
        is_member, chooses: Of the audited images that are not among the suspects.
        num_members, num_heldout: Audited images of each side, those among the suspects too.
    """
    for whose, noun, side, count, total in (
        ("held-out", "held-out images", ~is_member, copies.of_heldout, num_heldout),
        ("members'", "members", is_member, copies.of_members, num_members),
    ):
        left = int(side.sum())
        if count and not left:
            raise UserError(
                f"{where}: is the {whose} folder itself: all {total} audited {noun} of the run are in it, and none is left to "
                "compare with. Name images of which it isn't known."
            )
        if left < MIN_IMAGES or min(int((side & half).sum()) for half in (chooses, ~chooses)) < MIN_SIDE:
            raise UserError(
                f"{where}: {left} of {total} audited {noun} of the run are not in it, too few to compare with: {MIN_IMAGES} "
                f"are needed, {MIN_SIDE} in each half of the audit. Name fewer of the run's own images, or audit more of them "
                "(audit.max_samples)."
            )

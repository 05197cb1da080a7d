"""What every metric demands of its input, in one place, and how it walks through many rows."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ldm_privacy.errors import UserError

MEND = "take the sample out, or mend the attack that scored it."

NUMBERS_AT_ONCE = 2**21
"""Rows are worked through in chunks of this many numbers, so that memory does not grow with the number of rows."""


def check_scores(score: Tensor, is_member: Tensor) -> tuple[Tensor, Tensor]:
    """Membership scores that a metric can be computed from, or an error that says what is wrong with them.

    Constant scores are allowed: they rank nothing, and their AUROC is 0.5.

    Returns:
        The scores in float64 (every narrower dtype embeds exactly, so no order and no tie changes) and the labels, on
        the device of the scores.

    Raises:
        UserError: lengths differ, a class is missing, or a score is not finite (its place is named).
        ValueError: `is_member` is not a one-dimensional bool tensor.
    """
    score, is_member = torch.as_tensor(score), torch.as_tensor(is_member)
    if is_member.dtype != torch.bool or is_member.ndim != 1:
        raise ValueError(f"is_member must be a bool tensor (samples,), not {is_member.dtype} {tuple(is_member.shape)}")
    num_scores = score.shape[-1] if score.ndim else 1
    if score.ndim == 0 or num_scores != len(is_member):
        raise UserError(f"{num_scores} membership scores for {len(is_member)} samples: pass one score per sample.")
    num_members = int(is_member.sum())
    if num_members in (0, len(is_member)):
        missing = "held-out samples" if num_members else "members"
        raise UserError(f"no {missing} among the {len(is_member)} samples: a membership metric needs both classes.")
    check_finite(score, "membership score of sample", MEND)
    return score.detach().double(), is_member.to(score.device)


def row_chunks(score: Tensor) -> Sequence[Tensor]:
    """(..., samples) as parts (rows, samples), each of bounded memory."""
    return score.reshape(-1, score.shape[-1]).split(max(1, NUMBERS_AT_ONCE // score.shape[-1]))


def check_finite(value: Tensor, what: str, advice: str) -> None:
    """Raises UserError "what PLACE is VALUE: advice" for the first value that is not finite, by its place on the last axis."""
    finite = value.isfinite()
    if not finite.all():
        raise UserError(f"{what} {int((~finite).nonzero()[0, -1])} is {float(value[~finite][0])}: {advice}")


def check_same_samples(score_a: Tensor, score_b: Tensor) -> None:
    """Raises UserError where two paired score vectors have different lengths."""
    if score_a.shape != score_b.shape:
        raise UserError(f"paired scores have shapes {tuple(score_a.shape)} and {tuple(score_b.shape)}: score the same samples.")


def check_share(name: str, value: float) -> float:
    """`value` where it lies strictly between 0 and 1. Raises UserError that names it otherwise."""
    if not 0.0 < value < 1.0:
        raise UserError(f"{name} is {value}: choose a number strictly between 0 and 1.")
    return value

"""What every metric demands of its input, and how it walks through many rows."""

import importlib

import numpy as np
import pytest
import torch

from ldm_privacy.errors import UserError
from ldm_privacy.metrics import check_scores
from ldm_privacy.metrics.checks import check_finite, check_share, row_chunks


def test_checked_scores_are_float64_and_the_same_numbers():
    for score in ([3, 1, 2], np.array([3.0, 1.0, 2.0], dtype=np.float32), torch.tensor([3.0, 1.0, 2.0], requires_grad=True)):
        checked, is_member = check_scores(score, [True, False, True])
        assert (checked.dtype, checked.tolist(), checked.requires_grad) == (torch.float64, [3.0, 1.0, 2.0], False)
        assert (is_member.dtype, is_member.tolist()) == (torch.bool, [True, False, True])
    one_of_each = check_scores(torch.zeros(4, 5, 2), torch.tensor([False, True]))
    assert one_of_each[0].shape == (4, 5, 2)


def test_labels_are_one_row_of_bools():
    score = torch.zeros(2, 2)
    for is_member in (torch.tensor([1, 0]), torch.tensor([[True, False], [False, True]]), torch.tensor(True)):
        with pytest.raises(ValueError, match="is_member must be a bool tensor"):
            check_scores(score, is_member)


def test_every_sample_has_one_score():
    with pytest.raises(UserError, match=r"^2 membership scores for 3 samples"):
        check_scores(torch.zeros(3, 2), torch.tensor([True, False, True]))
    with pytest.raises(UserError, match=r"^1 membership scores for 1 samples"):
        check_scores(torch.tensor(0.5), torch.tensor([True]))
    with pytest.raises(UserError, match=r"^no held-out samples among the 1 samples"):
        check_scores(torch.tensor([0.5]), torch.tensor([True]))
    with pytest.raises(UserError, match=r"^no members among the 0 samples"):
        check_scores(torch.zeros(0), torch.zeros(0, dtype=torch.bool))


def test_the_first_number_that_is_not_finite_is_named_by_its_place():
    value = torch.zeros(2, 3, 4)
    check_finite(value, "number", "mend it.")
    value[1, 0, 2], value[1, 1, 3] = torch.inf, torch.nan
    with pytest.raises(UserError, match=r"^number 2 is inf: mend it\.$"):
        check_finite(value, "number", "mend it.")
    with pytest.raises(UserError, match=r"^membership score of sample 1 is -inf: take the sample out, or mend the attack that"):
        check_scores(torch.tensor([0.0, -torch.inf]), torch.tensor([True, False]))


def test_a_share_is_given_back():
    assert check_share("share", 0.25) == 0.25
    for share in (0.0, 1.0):
        with pytest.raises(UserError, match=f"^share is {share}: choose a number strictly between 0 and 1"):
            check_share("share", share)


@pytest.mark.parametrize(
    ("at_once", "sizes"), [(9, [2, 2, 2]), (8, [2, 2, 2]), (7, [1] * 6), (3, [1] * 6), (16, [4, 2]), (24, [6])]
)
def test_chunks_hold_whole_rows_in_order(at_once, sizes, monkeypatch):
    monkeypatch.setattr(importlib.import_module("ldm_privacy.metrics.checks"), "NUMBERS_AT_ONCE", at_once)
    score = torch.arange(24.0).reshape(2, 3, 4)
    chunks = row_chunks(score)
    assert [len(chunk) for chunk in chunks] == sizes
    assert torch.equal(torch.cat(list(chunks)), score.reshape(6, 4))
    assert [len(chunk) for chunk in row_chunks(score[0, 0])] == [1]

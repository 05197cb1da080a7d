"""Identical images: found, counted, and taken out of the held-out side."""

import pytest
import torch

from ldm_privacy.data.bounded import digest_of_pixels
from ldm_privacy.data.duplicates import find_duplicates, remove_duplicates
from ldm_privacy.data.split import Split
from ldm_privacy.errors import UserError


def split_of(members, heldout, public=()):
    return Split(*(torch.tensor(list(rows), dtype=torch.int64) for rows in (members, heldout, public)), 100)


def pixels_of(kinds):
    """One random image for each number; equal numbers are equal images."""
    generator = torch.Generator().manual_seed(0)
    different = torch.randint(0, 256, (max(kinds) + 1, 3, 4, 4), generator=generator, dtype=torch.uint8)
    return different[torch.tensor(kinds)]


def found_in(pixels, rows, split, **options):
    digest = dict(zip(rows.tolist(), map(digest_of_pixels, pixels), strict=True))
    return find_duplicates(digest, pixels.shape[1:], split, **options)


#         members      held-out        public
ROWS = [10, 11, 12, 20, 21, 22, 23, 30, 31, 32]
KINDS = [0, 1, 0, 0, 5, 1, 0, 1, 5, 7]
SPLIT = split_of(ROWS[:3], ROWS[3:7], ROWS[7:])


def test_counts_and_pairs():
    found = found_in(pixels_of(KINDS), torch.tensor(ROWS), SPLIT)
    assert found.pairs.tolist() == [[10, 20], [11, 22], [10, 23]]
    assert (len(found.pairs), found.num_member_repeats) == (3, 1)
    assert (found.num_public_member, found.num_public_heldout) == (1, 2)
    assert "3 held-out images are copies of members" in str(found)


def test_held_out_copies_are_taken_out_and_nothing_else():
    cleaned = remove_duplicates(SPLIT, found_in(pixels_of(KINDS), torch.tensor(ROWS), SPLIT))
    assert cleaned.heldout_index.tolist() == [21]
    assert torch.equal(cleaned.member_index, SPLIT.member_index)
    assert torch.equal(cleaned.public_index, SPLIT.public_index)
    assert cleaned.num_rows == SPLIT.num_rows
    again = found_in(pixels_of(KINDS), torch.tensor(ROWS), cleaned)
    assert len(again.pairs) == 0


def test_order_of_the_rows_changes_nothing():
    order = torch.randperm(len(ROWS), generator=torch.Generator().manual_seed(1))
    one = found_in(pixels_of(KINDS), torch.tensor(ROWS), SPLIT)
    two = found_in(pixels_of(KINDS)[order], torch.tensor(ROWS)[order], SPLIT)
    assert torch.equal(one.pairs, two.pairs)
    assert one.content_hash == two.content_hash


def test_one_changed_byte_is_another_image():
    pixels = pixels_of([0, 0])
    split = split_of([1], [2])
    before = found_in(pixels, torch.tensor([1, 2]), split)
    pixels = pixels.clone()
    pixels[1, 2, 3, 3] ^= 1
    after = found_in(pixels, torch.tensor([1, 2]), split)
    assert (len(before.pairs), len(after.pairs)) == (1, 0)
    assert before.content_hash != after.content_hash
    assert str(after) == "no identical images"


def test_no_held_out_image_left():
    found = found_in(pixels_of([0, 0, 0]), torch.tensor([1, 2, 3]), split_of([1], [2, 3]))
    with pytest.raises(UserError, match="all 2 held-out images are identical to members"):
        remove_duplicates(split_of([1], [2, 3]), found)


def test_groups_are_content_and_only_those_of_the_split():
    def content(group):
        group = None if group is None else torch.tensor(group).repeat(50)
        return found_in(pixels_of(KINDS), torch.tensor(ROWS), SPLIT, group=group).content_hash

    assert content([0, 1]) == content([0, 1])
    assert len({content(group) for group in (None, [0, 1], [1, 0], [0, 0])}) == 4
    outside = torch.zeros(100, dtype=torch.int64)
    outside[50] = 1
    same = found_in(pixels_of(KINDS), torch.tensor(ROWS), SPLIT, group=outside).content_hash
    assert same == content([0, 0])

"""Captions that are measured: what a scan is called is what it looks like."""

import numpy as np

from ldm_privacy.data.digit_captions import described
from ldm_privacy.data.sources import Digits


def stroke(*columns):
    """A scan with one pixel of ink in each row, from the top down."""
    scan = np.zeros((8, 8))
    scan[range(8), columns] = 1
    return scan


def test_drawn_strokes_are_called_by_their_slant_proportions_and_ink():
    upright, right, left = stroke(*[3] * 8), stroke(7, 6, 5, 4, 3, 2, 1, 0), stroke(0, 1, 2, 3, 4, 5, 6, 7)
    bar, block = np.zeros((8, 8)), np.zeros((8, 8))
    bar[3:5], block[1:7, 1:7] = 1, 1
    one = described(np.stack([upright, right, left, bar, block]), np.array([1, 7, 2, 0, 8]))
    assert one == [
        "a handwritten one, light, narrow",
        "a handwritten seven, light, wide, slanted right",
        "a handwritten two, light, wide, slanted left",
        "a handwritten zero, light, wide",
        "a handwritten eight, bold, wide",
    ]
    mirrored = described(np.stack([right, left])[:, :, ::-1], np.array([7, 2]))
    assert mirrored == ["a handwritten seven, light, wide, slanted left", "a handwritten two, light, wide, slanted right"]


def test_every_class_has_many_captions_each_with_its_digit():
    data = Digits().load()
    texts, labels = np.array(data["text"][:]), np.array(data["label"][:])
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    for label, name in enumerate(names):
        mine = {text for text, its in zip(texts, labels) if its == label}
        assert {text.split(", ")[0] for text in mine} == {f"a handwritten {name}"}
        assert len(mine) > 7
    words = [word for text in texts for word in text.split(", ")[1:]]
    for word in ("light", "bold", "narrow", "wide", "slanted left", "slanted right"):
        assert 0.15 < words.count(word) / len(texts) < 0.25, word

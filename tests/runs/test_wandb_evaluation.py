"""The points of a ROC curve that a logger draws."""

from itertools import pairwise

import pytest

from ldm_privacy.runs.wandb_evaluation import MAX_ROC_POINTS, roc_places


@pytest.mark.parametrize("count", [2, 3, 199, 200, 201, 1000, 100_000])
def test_the_low_end_is_drawn_whole_and_both_ends_are_kept(count):
    places = roc_places(count).tolist()
    assert places == sorted(set(places))
    assert len(places) <= MAX_ROC_POINTS
    assert (places[0], places[-1]) == (0, count - 1)
    low = min(10, count)  # below FPR 1e-4 of 100,000 points a linear stride of 500 has one point
    assert places[:low] == list(range(low))
    if count <= MAX_ROC_POINTS:
        assert places == list(range(count))
    else:  # neighbours are about count^(1 / MAX_ROC_POINTS) apart
        ratio = count ** (1 / (MAX_ROC_POINTS - 1))
        assert all(after + 1 <= ratio * (before + 1) + 1.5 for before, after in pairwise(places))

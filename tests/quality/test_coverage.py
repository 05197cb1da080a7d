"""How often intervals hold what they are of: 200 repeats, as many misses as a coverage of 95 % has with a chance of .001."""

import pytest
import torch
from scipy import stats

from ldm_privacy.quality.cmmd import cmmd
from ldm_privacy.quality.distance import gap
from ldm_privacy.quality.frechet import frechet
from ldm_privacy.quality.kernel import kid
from ldm_privacy.quality.sliced import patches, sliced_wasserstein

NUM_REPEATS = 200
MOST_MISSES = int(stats.binom.ppf(0.999, NUM_REPEATS, 0.05))


def sliced(generated, reference, group=None):
    images = (each.reshape(-1, 1, 2, 3) for each in (generated, reference))
    return sliced_wasserstein(*map(patches, images), group=group, num_directions=16)


def drawn(count, generator, shift=0.0, group_size=1):
    """(count, 6) numbers, those of a group alike."""
    own = torch.randn(count, 6, generator=generator, dtype=torch.float64)
    shared = torch.randn(count // group_size, 6, generator=generator, dtype=torch.float64).repeat_interleave(group_size, 0)
    return (own if group_size == 1 else 0.4 * own + 0.9 * shared) + shift


@pytest.mark.parametrize(("distance", "group_size"), [(kid, 1), (kid, 3), (frechet, 3), (sliced, 3)])
def test_a_distance_and_a_gap_are_held_as_often_as_they_say(distance, group_size):
    generator, group = torch.Generator().manual_seed(0), None if group_size == 1 else torch.arange(60) // group_size
    found, gaps = [], []
    for _ in range(NUM_REPEATS):
        generated = drawn(60, generator, shift=0.4)
        heldout, members = (drawn(60, generator, group_size=group_size) for _ in range(2))
        to_heldout, to_members = (distance(generated, each, group=group) for each in (heldout, members))
        found.append(to_heldout.estimate())
        gaps.append(gap(to_members, to_heldout))
    value = sum(each.value for each in found) / NUM_REPEATS
    assert sum(each.leaves_out(value) for each in found) <= MOST_MISSES
    assert sum(each.leaves_out(0) for each in gaps) <= MOST_MISSES


@pytest.mark.parametrize("distance", [kid, cmmd])
def test_two_sets_of_one_law_have_no_distance(distance):
    generator = torch.Generator().manual_seed(1)
    found = [distance(drawn(60, generator), drawn(60, generator)).estimate() for _ in range(NUM_REPEATS)]
    assert sum(each.leaves_out(0) for each in found) <= MOST_MISSES
    mean = sum(each.value for each in found) / NUM_REPEATS
    spread = torch.tensor([each.value for each in found]).std() / NUM_REPEATS**0.5
    assert abs(mean) < 4 * spread, "unbiased"

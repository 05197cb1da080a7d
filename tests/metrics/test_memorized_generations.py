"""Memorized generations: the ratio against the obvious one, copies planted by hand, the exact bound."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from ldm_privacy.errors import UserError
from ldm_privacy.metrics.memorized_generations import (
    copies_rise,
    discordant_copies,
    memorized_generations,
    share_interval,
)
from ldm_privacy.metrics.neighbours import nearest_two
from tests.reference.generations import nearest_neighbour_ratio


def pool(num_images, shape=(3, 4, 4), seed=0):
    """Random 8-bit images in [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (num_images, *shape), generator=generator) / 127.5 - 1


def noise_like(image, scale, seed=1):
    return scale * torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_ratio_and_neighbour_are_the_obvious_ones_whatever_the_batches(batch_size):
    images = pool(90)
    generated = torch.cat([pool(20, seed=3), images[5:15] + noise_like(images[5:15], 0.05)])
    index = torch.arange(30, 90)
    index = index[torch.randperm(60, generator=torch.Generator().manual_seed(2))]
    found = nearest_two(generated, images.__getitem__, index, batch_size=batch_size)
    ratio, place = nearest_neighbour_ratio(generated.numpy(), images[index].numpy())
    np.testing.assert_allclose(found.ratio.numpy(), ratio, rtol=1e-6)
    assert found.sample_index[:, 0].tolist() == index[place].tolist()


def test_merging_two_parts_is_searching_both():
    images, generated = pool(50), pool(30, seed=3)
    parts = [nearest_two(generated, images.__getitem__, index) for index in torch.arange(50).split(20)]
    both = nearest_two(generated, images.__getitem__, torch.arange(50))
    merged = parts[0].merged(parts[1]).merged(parts[2])
    assert torch.equal(merged.sample_index, both.sample_index)
    assert torch.equal(merged.distance, both.distance)


def test_a_copy_that_is_nearly_exact_is_measured_and_not_cancelled():
    # ||g||^2 + ||r||^2 - 2 g.r in float32 is good to about 1e-4 here; the distance is 1e-5.
    images = pool(2000, shape=(3, 16, 16))
    step = torch.zeros_like(images[:4])
    step[:, 0, 0, 0] = 1e-5 * torch.arange(1, 5)
    generated = images.double()[:4] + step
    found = nearest_two(generated.float(), images.__getitem__, torch.arange(2000))
    assert found.sample_index[:, 0].tolist() == [0, 1, 2, 3]
    assert (found.distance[:, 0] < 5e-5).all()
    assert (found.distance[:, 0] > 0).all()


def test_planted_copies_are_counted_and_the_control_stays_clear():
    images, fresh = pool(80), pool(75, seed=3)
    # 25 generations that copy 5 members, 5 times each.
    generated = torch.cat([fresh, images[torch.arange(25) % 5] + noise_like(images[:25], 0.02)])
    found = memorized_generations(generated, images.__getitem__, torch.arange(40), torch.arange(40, 80))
    assert found.memorized.value == 0.25
    assert 0.15 < found.memorized.lower < 0.25 < found.memorized.upper < 0.35
    assert found.heldout.value == 0.0
    assert found.heldout.lower == 0.0
    assert found.heldout.upper == pytest.approx(1 - 0.025 ** (1 / 100))
    assert (found.num_members_copied, found.num_heldout_copied, found.num_control) == (5, 0, 40)
    assert found.nearest_member[75:].tolist() == [place % 5 for place in range(25)]
    # Exchanging the sides exchanges the answers.
    turned = memorized_generations(generated, images.__getitem__, torch.arange(40, 80), torch.arange(40))
    assert (turned.memorized.value, turned.heldout.value) == (0.0, 0.25)
    assert (turned.num_members_copied, turned.num_heldout_copied) == (0, 5)
    assert turned.rise(0.95).lower == -0.5


def test_a_copy_of_both_sides_is_no_evidence():
    images = pool(60)
    images[30] = images[0] + noise_like(images[0], 0.01)
    both = images[:1] + noise_like(images[:1], 0.02, seed=4)
    members, heldout = (nearest_two(both, images.__getitem__, index) for index in torch.arange(60).split(30))
    assert members.ratio < 1 / 3
    assert heldout.ratio < 1 / 3
    assert discordant_copies(members, heldout) == (0, 0)


def test_duplicates_among_the_members_hide_their_copies():
    images = pool(60)
    generated = images[:1] + noise_like(images[:1], 0.02)
    seen = memorized_generations(generated, images.__getitem__, torch.arange(30), torch.arange(30, 60))
    images[1] = images[0]
    hidden = memorized_generations(generated, images.__getitem__, torch.arange(30), torch.arange(30, 60))
    assert (seen.memorized.value, hidden.memorized.value) == (1.0, 0.0)
    assert hidden.ratio.item() == pytest.approx(1.0)
    exact = memorized_generations(images[:1], images.__getitem__, torch.arange(30), torch.arange(30, 60))
    assert exact.ratio.item() == 1.0


def test_every_member_counts_where_there_are_fewer_heldout_images():
    images = pool(100)
    generated = images[:90] + noise_like(images[:90], 0.02)
    found = memorized_generations(generated, images.__getitem__, torch.arange(90), torch.arange(90, 100), seed=3)
    assert found.memorized.value == 1.0
    assert found.num_control == 10
    assert found.num_members_copied == 10
    # The larger side is cut by a hash of the sample, whatever order the samples come in.
    again = memorized_generations(generated, images.__getitem__, torch.arange(90).flip(0), torch.arange(90, 100), seed=3)
    assert again.heldout == found.heldout
    assert torch.equal(again.ratio, found.ratio)


def test_copies_count_once_per_group():
    images = pool(80)
    generated = images[:12] + noise_like(images[:12], 0.02)
    found = memorized_generations(
        generated, images.__getitem__, torch.arange(40), torch.arange(40, 80), groups=lambda index: index // 4
    )
    assert found.memorized.value == 1.0
    assert found.num_members_copied == 3


def test_the_bound_in_closed_form():
    assert copies_rise(0, 0, confidence=0.9).value == 0.0
    assert copies_rise(0, 7, confidence=0.9).lower == copies_rise(0, 0, confidence=0.9).lower == -0.5
    assert copies_rise(6, 0, confidence=0.95).lower == pytest.approx(0.05 ** (1 / 6) - 0.5)
    assert copies_rise(30, 10, confidence=0.95).value == 0.25
    exact = stats.binomtest(30, 40, alternative="greater").proportion_ci(0.95, method="exact")
    assert copies_rise(30, 10, confidence=0.95).lower == pytest.approx(exact.low - 0.5)


@pytest.mark.parametrize("confidence", [0.9, 0.97, 0.9995])
def test_the_bound_holds_its_level_exactly_for_every_number_of_copies(confidence):
    for count in range(1, 60):
        alarms = [b for b in range(count + 1) if copies_rise(b, count - b, confidence=confidence).lower > 0]
        assert sum(stats.binom.pmf(alarms, count, 0.5)) <= 1 - confidence + 1e-12


def test_the_share_interval_is_the_percentile_bootstrap():
    hits, trials = 30, 400
    found = share_interval(hits, trials, confidence=0.9, num_bootstrap=20_000, generator=np.random.default_rng(0))
    resampled = np.random.default_rng(1).integers(trials, size=(20_000, trials))
    lower, upper = np.quantile((resampled < hits).mean(1), [0.05, 0.95])
    # A percentile lies on a grid of 1 / trials, and its own error is far below one step.
    assert found.value == hits / trials
    assert abs(found.lower - lower) <= 1 / trials
    assert abs(found.upper - upper) <= 1 / trials


def test_progress_counts_every_reference_once():
    images, seen = pool(50), []
    memorized_generations(
        pool(3, seed=3),
        images.__getitem__,
        torch.arange(30),
        torch.arange(30, 50),
        batch_size=8,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1] == (50, 50)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_bad_input():
    images = pool(20)
    broken = pool(5, seed=3)
    broken[3, 0, 0, 0] = math.nan
    with pytest.raises(UserError, match="generated image 3 is not finite"):
        memorized_generations(broken, images.__getitem__, torch.arange(10), torch.arange(10, 20))
    with pytest.raises(UserError, match="1 held-out images"):
        memorized_generations(pool(5, seed=3), images.__getitem__, torch.arange(10), torch.arange(10, 11))
    with pytest.raises(UserError, match="confidence"):
        copies_rise(3, 1, confidence=95)

"""Memorized generations: the ratio against the obvious one, copies planted by hand, the exact bound."""

import importlib
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
from ldm_privacy.metrics.resampling import clopper_pearson
from ldm_privacy.randomness import derive_seed, uniform
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
    assert (copies_rise(30, 10, confidence=0.95).value, copies_rise(30, 10, confidence=0.95).upper) == (0.25, 0.5)
    assert copies_rise(5, 5, confidence=0.95).value == 0.0
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


def test_a_share_of_nothing_or_of_all_has_the_exact_interval():
    for hits in (0, 12):
        found = share_interval(hits, 12, confidence=0.8, num_bootstrap=5, generator=np.random.default_rng(0))
        assert found == clopper_pearson(hits, 12, confidence=0.8)


def test_the_comparison_and_the_intervals_are_those_that_the_seed_draws():
    images, asked = pool(60), []
    generated = torch.cat([images[:45:2] + noise_like(images[:45:2], 0.02), pool(20, seed=3)])

    def asked_for(index):
        asked.append(index.tolist())
        return images[index]

    member, heldout = torch.arange(45).flip(0), torch.arange(45, 60)
    ratio, place = nearest_neighbour_ratio(generated.numpy(), images[:45].numpy())
    for seed in range(4):
        asked.clear()
        options = {"confidence": 0.7, "num_bootstrap": 20, "seed": seed}
        found = memorized_generations(generated, asked_for, member, heldout, **options)
        draw = {int(index): float(uniform("generations", (seed, index), (1,))) for index in member}
        assert asked[0] == sorted(sorted(draw, key=draw.get)[:15])
        assert heldout.tolist() in asked
        assert (found.memorized.value, found.nearest_member.tolist()) == (np.mean(ratio < 1 / 3), place.tolist())
        # Exchanged, the control has copies and so a spread of its own.
        turned = memorized_generations(generated, images.__getitem__, heldout, member[:15], **options)
        for purpose, share in (("memorized", found.memorized), ("memorized control", turned.heldout)):
            generator = np.random.default_rng(derive_seed(f"bootstrap {purpose}", seed))
            draws = generator.binomial(len(ratio), share.value, size=20) / len(ratio)
            assert 0 < share.value < 1
            assert (share.lower, share.upper) == pytest.approx(tuple(np.quantile(draws, [0.15, 0.85])))


def test_a_thousand_resamples_are_drawn_where_no_number_is_given(monkeypatch):
    sizes = []

    class Generator:
        def binomial(self, num_trials, share, size):
            sizes.append(size)
            return np.full(size, num_trials * share)

    module = importlib.import_module("ldm_privacy.metrics.memorized_generations")
    monkeypatch.setattr(module, "bootstrap_generator", lambda purpose, seed: Generator())
    images = pool(40)
    generated = torch.cat([images[:3], images[20:22]]) + noise_like(images[:5], 0.02)
    memorized_generations(generated, images.__getitem__, *torch.arange(40).split(20))
    assert sizes == [1000, 1000]


def test_a_copy_is_strictly_less_than_a_third_as_far_away():
    # One pixel: distances 1 and 3 to the members, then a hair less than 1.
    images = torch.tensor([1.0, -3.0, 20.0, 50.0]).reshape(4, 1, 1, 1)
    generated = torch.zeros(1, 1, 1, 1)
    for first, is_copy in ((1.0, False), (1.0 - 1e-6, True)):
        images[0] = first
        found = memorized_generations(generated, images.__getitem__, torch.tensor([0, 1]), torch.tensor([2, 3]))
        turned = memorized_generations(generated, images.__getitem__, torch.tensor([2, 3]), torch.tensor([0, 1]))
        assert found.memorized.value == turned.heldout.value == is_copy
        assert found.num_members_copied == turned.num_heldout_copied == is_copy
        assert found.num_control == 2


def test_the_candidates_are_the_nearest_however_bright_the_images():
    # Sixty grey levels, far more than the candidates: each is its own nearest, the next ones its second.
    images = torch.linspace(-1, 1, 60)[:, None, None, None].expand(60, 3, 4, 4)
    found = nearest_two(images + 0.01, images.__getitem__, torch.arange(60), batch_size=25)
    assert found.sample_index.tolist() == [*([place, place + 1] for place in range(59)), [59, 58]]
    assert found.distance[:, 0].tolist() == pytest.approx([0.01 * 48**0.5] * 60, rel=1e-5)


def test_the_curves_have_the_names_of_the_docs():
    images = pool(40)
    found = memorized_generations(images[:3] + noise_like(images[:3], 0.02), images.__getitem__, *torch.arange(40).split(20))
    assert found.series() == {
        **{"generations/memorized": 1.0, "generations/memorized_lower": found.memorized.lower},
        **{"generations/memorized_upper": 1.0, "generations/memorized_heldout": 0.0},
        **{"generations/memorized_heldout_lower": 0.0, "generations/memorized_heldout_upper": found.heldout.upper},
        **{"generations/num_members_copied": 3.0, "generations/num_heldout_copied": 0.0},
    }
    assert found.numbers() == {"memorized": found.memorized, "heldout": found.heldout, "num_copies": 3}


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
    # Twenty members, twenty held-out images, then the ten members that the comparison leaves out.
    assert seen == [(done, 50) for done in (8, 16, 20, 28, 36, 40, 48, 50)]


def test_bad_input():
    images = pool(20)
    broken = pool(5, seed=3)
    broken[3, 0, 0, 0] = math.nan
    with pytest.raises(UserError, match="generated image 3 is not finite"):
        memorized_generations(broken, images.__getitem__, torch.arange(10), torch.arange(10, 20))
    with pytest.raises(UserError, match=r"^1 held-out images"):
        memorized_generations(pool(5, seed=3), images.__getitem__, torch.arange(10), torch.arange(10, 11))
    with pytest.raises(UserError, match=r"^1 members"):
        memorized_generations(pool(5, seed=3), images.__getitem__, torch.arange(1), torch.arange(10, 20))
    with pytest.raises(UserError, match="confidence"):
        copies_rise(3, 1, confidence=95)

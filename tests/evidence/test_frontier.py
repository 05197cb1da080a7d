"""The frontier: read off at equal quality, paired by sample, claimed over seeds."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from ldm_privacy.errors import UserError
from ldm_privacy.evidence.cell import Cell
from ldm_privacy.evidence.frontier import frontier_of
from ldm_privacy.evidence.frontier_words import headline, sentence
from ldm_privacy.evidence.trainings import Line, Point, Training, drawn
from tests.evidence.trainings import DRAWS, at_one_half, quality, samples, training

CURVE = ((0.0, 1.0), (0.4, 0.3), (1.0, 0.1), (1.6, 0.05))
"""Strength and quality at four audits."""


def line(auroc, quality, margin=0.0):
    return Line(np.array(auroc), np.array(quality), np.full(len(quality), margin))


def made(cells, *, seeds=(0, 1, 2), **options):
    """Trainings of cells, label -> curve; the first cell is the baseline."""
    return {
        label: [training(curve, seed=seed, cell=place, **options) for seed in seeds]
        for place, (label, curve) in enumerate(cells.items())
    }


def frontier(trainings, baseline="plain"):
    cells = {label: Cell(label, baseline=label == baseline) for label in trainings}
    return frontier_of(cells, trainings, "kid_random_heldout", intervals=DRAWS)


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (0.2, 0.6),  # an audit that is as good
        (0.4, 0.5 + 0.1 * (1.0 - 0.4) / 0.8),  # between two audits
        (1.0, 0.5),  # the first audit
        (3.0, 0.5),  # before the first audit: nothing is known of what came before
        (0.1, 0.6 + 0.3 * (0.2 - 0.1) / (0.2 - 0.05)),  # what is worse again later changes nothing
    ],
)
def test_the_auroc_at_a_quality_is_read_where_the_line_first_has_it(level, expected):
    of_training = line([0.5, 0.6, 0.9, 0.7], [1.0, 0.2, 0.05, 0.3])
    assert float(of_training.at(np.float64(level))) == pytest.approx(expected, abs=1e-12)
    drawn = Line(*(np.stack([each, each]) for each in of_training))
    assert drawn.at(np.full(2, level)) == pytest.approx([expected] * 2, abs=1e-12)


def test_cells_are_compared_at_the_best_quality_that_both_surely_reach():
    trainings = made({"plain": CURVE, "worse": ((0.0, 1.0), (0.2, 0.5), (0.5, 0.25))}, error=0.01)
    found = frontier(trainings)
    level = 0.25 + 1.959964 * 0.01
    assert found.compared["worse"].level == pytest.approx(dict.fromkeys(range(3), level))
    expected = []
    for own, plain in zip(trainings["worse"], trainings["plain"]):
        a, b = ([point.attack.auroc.value for point in each.points] for each in (own, plain))
        mine = a[1] + (a[2] - a[1]) * (0.5 - level) / (0.5 - 0.25)
        expected.append(mine - (b[1] + (b[2] - b[1]) * (0.3 - level) / (0.3 - 0.1)))
    values = [each.value for each in found.compared["worse"].auroc.by_seed.values()]
    assert values == pytest.approx(expected, abs=1e-12)
    assert found.compared["worse"].is_own == [True] * 3
    assert "It never reaches the baseline's quality: its best is worse by 0.2 [" in sentence(found, "worse")
    assert sentence(found, "worse").startswith("worse: no gain at equal quality is shown; at the best quality that it reaches")


def test_a_cell_that_leaks_less_at_a_better_quality_dominates_and_lowers():
    better = tuple((strength * 0.5, level * 0.8) for strength, level in CURVE)
    found = frontier(made({"plain": CURVE, "better": better}, error=0.002))
    assert found.dominated == {"plain": ["better"]}
    gap = found.compared["better"].auroc
    assert gap.is_certain
    assert gap.mean.upper < 0
    assert ": at the baseline's quality (kid_random_heldout 0.05" in sentence(found, "better")
    assert f"it lowers the strongest attack's AUROC by {-gap.mean.value:.3f} [" in sentence(found, "better")
    assert sentence(found, "better").endswith("over three seeds.")
    assert headline(found) == (
        "At equal quality better lowers the strongest attack's AUROC against plain.",
        "In these trainings plain is dominated: better has a lower AUROC and a better quality.",
    )


def test_a_cell_that_merely_learns_less_gains_nothing():
    """The same line, stopped earlier: at its end it leaks much less, at equal quality it doesn't."""
    found = frontier(made({"plain": CURVE, "shorter": CURVE[:3]}, error=0.002))
    assert found.auroc["shorter"].mean.value < found.auroc["plain"].mean.value - 0.05
    assert not found.compared["shorter"].auroc.is_certain
    assert found.dominated == {}
    assert headline(found) == ("No gain at equal quality is shown for shorter.",)


def test_pairing_by_sample_is_narrower_than_two_cells_by_themselves():
    found = frontier(made({"plain": CURVE, "same": CURVE}))
    gap = found.compared["same"].auroc
    apart = np.hypot(found.auroc["plain"].error, found.auroc["same"].error)
    assert gap.error < 0.8 * apart  # half of each score's variance is the sample's own: .71


def test_the_order_of_samples_and_of_trainings_changes_no_digit():
    cells = {"plain": CURVE, "other": tuple((0.8 * strength, level) for strength, level in CURVE)}
    one = frontier(made(cells, error=0.01))
    shuffled = made(cells, error=0.01, shuffle=torch.Generator().manual_seed(3))
    other = frontier({label: mine[::-1] for label, mine in shuffled.items()})
    assert one.compared == other.compared
    assert one.auroc == other.auroc


def test_the_draws_of_a_line_have_the_errors_of_its_audits():
    found = training(CURVE, seed=0, error=0.02)
    draws = drawn({"plain": found}, replace(DRAWS, num_bootstrap=4000))["plain"]
    for place, point in enumerate(found.points):
        deviation = float(point.attack.error.square().sum().sqrt())
        # of 4,000 normal draws a deviation has a relative error of 1 / sqrt(8000), and four of those here
        assert draws.auroc[:, place].std() == pytest.approx(deviation, rel=4 / 8000**0.5)
        assert draws.quality[:, place].std() == pytest.approx(0.02, rel=4 / 8000**0.5)


def test_draws_of_other_seeds_are_others_and_the_same_for_all_cells_of_one():
    """What is random in them averages out over seeds and sweeps."""
    one = training(CURVE, seed=0, error=0.02)
    first, again = (drawn({"plain": replace(one, seed=seed)}, DRAWS)["plain"] for seed in (0, 1))
    for mine, theirs in ((first.auroc, again.auroc), (first.quality, again.quality)):
        assert abs(np.corrcoef(mine[:, 1], theirs[:, 1])[0, 1]) < 4 / len(mine) ** 0.5
    beside = drawn({"plain": one, "other": one}, DRAWS)
    assert beside["plain"].auroc == pytest.approx(first.auroc, abs=1e-12)
    assert beside["other"].auroc == pytest.approx(first.auroc, abs=1e-12)


@pytest.mark.slow
def test_cells_that_are_the_same_are_called_different_at_most_as_often_as_they_may():
    """200 sweeps of two equal cells over three seeds: claims at nominal 5 %, of lower or higher; dominated at nominal 5 %."""
    generator, counts = torch.Generator().manual_seed(0), {"claims": 0, "over samples": 0, "dominated": 0}
    index, _ = samples(30, 0)
    for _ in range(200):
        trainings = {"plain": [], "same": []}
        for seed in range(3):
            is_member = samples(30, int(torch.randint(2**31, (), generator=generator)))[1]
            own = torch.randn(len(index), generator=generator)
            for mine in trainings.values():
                points = []
                for place, (strength, level) in enumerate(((0.0, 1.0), (0.5, 0.2), (1.0, 0.1))):
                    score = own + torch.randn(len(index), generator=generator) + strength * is_member
                    off = 0.02 * float(torch.randn((), generator=generator))
                    points.append(Point(place, at_one_half(score, is_member, index), quality(level + off, 0.02)))
                mine.append(Training(seed, str(seed), points, is_member))
        found = frontier(trainings)
        gap = found.compared["same"].auroc
        counts["claims"] += gap.is_certain
        counts["over samples"] += gap.samples.leaves_out(0.0)
        counts["dominated"] += bool(found.dominated)
    most = int(stats.binom.ppf(0.999, 200, 0.05))
    assert all(count <= most for count in counts.values()), counts
    assert counts["over samples"] > 0, "intervals that never err are too wide"


def test_a_seed_that_one_cell_lacks_is_in_its_mean_and_in_no_difference():
    trainings = made({"plain": CURVE, "other": CURVE})
    del trainings["other"][1]
    found = frontier(trainings)
    assert list(found.auroc["plain"].by_seed) == [0, 1, 2]
    assert list(found.compared["other"].auroc.by_seed) == [0, 2]
    assert sentence(found, "other").endswith("over two seeds.")
    alone = frontier({**trainings, "other": trainings["other"][:1]})
    assert sentence(alone, "other").endswith("in one seed; one training says nothing of another.")
    apart = frontier({"plain": trainings["plain"][:1], "other": trainings["other"][1:]})
    assert sentence(apart, "other") == "other: no seed in which the baseline has ended too."


def test_a_training_that_goes_on_is_a_line_and_nothing_else():
    trainings = made({"plain": CURVE, "other": CURVE})
    trainings["other"][2] = replace(trainings["other"][2], has_ended=False)
    found = frontier(trainings)
    assert list(found.trainings["other"]) == [0, 1, 2]
    assert list(found.auroc["other"].by_seed) == list(found.compared["other"].auroc.by_seed) == [0, 1]
    trainings["other"] = [replace(each, has_ended=False) for each in trainings["other"]]
    found = frontier(trainings)
    assert sentence(found, "other") == "other: no training has ended yet (three begun)."
    assert headline(found) == ("No training of another setting has ended yet in a seed of the baseline plain.",)
    assert headline(frontier(trainings, "other"))[0].startswith("No training of the baseline other has ended yet")


def test_two_trainings_of_a_seed_and_two_splits_are_refused():
    trainings = made({"plain": CURVE[:2], "other": CURVE[:2]})
    twice = {"plain": [*trainings["plain"], trainings["plain"][1]]}
    with pytest.raises(UserError, match="plain: cell-0/seed-1 and cell-0/seed-1 both have seed 1"):
        frontier(twice)
    shared = {"plain": [trainings["plain"][0], replace(trainings["plain"][2], split_hash=trainings["plain"][0].split_hash)]}
    with pytest.raises(UserError, match="seeds 0 and 2: cell-0/seed-0 and cell-0/seed-2 have the same split"):
        frontier(shared)
    trainings["other"][1] = replace(trainings["other"][1], split_hash="f" * 64)
    with pytest.raises(UserError, match=r"seed 1: cell-1/seed-1 \(other\) is of another split than cell-0/seed-1 \(plain\)"):
        frontier(trainings)

"""The model-free control: quiet without a leak, loud with one, valid intervals, right folds."""

import importlib
import io

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from scipy.special import logit
from scipy.stats import binom

from ldm_privacy.controls.image_features import image_features
from ldm_privacy.controls.model_free import classify

module = importlib.import_module("ldm_privacy.controls.model_free")


def features(samples, columns=4, seed=0, group=1):
    """Normal features; samples of a group share half of their variance."""
    generator = np.random.default_rng(seed)
    own = generator.standard_normal((samples, columns))
    shared = generator.standard_normal((-(-samples // group), columns)).repeat(group, axis=0)[:samples]
    value = own if group == 1 else (own + shared) / 2**0.5
    return {f"feature {place}": column for place, column in enumerate(torch.from_numpy(value).float().T)}


def random_labels(samples, seed, group=1):
    units = samples // group
    return (torch.randperm(units, generator=torch.Generator().manual_seed(seed)) < units // 2).repeat_interleave(group)


def leaking(samples=300, gap=1.0, seed=0):
    """Members have feature 2 larger by `gap` standard deviations."""
    given, is_member = features(samples, seed=seed), random_labels(samples, seed)
    given["feature 2"][is_member] += gap
    return given, is_member


def classified(*args, **options):
    """Findings by the classifier's name."""
    return {each.name.split()[0]: each for each in classify(*args, **options)}


class MeanDifference:
    """The quickest linear classifier: towards the members' mean."""

    def fit(self, value, member):
        self.direction = value[member].mean(axis=0) - value[~member].mean(axis=0)
        return self

    def decision_function(self, value):
        return value @ self.direction


@pytest.mark.parametrize(("group", "repetitions"), [(1, 200), (4, 100)])
def test_without_a_leak_mean_spread_and_false_alarms_are_as_stated(monkeypatch, group, repetitions):
    monkeypatch.setattr(module, "_classifiers", lambda: {"mean": MeanDifference()})
    areas, variances, alarms = [], [], 0
    labels = torch.arange(120) // group if group > 1 else None
    for seed in range(repetitions):
        is_member = random_labels(120, seed, group)
        control = classified(features(120, 30, seed, group), is_member, group=labels, seed=seed)["mean"]
        estimate = control.estimate
        width = logit(estimate.upper) - logit(estimate.lower)
        areas.append(estimate.value)
        variances.append((width / (2 * 1.959963985) * estimate.value * (1 - estimate.value)) ** 2)
        alarms += control.leaks
    assert abs(np.mean(areas) - 0.5) < 5 * np.std(areas) / repetitions**0.5
    # A variance of so many normal numbers has this relative standard error.
    assert abs(np.var(areas) / np.mean(variances) - 1) < 5 * (2 / repetitions) ** 0.5
    # At the rate stated, more alarms than this have probability 1e-5.
    assert alarms <= binom.isf(1e-5, repetitions, 0.025)


def test_without_a_leak_both_classifiers_are_quiet():
    areas = {name: [] for name in ("logistic", "boosting")}
    for seed in range(5):
        control = classified(features(200, 6, seed), random_labels(200, seed), seed=seed)
        for name, each in control.items():
            areas[name].append(each.estimate.value)
            assert each.estimate.lower < each.estimate.value < each.estimate.upper
    # One AUROC of 100 + 100 has variance 201 / (12 * 100^2) without a leak; a cross-fitted one twice that.
    for values in areas.values():
        assert abs(np.mean(values) - 0.5) < 5 * (2 * 201 / (12 * 100**2) / len(values)) ** 0.5


def test_a_leak_is_found_with_its_cause():
    given, is_member = leaking()
    control = classified(given, is_member)["logistic"]
    assert control.leaks
    assert control.is_telling
    assert control.numbers["deciding_features"][0] == "feature 2"
    assert "The split leaks" in control.sentence
    assert "feature 2" in control.sentence
    # Two normals one standard deviation apart have AUROC Phi(1 / sqrt 2) = 0.760 for the best classifier.
    assert control.estimate.lower < 0.760 < control.estimate.upper


def test_boosting_finds_what_no_line_separates():
    given, is_member = leaking(gap=0.0)
    given["feature 1"][is_member] *= 3
    control = classified(given, is_member)
    assert control["boosting"].estimate.lower > 0.6 > control["logistic"].estimate.value
    # One that tells is enough, and both say so.
    assert [each.leaks for each in control.values()] == [True, True]
    assert [each.is_telling for each in control.values()] == [False, True]
    assert all("(boosting)" in each.sentence for each in control.values())


def test_no_leak_is_said_in_words():
    control = classified(features(200), random_labels(200, 1))
    for each in control.values():
        assert not each.leaks
        assert each.sentence.startswith("No leak of the split found")
        assert all(str(other.estimate) in each.sentence for other in control.values())


def test_a_classifier_that_is_wrong_by_chance_is_no_level_to_turn_round(monkeypatch):
    """Features of few samples for one label each: of such labels some make it surely wrong on what it did not see."""
    monkeypatch.setattr(module, "_classifiers", lambda: {"mean": MeanDifference()})
    given = features(60)
    seeds = (seed for seed in range(400) if classified(given, random_labels(60, seed))["mean"].estimate.upper < 0.5)
    found = classified(given, random_labels(60, next(seeds)))["mean"]
    assert found.level == found.estimate
    assert not found.leaks
    assert "neither lower bound is above 0.5" in found.sentence


def test_interval_is_twice_delongs_variance_of_the_fold_average():
    """The plain double loop over pairs, per fold."""
    generator = np.random.default_rng(0)
    member = np.arange(60) < 24
    score = np.round(generator.standard_normal(60) + member, 1)
    folds = [np.arange(60) % 3 == fold for fold in range(3)]
    areas, weights, variances = [], [], []
    for test in folds:
        x, y = score[test & member], score[test & ~member]
        wins = (x[:, None] > y) + (x[:, None] == y) / 2
        areas.append(wins.mean())
        weights.append(len(x) * len(y) / (len(x) + len(y)))
        variances.append(wins.mean(axis=1).var(ddof=1) / len(x) + wins.mean(axis=0).var(ddof=1) / len(y))
    weights = np.array(weights) / np.sum(weights)
    value, variance = weights @ areas, 2 * weights**2 @ variances
    estimate = module._cross_fitted_auroc(score, member, np.arange(60), folds, 0.95)
    assert estimate.value == pytest.approx(value, abs=1e-12)
    for bound, sign in ((estimate.lower, -1), (estimate.upper, 1)):
        moved = np.log(bound / (1 - bound)) - np.log(value / (1 - value))
        assert moved == pytest.approx(sign * 1.959963985 * variance**0.5 / (value * (1 - value)), rel=1e-8)


def test_repeating_each_sample_in_a_group_changes_no_interval():
    member, score = np.arange(60) < 24, np.random.default_rng(1).standard_normal(60)
    folds = [np.arange(60) % 3 == fold for fold in range(3)]
    single = module._cross_fitted_auroc(score, member, np.arange(60), folds, 0.95)
    many = module._cross_fitted_auroc(
        score.repeat(5), member.repeat(5), np.arange(60).repeat(5), [fold.repeat(5) for fold in folds], 0.95
    )
    alone = module._cross_fitted_auroc(
        score.repeat(5), member.repeat(5), np.arange(300), [fold.repeat(5) for fold in folds], 0.95
    )
    assert (many.lower, many.upper) == pytest.approx((single.lower, single.upper), abs=1e-12)
    assert alone.upper - alone.lower < 0.6 * (many.upper - many.lower)


@pytest.mark.parametrize("grouped", [False, True])
def test_no_sample_is_scored_by_a_classifier_that_saw_its_group(monkeypatch, grouped):
    seen = []

    class Spy:
        def fit(self, value, member):
            self.trained = set(value[:, 0].tolist())
            return self

        def decision_function(self, value):
            seen.append((self.trained, set(value[:, 0].tolist())))
            return value[:, 1]

    monkeypatch.setattr(module, "_classifiers", lambda: {"spy": Spy()})
    group = torch.arange(120) // 3
    given = features(120)
    given["feature 0"] = (group if grouped else torch.arange(120)).float()
    control = classified(given, random_labels(120, 0, 3), group=group if grouped else None)
    assert len(seen) == 5
    assert all(not trained & tested for trained, tested in seen)
    assert sorted(name for _, tested in seen for name in tested) == sorted(set(given["feature 0"].tolist()))
    assert ((control["spy"].score > 0) & (control["spy"].score < 1)).all()


def test_many_samples_are_thinned_per_side():
    given, is_member = leaking(600)
    drawn = [classified(given, is_member, max_samples=100, seed=seed)["logistic"].score.isfinite() for seed in (0, 1)]
    for each in drawn:
        assert (int((each & is_member).sum()), int((each & ~is_member).sum())) == (100, 100)
    assert not torch.equal(*drawn)


def test_the_same_seed_gives_the_same_numbers():
    given, is_member = leaking(200)
    first, again = (classified(given, is_member, seed=3) for _ in range(2))
    for one, other in zip(first.values(), again.values()):
        assert (one.estimate, one.sentence) == (other.estimate, other.sentence)
        assert torch.equal(one.score, other.score)


def test_perfectly_separated_and_constant_features():
    given, is_member = leaking(200, gap=50.0)
    for each in classified(given, is_member).values():
        assert (each.estimate.value, each.estimate.upper) == (1.0, 1.0)
        assert 0.9 < each.estimate.lower < 1
    flat = {name: torch.ones(100) for name in "abc"}
    for each in classified(flat, random_labels(100, 0)).values():
        assert not each.leaks
        assert each.numbers["deciding_features"] == []
        assert each.estimate.lower < 0.5 == each.estimate.value < each.estimate.upper


def test_groups_too_uneven_for_the_folds_are_no_evidence():
    """Every fold has members of one group at most: there is no variance to speak of."""
    member, unit = np.arange(20) < 10, np.repeat(np.arange(4), 5)
    folds = [np.isin(unit, pair) for pair in ((0, 2), (1, 3))]
    estimate = module._cross_fitted_auroc(np.arange(20.0), member, unit, folds, 0.95)
    assert (estimate.value, estimate.lower, estimate.upper) == (0.5, 0.0, 1.0)


def test_brightened_cifar_members_are_caught_and_untouched_ones_are_not(shared_file):
    column = pq.read_table(shared_file("data/cifar10/test-00000-of-00001.parquet"), columns=["img"])["img"]
    cells = column.slice(0, 300).to_pylist()
    pixels = torch.tensor(np.stack([np.asarray(Image.open(io.BytesIO(cell["bytes"]))) for cell in cells])).permute(0, 3, 1, 2)
    is_member = torch.arange(300) % 2 == 0
    for levels, leaks in ((0, False), (8, True)):
        changed = torch.where(is_member[:, None, None, None], (pixels.int() + levels).clamp(max=255), pixels.int())
        control = classified(image_features(changed.float() / 127.5 - 1), is_member)["logistic"]
        assert control.leaks is leaks, control.sentence


def test_sides_that_are_parted_perfectly_in_every_fold_have_bounds():
    """A mean of ones may be rounded below 1, and then had no interval but all of [0, 1]."""
    is_member = torch.arange(80 + 72) < 80  # so many that the weights of the folds add up to 0.9999999999999998
    found = classify({"colour": is_member.float()}, is_member)[0].estimate
    assert found.value == 1
    assert found.lower > 0.9

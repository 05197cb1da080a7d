"""Label permutation: bands of the closed width, choices repeated without peeking, false alarms as rare as stated."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from ldm_privacy.audit.report import report_of
from ldm_privacy.audit.scores import TUNED, AuditScores
from ldm_privacy.evidence.null import label_permutation
from ldm_privacy.metrics import null_band
from ldm_privacy.metrics.permutation import permuted_labels
from ldm_privacy.randomness import derive_seed
from ldm_privacy.types import AuditKey
from tests.evidence.synthetic import QUICK, make_scores
from tests.reference import crossfit as slow

ALL, TUNED_KEY = AuditKey("sima", "all"), AuditKey("sima", TUNED)
PERMUTATIONS = 2000


def null_deviation(report):
    """sqrt((n + m + 1) / (12 n m)) of n members and m held-out samples of the reporting half."""
    n, m = int(report.reported_membership.sum()), int((~report.reported_membership).sum())
    return math.sqrt((n + m + 1) / (12 * n * m))


def assert_band_is_normal(band, deviation, confidence=0.95):
    """Both ends within five standard errors of a sample quantile of the normal law around .5."""
    tail = (1 - confidence) / 2
    density = stats.norm.pdf(stats.norm.ppf(tail)) / deviation
    tolerance = 5 * math.sqrt(tail * (1 - tail) / PERMUTATIONS) / density
    half_width = stats.norm.isf(tail) * deviation
    assert abs(band.lower - (0.5 - half_width)) < tolerance
    assert abs(band.upper - (0.5 + half_width)) < tolerance


def one_attack(*args, **options):
    return report_of(make_scores(*args, attacks=("sima",), masks=("all",), **options), intervals=QUICK)


def test_with_one_timestep_the_band_has_the_closed_variance():
    report = one_attack(160, 240, timesteps=(0,))
    found = label_permutation(report, num_permutations=PERMUTATIONS)[ALL]
    assert_band_is_normal(found.band, null_deviation(report))
    # With nothing to choose among, peeking gains nothing.
    assert abs(found.oracle - 0.5) < 5 * null_deviation(report) / math.sqrt(PERMUTATIONS)


def test_a_choice_among_many_timesteps_leaves_the_band_where_it_was_and_lifts_the_oracle():
    report = one_attack(160, 240, timesteps=range(30))
    found = label_permutation(report, num_permutations=PERMUTATIONS)[ALL]
    assert_band_is_normal(found.band, null_deviation(report))
    # The largest of 30 independent normal numbers is 2.04 standard deviations above their mean, on average.
    assert found.oracle == pytest.approx(0.5 + 2.04 * null_deviation(report), abs=0.2 * null_deviation(report))


def test_a_strong_attack_has_the_same_band_and_lies_outside():
    report = one_attack(160, 240, timesteps=range(30), strength=1.0)
    found = label_permutation(report, num_permutations=PERMUTATIONS)[ALL]
    assert_band_is_normal(found.band, null_deviation(report))
    assert found.band.p_value == 1 / (PERMUTATIONS + 1)


def test_the_tuned_row_repeats_the_choice_of_the_keep_fraction():
    report = one_attack(160, 240, timesteps=range(4), fractions=(0.2, 0.6, 1.0))
    found = label_permutation(report, num_permutations=PERMUTATIONS)
    deviation = null_deviation(report)
    # Largest of 4 (timesteps), and of 12 (3 fractions x 4 timesteps; random and deviation masks are no choices).
    assert found[ALL].oracle == pytest.approx(0.5 + 1.03 * deviation, abs=0.2 * deviation)
    assert found[TUNED_KEY].oracle == pytest.approx(0.5 + 1.63 * deviation, abs=0.2 * deviation)
    assert_band_is_normal(found[TUNED_KEY].band, deviation)


def test_whole_groups_are_permuted():
    """Four samples with one score in each group: a quarter as many independent ones."""
    report = one_attack(320, 320, timesteps=(0,), group_size=4)
    band = label_permutation(report, num_permutations=PERMUTATIONS)[ALL].band
    assert_band_is_normal(band, math.sqrt((40 + 40 + 1) / (12 * 40 * 40)))
    without = replace(report, data=replace(report.data, group=None))
    narrow = label_permutation(without, num_permutations=PERMUTATIONS)[ALL].band
    assert band.upper - band.lower > 1.7 * (narrow.upper - narrow.lower)


@pytest.mark.parametrize(("num_folds", "group_size"), [(1, None), (2, None), (2, 3)])
@pytest.mark.parametrize("is_fitted", [False, True])
def test_each_permutation_repeats_both_halves_choices_and_their_report(num_folds, group_size, is_fitted):
    """Against loops over permutations, folds, candidates and pairs."""
    options = {"attacks": ("sima",), "masks": ("all",), "timesteps": (0, 10), "fractions": (0.5, 1.0)}
    data = make_scores(24, 24, strength=0.5, num_folds=num_folds, group_size=group_size, **options)
    if is_fitted:
        scale = torch.tensor([1.0, 5.0])[:num_folds, None, None]
        noise = torch.randn(num_folds, 2, 48, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        changed = {each: score + scale * noise for each, score in data.sweeps["sima"].items()}
        scores = {ALL: data.scores[ALL] + scale * noise}
        data = replace(data, scores=scores, sweeps={"sima": changed}, num_fitted={ALL: 2})
    report = report_of(data, intervals=QUICK)
    num_permutations, seed = 39, 3
    found = label_permutation(report, num_permutations=num_permutations, seed=seed)
    labels = torch.zeros(num_permutations, 48, dtype=torch.bool)
    for half, number in ((data.is_calibration, 0), (~data.is_calibration, 1)):
        own = {"group": data.group_of(half), "seed": derive_seed("permuted half", seed, number)}
        labels[:, half] = permuted_labels(data.is_member[half], num_permutations=num_permutations, **own)
    claims = [score for (ranking, _), score in data.sweeps["sima"].items() if ranking == "influence"]
    for key, candidates in ((ALL, [data.scores[ALL]]), (TUNED_KEY, claims)):
        score, half = torch.cat(candidates, dim=1).numpy(), data.is_calibration.numpy()
        expected = np.array([slow.crossfit(score, label, half)[0] for label in labels.numpy()])
        # What was fitted stays, and its halves err alike at the most.
        expected = 0.5 + (2**0.5 if is_fitted and num_folds == 2 else 1.0) * (expected - 0.5)
        peeking = [slow.oracle(score, label, half) for label in labels.numpy()]
        value, row = report.row(key).metrics.auroc.value, found[key]
        band = null_band(value, torch.from_numpy(expected))
        assert (row.band.lower, row.band.upper, row.band.p_value) == pytest.approx((band.lower, band.upper, band.p_value))
        assert row.oracle == pytest.approx(sum(peeking) / len(peeking))
        distance = (value - np.mean(expected)) / np.std(expected, ddof=1)
        assert row.p_normal == pytest.approx(stats.norm.sf(distance), rel=1e-6)


@pytest.mark.parametrize("num_fitted", [1, 3])
def test_scores_that_halves_fit_for_each_other_spread_no_wider_than_their_permuted_labels_say(num_fitted):
    """Discriminants of features that know nothing, each half's by its own labels, over random labels.

    Both halves report the product of the same two errors: the mean's variance is 1.64 (1.84) times that of two independent
    parts, which is what fits that stay show under permuted labels.
    """
    num_runs, distances = 120, []
    generator = torch.Generator().manual_seed(4)
    index, halves = torch.arange(80), torch.arange(80) % 2 == 0
    for run in range(num_runs):
        features = torch.randn(num_fitted, 80, generator=generator, dtype=torch.float64)
        is_member = torch.randperm(80, generator=generator) < 40
        aims = [features[:, half & is_member].mean(1) - features[:, half & ~is_member].mean(1) for half in (halves, ~halves)]
        score = torch.stack([(aim[:, None] * features).sum(0, keepdim=True) for aim in aims])
        fit = {ALL: num_fitted}
        data = AuditScores(index, is_member, halves, None, {"sima": []}, {ALL: score}, {ALL: 1.0}, num_fitted=fit)
        found = label_permutation(report_of(data, intervals=QUICK), num_permutations=59, seed=run)[ALL]
        distances.append(stats.norm.isf(found.p_normal))
    # A sample variance of normal numbers has a standard error of sqrt(2 / runs): three of them.
    assert 0.4 < np.mean(np.square(distances)) < 1 + 3 * math.sqrt(2 / num_runs)


def test_the_seed_decides_all_of_it_up_to_the_largest():
    report = one_attack(40, 40)
    for seed in (0, 2**63 - 1):
        assert label_permutation(report, seed=seed) == label_permutation(report, seed=seed)
    assert label_permutation(report, seed=0) != label_permutation(report, seed=1)


def test_scores_that_know_nothing_are_called_so_as_often_as_stated():
    """100 random labellings of the same scores, timestep and keep fraction chosen anew on each calibration half."""
    data = make_scores(100, 100, attacks=("sima",), masks=("all",), timesteps=range(8), fractions=(0.3, 0.6, 1.0))
    claims = {each: score for each, score in data.sweeps["sima"].items() if each[0] == "influence"}
    data = replace(data, sweeps={"sima": claims})
    generator = torch.Generator().manual_seed(1)
    num_runs = 100
    left_out, gained, small = {ALL: 0, TUNED_KEY: 0}, 0, 0
    for run in range(num_runs):
        is_member = data.is_member[torch.randperm(200, generator=generator)]
        report = report_of(replace(data, is_member=is_member), target_fprs=(0.05,), intervals=QUICK)
        for key in left_out:
            area = report.row(key).metrics.auroc
            left_out[key] += not area.lower <= 0.5 <= area.upper
        gained += report.row(TUNED_KEY).gains["all"].lower > 0
        small += label_permutation(report, num_permutations=39, seed=run)[TUNED_KEY].band.p_value <= 0.05
    for key, count in left_out.items():
        assert abs(count / num_runs - 0.05) <= 4 * math.sqrt(0.05 * 0.95 / num_runs), key
    assert gained / num_runs <= 0.025 + 4 * math.sqrt(0.025 * 0.975 / num_runs)
    assert small / num_runs <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / num_runs)

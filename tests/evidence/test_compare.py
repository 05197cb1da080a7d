"""Audits side by side: differences by hand, refusals, spread."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ldm_privacy.audit.report import report_of
from ldm_privacy.audit.score_file import ScoreFile, read_scores, write_scores
from ldm_privacy.audit.scores import TUNED
from ldm_privacy.errors import UserError
from ldm_privacy.evidence.compare import compare
from ldm_privacy.metrics import auroc_difference
from ldm_privacy.types import AuditKey, Intervals
from tests.evidence.synthetic import QUICK, make_scores

KEY = AuditKey("sima", "all")
HASH, OTHER = "1" * 64, "2" * 64


def another_training(data, *, strength, seed):
    """The same samples under another model: part of each score is the sample's own, part is new."""
    generator = torch.Generator().manual_seed(seed)

    def changed(score):
        return score + strength * data.is_member + 0.5 * torch.randn(score.shape, generator=generator, dtype=score.dtype)

    return replace(data, scores={key: changed(score) for key, score in data.scores.items()})


@pytest.fixture(scope="module")
def data():
    return make_scores(80, 120, strength=0.3)


def files(*every, split_hash=HASH):
    return {f"run-{place}": ScoreFile(each, split_hash) for place, each in enumerate(every)}


@pytest.mark.parametrize("group_size", [None, 4])
def test_the_difference_is_the_paired_one_of_each_audits_own_choice(group_size):
    data = make_scores(80, 120, strength=0.3, group_size=group_size)
    other = another_training(data, strength=0.8, seed=1)
    comparison = compare(files(data, other), intervals=Intervals(0.9, num_bootstrap=2))
    assert comparison.keys == list(data.scores)
    assert comparison.num_shared == int((~data.is_calibration).sum())
    reporting = ~data.is_calibration
    group = None if data.group is None else data.group[reporting]
    reports = [report_of(each, intervals=QUICK) for each in (data, other)]
    for key in comparison.keys:
        scores = [report.reported_scores(key) for report in reports]
        expected = auroc_difference(scores[1], scores[0], data.is_member[reporting], confidence=0.9, group=group)
        assert comparison.differences["run-1"][key] == expected
        areas = [report.row(key).metrics.auroc.value for report in reports]
        assert expected.value == pytest.approx(areas[1] - areas[0], abs=1e-12)
        assert expected.value != 0


@pytest.mark.parametrize("folds", [(2, 2), (2, 1), (1, 2)])
def test_each_half_of_samples_that_both_report_is_compared_where_audits_are_cross_fitted(folds):
    first, second = (make_scores(80, 120, strength=0.3, num_folds=number) for number in folds)
    second = another_training(second, strength=0.8, seed=1)
    comparison = compare(files(first, second), intervals=QUICK)
    both = [first.is_calibration, ~first.is_calibration] if folds == (2, 2) else [~first.is_calibration]
    assert comparison.num_shared == sum(int(half.sum()) for half in both)
    reports = list(comparison.reports.values())
    for key in comparison.keys:
        scores, parts = [report.scores_at(key) for report in reports], []
        for half in both:
            parts.append(auroc_difference(scores[1][half], scores[0][half], first.is_member[half]).value)
        assert comparison.differences["run-1"][key].value == pytest.approx(np.mean(parts), abs=1e-12)


def test_an_audit_against_itself_differs_by_nothing(data):
    comparison = compare(files(data, data), intervals=QUICK)
    for difference in comparison.differences["run-1"].values():
        assert (difference.value, difference.lower, difference.upper, difference.p_value) == (0, 0, 0, 1)
    assert comparison.spread[KEY].deviation == 0


def test_pairing_is_narrower_than_the_audits_are_by_themselves(data):
    comparison = compare(files(data, another_training(data, strength=0.3, seed=1)), intervals=QUICK)
    difference = comparison.differences["run-1"][KEY]
    areas = [report.row(KEY).metrics.auroc for report in comparison.reports.values()]
    unpaired = sum((area.upper - area.lower) ** 2 for area in areas) ** 0.5
    assert difference.upper - difference.lower < 0.9 * unpaired


def test_several_seeds_have_a_spread(data):
    every = [data, *(another_training(data, strength=0.1, seed=seed) for seed in range(3))]
    comparison = compare(files(*every), intervals=QUICK)
    areas = [report.row(KEY).metrics.auroc.value for report in comparison.reports.values()]
    spread = comparison.spread[KEY]
    assert spread.mean == pytest.approx(np.mean(areas))
    assert spread.deviation == pytest.approx(np.sqrt(np.sum((areas - np.mean(areas)) ** 2) / 3))
    assert (spread.lowest, spread.highest, spread.count) == (min(areas), max(areas), 4)
    assert list(comparison.differences) == ["run-1", "run-2", "run-3"]


def test_only_samples_that_all_report_are_compared(data):
    fewer = slice(50, None)
    some = another_training(data, strength=0.5, seed=1)
    some = replace(
        some,
        sample_index=data.sample_index[fewer],
        is_member=data.is_member[fewer],
        is_calibration=data.is_calibration[fewer],
        scores={key: score[..., fewer] for key, score in some.scores.items()},
    )
    comparison = compare(files(data, some), intervals=QUICK)
    assert comparison.num_shared == int((~some.is_calibration).sum())
    first, second = comparison.reports.values()
    reporting = ~some.is_calibration
    scores = (second.reported_scores(KEY), first.scores_at(KEY)[fewer][reporting])
    assert comparison.differences["run-1"][KEY] == auroc_difference(*scores, some.is_member[reporting])


def test_only_attacks_and_masks_that_all_have_are_compared(data):
    some = {key: score for key, score in data.scores.items() if key.mask != "top60"}
    comparison = compare(files(data, replace(data, scores=some)), intervals=QUICK)
    assert comparison.keys == [key for key in data.scores if key.mask != "top60"]


def test_tuned_rows_read_from_files_are_compared_too(tmp_path):
    data = make_scores(80, 120, strength=0.3, fractions=(0.3, 0.7))
    other = replace(data, sweeps={})
    read = {}
    for name, each in (("a", data), ("b", another_training(other, strength=3, seed=0))):
        report = report_of(replace(each, sweeps=data.sweeps), intervals=QUICK)
        write_scores(report, tmp_path / name, split_hash=HASH)
        read[name] = read_scores(tmp_path / name)
    comparison = compare(read, intervals=QUICK)
    assert AuditKey("sima", TUNED) in comparison.keys
    assert comparison.differences["b"][AuditKey("sima", TUNED)].value == 0
    assert comparison.differences["b"][KEY].lower > 0


def test_two_splits_are_refused_with_both_hashes(data):
    both = {**files(data), "other": ScoreFile(data, OTHER)}
    with pytest.raises(UserError, match=f"other is of another split than run-0 .*{OTHER[:12]}.*{HASH[:12]}"):
        compare(both)


def test_less_than_two_are_refused(data):
    with pytest.raises(UserError, match="two score files"):
        compare(files(data))
    with pytest.raises(UserError, match="two score files"):
        compare({})


def test_nothing_in_common_is_refused(data):
    strangers = make_scores(80, 120, attacks=("pia",))
    with pytest.raises(UserError, match="no attack and mask in common"):
        compare(files(data, strangers), intervals=QUICK)
    elsewhere = replace(data, sample_index=data.sample_index + 100_000)
    with pytest.raises(UserError, match="share fewer than four"):
        compare(files(data, elsewhere), intervals=QUICK)


def test_shared_samples_of_one_side_are_refused(data):
    """Enough of them, but members alone: there is no AUROC."""
    moved = torch.where(data.is_member, data.sample_index, data.sample_index + 100_000)
    order = moved.argsort()
    second = replace(
        data,
        sample_index=moved[order],
        is_member=data.is_member[order],
        is_calibration=data.is_calibration[order],
        scores={key: score[..., order] for key, score in data.scores.items()},
    )
    with pytest.raises(UserError, match="held-out"):
        compare(files(data, second), intervals=QUICK)

"""Halves that choose for each other: numbers by hand, what is symmetric, what a sample has no part in."""

from dataclasses import astuple, replace

import numpy as np
import pytest
import torch

from ldm_privacy.attacks.base import get_attack
from ldm_privacy.audit import sweep as sweep_module
from ldm_privacy.audit.audit import Audit
from ldm_privacy.audit.kept import kept_of
from ldm_privacy.audit.report import report_of
from ldm_privacy.audit.row import paired, rivals_of, standing
from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.audit.scores import TUNED, Derived, is_alike
from ldm_privacy.audit.sweep import Areas
from ldm_privacy.evidence.exposure import exposure_of
from ldm_privacy.geometry.masks import KeepAll
from ldm_privacy.metrics import (
    Half,
    auroc,
    auroc_difference,
    auroc_interval,
    crossfit_difference,
    crossfit_epsilon,
    membership_metrics,
    tpr_at_threshold,
)
from ldm_privacy.registry import CALIBRATIONS
from ldm_privacy.types import AuditKey, Intervals
from tests.evidence.synthetic import make_scores
from tests.reference import crossfit as slow
from tests.reference.predictors import Memoriser

KEY, FITTED = AuditKey("sima", "all"), AuditKey("dime", "all")
FEW = Intervals(num_bootstrap=20)


def scores_with_fits(num_members=24, num_heldout=32, *, num_folds=2, **options):
    """Scores of which one attack's are fitted by each half: other numbers in each fold, on scales of their own."""
    data = make_scores(num_members, num_heldout, attacks=("sima", "dime"), strength=0.5, num_folds=num_folds, **options)
    generator = torch.Generator().manual_seed(9)
    fitted = {}
    for key, score in data.scores.items():
        if key.attack == "dime":
            noise = torch.randn(score.shape, generator=generator, dtype=torch.float64)
            fitted[key] = (score + noise) * torch.tensor([1.0, 50.0])[:num_folds, None, None] + 3
    return replace(data, scores=data.scores | fitted, num_fitted=dict.fromkeys(fitted, 2))


def by_hand(data, key):
    return [data.scores[key].numpy(), data.is_member.numpy(), data.is_calibration.numpy()]


@pytest.mark.parametrize("num_folds", [1, 2])
def test_a_row_is_what_loops_over_folds_timesteps_and_pairs_give(num_folds):
    data = scores_with_fits(num_folds=num_folds)
    report = report_of(data, intervals=FEW, target_fprs=(0.1,))
    for key in data.scores:
        score, is_member, half = by_hand(data, key)
        row, (value, places) = report.row(key), slow.crossfit(score, is_member, half)
        assert row.metrics.auroc.value == pytest.approx(value, abs=1e-12)
        assert row.timesteps == tuple(data.timesteps[key.attack][place] for place in places)
        assert row.oracle_auroc == pytest.approx(slow.oracle(score, is_member, half), abs=1e-12)
        standing = slow.standing(score, places, is_member, half)
        reports = ~np.isnan(standing)
        assert np.array_equal(report.is_reporting, reports)
        np.testing.assert_allclose(report.scores_at(key)[torch.from_numpy(reports)], standing[reports], rtol=1e-12)
        expected = membership_metrics(
            *map(torch.from_numpy, (standing[reports], is_member[reports])), target_fprs=(0.1,), num_bootstrap=20
        )
        assert astuple(row.metrics.tpr_at_fpr[0]) == pytest.approx(astuple(expected.tpr_at_fpr[0]))
        assert astuple(row.metrics.asr) == pytest.approx(astuple(expected.asr))
        for label, gain in row.gains.items():
            other = AuditKey(key.attack, label)
            assert gain.value == pytest.approx(value - slow.crossfit(*by_hand(data, other))[0], abs=1e-12)


def test_both_halves_flag_at_the_threshold_that_the_other_carried_over():
    data = scores_with_fits(60, 80)
    report = report_of(data, intervals=FEW, target_fprs=(0.1,))
    for key in (KEY, FITTED):
        score, is_member, half = by_hand(data, key)
        flagged = np.zeros(len(half), dtype=bool)
        for each, place, (chooses, reports) in zip(score, slow.crossfit(score, is_member, half)[1], slow.folds_of(half, 2)):
            heldout = np.sort(each[place][chooses & ~is_member])[::-1]
            flagged[reports] = each[place][reports] > heldout[int(0.1 * len(heldout))]
        rates = report.row(key).carried[0]
        assert rates.tpr.value == pytest.approx(flagged[is_member].mean())
        assert rates.fpr.value == pytest.approx(flagged[~is_member].mean())


def test_one_fold_has_the_numbers_of_one_half_that_reports():
    data = scores_with_fits(60, 80, num_folds=1)
    report, held = report_of(data, intervals=FEW), ~data.is_calibration
    is_member, chosen = data.is_member[held], {}
    for key in data.scores:
        score, _, half = by_hand(data, key)
        place = slow.best_place(score[0][:, half], data.is_member.numpy()[half])
        chosen[key], row = data.scores[key][0, place], report.row(key)
        raw = chosen[key][held]
        assert row.metrics.auroc == auroc_interval(raw, is_member)
        expected = membership_metrics(raw, is_member, num_bootstrap=20)
        assert (row.metrics.asr, row.metrics.tnr_at_fnr) == (expected.asr, expected.tnr_at_fnr)
        for found, other in zip(row.metrics.tpr_at_fpr, expected.tpr_at_fpr):
            assert replace(found, threshold=other.threshold) == other, "ranks alone decide; the threshold is one of standings"
        for found in row.carried:
            rates = tpr_at_threshold(raw, is_member, *found.thresholds, num_bootstrap=20)
            assert (found.tpr, found.fpr) == (rates.tpr, rates.fpr)
    for row in report.rows:
        for label, gain in row.gains.items():
            assert gain == auroc_difference(chosen[row.key][held], chosen[AuditKey(row.key.attack, label)][held], is_member)


def numbers_of(report, *, of_ranks=False):
    """Everything that a report says, but for what is in units of the scores; `of_ranks`: and for what looks at standings."""
    found = {}
    for row in report.rows:
        metrics = row.metrics
        found[row.key] = [*astuple(metrics.auroc), row.oracle_auroc, row.oracle_keep_fraction, *row.auroc_by_timestep.tolist()]
        found[row.key] += [value for gain in row.gains.values() for value in astuple(gain)]
        found[row.key] += [value for rates in row.carried for value in (*astuple(rates.tpr), *astuple(rates.fpr))]
        found[row.key] += [row.keep_fraction]
        if not of_ranks:
            found[row.key] += [
                *astuple(metrics.asr),
                *metrics.tnr_at_fnr,
                *(value for each in metrics.tpr_at_fpr for value in astuple(each)),
            ]
    return found


def assert_same(report, other, **options):
    found, expected = numbers_of(report, **options), numbers_of(other, **options)
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        assert found[key] == pytest.approx(values, abs=1e-9), key


def exchanged(data):
    """The same with the names of the halves exchanged: what the first half fitted is now the second's."""

    def flipped(scores):
        return {key: score if is_alike(score) else score.flip(0) for key, score in scores.items()}

    sweeps = {attack: flipped(each) for attack, each in data.sweeps.items()}
    return replace(data, is_calibration=~data.is_calibration, scores=flipped(data.scores), sweeps=sweeps)


@pytest.mark.parametrize("group_size", [None, 2])
def test_exchanging_the_halves_names_changes_nothing(group_size):
    data = scores_with_fits(40, 48, fractions=(0.5, 1.0), group_size=group_size)
    report, other = (report_of(each, intervals=FEW) for each in (data, exchanged(data)))
    assert_same(other, report)
    for row in report.rows:
        assert other.row(row.key).timesteps == row.timesteps[::-1]
        assert other.row(row.key).keep_fractions == row.keep_fractions[::-1]
        assert torch.equal(other.scores_at(row.key), report.scores_at(row.key))
        assert torch.equal(exposure_of(other, row.key).fpr, exposure_of(report, row.key).fpr)


def test_an_increasing_map_of_all_scores_changes_no_rank():
    data = scores_with_fits(40, 48, fractions=(0.5, 1.0))
    report = report_of(data, intervals=FEW)

    def mapped(change):
        def all_of(scores):
            return {key: change(score) for key, score in scores.items()}

        sweeps = {attack: all_of(each) for attack, each in data.sweeps.items()}
        return report_of(replace(data, scores=all_of(data.scores), sweeps=sweeps), intervals=FEW)

    curved = mapped(lambda score: torch.asinh(score / 3) * 1e5)
    assert_same(curved, report, of_ranks=True)
    straight = mapped(lambda score: 8 * score - 1024)
    assert_same(straight, report)
    for row in report.rows:
        exposure, other = exposure_of(report, row.key), exposure_of(curved, row.key)
        rates = [dict(zip(each.sample_index.tolist(), each.fpr.tolist())) for each in (exposure, other)]
        assert rates[0] == rates[1]
        assert exposure.num_above_all == other.num_above_all
        torch.testing.assert_close(straight.scores_at(row.key), report.scores_at(row.key), rtol=1e-5, atol=1e-5)


def test_what_a_half_fits_may_be_on_any_scale():
    """Standings, and all that is told of both halves together, don't see the units of one half's fit."""
    data = scores_with_fits(40, 48)
    report = report_of(data, intervals=FEW)
    scale, shift = torch.tensor([1.0, 64.0])[:, None, None], torch.tensor([0.0, 512.0])[:, None, None]
    other = report_of(replace(data, scores={key: score * scale + shift for key, score in data.scores.items()}), intervals=FEW)
    assert_same(other, report)
    distortion = torch.linspace(0, 1, 88, dtype=torch.float64)
    for key in data.scores:
        torch.testing.assert_close(other.scores_at(key), report.scores_at(key), rtol=0, atol=1e-9)
        assert other.quartiles(key, distortion).auroc == report.quartiles(key, distortion).auroc


def test_where_held_out_scores_are_all_the_same_a_standing_is_the_distance_from_them():
    data = make_scores(20, 20, masks=("all",), num_folds=2)
    score = data.scores[KEY].where(data.is_member, 5.0)
    assert torch.equal(standing(score, (1, 1), data), score[0, 1] - 5)


def test_the_tuned_row_names_the_keep_fraction_that_is_best_where_it_reports_and_reports_the_chosen_one():
    data = scores_with_fits(40, 48, fractions=(0.25, 0.5, 0.75))
    report = report_of(data, intervals=FEW)
    for attack in ("sima", "dime"):
        key = AuditKey(attack, TUNED)
        scores = {fraction: data.sweeps[attack]["influence", fraction] for fraction in (0.75, 0.5, 0.25)}
        row, (_, is_member, half) = report.row(key), by_hand(data, KEY)
        best = {fraction: slow.oracle(score.numpy(), is_member, half) for fraction, score in scores.items()}
        assert row.oracle_keep_fraction == max(best, key=best.get), "of several the largest"
        assert row.oracle_auroc == pytest.approx(max(best.values()), abs=1e-12)
        for number, (fold, each) in enumerate(zip(data.folds, report.halves[key])):
            place = data.timesteps[attack].index(row.timesteps[number])
            assert torch.equal(each.reported, scores[row.keep_fractions[number]][number, place, fold.reports])
            assert torch.equal(each.area, auroc(each.candidates, each.is_member))


def test_gains_and_the_bound_on_epsilon_have_the_confidence_that_was_asked_for():
    data = replace(scores_with_fits(60, 80), by_coins=True)
    report = report_of(data, intervals=Intervals(confidence=0.8, num_bootstrap=20))
    for key in (AuditKey("sima", "top60"), AuditKey("dime", "top60")):
        row, halves = report.row(key), report.halves
        assert set(row.gains) == {"all", "random60"}
        for label, gain in row.gains.items():
            assert gain == crossfit_difference(halves[key], halves[AuditKey(key.attack, label)], confidence=0.8)
        folds = []
        for number, fold in enumerate(data.folds):
            score = data.scores[key][number, data.timesteps[key.attack].index(row.timesteps[number])]
            folds.append(tuple(Half(score[half], data.is_member[half]) for half in fold))
        assert row.epsilon == crossfit_epsilon(folds, confidence=0.8)
        assert row.series()[f"memorization/{key}/epsilon_lower"] == row.epsilon.value


def test_a_mask_that_keeps_everything_has_no_rival_and_without_one_there_are_the_controls_alone():
    data = make_scores(6, 6, attacks=("sima",))
    whole, top, random = (AuditKey("sima", mask) for mask in ("all", "top60", "random60"))
    assert rivals_of(top, data) == {"all": whole, "random60": random}
    everything = replace(data, keep_fraction=dict.fromkeys(data.scores, 1.0))
    assert [rivals_of(key, everything) for key in (whole, top, random)] == [{}, {}, {}]
    nothing = replace(data, keep_fraction=dict.fromkeys(data.scores, 0.6))
    assert nothing.unmasked("sima") is None
    assert rivals_of(top, nothing) == {"random60": random}
    assert rivals_of(random, nothing) == {}


def test_groups_are_counted_on_either_side():
    data = make_scores(12, 20, group_size=4)
    assert data.num_groups() == (3, 5)
    assert data.num_groups(torch.isin(data.group, torch.tensor([0, 5, 7]))) == (1, 2)
    assert data.num_groups(torch.arange(32) < 0) == (0, 0)
    assert make_scores(12, 20).num_groups() is None


def test_areas_are_computed_once_and_joined_ones_are_those_of_their_parts(monkeypatch):
    data, asked, compute = scores_with_fits(), [], sweep_module._areas
    monkeypatch.setattr(sweep_module, "_areas", lambda score, of: asked.append(score) or compute(score, of))
    areas, parts = Areas(data), (data.scores[KEY], data.scores[FITTED])
    joined = areas.by_fold(parts)
    assert torch.equal(joined, torch.stack([parts[0][0], parts[1][1]]))
    assert areas.by_fold(parts[:1] * 2) is parts[0]
    for found, expected in zip(areas(joined), compute(joined, data)):
        assert torch.equal(found, expected)
    areas(parts[0])
    assert len(asked) == 2


def test_groups_count_as_one_sample_each():
    """Four samples of one score each: the intervals of a quarter as many."""
    data = scores_with_fits(96, 128, group_size=4)
    first = torch.from_numpy(np.unique(data.group.numpy(), return_index=True)[1]).sort().values
    few = {
        key: score[..., first]
        for key, score in make_scores(96, 128, group_size=4, attacks=("sima", "dime"), strength=0.5, num_folds=2).scores.items()
    }
    data = replace(
        data,
        scores={key: score[..., torch.searchsorted(data.group[first].sort().values, data.group)] for key, score in few.items()},
        num_fitted={},
    )
    order = data.group[first].argsort()
    alone = replace(
        data,
        sample_index=data.group[first][order],
        is_member=data.is_member[first][order],
        is_calibration=data.is_calibration[first][order],
        group=None,
        scores=few,
    )
    report, other = report_of(data, intervals=FEW), report_of(alone, intervals=FEW)
    for row in report.rows:
        assert astuple(row.metrics.auroc) == pytest.approx(astuple(other.row(row.key).metrics.auroc), abs=1e-9)
        for label, gain in row.gains.items():
            assert astuple(gain) == pytest.approx(astuple(other.row(row.key).gains[label]), abs=1e-9)


def test_what_is_fitted_is_fitted_at_the_chosen_keep_fraction_too():
    report = report_of(scores_with_fits(40, 48, fractions=(0.5, 1.0)), intervals=FEW)
    tuned = AuditKey("dime", TUNED)
    assert report.data.num_fitted == {row.key: 2 for row in report.rows if row.key.attack == "dime"}
    assert all(half.num_fitted == 2 for half in report.halves[tuned])
    assert all(half.num_fitted == 0 for half in report.halves[AuditKey("sima", TUNED)])


def test_a_calibrated_row_is_compared_with_the_plain_attack():
    data = scores_with_fits()
    key = AuditKey("sima_history", "all")
    data = replace(
        data,
        scores=data.scores | {key: data.scores[FITTED][:, :1]},
        keep_fraction=data.keep_fraction | {key: 1.0},
        timesteps=data.timesteps | {"sima_history": []},
        derived={key: Derived(KEY, True)},
    )
    row = report_of(data, intervals=FEW).row(key)
    assert list(row.gains) == ["plain"]
    expected = [slow.crossfit(*by_hand(data, each))[0] for each in (key, KEY)]
    assert row.gains["plain"].value == pytest.approx(expected[0] - expected[1], abs=1e-12)
    assert row.timesteps == (None, None)


SHAPE = (1, 4, 4)


@pytest.fixture(scope="module")
def audited():
    """An audit with everything that is fitted, what it collected, and its history."""
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(120, *SHAPE, generator=generator)
    index = torch.randperm(5000, generator=generator)[:120].sort().values
    is_member = torch.randperm(120, generator=generator) < 60
    complexity = 7 + latent.flatten(1).std(1).double() + 0.1 * torch.randn(120, generator=generator)
    samples = AuditedSamples(latent, is_member, index, influence=latent.square(), complexity=complexity)
    attacks = {"sima": get_attack("sima"), "dime": get_attack("dime", num_draws=1)}
    audit = Audit(
        samples,
        attacks,
        {"all": KeepAll()},
        [0, 50],
        keep_fractions=(0.5, 1.0),
        calibrations={name: CALIBRATIONS.get(name)() for name in CALIBRATIONS},
        calibrated=[KEY, FITTED],
        intervals=FEW,
    )
    history = {
        time: kept_of(audit.report(audit.scores(audit.collect(Memoriser(latent[is_member][: 5 + time])), {})))
        for time in range(2)
    }
    return audit, audit.collect(Memoriser(latent[is_member][:30])), history


def test_what_a_sample_reports_never_looks_at_the_labels_of_its_own_half(audited):
    """For every attack that is fitted and every calibration: one half's labels permuted move the other half's standings."""
    audit, collected, history = audited
    report, half = audit.report(audit.scores(collected, history)), collected.is_calibration
    assert {"dime", "sima_complexity", "dime_history", "sima_calibrated", "combined"} < {row.key.attack for row in report.rows}
    labels = collected.is_member.clone()
    labels[half] = labels[half].roll(1)
    changed = audit.report(audit.scores(replace(collected, is_member=labels), history))
    for row in report.rows:
        before, after = (each.scores_at(row.key) for each in (report, changed))
        assert torch.equal(after[half], before[half]), row.key
        assert not torch.equal(after[~half], before[~half]), row.key


def test_what_a_sample_reports_never_looks_at_other_samples_of_its_own_half(audited):
    audit, collected, history = audited
    report, half = audit.report(audit.scores(collected, history)), collected.is_calibration
    first = int(half.nonzero()[0])
    sums = {name: [term.clone() for term in terms] for name, terms in collected.sums.items()}
    sweeps = {name: [term.clone() for term in terms] for name, terms in collected.sweeps.items()}
    for term in (term for each in (sums, sweeps) for terms in each.values() for term in terms):
        mine = term[..., first].clone()
        term[..., half] = term[..., half].roll(7, dims=-1) * 3
        term[..., first] = mine
    changed = audit.report(audit.scores(replace(collected, sums=sums, sweeps=sweeps), history))
    for row in report.rows:
        assert torch.equal(changed.scores_at(row.key)[first], report.scores_at(row.key)[first]), row.key


def test_a_sample_has_the_score_that_it_has_whoever_else_is_reported(audited):
    """Reporting samples that are taken out leave the others' scores, to the last digit of a sum."""
    audit, collected, history = audited
    stays = collected.is_calibration | (torch.arange(120) % 3 > 0)
    fewer = replace(
        collected,
        sample_index=collected.sample_index[stays],
        is_member=collected.is_member[stays],
        is_calibration=collected.is_calibration[stays],
        complexity=collected.complexity[stays],
        sums={name: [term[..., stays] for term in terms] for name, terms in collected.sums.items()},
        sweeps={name: [term[..., stays] for term in terms] for name, terms in collected.sweeps.items()},
    )
    one = replace(audit, cross_fit=False)
    everyone, some = one.report(one.scores(collected, history)), one.report(one.scores(fewer, history))
    for row in everyone.rows:
        torch.testing.assert_close(some.scores_at(row.key), everyone.scores_at(row.key)[stays], rtol=1e-9, atol=1e-9)


def test_the_first_fold_is_the_one_that_stands_alone_without_cross_fitting(audited):
    audit, collected, history = audited
    both, one = audit.scores(collected, history), replace(audit, cross_fit=False).scores(collected, history)
    assert list(both.scores) == list(one.scores)
    for key, score in one.scores.items():
        assert torch.equal(both.scores[key][:1], score), key
    assert one.folds[0].reports.equal(~collected.is_calibration)
    assert is_alike(both.scores[KEY])
    assert not is_alike(both.scores[FITTED])
    assert TUNED not in {key.mask for key in both.scores}


@pytest.mark.parametrize("every", [1, 3])
def test_a_paired_difference_pays_for_the_timesteps_that_the_halves_chose_for_each_other(every):
    data = make_scores(60, 60, num_folds=2)
    report, key = report_of(data, intervals=FEW), AuditKey("sima", "all")
    other, among = torch.randn(120, generator=torch.Generator().manual_seed(0)), torch.arange(120) % every == 0
    halves = report.halves[key]
    found = paired(halves, other, data, 0.95, among=among)
    given = paired([replace(half, score=half.reported, chosen=0, area=None) for half in halves], other, data, 0.95, among=among)
    assert found.value == given.value
    assert found.lower < given.lower
    assert found.upper > given.upper
    parts = [
        auroc(report.scores_at(key)[rows], data.is_member[rows]) - auroc(other[rows], data.is_member[rows])
        for rows in (fold.reports & among for fold in data.folds)
    ]
    assert found.value == pytest.approx(float(sum(parts)) / 2)


@pytest.mark.parametrize("alternative", ["two-sided", "greater"])
def test_a_paired_difference_has_as_many_sides_as_asked_for_and_pays_for_no_fit_that_is_not_named(alternative):
    data = make_scores(60, 60, strength=0.5, num_folds=2)
    halves = report_of(data, intervals=FEW).halves[KEY]
    other = torch.randn(120, generator=torch.Generator().manual_seed(0))
    others = [Half(other[fold.reports], data.is_member[fold.reports]) for fold in data.folds]
    expected = crossfit_difference(halves, others, confidence=0.9, alternative=alternative)
    assert paired(halves, other, data, 0.9, alternative=alternative) == expected


def test_a_paired_difference_is_that_of_the_halves_with_their_groups_and_with_what_was_fitted_for_either():
    data, key = make_scores(60, 60, num_folds=2, group_size=3), AuditKey("sima", "all")
    halves = report_of(data, intervals=FEW).halves[key]
    other = torch.randn(120, generator=torch.Generator().manual_seed(0))
    for among in (None, data.sample_index % 3 > 0):
        mine, others = [], []
        for fold, half in zip(data.folds, halves):
            rows = fold.reports if among is None else fold.reports & among
            common = {"is_member": data.is_member[rows], "group": data.group[rows]}
            mine.append(Half(data.scores[key][0][:, rows], chosen=half.chosen, **common))
            others.append(Half(other[rows], num_fitted=2, **common))
        expected = crossfit_difference(mine, others, confidence=0.9)
        assert astuple(paired(halves, other, data, 0.9, num_fitted=2, among=among)) == pytest.approx(astuple(expected))

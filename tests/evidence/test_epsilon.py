"""What is said of epsilon: the bound of what the verdict rests on, its conditions, and beside it what is proven."""

import json
from dataclasses import replace

import pytest
import torch

from ldm_privacy.audit.report import report_of
from ldm_privacy.audit.scores import Derived
from ldm_privacy.evidence.epsilon import Proven, said_of_epsilon
from ldm_privacy.evidence.gather import gather_evidence
from ldm_privacy.evidence.verdict import verdict_of
from ldm_privacy.metrics import epsilon_lower_bound
from ldm_privacy.metrics.rounding import at_least
from ldm_privacy.report.evaluation import Evaluation
from ldm_privacy.report.metrics_file import write_metrics
from ldm_privacy.report.page.page import Page, render
from ldm_privacy.report.sections.epsilon import epsilon
from ldm_privacy.report.tables import print_audit
from ldm_privacy.types import AuditKey
from tests.evidence.synthetic import QUICK, Pictures, make_samples, make_scores
from tests.pages import text_of
from tests.report.test_page import head_of

KEY, INSIDER = AuditKey("sima", "all"), AuditKey("sima_history", "all")
PROOF = Proven(8.0, 1e-5, "the denoiser's training, the codec given")


def scores_of(*, num_folds=2, strength=2.0, **options):
    """An insider's scores find nearly everybody, the plain attack many."""
    data = make_scores(100, 100, strength=strength, attacks=("sima",), num_folds=num_folds, **options)
    noise = torch.randn(num_folds, 1, 200, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return replace(
        data,
        scores=data.scores | {INSIDER: noise + 3 * data.is_member},
        keep_fraction=data.keep_fraction | {INSIDER: 1.0},
        timesteps=data.timesteps | {"sima_history": []},
        derived={INSIDER: Derived(KEY, True)},
        num_fitted={INSIDER: 2},
        by_coins=True,
    )


def gather(data, **options):
    report = report_of(data, intervals=QUICK)
    return gather_evidence(report, KEY, make_samples(data), Pictures(data), num_permutations=19, **options)


@pytest.fixture(scope="module")
def evidence():
    return gather(scores_of())


@pytest.mark.parametrize("num_folds", [1, 2])
def test_a_row_guesses_where_it_reports_and_chooses_where_it_does_not(num_folds):
    data = scores_of(num_folds=num_folds)
    row = report_of(data, intervals=QUICK).row(INSIDER)
    each = 1 - 0.05 / num_folds
    assert row.epsilon.value == max(
        epsilon_lower_bound(half.num_correct, half.num_guesses, confidence=each) for half in row.epsilon.halves
    )
    for fold, score, half in zip(data.folds, data.scores[INSIDER], row.epsilon.halves, strict=True):
        mine, is_member = score[0, fold.reports], data.is_member[fold.reports]
        right = (is_member & (mine >= half.upper)) | (~is_member & (mine <= half.lower))
        assert (half.num_correct, half.num_coins) == (int(right.sum()), len(mine))
        assert {half.lower, half.upper} <= {*score[0, fold.chooses].tolist(), -torch.inf, torch.inf}
    assert row.series()["memorization/sima_history/all/epsilon_lower"] == row.epsilon.value


def test_without_coins_nothing_is_said_of_epsilon():
    evidence = gather(replace(scores_of(), by_coins=False))
    assert all(row.epsilon is None for row in evidence.report.rows)
    assert not any("epsilon_lower" in name for name in evidence.report.series())
    assert not any("psilon" in sentence for sentence in verdict_of(evidence).sentences)
    assert epsilon(Evaluation(evidence, {}, None, name="a run", epoch=1, facts={})) is None
    said = said_of_epsilon(evidence.report, INSIDER, KEY, PROOF)
    assert said == (
        "Proven for one image, of the denoiser's training, the codec given: epsilon at most 8 at delta 1e-05. No coins decided "
        "who is a member, so the audit can't test it.",
    )


def test_the_verdict_names_the_bounds_of_both_whom_it_rests_on_and_their_conditions(evidence):
    mine, theirs = (evidence.report.row(key).epsilon for key in (INSIDER, KEY))
    said = verdict_of(evidence).sentences[-1]
    half = mine.best
    assert mine.value > theirs.value > 0
    assert (
        f"Epsilon is at least {at_least(mine.value)}: sima_history/all guesses {half.num_correct} of {half.num_guesses}" in said
    )
    assert f"with the model alone sima/all shows that it is at least {at_least(theirs.value)}" in said
    for condition in ("95% confidence over the coins and this one training", "all that was trained on members", "one image"):
        assert condition in said


def test_of_groups_and_of_scores_that_say_nothing():
    report = report_of(scores_of(group_size=4), intervals=QUICK)
    assert report.row(INSIDER).epsilon.at(PROOF.delta).value > 1
    said, told = said_of_epsilon(report, INSIDER, KEY, replace(PROOF, epsilon=1.0))
    assert "differ by one group" in said
    assert told.endswith("at delta 1e-05. The coins were each a group's: the two can't be compared."), "no false alarm"
    noise = replace(scores_of(strength=0.0), derived={})
    report = report_of(noise, intervals=QUICK)
    assert report.row(KEY).epsilon.value == 0
    assert said_of_epsilon(report, KEY, KEY)[0].startswith("Epsilon is at least 0 (these guesses refute nothing): sima/")


def test_a_proof_stands_beside_the_bound_at_its_own_delta_and_is_contradicted_where_it_is(evidence):
    tested = evidence.report.row(INSIDER).epsilon.at(PROOF.delta)
    told = said_of_epsilon(evidence.report, INSIDER, KEY, PROOF)[1]
    assert told.startswith(
        "Proven for one image, of the denoiser's training, the codec given: epsilon at most 8 at delta 1e-05. At that"
    )
    assert f"at least {at_least(tested.value)}: no contradiction, and no proof either." in told
    low = replace(PROOF, epsilon=tested.value - 0.01)
    assert "more than the proof allows" in said_of_epsilon(evidence.report, INSIDER, KEY, low)[1]
    assert "more than" not in said_of_epsilon(evidence.report, INSIDER, KEY, replace(PROOF, epsilon=tested.value))[1]


def test_every_row_stands_in_the_section_the_table_and_the_file(evidence, tmp_path):
    from rich.console import Console

    section = epsilon(Evaluation(replace(evidence, proven=PROOF), {}, None, name="a run", epoch=1, facts={}))
    conditions, table = section.blocks
    assert len(table.rows) == len(evidence.report.rows)
    assert {tuple(table.rows[place][:2]) for place in table.emphasised} == {("sima", "all"), ("sima_history", "all")}
    row = evidence.report.row(INSIDER)
    half = row.epsilon.best
    cells = (at_least(row.epsilon.value), *map(str, (half.num_correct, half.num_guesses, half.num_coins)))
    assert ("sima_history", "all", *cells) in table.rows
    assert "chosen by its result" in " ".join(conditions.items)
    assert "{unit}" not in " ".join(conditions.items)
    html = text_of(render(Page("A run", "", head_of(verdict_of(evidence)), {"epsilon": section}, "")))
    assert "How large epsilon is at least" in html
    assert "epsilon at most 8 at delta" in html

    console = Console(record=True, width=140, file=(tmp_path / "out").open("w"))
    print_audit(evidence.report, console, title="a run")
    (line,) = (each.split() for each in console.export_text().splitlines() if each.split()[1:] == [*cells])
    assert line[0] == "sima_history/all"

    write_metrics(replace(evidence, proven=PROOF), tmp_path / "metrics.json", facts={})
    stored = json.loads((tmp_path / "metrics.json").read_text())
    assert stored["epsilon"]["insider"]["key"] == "sima_history/all"
    assert stored["epsilon"]["insider"]["value"] == row.epsilon.value
    assert stored["epsilon"]["proven"] == {"epsilon": 8.0, "delta": 1e-5, "of": PROOF.of, "unit": "image"}
    assert next(each for each in stored["rows"] if each["attack"] == "sima_history")["epsilon"]["halves"][0]["num_coins"] == 100

"""Complexity as a control: sides of unequal complexity leak, whichever is the richer; random sides don't."""

from dataclasses import replace

import pytest
import torch
from scipy.stats import binom

from ldm_privacy.audit.report import report_of
from ldm_privacy.controls.finding import WITHOUT_MODEL, Case, hold_together
from ldm_privacy.controls.image_complexity import image_complexity
from ldm_privacy.evidence.gather import gather_evidence
from ldm_privacy.evidence.verdict import verdict_of
from ldm_privacy.metrics import auroc, auroc_interval
from ldm_privacy.types import AuditKey, Intervals
from tests.evidence.synthetic import QUICK, Pictures, make_samples, make_scores


def complexity(is_member, shift=0.0, seed=0):
    """ln(bytes) as that of natural images: spread .25; members' larger by `shift` of it."""
    noise = torch.randn(len(is_member), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return 7.7 + 0.25 * (noise + shift * is_member)


def find(data, score):
    return image_complexity(Case(make_samples(data).with_columns(complexity=score), Pictures(data)))


@pytest.mark.parametrize("group_size", [None, 4])
def test_it_has_an_interval_of_its_own_that_leaves_the_classifiers_half(group_size):
    data = make_scores(40, 40, group_size=group_size)
    score = complexity(data.is_member)
    found = find(data, score)
    assert (found.name, found.looks_at) == ("image complexity", WITHOUT_MODEL)
    assert found.estimate == auroc_interval(score, data.is_member, **Intervals(confidence=0.975).options(data.group))
    assert not found.leaks
    assert str(found.estimate) in found.sentence
    assert hold_together([found], Case(make_samples(data), Pictures(data))) == [found]


def test_where_it_was_not_measured_there_is_nothing_to_find():
    assert find(make_scores(20, 20), None) is None


@pytest.mark.parametrize(("shift", "word"), [(1.0, "more"), (-1.0, "less")])
def test_sides_of_unequal_complexity_leak_even_where_no_classifier_can_be_fitted(shift, word):
    data = make_scores(9, 40)
    score = complexity(data.is_member, 3 * shift)
    report, samples = report_of(data, intervals=QUICK), make_samples(data).with_columns(complexity=score)
    evidence = gather_evidence(report, AuditKey("sima", "all"), samples, Pictures(data), num_permutations=39)
    found, verdict = evidence.findings["image complexity"], verdict_of(evidence)
    area = float(auroc(score, data.is_member))
    assert found.leaks
    assert found.is_telling
    assert found.estimate.value == area
    assert f"members' images are {word} complex than the held-out ones" in found.sentence
    assert evidence.findings["model-free control"].is_missing
    assert verdict.tone == "leak"
    assert f"no model reaches {found.level} (image complexity)" in verdict.sentences[1]
    assert "no further difference of the sides was found" in verdict.sentences[1]
    level = max(area, 1 - area)
    assert level > 0.9
    assert f"attack numbers up to about {level:.3f} measure the split" in verdict.sentences[2]
    unleaking = replace(evidence, findings={name: each for name, each in evidence.findings.items() if each is not found})
    assert verdict_of(unleaking).tone != "leak"
    assert "image complexity" in evidence.over_controls


def test_a_level_is_that_of_the_score_turned_round_where_it_surely_lies_below_one_half():
    data = make_scores(60, 60)
    richer, poorer = find(data, complexity(data.is_member, 1.0)), find(data, -complexity(data.is_member, 1.0))
    assert poorer.estimate.upper < 0.5
    for name in ("value", "lower", "upper"):
        assert getattr(poorer.level, name) == pytest.approx(getattr(richer.level, name), abs=1e-9)
    undecided = find(data, complexity(data.is_member, -0.01, seed=1))
    assert undecided.level == undecided.estimate


def test_random_sides_are_seldom_said_to_leak():
    data = make_scores(60, 60)
    alarms = sum(find(data, complexity(data.is_member, seed=seed)).leaks for seed in range(150))
    # At the rate stated, more alarms than this have probability 1e-5.
    assert alarms <= binom.isf(1e-5, 150, 0.025)

"""The last safe checkpoint: what is named of every course of decisions, how often it is wrong, what is said."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from scipy import stats

from ldm_privacy.evidence.gate import Ruling
from ldm_privacy.evidence.limits.limit import DECISIONS, Judgement, decide
from ldm_privacy.evidence.pick import Candidate, Pick
from ldm_privacy.metrics import auroc_interval
from ldm_privacy.types import Estimate

AREA = Estimate(0.5, 0.45, 0.55)


def candidate(place, decision):
    judgement = Judgement("gate.auroc", "AUROC", 0.6, decision, f"{decision}: because.", None)
    return Candidate(f"c{place}", place, AREA, Ruling((judgement,)))


def pick(*decisions):
    return Pick([candidate(place, each) for place, each in enumerate(decisions)], 0.95)


@pytest.mark.parametrize(
    ("decisions", "code"),
    [(("pass", "fail"), 1), (("pass", "undecided", "pass"), 3), (("pass",), 3), (("fail",), 1), (("pass", "pass"), 0)],
)
def test_an_untrained_denoiser_is_never_named(decisions, code):
    untrained = replace(candidate(0, decisions[0]), is_trained=False)
    found = Pick([untrained, *pick(*decisions).candidates[1:]], 0.95)
    assert found.exit_code == code
    assert (found.named is None) == (code != 0)
    assert (found.verdict_on(0) == "named") is False
    if decisions[0] == "pass" and code:
        assert found.sentences[0].startswith("No trained checkpoint passes: only the untrained denoiser, c0 (epoch 0), does")


@pytest.mark.parametrize(
    ("decisions", "named"),
    [
        (("undecided", "pass"), 1),
        (("undecided", "pass", "pass", "fail"), 2),
        (("undecided", "fail"), None),
        (("undecided",), None),
    ],
)
def test_an_untrained_denoiser_of_which_nothing_can_be_measured_stops_nothing(decisions, named):
    """No images are generated of it, so a limit on copies has nothing to hold."""
    found = pick(*decisions)
    found = Pick([replace(found.candidates[0], is_trained=False), *found.candidates[1:]], 0.95)
    assert found.named is (None if named is None else found.candidates[named])
    assert found.verdict_on(0) == "untrained"
    before = {1: "none was looked at before it", 2: "so does the one before it"}
    assert before.get(named, "No checkpoint can be named") in found.sentences[0]


@pytest.mark.parametrize("decisions", [each for count in (1, 2, 4) for each in product(DECISIONS, repeat=count)])
def test_the_named_one_passes_with_all_before_it_and_nobody_after_it_does(decisions):
    found = pick(*decisions)
    passed = [decisions[: place + 1] == ("pass",) * (place + 1) for place in range(len(decisions))]
    assert (found.named.epoch if found.named else -1) == sum(passed) - 1
    assert found.exit_code == (0 if passed[0] else {"fail": 1, "undecided": 3}[decisions[0]])
    assert [each.ruling.decision for each in found.later] == ["pass"] * (decisions.count("pass") - sum(passed))
    become = [found.verdict_on(place) for place in range(len(decisions))]
    assert become.count("named") == int(passed[0])
    assert become.count("stops here") == int(sum(passed) < len(decisions))
    assert become.count("passes alone") == len(found.later)


@pytest.mark.parametrize("truths", [[0.6] * 6, [0.5, 0.5, 0.6, 0.5, 0.6, 0.7]])
def test_an_unsafe_one_is_named_no_more_often_than_the_level_allows(truths):
    generator, size, repeats, most = np.random.default_rng(0), 100, 200, 0.6
    labels = torch.arange(2 * size) < size
    shift = np.sqrt(2) * stats.norm.ppf(truths)
    unsafe = last = 0
    for _ in range(repeats):
        score = generator.normal(size=(6, 2 * size)) + shift[:, None] * labels.numpy()
        areas = [auroc_interval(torch.from_numpy(each), labels) for each in score]
        decisions = [decide(each, most) for each in areas]
        named = pick(*decisions).named
        unsafe += named is not None and truths[named.epoch] >= most
        passing = [place for place, each in enumerate(decisions) if each == "pass"]
        last += bool(passing) and truths[passing[-1]] >= most
    most_errors = stats.binom.isf(1e-4, repeats, 0.025)
    assert unsafe <= most_errors
    if truths == [0.6] * 6:
        assert last > most_errors, "naming the last one that passes does pay for every look"


def test_what_is_said_names_it_the_stop_its_reason_and_what_passes_later():
    found = pick("pass", "pass", "undecided", "pass")
    text = " ".join(found.sentences)
    assert text.startswith("The last safe checkpoint is c1 (epoch 1): it passes, and so does the one before it. ")
    assert "is at most 2.5%, however many there are." in text
    assert "c2 (epoch 2) is the first that doesn't pass. undecided: because." in text
    assert "c3 (epoch 3) passes alone, but after one that doesn't" in text
    assert pick("fail").sentences[0] == "No checkpoint can be named: already the first one doesn't pass."

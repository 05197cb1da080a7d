"""Requirements: an audit that fails them, one that passes, what can't be decided and what it would take."""

import re
from dataclasses import replace

import pytest
import torch

from ldm_privacy.audit.report import report_of
from ldm_privacy.evidence.epsilon import Proven
from ldm_privacy.evidence.gate import Gate
from ldm_privacy.evidence.gather import gather_evidence
from ldm_privacy.evidence.limits.epsilon import EpsilonLimit
from ldm_privacy.evidence.limits.limit import Found
from ldm_privacy.evidence.not_tested import NEVER, not_tested
from ldm_privacy.evidence.requirements.requirement import answers, in_short
from ldm_privacy.metrics import GenerationCopies, epsilon_lower_bound
from ldm_privacy.metrics.rounding import at_least
from ldm_privacy.registry import REQUIREMENTS
from ldm_privacy.types import AuditKey, Estimate, Intervals
from tests.evidence.synthetic import Pictures, make_samples, make_scores

KEY = AuditKey("sima", "all")
EXTRACTION, MEMBERSHIP = "EDPB Opinion 28/2024: extraction", "EDPB Opinion 28/2024: membership"
PRIVATE, GUESSING = "OWASP AISVS 1.0, 11.2.4", "OWASP AISVS 1.0, 11.2.5"


def gathered(num_a_side, strength=0.0, *, by_coins=False):
    data = make_scores(num_a_side, num_a_side, strength=strength, timesteps=(0,), num_folds=2, masks=("all", "top60"))
    data = replace(data, by_coins=by_coins)
    report = report_of(data, intervals=Intervals(num_bootstrap=100))
    return gather_evidence(report, KEY, make_samples(data), Pictures(data), num_permutations=9)


@pytest.fixture(scope="module")
def exposed():
    return gathered(150, 2.0, by_coins=True)


@pytest.fixture(scope="module")
def guessed():
    return gathered(1500, by_coins=True)


@pytest.fixture(scope="module")
def few():
    return gathered(60)


def copies(num_copies):
    ratio = torch.ones(1000, dtype=torch.float64)
    ratio[:num_copies] = 0.1
    nothing = Estimate(0.0, 0.0, 0.0)
    return {"mine": GenerationCopies(ratio, torch.zeros(1000, dtype=torch.int64), nothing, nothing, 9, 0, 0)}


def decided(evidence, **options):
    return {each.reference: each for each in answers(evidence, **options)}


def test_an_audit_that_finds_everybody_fails_every_requirement(exposed):
    given = decided(replace(exposed, proven=Proven(0.5, 1e-5, "the denoiser")), results=copies(20))
    assert {name: each.decision for name, each in given.items()} == dict.fromkeys(
        (EXTRACTION, MEMBERSHIP, PRIVATE, GUESSING), "fail"
    )
    assert in_short(list(given.values())) == "4 fail"
    area = exposed.report.row(KEY).metrics.auroc
    other = exposed.report.row(AuditKey("loss", "all")).metrics.auroc
    worst = max((area, other), key=lambda each: each.upper)
    assert given[GUESSING].found[0].startswith(f"AUROC {worst}")
    assert all("earlier checkpoint" in given[name].takes for name in (EXTRACTION, MEMBERSHIP, GUESSING))
    assert "that claim is refuted" in given[PRIVATE].why[0]
    assert given[PRIVATE].found[0] == "epsilon proven of the denoiser: 0.5 at delta 1e-05"


def test_an_audit_that_finds_nobody_among_many_passes_every_requirement(guessed):
    most = guessed.report.row(KEY).epsilon.most
    given = decided(replace(guessed, proven=Proven(most - 1, 0.0, "the denoiser")), results=copies(0))
    assert in_short(list(given.values())) == "4 pass"
    assert all(each.takes.startswith("nothing more") for each in given.values())


def test_a_null_of_few_images_is_undecided_and_says_what_would_decide(few):
    """Not being significantly above guessing is no pass."""
    assert few.report.row(KEY).metrics.auroc.lower < 0.5 < few.report.row(KEY).metrics.auroc.upper
    given = decided(few)
    assert in_short(list(given.values())) == "4 undecided"
    needed = re.match(r"about ([\d,]+) members and ([\d,]+) held-out images \(audit\.max_samples", given[GUESSING].takes)
    assert int(needed[1].replace(",", "")) > 60
    assert "100 held-out images at least" in given[MEMBERSHIP].takes
    assert given[MEMBERSHIP].found == ()
    assert "watch.generations.class=generations gate.copies=0.005" in given[EXTRACTION].takes
    assert "data.split=coin" in given[PRIVATE].takes


def test_every_attack_is_held_and_not_the_verdicts_alone(guessed):
    """One attack that finds everybody fails what the primary one would have passed."""
    report = guessed.report
    at = next(place for place, row in enumerate(report.rows) if row.key == AuditKey("loss", "all"))

    def given(area):
        metrics = replace(report.rows[at].metrics, auroc=area)
        rows = [*report.rows[:at], replace(report.rows[at], metrics=metrics), *report.rows[at + 1 :]]
        return decided(replace(guessed, report=replace(report, rows=rows)))[GUESSING]

    found = given(Estimate(0.9, 0.88, 0.92))
    assert found.decision == "fail"
    assert found.found[0] == "AUROC 0.900 [0.880, 0.920] of loss/all (outsider)"
    assert given(Estimate(0.54, 0.53, 0.549)).decision == "pass"
    # The worst of several is chosen by its result: an estimate above the limit is no fail where its lower bound isn't.
    perhaps = given(Estimate(0.56, 0.54, 0.58))
    assert perhaps.decision == "undecided"
    assert "perhaps by chance" in " ".join(perhaps.why)
    assert "how many can't be said" in perhaps.takes


@pytest.mark.parametrize("name", ["exposed", "guessed"])
def test_where_the_images_differ_without_a_model_no_attack_number_decides(name, request):
    evidence = request.getfixturevalue(name)
    control = "logistic on image features"
    findings = evidence.findings | {control: replace(evidence.findings[control], leaks=True)}
    given = decided(replace(evidence, findings=findings), results=copies(0))
    for name in (MEMBERSHIP, GUESSING):
        assert given[name].decision == "undecided"
        assert given[name].why == (
            f"undecided: {control} tells members from held-out images without any model, so attack numbers measure the split.",
        )
        assert given[name].takes == "a split drawn at random, and another audit"
        assert given[name].found
    assert given[EXTRACTION].decision == "pass"


def test_without_a_claim_epsilon_is_told_and_nothing_decided(exposed, few):
    bound = exposed.report.row(KEY).epsilon
    given = decided(exposed)[PRIVATE]
    assert (given.decision, given.found) == (
        "undecided",
        (f"epsilon of at least {at_least(bound.value)} of sima/all (outsider)",),
    )
    assert decided(few)[PRIVATE].found == ()


def test_a_claim_without_coins_needs_coins(few):
    given = decided(replace(few, proven=Proven(1.0, 0.0, "the denoiser")))[PRIVATE]
    assert given.decision == "undecided"
    assert given.takes == "a training with data.split=coin"


def test_the_gates_epsilon_is_a_claim_that_can_be_refuted_and_never_met_and_a_proof_goes_first(exposed, guessed):
    ruling = Gate([EpsilonLimit(0.1)]).rule(Found(exposed.report, KEY))
    refuted = decided(exposed, ruling=ruling)[PRIVATE]
    assert refuted.decision == "fail"
    assert "0.1 (gate.epsilon)" in refuted.why[0]
    ruling = Gate([EpsilonLimit(3.0)]).rule(Found(guessed.report, KEY))
    assert ruling.decision == "pass"
    unproven = decided(guessed, ruling=ruling)[PRIVATE]
    assert unproven.decision == "undecided"
    assert "(the claim of 3 isn't refuted)" in unproven.why[0]
    assert unproven.takes == "private training (denoiser.privacy)"
    proven = replace(exposed, proven=Proven(0.2, 0.0, "the denoiser"))
    assert "0.2 (gate.epsilon)" in decided(proven, ruling=ruling)[PRIVATE].why[0]


def test_a_claim_is_held_at_its_own_delta(exposed):
    half = exposed.report.row(KEY).epsilon.best
    at = epsilon_lower_bound(half.num_correct, half.num_guesses, confidence=0.975, delta=1e-4, num_coins=half.num_coins)
    assert at < exposed.report.row(KEY).epsilon.value
    (judged,) = Gate([EpsilonLimit(0.5, delta=1e-4)]).rule(Found(exposed.report, KEY)).judgements
    assert judged.worst.estimate.value >= at - 1e-9
    assert judged.found == f"epsilon of at least {at_least(judged.worst.estimate.value)} at delta 0.0001"
    assert judged.worst.estimate.value == exposed.report.row(KEY).epsilon.at(1e-4).value


def test_every_requirement_quotes_or_paraphrases_names_its_margins_and_its_source():
    for name in REQUIREMENTS:
        requirement = REQUIREMENTS.get(name)
        assert requirement.source.startswith("https://")
        assert '"' in requirement.says, "words of the source"
        assert "Held here" in requirement.held_to
        assert len(requirement.reference) <= 36, "a column of the report"


def test_what_was_not_tested_is_what_the_audit_lacks(exposed, few):
    assert not_tested(few, {})[-len(NEVER) :] == list(NEVER)
    assert any("coins" in each for each in not_tested(few, {}))
    assert not any("coins" in each or "generated images copy" in each for each in not_tested(exposed, copies(0)))

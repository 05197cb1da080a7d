"""The gate: known decisions, their rates where the truth is known, how many samples a limit needs, whose attack it holds."""

import math
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import special, stats

from ldm_privacy.audit.report import report_of
from ldm_privacy.audit.scores import Derived
from ldm_privacy.evidence.gate import Gate, Ruling
from ldm_privacy.evidence.limits.auroc import AurocLimit, guessing, num_needed
from ldm_privacy.evidence.limits.copies import CopiesLimit
from ldm_privacy.evidence.limits.epsilon import EpsilonLimit
from ldm_privacy.evidence.limits.limit import Found, decide, growth, rounded_up
from ldm_privacy.evidence.limits.tpr import TprLimit
from ldm_privacy.metrics import GenerationCopies, auroc_interval, clopper_pearson, epsilon_lower_bound
from ldm_privacy.metrics.rounding import at_least
from ldm_privacy.types import AuditKey, Estimate
from tests.evidence.synthetic import QUICK, make_scores

KEY = AuditKey("sima", "all")


def found(strength=0.0, results=None, **options):
    data = make_scores(60, 60, strength=strength, timesteps=(0,), num_folds=2, **options)
    return Found(report_of(data, intervals=QUICK), KEY, results or {})


def held(estimate):
    """What a limit on an AUROC holds of that one."""
    row = SimpleNamespace(key=KEY, metrics=SimpleNamespace(auroc=estimate))
    it = Found(SimpleNamespace(rows=[row], data=SimpleNamespace(derived={})), KEY)
    (reading,) = AurocLimit(0.6, attack="sima").readings(it)
    return reading.estimate


def generated(num_copies, num_images=1000, label="mine"):
    ratio = torch.ones(num_images, dtype=torch.float64)
    ratio[:num_copies] = 0.1
    nothing = Estimate(0.0, 0.0, 0.0)
    return {label: GenerationCopies(ratio, torch.zeros(num_images, dtype=torch.int64), nothing, nothing, 9, 0, 0)}


@pytest.mark.parametrize(
    ("estimate", "decision"),
    [
        ((0.52, 0.45, 0.6), "pass"),
        ((0.52, 0.45, 0.601), "undecided"),
        ((0.599, 0.5, 0.7), "undecided"),
        ((0.6, 0.5, 0.7), "fail"),
        ((0.8, 0.7, 0.9), "fail"),
    ],
)
def test_a_decision_is_that_of_estimate_and_upper_bound(estimate, decision):
    assert decide(Estimate(*estimate), 0.6) == decision


def test_the_worst_limit_counts():
    def ruling(*mosts):
        return Gate([AurocLimit(each) for each in mosts]).rule(it)

    it = found(0.4)
    area = it.report.row(KEY).metrics.auroc
    passed, undecided, failed = (area.upper + 0.01, (area.value + area.upper) / 2, area.value - 0.01)
    for mosts, decision, code in (
        ((passed,), "pass", 0),
        ((passed, undecided), "undecided", 3),
        ((undecided, failed, passed), "fail", 1),
    ):
        assert (ruling(*mosts).decision, ruling(*mosts).exit_code) == (decision, code)
        assert all(each.sentence.startswith(each.decision) for each in ruling(*mosts).judgements)
    assert Ruling(()).exit_code == 0
    assert ruling(passed, undecided, failed).sentence == "Gate: fail (3 limits: 1 pass, 1 fail, 1 undecided)."


def test_at_the_limit_a_pass_is_rare_and_half_fail_and_a_null_passes_as_often_as_foretold():
    num_members, num_heldout, most, num_draws, generator = 129, 124, 0.6, 500, np.random.default_rng(0)
    is_member = torch.arange(num_members + num_heldout) < num_members

    def share(truth, decision):
        shift = 2**0.5 * stats.norm.ppf(truth)
        draws = generator.normal(size=(num_draws, len(is_member))) + shift * is_member.numpy()
        intervals = [auroc_interval(torch.from_numpy(each), is_member) for each in draws]
        return sum(decide(held(each), most) == decision for each in intervals) / num_draws

    def reach(probability):
        """Of a share of draws around its expectation: four standard errors."""
        return 4 * (probability * (1 - probability) / num_draws) ** 0.5

    assert max(share(most, "pass"), share(1 - most, "pass"), share(0.35, "pass")) <= 0.025 + reach(0.025)
    assert share(most, "fail") == pytest.approx(0.5, abs=reach(0.5) + 0.02)  # a median isn't a mean
    # The interval of a null reaches as far as Hanley and McNeil say, and passes where it does so on neither side.
    deviation = ((num_members + num_heldout + 1) / (12 * num_members * num_heldout)) ** 0.5
    expected = 2 * stats.norm.cdf(special.logit(most) * 0.25 / deviation - stats.norm.isf(0.025)) - 1
    assert share(0.5, "pass") == pytest.approx(expected, abs=reach(expected) + 0.02)
    most = guessing(num_members, num_heldout, 0.95)
    assert share(0.5, "pass") == pytest.approx(0.5, abs=reach(0.5) + 0.02)


@pytest.mark.parametrize(
    ("sizes", "upper"), [((129, 124), 0.595), ((360, 360), 0.557), ((700, 700), 0.541), ((2500, 2500), 0.521)]
)
def test_the_upper_bound_of_guessing_is_that_of_the_docs_and_the_need_its_inverse(sizes, upper):
    assert guessing(*sizes, 0.95) == pytest.approx(upper, abs=6e-4)
    needed = num_needed(guessing(sizes[0], sizes[0], 0.95), 0.95)
    assert needed in (sizes[0], sizes[0] + 1)
    assert guessing(num_needed(upper, 0.95), num_needed(upper, 0.95), 0.95) <= upper


def test_so_many_samples_bring_the_upper_bound_to_the_limit():
    # Hanley and McNeil at .5: the bound of 129 + 124 is .571; that of 4 times as many is nearer by half on the logit scale.
    factor = growth(Estimate(0.5, 0.43, guessing(129, 129, 0.95)), guessing(4 * 129, 4 * 129, 0.95))
    assert factor == pytest.approx(4, rel=0.01)
    # DeLong: the same scores, nine times.
    score, is_member = torch.randn(80, generator=torch.Generator().manual_seed(1)), torch.arange(80) < 40
    once, often = auroc_interval(score, is_member), auroc_interval(score.repeat(9), is_member.repeat(9))
    assert growth(once, often.upper) == pytest.approx(9, rel=0.03)
    # Nothing found: the exact binomial bound shrinks with the number.
    assert growth(clopper_pearson(0, 50), clopper_pearson(0, 200).upper) == pytest.approx(4)
    assert growth(Estimate(0.6, 0.5, 0.7), 0.6) == growth(Estimate(0.5, 0.0, 1.0), 0.6) == math.inf
    assert [rounded_up(each) for each in (7.2, 99.1, 101, 128, 1200, 1201)] == [8, 100, 110, 130, 1200, 1300]


def test_an_undecided_limit_says_how_many_samples_would_decide_and_they_do():
    it = found(0.0, seed=2)
    area = it.report.row(KEY).metrics.auroc
    (judged,) = Gate([AurocLimit(max(area.value, 1 - area.value) + 0.02)]).rule(it).judgements
    assert judged.decision == "undecided"
    needed = rounded_up(60 * growth(judged.worst.estimate, judged.most))
    assert f"about {needed:,} members and {needed:,} held-out images would decide, in place of 60 members" in judged.sentence


def derived(it, insider, outsider):
    """The same with two of the audit's rows called calibrated: one that looks at earlier audits, one that doesn't."""
    it.report.data.derived.update({insider: Derived(KEY, True), outsider: Derived(KEY, False)})
    return it


def test_an_insider_can_do_what_an_outsider_can_and_each_is_named():
    names = [AuditKey(label, "all") for label in ("sima_history", "sima_complexity", "other")]
    it = derived(found(0.5, attacks=("sima", "sima_history", "sima_complexity", "other"), masks=("all",)), *names[:2])
    read = {who: {each.of for each in AurocLimit(0.6, who=who).readings(it)} for who in ("insider", "outsider")}
    assert read["outsider"] == {"sima/all (outsider)", "sima_complexity/all (outsider)"}
    assert read["insider"] == read["outsider"] | {"sima_history/all (insider)"}
    (judged,) = Gate([AurocLimit(0.51)]).rule(it).judgements
    highest = max(read["insider"], key=lambda of: it.report.row(AuditKey.of(of.split()[0])).metrics.auroc.upper)
    assert judged.worst.of == highest
    assert all(of in judged.sentence for of in read["insider"])
    assert {each.of for each in TprLimit(0.5, target_fpr=0.01).readings(it)} == read["insider"]
    assert TprLimit(0.5, target_fpr=0.05).readings(it) == []


def test_a_named_attack_is_held_with_all_its_masks_or_with_one():
    it = found(0.5)
    assert {each.of for each in AurocLimit(0.6, attack="loss").readings(it)} == {
        f"loss/{mask} (outsider)" for mask in ("all", "top60", "random60")
    }
    assert [each.of for each in AurocLimit(0.6, attack="loss/top60").readings(it)] == ["loss/top60 (outsider)"]
    for missing in (AurocLimit(0.9, attack="loss_history"), TprLimit(0.9, target_fpr=0.01, attack="loss_history")):
        (judged,) = Gate([missing]).rule(it).judgements
        assert (judged.decision, judged.worst) == ("undecided", None)
        assert "loss_history was left out of this audit" in judged.sentence


def test_the_tpr_of_a_named_attack_is_held_as_its_auroc_is():
    it = found(0.5)
    limit = TprLimit(0.5, target_fpr=0.01, attack="loss/top60")
    (reading,) = limit.readings(it)
    assert reading.of == "loss/top60 (outsider)"
    assert reading.estimate == it.report.row(AuditKey("loss", "top60")).metrics.tpr_at_1fpr
    assert limit.name == "gate.attacks_tpr.loss/top60.0.01"


def test_what_is_below_one_half_counts_as_much_as_what_is_above_and_nothing_jumps():
    for lower in (0.30, 0.31):
        for upper in (0.499, 0.5, 0.501):
            assert decide(held(Estimate(0.4, lower, upper)), 0.6) == "fail"
            assert held(Estimate(0.4, lower, upper)) == held(Estimate(0.6, 1 - upper, 1 - lower))
    assert decide(held(Estimate(0.51, 0.39, 0.59)), 0.6) == "undecided"
    assert held(Estimate(0.7, 0.6, 0.8)) == Estimate(0.7, 0.6, 0.8)


def test_scores_that_are_surely_the_wrong_way_round_do_not_pass():
    it = found(-2.0)
    assert it.report.row(KEY).metrics.auroc.upper < 0.5
    (judged,) = Gate([AurocLimit(0.6)]).rule(it).judgements
    assert judged.decision == "fail"
    assert judged.worst.estimate.value == pytest.approx(1 - it.report.row(KEY).metrics.auroc.value)
    assert "turned round" in judged.sentence


def by_coins(strength, num_coins=60):
    data = replace(make_scores(num_coins, num_coins, strength=strength, timesteps=(0,), num_folds=2), by_coins=True)
    return Found(report_of(data, intervals=QUICK), KEY)


@pytest.mark.parametrize(("strength", "most", "decision"), [(6.0, 2.0, "fail"), (0.0, 2.0, "pass"), (6.0, 2.9, "undecided")])
def test_a_claim_of_epsilon_is_refuted_or_could_have_been_or_could_not(strength, most, decision):
    it = by_coins(strength)
    bound = it.report.row(KEY).epsilon
    assert bound.most == pytest.approx(epsilon_lower_bound(60, 60, confidence=0.975))
    assert 2.0 < bound.most < 2.9
    (judged,) = Gate([EpsilonLimit(most)]).rule(it).judgements
    assert (judged.decision, judged.found) == (decision, f"epsilon of at least {at_least(bound.value)}")
    (without,) = Gate([EpsilonLimit(most)]).rule(found()).judgements
    assert without.sentence.startswith("undecided: no coins decided who is a member (data.split=coin)")


def test_the_coins_that_a_claim_of_epsilon_takes_could_refute_it():
    (judged,) = Gate([EpsilonLimit(4.0)]).rule(by_coins(0.0)).judgements
    needed = int(re.search(r"it takes (\d+) members and \d+ held-out images at least", judged.sentence)[1])
    # A half has as many coins as a side of all samples has images.
    assert epsilon_lower_bound(needed, needed, confidence=0.975) >= 4.0 - 1e-9
    assert epsilon_lower_bound(needed - 1, needed - 1, confidence=0.975) < 4.0


@pytest.mark.parametrize(
    ("num_copies", "decision"), [(0, "pass"), (4, "pass"), (5, "undecided"), (9, "undecided"), (10, "fail")]
)
def test_copies_are_held_by_the_exact_bound(num_copies, decision):
    # Of 1,000: Clopper and Pearson's upper bound at 95 % is .0102 of 4 copies, .0116 of 5; the bootstrap's would be .009, .01.
    (judged,) = Gate([CopiesLimit(0.0103 if num_copies < 5 else 0.01)]).rule(found(results=generated(num_copies))).judgements
    assert judged.decision == decision
    (missing,) = Gate([CopiesLimit(0.01)]).rule(found()).judgements
    assert missing.decision == "undecided"
    assert missing.sentence == "undecided: no image was generated, so there is nothing to hold against gate.copies."


def test_every_watcher_of_generations_is_held_to_the_limit_on_copies():
    few, many = generated(0, label="plain"), generated(500, num_images=2000, label="guided")
    for results in (few | many, many | few):
        (judged,) = Gate([CopiesLimit(0.01)]).rule(found(results=results)).judgements
        assert judged.decision == "fail"
        assert "of what the model generates (guided), " in judged.sentence
        assert "Held to it as well: what the model generates (plain)." in judged.sentence
    (judged,) = Gate([CopiesLimit(0.003)]).rule(found(results=few | generated(0, 500, "guided"))).judgements
    assert judged.decision == "undecided"
    assert "in place of 1,000 generations (plain) and 500 generations (guided)." in judged.sentence

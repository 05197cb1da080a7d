"""Who is found by which attack: sets against loops, and laws of unions and overlaps."""

import pytest
import torch
from scipy import stats

from ldm_privacy.audit.report import report_of
from ldm_privacy.audit.scores import AuditScores, Derived
from ldm_privacy.evidence.agreement import agreement_of, attack_agreement
from ldm_privacy.types import AuditKey
from tests.evidence.synthetic import QUICK

KEYS = tuple(AuditKey(name, "all") for name in ("sima", "loss", "pia"))


def labels(num_samples):
    place = torch.arange(num_samples)
    return place % 4 < 2, place % 2 == 0


def drawn(num_samples, num_keys=3, *, strength=2.0, seed=0):
    """Scores that share something of the image; members lie higher."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(num_keys, num_samples, generator=generator, dtype=torch.float64)
    return 0.7 * noise + 0.7 * torch.randn(num_samples, generator=generator) + strength * labels(num_samples)[0]


@pytest.fixture(scope="module")
def agreement():
    return attack_agreement(KEYS, drawn(1200), *labels(1200))


def members_of(agreement, key):
    found = agreement.is_found[agreement.keys.index(key)] & agreement.is_member
    return set(found.nonzero().flatten().tolist())


def test_counts_equal_sets(agreement):
    found = {key: members_of(agreement, key) for key in KEYS}
    assert all(found.values())
    for key in KEYS:
        others = set().union(*(found[other] for other in KEYS if other != key))
        assert agreement.num_alone(key) == len(found[key] - others)
        assert agreement.tpr(key).value == len(found[key]) / 600
    assert agreement.union_tpr.value == len(set().union(*found.values())) / 600
    for (first, second), overlap in agreement.overlaps.items():
        either, both = found[first] | found[second], found[first] & found[second]
        assert overlap.jaccard.value == len(both) / len(either)
        by_chance = len(found[first]) * len(found[second]) / 600
        assert overlap.chance == pytest.approx(by_chance / (len(found[first]) + len(found[second]) - by_chance))
    assert len(agreement.overlaps) == 3


def test_intersections_are_a_partition_of_the_union(agreement):
    sets = agreement.intersections()
    assert sum(count for _, count in sets) == round(600 * agreement.union_tpr.value)
    assert [count for _, count in sets] == sorted((count for _, count in sets), reverse=True)
    for places, count in sets:
        inside = [members_of(agreement, KEYS[place]) for place in places]
        outside = [members_of(agreement, key) for place, key in enumerate(KEYS) if place not in places]
        assert count == len(set.intersection(*inside) - set().union(*outside))


def test_a_union_finds_and_errs_at_least_as_often_as_each(agreement):
    for key in KEYS:
        assert agreement.union_tpr.value >= agreement.tpr(key).value
        assert agreement.union_fpr.value >= agreement.fpr(key).value
        assert agreement.tpr_at_union_fpr(key).value >= agreement.tpr(key).value


def test_each_attack_alone_keeps_its_false_positive_rate(agreement):
    assert agreement.target_fpr == 0.01
    # 300 held-out images a half: at most three of them are among the highest hundredth of the others.
    assert all(0 < agreement.fpr(key).value <= 6 / 600 for key in KEYS)


def test_overlap_is_symmetric(agreement):
    assert agreement.overlap(KEYS[0], KEYS[2]) == agreement.overlap(KEYS[2], KEYS[0])


def test_a_copy_of_an_attack_changes_no_union_and_is_the_attack():
    copy = AuditKey("copy", "all")
    score = drawn(400)
    one = attack_agreement(KEYS, score, *labels(400))
    two = attack_agreement((*KEYS, copy), torch.cat([score, score[:1].exp()]), *labels(400))
    assert (one.union_tpr, one.union_fpr) == (two.union_tpr, two.union_fpr)
    assert two.overlap(KEYS[0], copy).jaccard.value == 1.0
    assert two.num_alone(KEYS[0]) == two.num_alone(copy) == 0 < one.num_alone(KEYS[0])


def test_an_attack_and_its_calibrated_form_count_as_one():
    score = drawn(400)
    separate = attack_agreement(KEYS, score, *labels(400))
    together = attack_agreement(KEYS, score, *labels(400), families=("sima", "loss", "sima"))
    found = {key: members_of(together, key) for key in KEYS}
    alone = (found[KEYS[0]] | found[KEYS[2]]) - found[KEYS[1]]
    assert together.rests_on_one(KEYS[0]) == (len(found[KEYS[0]]), len(found[KEYS[0]] & alone))
    assert separate.rests_on_one(KEYS[0])[1] == separate.num_alone(KEYS[0]) < together.rests_on_one(KEYS[0])[1]
    for sample, names in enumerate(together.found_by(torch.arange(400))):
        assert together.num_attacks[sample] == len({name.replace("pia", "sima") for name in names})


def test_few_held_out_images_leave_the_smallest_rate_that_there_is():
    agreement = attack_agreement(KEYS, drawn(80), *labels(80))
    assert agreement.target_fpr == 1 / 20
    assert agreement.is_found[:, agreement.is_heldout].sum(1).tolist() == [2, 2, 2], "the highest of each half"


def test_attacks_that_find_nobody_have_no_overlap():
    is_member, half = labels(80)
    agreement = attack_agreement(KEYS, drawn(80) - 20.0 * is_member, is_member, half)
    assert agreement.overlaps == {}
    assert agreement.intersections() == []
    assert agreement.rests_on_one(KEYS[0]) == (0, 0)
    assert agreement.union_tpr.value == 0


def test_independent_attacks_overlap_as_by_chance():
    agreement = attack_agreement(
        KEYS[:2], torch.randn(2, 40_000, generator=torch.Generator().manual_seed(5)), *labels(40_000), target_fpr=0.2
    )
    first, second = (members_of(agreement, key) for key in KEYS[:2])
    law = stats.hypergeom(20_000, len(first), len(second))
    assert law.ppf(1e-6) <= len(first & second) <= law.isf(1e-6)
    expected = law.mean() / (len(first) + len(second) - law.mean())
    assert agreement.overlap(*KEYS[:2]).chance == pytest.approx(expected)


def test_unmasked_and_calibrated_attacks_of_an_audit_take_part():
    is_member, half = labels(200)
    calibrated, masked, constant = AuditKey("sima_history", "top60"), AuditKey("sima", "top60"), AuditKey("pian", "all")
    keys = [*KEYS, masked, AuditKey("loss", "top60"), constant, calibrated]
    score = dict(zip(keys, drawn(200, len(keys))))
    score[constant] = torch.ones(200, dtype=torch.float64)
    data = AuditScores(
        torch.arange(200),
        is_member,
        half,
        None,
        {key.attack: [50] for key in keys},
        {key: row.expand(2, 1, -1) for key, row in score.items()},
        {key: 0.6 if key.mask == "top60" else 1.0 for key in keys},
        derived={calibrated: Derived(masked, needs_history=True)},
    )
    agreement = agreement_of(report_of(data, intervals=QUICK), masked)
    families = dict(zip(agreement.keys, agreement.families))
    assert families == {KEYS[0]: "sima", KEYS[1]: "loss", KEYS[2]: "pia", masked: "sima", calibrated: "sima"}
    assert agreement.target_fpr == 1 / 50
    expected = attack_agreement([masked], score[masked][None], is_member, half)
    assert torch.equal(agreement.is_found[agreement.keys.index(masked)], expected.is_found[0])

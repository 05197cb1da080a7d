"""When each image was memorized: known answers, loops, and false alarms under labels that mean nothing."""

from itertools import product

import pytest
import torch
from scipy import stats

from ldm_privacy.audit.kept import KeptScores
from ldm_privacy.audit.report import report_of
from ldm_privacy.audit.scores import AuditScores
from ldm_privacy.evidence.image_fpr import heldout_ranks
from ldm_privacy.evidence.image_onset import _most_above, expected_false_alarms, image_onsets, onsets_of
from ldm_privacy.types import AuditKey
from tests.evidence.synthetic import QUICK

AUDITS = 9
KEY, OTHER = AuditKey("sima", "all"), AuditKey("loss", "all")


def drifting(num_audits, num_samples, *, memory=0.9, seed=0):
    """(audits, samples) standard normal noise, correlated from audit to audit."""
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randn(num_samples, generator=generator, dtype=torch.float64)]
    for _ in range(num_audits - 1):
        fresh = torch.randn(num_samples, generator=generator, dtype=torch.float64)
        rows.append(memory * rows[-1] + (1 - memory**2) ** 0.5 * fresh)
    return torch.stack(rows)


def labels(num_samples):
    """Half of them members, in each half."""
    place = torch.arange(num_samples)
    return place % 4 < 2, place % 2 == 0


@pytest.fixture(scope="module")
def rising():
    """Members that rise by five standard deviations at an audit of their own, some never; what they were made of."""
    is_member, half = labels(800)
    at = torch.randint(0, 2 * AUDITS, (800,), generator=torch.Generator().manual_seed(1))
    risen = is_member & (at <= torch.arange(AUDITS)[:, None])
    return image_onsets(range(0, 10 * AUDITS, 10), drifting(AUDITS, 800) + 5.0 * risen, is_member, half), at


@pytest.mark.parametrize("decimals", [8, 0])
def test_ranks_equal_a_loop_over_the_held_out_images_of_the_same_half(decimals):
    is_member, half = labels(40)
    score = drifting(2, 40).round(decimals=decimals)
    compared = ~is_member & (torch.arange(40) != 7)
    ranks = heldout_ranks(score, compared, half)
    for audit, sample in product(range(2), range(40)):
        others = [each for each in range(40) if compared[each] and half[each] == half[sample] and each != sample]
        assert ranks.num_as_high[audit, sample] == sum(bool(score[audit, each] >= score[audit, sample]) for each in others)
        assert ranks.num_compared[sample] == len(others)


def test_one_half_is_one_comparison():
    is_member, _ = labels(40)
    nothing = torch.zeros(40, dtype=torch.bool)
    assert set(heldout_ranks(drifting(1, 40), ~is_member, nothing).num_compared[is_member].tolist()) == {20}


def test_an_image_that_rises_at_an_audit_has_its_onset_there():
    is_member, half = labels(400)
    at = torch.arange(400) % 12
    standing = torch.where(
        is_member & (at <= torch.arange(AUDITS)[:, None]), 10.0, torch.where(is_member, -10.0, drifting(AUDITS, 400))
    )
    onsets = image_onsets(range(AUDITS), standing, is_member, half)
    # At the last audit alone is not held; past it is never.
    expected = torch.where(at > AUDITS - 2, AUDITS, at)[is_member]
    for found in (onsets.onset, onsets.earliest, onsets.latest):
        assert found[is_member].tolist() == expected.tolist()
    assert [onsets.time(place) for place in (0, AUDITS - 1, AUDITS)] == [0, AUDITS - 1, None]


def test_what_is_not_held_is_no_onset_and_what_was_held_stays():
    is_member, half = labels(200)
    standing = torch.where(is_member, -10.0, drifting(6, 200))
    standing[1, 0] = standing[[3, 4], 1] = 10.0
    onsets = image_onsets(range(6), standing, is_member, half)
    assert (onsets.onset[0], onsets.onset[1]) == (6, 3)
    assert onsets.is_listed[:, 1].tolist() == [False] * 4 + [True, False]
    assert image_onsets(range(6), standing, is_member, half, num_consecutive=1).onset[0] == 1


def test_onsets_equal_a_loop(rising):
    onsets, _ = rising
    for sample in range(0, 800, 7):
        run = [bool(each) for each in onsets.is_above[:, sample]]
        first = next((place for place in range(AUDITS - 1) if run[place] and run[place + 1]), AUDITS)
        assert onsets.onset[sample] == first


def test_the_uncertainty_encloses_the_onset(rising):
    onsets, at = rising
    assert (onsets.earliest <= onsets.onset).all()
    assert (onsets.onset <= onsets.latest).all()
    assert (onsets.earliest < onsets.latest).any()
    # Five standard deviations are past any bar: who has risen has done so for certain.
    risen = onsets.is_member & (at < AUDITS - 1)
    assert (onsets.latest[risen] <= at[risen]).double().mean() > 0.99


@pytest.mark.parametrize("count", [5, 20, 62, 124, 1000])
def test_the_bars_are_the_binomial_bounds_of_the_quantile(count):
    loose, allowed, strict = (int(each) for each in _most_above(torch.tensor([count]), 0.95, 0.9))
    above = stats.binom(count, 0.05)
    assert allowed == (count + 1) // 20 - 1
    assert strict <= allowed <= loose
    assert above.cdf(strict) <= 0.05 < above.cdf(strict + 1) or strict == allowed
    assert above.sf(loose) <= 0.05 < above.sf(loose - 1)


def test_increasing_maps_of_each_audit_change_nothing():
    is_member, half = labels(300)
    standing = drifting(5, 300) + 1.0 * is_member
    maps = (torch.exp, lambda each: each**3, lambda each: 2 * each - 7, torch.atan, lambda each: each)
    mapped = torch.stack([change(row) for change, row in zip(maps, standing)])
    one, other = (image_onsets(range(5), each, is_member, half) for each in (standing, mapped))
    for name in ("is_above", "onset", "earliest", "latest"):
        assert torch.equal(getattr(one, name), getattr(other, name))
    assert one.precision == other.precision


def test_under_permuted_labels_onsets_are_as_rare_as_they_must_be(rising):
    """Of m exchangeable members, Beta-Binomial(m, l, n + 1 - l) stand above n held-out images at an audit, l = (n + 1) / 20.

    Whatever the audits' dependence, an onset takes two of these.
    """
    is_member, half = labels(800)
    risen = drifting(AUDITS, 800) + 3.0 * (is_member & (torch.arange(AUDITS)[:, None] > 3))
    rank = 201 // 20
    most = stats.betabinom(200, rank, 201 - rank).isf(1e-9 / (2 * AUDITS))
    for seed in range(20):
        permuted = torch.empty_like(is_member)
        for part in (half, ~half):
            drawn = torch.randperm(400, generator=torch.Generator().manual_seed(seed))
            permuted[part] = is_member[part][drawn]
        onsets = image_onsets(range(AUDITS), risen, permuted, half)
        assert onsets.is_above[:, permuted].sum(1).max() <= 2 * most
        assert (onsets.onset[permuted] < AUDITS).sum() <= AUDITS * 2 * most / 2
        # No held-out image has a better chance than a member: each is compared with the others alone.
        assert onsets.is_above[:, ~permuted].sum(1).max() <= 2 * rank


@pytest.mark.parametrize(("num_audits", "num_consecutive"), [(1, 1), (6, 1), (6, 2), (7, 3), (2, 3)])
def test_expected_false_alarms_equal_an_enumeration(num_audits, num_consecutive):
    share, expected = 0.8, 0.0
    for above in product((False, True), repeat=num_audits):
        runs = "".join("x" if each else " " for each in above)
        expected += (1 - share) ** sum(above) * share ** (num_audits - sum(above)) * ("x" * num_consecutive in runs)
    independent, most = expected_false_alarms(num_audits, share, num_consecutive)
    assert independent == pytest.approx(expected)
    assert most == min(1.0, num_audits * (1 - share) / num_consecutive) >= independent or num_audits < num_consecutive


def test_precision_and_recall_equal_sets_and_are_1_at_the_last_audit(rising):
    onsets, _ = rising
    members = set(onsets.is_member.nonzero().flatten().tolist())
    listed = [members & set(row.nonzero().flatten().tolist()) for row in onsets.is_listed]
    assert (onsets.precision[0], onsets.recall[0]) == (None, None)
    for now, precision, recall in list(zip(listed, onsets.precision, onsets.recall))[1:]:
        assert precision.value == len(now & listed[-1]) / len(now)
        assert recall.value == len(now & listed[-1]) / len(listed[-1])
        assert precision.lower <= precision.value <= precision.upper
    assert onsets.precision[-1].value == onsets.recall[-1].value == 1.0


def test_the_share_reached_grows_to_what_has_an_onset(rising):
    onsets, _ = rising
    for side in (onsets.is_member, onsets.is_heldout):
        values = [each.value for each in onsets.reached(side)]
        assert values == sorted(values)
        assert values[-1] == float((onsets.onset[side] < AUDITS).double().mean())


@pytest.mark.parametrize("times", [(0,), (0, 1), (2, 1, 3), (1, 1, 3)])
def test_audits_that_are_missing_or_in_no_order_are_refused(times):
    is_member, half = labels(40)
    with pytest.raises(ValueError, match="standing is"):
        image_onsets(times, drifting(1 if len(times) == 1 else 3, 40), is_member, half)


def audit_of(score, *, num_folds=2):
    """A report whose `scores_at` ranks as that score does, within each half."""
    is_member, half = labels(len(score))
    index = 5 * torch.arange(len(score)) + 2
    data = AuditScores(index, is_member, half, None, {"sima": [50]}, {KEY: score.expand(num_folds, 1, -1)}, {KEY: 1.0})
    return report_of(data, intervals=QUICK)


def test_the_history_and_the_audit_itself_are_one_row_of_audits():
    standing, is_member = drifting(4, 200) + 2.0 * labels(200)[0], labels(200)[0]
    report = audit_of(standing[-1])
    index, shuffled = report.data.sample_index, torch.randperm(200, generator=torch.Generator().manual_seed(3))
    history = {
        at: KeptScores(index[shuffled], {}, {}, {KEY: row[shuffled]}) for at, row in zip((20, 10, 0), standing[[2, 1, 0]])
    }
    other = KeptScores(index, {}, {}, {OTHER: standing[0]})
    found = onsets_of(report, KEY, {**history, 15: other}, 30)
    expected = image_onsets((0, 10, 20, 30), standing, *labels(200))
    assert found.times == (0, 10, 20, 30)
    assert torch.equal(found.onset, expected.onset)
    assert torch.equal(found.is_above, expected.is_above)
    assert torch.equal(found.is_heldout, ~is_member)
    lacking = KeptScores(index[1:], {}, {}, {KEY: standing[0, 1:]})
    assert onsets_of(report, KEY, {**history, 25: lacking}, 30).times == (0, 10, 20, 30)
    assert onsets_of(report, KEY, {10: history[10], 15: other, 25: lacking}, 30) is None, (
        "two audits hold an onset, from nothing"
    )


def test_where_one_half_reports_all_images_are_compared_with_its_held_out_images():
    standing = drifting(3, 200)
    report = audit_of(standing[-1], num_folds=1)
    is_member, half = labels(200)
    history = {at: KeptScores(report.data.sample_index, {}, {}, {KEY: standing[at]}) for at in (0, 1)}
    found = onsets_of(report, KEY, history, 2)
    assert torch.equal(found.is_heldout, ~is_member & ~half)
    highest = standing[-1][found.is_heldout].sort().values[-2]
    assert torch.equal(found.is_above[-1][is_member], (standing[-1] > highest)[is_member])

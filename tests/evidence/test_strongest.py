"""The strongest attack of an audit: chosen crosswise, and how its AUROC errs."""

import numpy as np
import pytest
import torch
from scipy import stats

from ldm_privacy.audit.kept import KeptScores
from ldm_privacy.audit.samples import is_calibration
from ldm_privacy.errors import UserError
from ldm_privacy.evidence.strongest import strongest
from ldm_privacy.metrics import Half, auroc, crossfit_auroc
from ldm_privacy.types import AuditKey
from tests.evidence.trainings import DRAWS, KEY, samples

INDEX, MEMBER = samples(60, 0)
CHOOSES = is_calibration(INDEX)
SIDES = [half & side for half in (CHOOSES, ~CHOOSES) for side in (MEMBER, ~MEMBER)]
FITTED = AuditKey("combined", "all")


def noise(*shape, seed=0):
    return torch.randn(*shape, len(INDEX), generator=torch.Generator().manual_seed(seed))


def found(scores, made=None, *, num_fitted=None, order=None, **options):
    timesteps = {key.attack: list(range(10, 10 + score.shape[1])) for key, score in scores.items()}
    kept = KeptScores(INDEX, timesteps, scores, {}, made or {}, num_fitted or {})
    order = torch.arange(len(INDEX)) if order is None else order
    return strongest(kept.at(INDEX[order]), MEMBER[order], CHOOSES[order], intervals=DRAWS, **options)


def test_each_half_chooses_for_the_other_among_all_attacks_masks_and_timesteps():
    keys = [AuditKey(attack, mask) for attack in ("sima", "loss") for mask in ("all", "top60")]
    scores = {key: noise(1, 3, seed=place) for place, key in enumerate(keys)}
    scores[keys[1]][0, 2] += MEMBER * CHOOSES * 3.0  # the calibration half prefers one
    scores[keys[2]][0, 0] += MEMBER * ~CHOOSES * 3.0  # and the other half another
    mine = found(scores)
    assert mine.chosen == ("sima/top60 at 12", "loss/all at 10")
    rows = torch.cat([score[0] for score in scores.values()])
    halves = [Half(rows[:, ~CHOOSES], MEMBER[~CHOOSES], chosen=5), Half(rows[:, CHOOSES], MEMBER[CHOOSES], chosen=6)]
    assert mine.auroc == crossfit_auroc(halves, **vars(DRAWS))
    assert mine.auroc.value < 0.65, "what the one half found is nothing on the other"
    one = found(scores, cross_fit=False)
    assert one.chosen == ("sima/top60 at 12",)
    assert one.auroc.value == float(auroc(rows[5, ~CHOOSES], MEMBER[~CHOOSES]))


def test_a_calibrated_score_chooses_by_its_own_fit_and_reports_by_that_of_the_other_half():
    """A fit that knows its own half by heart and nothing else is chosen, and reported as what it is worth."""
    made = noise(2, 1, seed=5)
    made[0, 0, CHOOSES] += 9.0 * MEMBER[CHOOSES]
    made[1, 0, ~CHOOSES] += 9.0 * MEMBER[~CHOOSES]
    mine = found({KEY: noise(1, 2) + 0.5 * MEMBER}, {FITTED: made}, num_fitted={FITTED: 2})
    assert mine.chosen == ("combined/all", "combined/all")
    expected = [auroc(made[fold, 0, rows], MEMBER[rows]) for fold, rows in ((0, ~CHOOSES), (1, CHOOSES))]
    assert mine.auroc.value == pytest.approx(float(sum(expected)) / 2)
    unfitted = found({KEY: noise(1, 2) + 0.5 * MEMBER}, {FITTED: made})
    width = [each.auroc.upper - each.auroc.lower for each in (mine, unfitted)]
    assert width[0] > width[1], "the interval carries what was fitted"


def test_the_errors_say_what_happens_where_a_sample_counts_twice():
    score = noise(1, 1)[0, 0] + 0.8 * MEMBER
    mine = found({KEY: score[None, None]})
    area = [float(auroc(score[rows], MEMBER[rows])) for rows in (CHOOSES, ~CHOOSES)]
    stretched = []
    for place in (0, 17, 44):
        rows = CHOOSES if CHOOSES[place] else ~CHOOSES
        twice = torch.cat([torch.where(rows)[0], torch.tensor([place])])
        moved = (float(auroc(score[twice], MEMBER[twice])) - area[0 if CHOOSES[place] else 1]) / 2
        on_side = int((MEMBER[rows] == MEMBER[place]).sum())
        stretched.append(float(mine.error[place]) / (moved * (1 + 1 / on_side)))  # n + 1 in place of n
    assert stretched == pytest.approx([stretched[0]] * 3, rel=1e-9)
    sizes = [int(each.sum()) for each in SIDES]
    least, most = min(sizes), max(sizes)
    assert (most / (most - 1)) ** 0.5 <= stretched[0] <= (least / (least - 1)) ** 0.5, "what resamples lack of the interval"


@pytest.mark.parametrize("size", [1, 6])
def test_the_errors_have_the_variance_of_the_interval(size):
    """Of the AUROC when units are drawn anew, which is the sum of their squares: an interval's k / (k - 1) isn't lost."""
    group = torch.empty_like(INDEX)
    group[MEMBER], group[~MEMBER] = torch.arange(60) // size, 100 + torch.arange(60) // size
    scores = {AuditKey("sima", mask): noise(1, 4, seed=place) + 0.7 * MEMBER for place, mask in enumerate(("all", "top"))}
    kept, half = KeptScores(INDEX, {"sima": [0, 1, 2, 3]}, scores, {}), is_calibration(INDEX, group=group)
    mine = strongest(kept, MEMBER, half, group=group if size > 1 else None, intervals=DRAWS)
    logit = np.log([each / (1 - each) for each in (mine.auroc.lower, mine.auroc.upper)])
    deviation = (logit[1] - logit[0]) / (2 * stats.norm.isf(0.025)) * mine.auroc.value * (1 - mine.auroc.value)
    of_units = torch.zeros(200, dtype=torch.float64).index_add(0, group, mine.error)
    assert float(of_units.square().sum().sqrt()) == pytest.approx(deviation, rel=1e-9)
    assert mine.unseen == 0.0


def test_where_all_members_lie_above_the_samples_show_no_spread_but_there_is_one():
    mine = found({KEY: (noise(1, 1).clamp(-1, 1) + 9 * MEMBER)})
    assert mine.auroc.value == 1.0
    assert float(mine.error.abs().max()) == 0.0
    assert mine.unseen == pytest.approx((1 - mine.auroc.lower) / (2 * 1.959964))


def test_the_order_of_samples_changes_no_digit():
    scores, made = {KEY: noise(1, 3) + 0.5 * MEMBER}, {FITTED: noise(2, 1, seed=1) + 0.5 * MEMBER}
    order = torch.randperm(len(INDEX), generator=torch.Generator().manual_seed(1))
    one, other = found(scores, made), found(scores, made, order=order)
    assert (one.auroc, one.tpr, one.chosen) == (other.auroc, other.tpr, other.chosen)
    assert torch.equal(one.error, other.error)
    assert torch.equal(one.sample_index, other.sample_index)


def test_groups_widen_the_errors_and_lie_in_one_half():
    group = torch.empty_like(INDEX)
    group[MEMBER], group[~MEMBER] = torch.arange(60) // 6, 100 + torch.arange(60) // 6
    half = is_calibration(INDEX, group=group)
    shared = torch.randn(200, generator=torch.Generator().manual_seed(2))[group]
    kept = KeptScores(INDEX, {"sima": [0]}, {KEY: (shared + 0.3 * noise() + 0.5 * MEMBER)[None, None]}, {})
    plain, grouped = (strongest(kept, MEMBER, half, group=each, intervals=DRAWS) for each in (None, group))
    assert grouped.auroc.value == plain.auroc.value
    assert grouped.auroc.upper - grouped.auroc.lower > 1.5 * (plain.auroc.upper - plain.auroc.lower)


def test_a_half_without_held_out_samples_is_refused():
    kept = KeptScores(INDEX, {"sima": [0]}, {KEY: noise(1, 1)}, {})
    with pytest.raises(UserError, match="half"):
        strongest(kept, MEMBER, MEMBER)

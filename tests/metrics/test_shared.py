"""What all metrics share (`ldm_privacy.metrics`): their defaults, shares, groups and dtypes."""

import functools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from ldm_privacy.errors import UserError
from ldm_privacy.metrics import (
    Half,
    attack_success_rate,
    attack_success_rate_interval,
    auroc,
    auroc_by_quartile,
    auroc_difference,
    auroc_interval,
    choice_reach,
    clopper_pearson,
    crossfit_auroc,
    crossfit_difference,
    crossfit_rates,
    loss_gap_rise,
    mean_difference,
    membership_metrics,
    memorized_generations,
    null_band,
    p_value_by_set_size,
    pearson,
    permuted_auroc,
    permuted_labels,
    rank_agreement,
    roc_curve,
    threshold_at_fpr,
    tnr_at_fnr,
    tpr_at_fpr,
    tpr_at_fpr_interval,
    tpr_at_threshold,
    welch_verdict,
)
from ldm_privacy.metrics.memorized_generations import copies_rise
from ldm_privacy.metrics.neighbours import nearest_two

GENERATOR = np.random.default_rng(4)
GROUP = torch.from_numpy(np.sort(np.append(GENERATOR.integers(40, size=100), np.arange(60) % 2)))  # two large ones
IS_MEMBER = GROUP % 2 == 0
SCORE = torch.from_numpy(0.5 * GENERATOR.normal(size=160) + 1.5 * GENERATOR.normal(size=40)[GROUP]) + IS_MEMBER
OTHER = 0.5 * SCORE + torch.from_numpy(GENERATOR.normal(size=160))
IMAGES = torch.from_numpy(GENERATOR.uniform(-1, 1, size=(70, 1, 3, 3)))
GENERATED = torch.cat([0.98 * IMAGES[::2], torch.from_numpy(GENERATOR.uniform(-1, 1, size=(30, 1, 3, 3)))])

BOOTSTRAP = {"confidence": 0.95, "num_bootstrap": 1000, "seed": 0}
OF_SCORES = {
    "auroc_interval": (auroc_interval, (), BOOTSTRAP),
    "attack_success_rate_interval": (attack_success_rate_interval, (), BOOTSTRAP | {"num_bootstrap": 200}),
    "tpr_at_fpr_interval": (tpr_at_fpr_interval, (), BOOTSTRAP | {"target_fpr": 0.01}),
    "tpr_at_threshold": (tpr_at_threshold, (0.7,), BOOTSTRAP),
    "membership_metrics": (membership_metrics, (), BOOTSTRAP | {"target_fprs": (0.01, 0.001)}),
    "auroc_by_quartile": (auroc_by_quartile, (OTHER,), BOOTSTRAP),
    "permuted_auroc": (permuted_auroc, (), {"num_permutations": 200, "seed": 0}),
}
"""(score, is_member, *further arguments, group=...), and what the other options are where they are not given."""


def of_scores(name, **options):
    metric, arguments, _ = OF_SCORES[name]
    score = SCORE[None] if metric is auroc_by_quartile else SCORE
    return metric(score, IS_MEMBER, *arguments, **options)


CHOICE = [Half(torch.stack([each, OTHER, SCORE * OTHER]), IS_MEMBER, 1, group=GROUP) for each in (SCORE, SCORE + OTHER)]
"""Two halves that chose among three candidates."""
EQUAL = [Half(torch.from_numpy(GENERATOR.normal(size=(5, 160))), IS_MEMBER, 2, group=GROUP) for _ in range(2)]
PERFECT = Half(torch.arange(60.0), torch.arange(60) >= 30)


def memorized(**options):
    return memorized_generations(GENERATED, IMAGES.__getitem__, torch.arange(40), torch.arange(40, 70), **options)


CALLS = {
    **{name: (functools.partial(of_scores, name, group=GROUP), defaults) for name, (_, _, defaults) in OF_SCORES.items()},
    "permuted_labels": (functools.partial(permuted_labels, IS_MEMBER), {"num_permutations": 200, "seed": 0}),
    "auroc_difference": (
        functools.partial(auroc_difference, SCORE, OTHER, IS_MEMBER),
        {"confidence": 0.95, "alternative": "two-sided"},
    ),
    "crossfit_auroc": (functools.partial(crossfit_auroc, CHOICE), {"confidence": 0.95, "seed": 0}),
    "crossfit_auroc of a half alone": (functools.partial(crossfit_auroc, [PERFECT]), {"confidence": 0.95}),
    "crossfit_auroc of groups alone": (
        functools.partial(crossfit_auroc, [Half(IS_MEMBER + 0.0, IS_MEMBER, group=torch.arange(160) // 5 * 2 + ~IS_MEMBER)]),
        {"confidence": 0.95},
    ),
    "crossfit_difference": (
        functools.partial(crossfit_difference, CHOICE, EQUAL),
        {"confidence": 0.95, "alternative": "two-sided"},
    ),
    "crossfit_rates": (functools.partial(crossfit_rates, [replace(CHOICE[0], chosen=0)], [0.7]), BOOTSTRAP),
    "choice_reach": (functools.partial(choice_reach, [CHOICE], 0.025), {"seed": 0}),
    "mean_difference": (functools.partial(mean_difference, SCORE, IS_MEMBER), {"confidence": 0.95, "is_one_sided": False}),
    "pearson": (functools.partial(pearson, SCORE, OTHER), BOOTSTRAP),
    "loss_gap_rise": (functools.partial(loss_gap_rise, SCORE, OTHER, IS_MEMBER), {"confidence": 0.95}),
    "welch_verdict": (functools.partial(welch_verdict, SCORE[IS_MEMBER], SCORE[~IS_MEMBER]), {"confidence": 0.95}),
    "p_value_by_set_size": (
        functools.partial(p_value_by_set_size, OTHER[IS_MEMBER], OTHER[~IS_MEMBER], [20, 40]),
        {"alpha": 0.05, "num_draws": 200, "seed": 0},
    ),
    "null_band": (lambda **options: null_band(0.6, torch.linspace(0, 1, 399), **options), {"confidence": 0.95}),
    "rank_agreement": (functools.partial(rank_agreement, SCORE, OTHER), {"confidence": 0.95}),
    "clopper_pearson": (functools.partial(clopper_pearson, 7, 30), {"confidence": 0.95}),
    "threshold_at_fpr": (functools.partial(threshold_at_fpr, SCORE, IS_MEMBER), {"target_fpr": 0.01}),
    "tpr_at_fpr": (functools.partial(tpr_at_fpr, SCORE, IS_MEMBER), {"target_fpr": 0.01}),
    "tnr_at_fnr": (functools.partial(tnr_at_fnr, SCORE, IS_MEMBER), {"target_fnr": 0.01}),
    "memorized_generations": (memorized, BOOTSTRAP),
}


def same(first, second):
    """Whether two results agree to the last digit."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, tuple):
        return all(map(same, first, second))
    if hasattr(first, "__dict__"):
        return all(same(value, getattr(second, name)) for name, value in vars(first).items())
    return first == second


OTHERWISE = {
    **{"confidence": 0.8, "num_bootstrap": 150, "seed": 1, "target_fpr": 0.3, "target_fnr": 0.3, "target_fprs": (0.3,)},
    **{"num_permutations": 50, "alternative": "greater", "alpha": 0.3, "num_draws": 50},
    **{"is_one_sided": True},
}


@pytest.mark.parametrize("name", CALLS)
def test_what_is_not_given_is_what_the_docs_say(name):
    call, defaults = CALLS[name]
    found = call()
    assert same(found, call(**defaults))
    # Every option changes something, or the line above would be empty.
    for option in defaults:
        assert not same(found, call(**{option: OTHERWISE[option]})), option


SHARES = [
    (name, option)
    for name, (_, defaults) in CALLS.items()
    for option in defaults
    if option in ("confidence", "alpha") and name != "clopper_pearson"
]


@pytest.mark.parametrize(("name", "option"), [*SHARES, ("tpr_at_fpr", "target_fpr"), ("threshold_at_fpr", "target_fpr")])
def test_a_share_lies_strictly_between_0_and_1(name, option):
    for share in (0.0, 1.0, -0.5, 1.5, math.nan):
        with pytest.raises(UserError, match=f"^{option} is {share}: "):
            CALLS[name][0](**{option: share})


def test_shares_of_copies_lie_strictly_between_0_and_1():
    for share in (0.0, 1.0):
        with pytest.raises(UserError, match=f"^confidence is {share}: "):
            copies_rise(3, 1, confidence=share)


GROUPED = [
    *(functools.partial(of_scores, name) for name in OF_SCORES),
    functools.partial(permuted_labels, IS_MEMBER),
    functools.partial(auroc_difference, SCORE, OTHER, IS_MEMBER),
    functools.partial(loss_gap_rise, SCORE, OTHER, IS_MEMBER),
]


@pytest.mark.parametrize("call", GROUPED)
def test_groups_lie_on_one_side_and_label_every_sample(call):
    across = torch.where(torch.arange(160) == 11, GROUP[IS_MEMBER][0], GROUP)
    across[IS_MEMBER.nonzero()[0]] = across[(~IS_MEMBER).nonzero()[0]]
    with pytest.raises(UserError, match="has members and held-out samples"):
        call(group=across)
    with pytest.raises(UserError, match=r"^159 group labels for 160 samples"):
        call(group=GROUP[1:])


@pytest.mark.parametrize("call", GROUPED)
def test_the_names_of_groups_do_not_matter(call):
    # An increasing renaming: groups are drawn in ascending order of their labels.
    assert same(call(group=GROUP), call(group=1000 + 7 * GROUP))


def test_batches_of_images_change_nothing_and_neither_does_their_dtype():
    index = torch.arange(40)
    found = nearest_two(GENERATED, IMAGES.__getitem__, index)
    assert same(found, nearest_two(GENERATED, IMAGES.__getitem__, index, batch_size=9))
    assert same(memorized(), memorized(batch_size=9))


FREE = {"auroc": auroc, "attack_success_rate": attack_success_rate, "tpr_at_fpr": tpr_at_fpr, "tnr_at_fnr": tnr_at_fnr}
FREE |= {"threshold_at_fpr": threshold_at_fpr, "roc_curve": roc_curve}
FREE |= {name: functools.partial(OF_SCORES[name][0]) for name in ("auroc_interval", "tpr_at_fpr_interval", "permuted_auroc")}


@pytest.mark.parametrize("name", FREE)
def test_a_dtype_that_holds_the_scores_changes_no_digit(name):
    metric = FREE[name]
    score = (20 * SCORE).round()
    found = metric(score, IS_MEMBER)
    for other in (score.to(torch.int64), score.half(), score.float().requires_grad_()):
        assert same(metric(other, IS_MEMBER), found)

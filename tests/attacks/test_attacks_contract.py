"""The contract over every registered attack, the faults it must catch, attacks from outside, and bad input."""

import importlib
import math
import sys

import pytest
import torch

from ldm_privacy import randomness
from ldm_privacy.attacks import runner
from ldm_privacy.attacks.base import Attack, UnmaskableAttack, get_attack, membership_scores
from ldm_privacy.attacks.runner import attack_statistics, draw_noise, mask_and_sum
from ldm_privacy.errors import UserError
from ldm_privacy.models.predictor import bytes_per_number
from ldm_privacy.registry import ATTACKS
from ldm_privacy.testing import CountingPredictor, check_attack

BUILT_IN = [
    "branch_gap",
    "clid",
    "curvature",
    "dime",
    "dsm",
    "loss",
    "pfami",
    "pia",
    "pian",
    "secmi",
    "sima",
    "sima_mc",
    "sima_mc_of_mean",
    "t_mc",
]
OWN_TIMESTEPS = ["clid", "pfami"]
QUERIES = {  # for the timesteps 0, 10, ..., 190
    "branch_gap": 40,
    "clid": 6,
    "curvature": 40,
    "dime": 11 * 20,
    "dsm": 60,
    "loss": 20,
    "pfami": 110,
    "pia": 21,
    "pian": 21,
    "secmi": 21,
    "sima": 20,
    "sima_mc": 600,
    "sima_mc_of_mean": 600,
    "t_mc": 80,
}


def test_the_built_in_attacks_are_all_there():
    assert set(BUILT_IN) <= set(ATTACKS)


@pytest.mark.parametrize("name", list(ATTACKS))
def test_contract(name):
    check_attack(get_attack(name))


@pytest.mark.parametrize(
    ("name", "hyperparameters"),
    [
        ("loss", {"power": 4}),
        ("secmi", {"interval": 5}),
        ("sima_mc", {"num_draws": 1}),
        ("dime", {"num_draws": 1, "higher_means_member": True, "phi": 2.0, "gamma": 0.3}),
        ("clid", {"reduction": "thirds"}),
        ("clid", {"timesteps": [999, 3]}),
        ("dsm", {"guidance_scale": 1}),
        ("dsm", {"guidance_scale": 0.0, "interval": 959}),
        ("t_mc", {"num_pairs": 1}),
        ("t_mc", {"num_pairs": 1, "antithetic": False}),
        ("pfami", {"timesteps": [3, 700], "num_crops": 2}),
        ("pfami", {"timesteps": [0, 999], "num_crops": 1}),
    ],
)
def test_contract_with_other_hyperparameters(name, hyperparameters):
    check_attack(get_attack(name, **hyperparameters))


@pytest.mark.parametrize("name", list(ATTACKS))
def test_an_attack_is_printed_as_the_call_that_makes_it(name):
    """Histories of scores tell attacks apart by it."""
    attack = get_attack(name)
    again = eval(repr(attack), {type(attack).__name__: type(attack)})
    assert vars(again) == vars(attack)


def test_what_an_attack_keeps_to_itself_is_not_printed():
    class Kept(Attack):
        def __init__(self):
            self.size, self.words, self._found = 3, "a, b", 7

    assert repr(Kept()) == "Kept(size=3, words='a, b')"


def test_contract_with_every_timestep():
    check_attack(get_attack("secmi", interval=1), timesteps=(0, 1, 3))


DEFAULTS = {  # those of the papers, as the docstrings name them
    "clid": {"reduction": "null", "timesteps": [440, 450, 460]},
    "dime": {"gamma": 1.0, "phi": -math.pi / 4, "num_draws": 10, "higher_means_member": False},
    "dsm": {"guidance_scale": 7.5, "interval": 20},
    "loss": {"power": 2},
    "pfami": {"timesteps": list(range(0, 500, 50)), "num_crops": 10, "largest_crop": 0.95, "smallest_crop": 0.7},
    "secmi": {"interval": 10},
    "sima_mc": {"num_draws": 30},
    "sima_mc_of_mean": {"num_draws": 30},
    "t_mc": {"num_pairs": 2, "antithetic": True},
}


@pytest.mark.parametrize("name", BUILT_IN)
def test_hyperparameters_that_are_not_given(name):
    given = {key: value for key, value in vars(get_attack(name)).items() if not key.startswith("_")}
    assert given == DEFAULTS.get(name, {})


@pytest.mark.parametrize("name", BUILT_IN)
def test_number_of_queries(name):
    number = get_attack(name).num_queries(range(0, 200, 10))
    assert (number, type(number)) == (QUERIES[name], int)


def test_sums_of_positive_terms_are_compared_as_logarithms():
    assert {name for name in BUILT_IN if not get_attack(name).log_scale} == {"clid", "dime", "pfami"}


def test_contract_of_timesteps_off_the_interval():
    check_attack(get_attack("secmi"), timesteps=(99, 200, 20, 9))


def test_secmi_counts_the_states_of_gaps_and_of_each_remainder():
    assert get_attack("secmi").num_queries([0, 50]) == 7
    assert get_attack("secmi").num_queries([3]) == 3  # 0, 3 and 13
    assert get_attack("secmi").num_queries([19, 20, 39]) == 1 + 3 + 5  # 0; 10 to 30; 9 to 49
    assert get_attack("secmi", interval=1).num_queries([0, 2]) == 4  # 0 to 3


def test_queries_and_views_follow_the_hyperparameters():
    thirds, unguided = get_attack("clid", reduction="thirds"), get_attack("dsm", guidance_scale=1)
    assert (thirds.views, thirds.num_queries([0])) == (("without_1", "without_2", "without_3", "null"), 15)
    assert (unguided.views, unguided.num_queries([0, 10])) == ((), 4)
    assert {name for name in BUILT_IN if get_attack(name).views} == {"branch_gap", "clid", "curvature", "dsm"}


def views_of(attack, num_samples):
    """Some condition under each name that the attack asks for."""
    return {view: {"c": randomness.normal(view, (torch.arange(num_samples),), ()).double()} for view in attack.views}


@pytest.mark.parametrize("name", BUILT_IN)
def test_float32_agrees_with_float64(name):
    latent = randomness.normal("latent", (torch.arange(4),), (2, 8, 8))
    keep_masks = torch.ones(1, *latent.shape, dtype=torch.bool)
    attack, predictor = get_attack(name), CountingPredictor()
    views = views_of(attack, 4)
    single = attack_statistics(attack, predictor, latent, [50, 100], keep_masks, views=views)
    double = attack_statistics(attack, predictor, latent.double(), [50, 100], keep_masks, views=views)
    # Errors of the states, about 1e-7 of their size, are divided by sigma (DIME) or squared against a small difference (SecMI).
    torch.testing.assert_close(single, double, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("budget", [2**16, 2**20, 2**31])
def test_memory_is_bounded_by_the_budget(budget):
    seen = []

    class Recorder(Attack):
        num_draws = 3

        def contributions(self, query, latent, timesteps, noise):
            seen.append(noise.numel())
            return query(noise, timesteps).mean(0)

    predictor = CountingPredictor()
    latent = torch.zeros(100, 2, 8, 8)
    attack_statistics(
        Recorder(), predictor, latent, [0, 10], torch.ones(1, *latent.shape, dtype=torch.bool), memory_budget=budget
    )
    one_sample, one_row = 3 * 2 * 128, 128
    assert max(seen) <= max(budget / 2 / 64, one_sample)
    assert predictor.largest_call <= max(budget / 2 / bytes_per_number(None) / one_row, 1)
    assert sum(seen) == 100 * one_sample
    if budget == 2**31:  # all samples, timesteps and draws share one pass where they fit
        assert predictor.largest_call == 600


def test_the_precision_that_was_asked_for_is_that_of_the_passes(monkeypatch):
    class Asked(Exception):
        pass

    def query(*given, autocast, **options):
        raise Asked(autocast)

    monkeypatch.setattr(runner, "DenoiserQuery", query)
    latent, keep = torch.empty(2, 1, 2, 2, device="meta"), torch.ones(1, 2, 1, 2, 2, dtype=torch.bool)
    for precision in (None, torch.bfloat16):
        with pytest.raises(Asked) as caught:
            attack_statistics(get_attack("sima"), CountingPredictor((1, 2, 2)), latent, [0], keep, autocast=precision)
        assert caught.value.args == (precision,)


def test_parts_and_passes_are_of_about_equal_size():
    sizes = []

    class Recorder(Attack):
        def contributions(self, query, latent, timesteps, noise):
            sizes.append(len(latent))
            return query(latent[None], timesteps)

    class Calls(CountingPredictor):
        def __call__(self, noisy_latent, timestep, condition):
            sizes.append(-len(noisy_latent))
            return super().__call__(noisy_latent, timestep, condition)

    latent = torch.zeros(10, 2, 8, 8)
    keep_masks = torch.ones(1, *latent.shape, dtype=torch.bool)
    # Half of it is 8 samples of the attack's tensors, and many rows of a pass; a number is 64 bytes, and 16 for the mask.
    attack_statistics(Recorder(), Calls(), latent, [0], keep_masks, memory_budget=2 * 8 * 128 * (64 + 16))
    assert [size for size in sizes if size > 0] == [5, 5]
    sizes.clear()
    attack_statistics(Recorder(), Calls(), latent, [0], keep_masks, memory_budget=int(2 * 4 * 128 * bytes_per_number(None)))
    assert sizes == [10, -3, -3, -4]


def test_a_pass_has_as_many_rows_as_the_predictor_says():
    predictor, latent = CountingPredictor(), torch.zeros(10, 2, 8, 8)
    predictor.bytes_per_number = 2**20
    keep_masks = torch.ones(1, *latent.shape, dtype=torch.bool)
    attack_statistics(get_attack("sima"), predictor, latent, [0], keep_masks, memory_budget=2 * 3 * 128 * 2**20)
    assert (predictor.num_rows, predictor.largest_call) == (10, 3)


def test_masks_are_sums_over_the_kept_dimensions():
    contribution = torch.randn(2, 3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    keep_masks = torch.rand(5, 3, 1, 4, 4, generator=torch.Generator().manual_seed(1)) < 0.3
    expected = (contribution.double()[None] * keep_masks[:, None]).sum((3, 4, 5))
    torch.testing.assert_close(mask_and_sum(contribution, keep_masks), expected, rtol=1e-12, atol=1e-12)


def test_noise_belongs_to_seed_sample_timestep_and_draw():
    latent = torch.zeros(2, 2, 4, 4)
    index = torch.tensor([7, 9])
    one = draw_noise(get_attack("loss"), latent, [0, 30], sample_index=index, seed=1)
    many = draw_noise(get_attack("sima_mc", num_draws=2), latent, [30], sample_index=index.flip(0), seed=1)
    assert one.shape == (2, 2, 2, 4, 4)
    assert many.shape == (2, 1, 2, 2, 4, 4)
    assert torch.equal(many[0, 0], one[1].flip(0))
    assert torch.equal(one[1, 0], randomness.normal("noise", (1, 7, 30, 0), (2, 4, 4)))
    assert torch.equal(many[1, 0, 0], randomness.normal("noise", (1, 9, 30, 1), (2, 4, 4)))


def test_every_seed_sample_timestep_and_draw_has_its_own_noise():
    latent = torch.zeros(40, 1, 1, 4)
    attack = get_attack("sima_mc", num_draws=3)
    noise = torch.stack([draw_noise(attack, latent, [0, 10, 20], seed=seed) for seed in range(2)])
    assert len(noise.flatten(0, 3).flatten(1).unique(dim=0)) == 2 * 3 * 3 * 40


def test_dime_draws_signs():
    noise = draw_noise(get_attack("dime", num_draws=2), torch.zeros(50, 1, 4, 4), [0, 30], seed=3)
    assert noise.shape == (2, 2, 50, 1, 4, 4)
    for draw, place, sample in ((0, 0, 0), (1, 0, 49), (1, 1, 7)):
        key = (3, sample, [0, 30][place], draw)
        assert torch.equal(noise[draw, place, sample], randomness.rademacher("signs", key, (1, 4, 4)))


@pytest.mark.parametrize("name", ["loss", "dime"])
def test_where_nothing_is_said_samples_are_numbered_and_the_seed_is_0(name):
    attack, latent = get_attack(name, **({"num_draws": 2} if name == "dime" else {})), torch.zeros(3, 2, 8, 8)
    keyed = {"sample_index": torch.arange(3), "seed": 0}
    assert torch.equal(draw_noise(attack, latent, [10]), draw_noise(attack, latent, [10], **keyed))
    assert torch.equal(statistics(attack), statistics(attack, **keyed))


def test_noise_for_none_is_none():
    assert draw_noise(get_attack("sima"), torch.zeros(3, 2, 8, 8), [10]).shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["loss", "sima_mc"])
def test_noise_handed_in_is_taken_to_the_latents_precision_and_may_have_an_axis_for_one_draw(name, dtype):
    class Single(CountingPredictor):
        def __call__(self, noisy_latent, timestep, condition):
            assert noisy_latent.dtype == torch.float32
            return super().__call__(noisy_latent, timestep, condition)

    attack = get_attack(name, **({"num_draws": 1} if name == "sima_mc" else {}))
    noise = randomness.normal("noise", (0, torch.arange(3), torch.tensor([[20]]), 0), (2, 8, 8)).to(dtype)
    expected = statistics(attack, timesteps=[20])
    for given in (noise, noise[None]):
        assert torch.equal(statistics(attack, Single(), timesteps=[20], noise=given), expected)


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_schedule_in_single_precision_is_used_in_double(name):
    def with_schedule(dtype):
        predictor = CountingPredictor()
        predictor.alphas_cumprod = predictor.alphas_cumprod.float().to(dtype)
        latent = randomness.normal("latent", (torch.arange(3),), (2, 8, 8)).double()
        keep_masks = torch.ones(1, *latent.shape, dtype=torch.bool)
        attack = get_attack(name)
        return attack_statistics(attack, predictor, latent, [30], keep_masks, views=views_of(attack, 3))

    assert torch.equal(with_schedule(torch.float32), with_schedule(torch.float64))


def test_orientation():
    statistics = torch.tensor([[[1.0, 2.0]]])
    assert torch.equal(membership_scores(get_attack("sima"), statistics), -statistics)
    assert torch.equal(membership_scores(get_attack("pfami"), statistics), statistics)
    assert torch.equal(membership_scores(get_attack("dime", higher_means_member=True), statistics), statistics)


# Attacks with one fault each, and what the contract says about it.


class BatchNormalised(Attack):
    def contributions(self, query, latent, timesteps, noise):
        epsilon = query(latent.expand(len(timesteps), *latent.shape), timesteps)
        return epsilon.square() / epsilon.square().mean()


class GlobalNoise(Attack):
    def contributions(self, query, latent, timesteps, noise):
        return query(latent + torch.randn(len(timesteps), *latent.shape), timesteps).square()


class ChangesLatents(Attack):
    def contributions(self, query, latent, timesteps, noise):
        latent *= 2
        return query(latent.expand(len(timesteps), *latent.shape), timesteps).square()


class Miscounts(Attack):
    def contributions(self, query, latent, timesteps, noise):
        query(latent, 0)
        return query(latent.expand(len(timesteps), *latent.shape), timesteps).square()


class PassesByTheQuery(Attack):
    def contributions(self, query, latent, timesteps, noise):
        rows = latent.repeat(len(timesteps), 1, 1, 1)
        timestep = torch.tensor(timesteps).repeat_interleave(len(latent))
        condition = {name: value.repeat(len(timesteps)) for name, value in query.condition.items()}
        epsilon = query.predictor(rows, timestep, condition)
        return epsilon.square().reshape(len(timesteps), *latent.shape)


class IgnoresCondition(Attack):
    def contributions(self, query, latent, timesteps, noise):
        query.condition = {}
        return query(latent.expand(len(timesteps), *latent.shape), timesteps).square()


class MixesTimesteps(Attack):
    def contributions(self, query, latent, timesteps, noise):
        return query(latent.expand(len(timesteps), *latent.shape), timesteps).square().cumsum(0)


class ClaimsDraws(Attack):
    num_draws = 1

    def contributions(self, query, latent, timesteps, noise):
        return query(latent.expand(len(timesteps), *latent.shape), timesteps).square()


class AsksForNothing(Attack):
    views = ("null",)

    def contributions(self, query, latent, timesteps, noise):
        return query(latent.expand(len(timesteps), *latent.shape), timesteps).square()


class DoesWithout(Attack):
    views = ("null",)

    def contributions(self, query, latent, timesteps, noise):
        other = query.under("null") if "null" in query.views else query
        return other(latent.expand(len(timesteps), *latent.shape), timesteps).square() + query(latent, 0).square()

    def num_queries(self, timesteps):
        return 1 + len(timesteps)


class OutOfSchedule(Attack):
    def contributions(self, query, latent, timesteps, noise):
        return query(latent.expand(len(timesteps), *latent.shape), timesteps).square()

    def grid(self, timesteps, num_train_timesteps):
        return list(timesteps)


class SumsItself(Attack):
    def contributions(self, query, latent, timesteps, noise):
        epsilon = query(latent.expand(len(timesteps), *latent.shape), timesteps).square()
        return epsilon.sum((2, 3, 4))


class ClaimsALogarithm(Attack):
    log_scale = True

    def contributions(self, query, latent, timesteps, noise):
        return query(latent.expand(len(timesteps), *latent.shape), timesteps)


FAULTS = {
    BatchNormalised: "a sample alone gets another statistic",
    GlobalNoise: "global random state",
    ChangesLatents: "changes the latents",
    Miscounts: "5 network rows per sample for 3 masks, but num_queries says 4",
    PassesByTheQuery: "passes by the query",
    IgnoresCondition: "the condition does not reach",
    MixesTimesteps: "depends on which other timesteps",
    ClaimsDraws: "the seed does not change",
    AsksForNothing: "views names 'null', but it does not reach",
    DoesWithout: "views names 'null', but the attack does without",
    ClaimsALogarithm: "log_scale is True, but a statistic is not positive",
    OutOfSchedule: "outside the schedule, but the attack accepts it",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_contract_catches(fault):
    with pytest.raises(AssertionError, match=FAULTS[fault]):
        check_attack(fault())


def test_contributions_of_a_wrong_shape_are_refused():
    with pytest.raises(
        ValueError, match=r"contributions: it returns torch\.float64 \(4, 6\), not a tensor of shape \(4, 6, 2, 8, 8\)"
    ):
        check_attack(SumsItself())


class GradientNorm(UnmaskableAttack):
    """||d ||epsilon||^2 / d z||^2, which is no sum over masked dimensions of one pass."""

    def statistic(self, query, latent, timesteps, noise):
        with torch.enable_grad():
            states = latent.expand(len(timesteps), *latent.shape).clone().requires_grad_()
            (gradient,) = torch.autograd.grad(query(states, timesteps).square().sum(), states)
        return gradient.square().sum((2, 3, 4))


def test_an_attack_without_masks_keeps_the_contract():
    check_attack(GradientNorm())


def test_an_attack_without_masks_refuses_one():
    latent = torch.zeros(2, 2, 8, 8)
    keep_masks = torch.ones(2, *latent.shape, dtype=torch.bool)
    keep_masks[1, 0, 0, 0, 0] = False
    with pytest.raises(UserError, match="GradientNorm is no sum over latent dimensions, so it has no mask"):
        attack_statistics(GradientNorm(), CountingPredictor(), latent, [0], keep_masks)


def test_a_plug_in_from_outside(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "outside_attack.py").write_text(
        "from ldm_privacy.attacks.base import Attack\n"
        "from ldm_privacy.registry import ATTACKS\n"
        "\n"
        "@ATTACKS.register('sima_power')\n"
        "class SimAPower(Attack):\n"
        "    def __init__(self, *, power: float = 2.0):\n"
        "        self.power = power\n"
        "\n"
        "    def contributions(self, query, latent, timesteps, noise):\n"
        "        return query(latent.expand(len(timesteps), *latent.shape), timesteps).abs() ** self.power\n"
    )
    importlib.import_module("outside_attack")
    try:
        attack = get_attack("sima_power", power=4.0)
        check_attack(attack)
        latent = randomness.normal("latent", (torch.arange(3),), (2, 8, 8))
        keep_masks = torch.ones(1, *latent.shape, dtype=torch.bool)
        ours = attack_statistics(attack, CountingPredictor(), latent, [10], keep_masks)
        sima = attack_statistics(get_attack("sima"), CountingPredictor(), latent, [10], keep_masks)
        torch.testing.assert_close(ours, sima, rtol=1e-5, atol=0)
        with pytest.raises(UserError, match="attack 'sima' is already registered"):
            ATTACKS.register("sima")(type(attack))
    finally:
        # Not a copied table put back: it would lack attacks whose files were first imported here.
        del sys.modules["outside_attack"], ATTACKS._components["sima_power"]


# Bad input.


def statistics(attack, predictor=None, timesteps=(0,), num_samples=3, **options):
    latent = randomness.normal("latent", (torch.arange(num_samples),), (2, 8, 8))
    keep_masks = options.pop("keep_masks", torch.ones(1, *latent.shape, dtype=torch.bool))
    options = {"views": views_of(attack, num_samples), **options}
    return attack_statistics(attack, predictor or CountingPredictor(), latent, list(timesteps), keep_masks, **options)


def test_unknown_attack_names_the_nearest():
    with pytest.raises(UserError, match=r"unknown attack 'simma'\. Did you mean 'sima'\? Known: branch_gap, clid, "):
        get_attack("simma")


def test_unknown_hyperparameter_names_the_nearest_and_all():
    with pytest.raises(
        UserError, match=r"attack 'loss': unknown hyperparameter 'pwoer'\. Did you mean 'power'\? Valid: power\."
    ):
        get_attack("loss", pwoer=2)
    with pytest.raises(UserError, match=r"attack 'sima': unknown hyperparameter 'power'\. It has none\."):
        get_attack("sima", power=2)


def test_an_attack_may_take_any_hyperparameter(monkeypatch):
    class Open(Attack):
        def __init__(self, **options):
            self.options = options

    monkeypatch.setitem(ATTACKS._components, "open", Open)
    assert get_attack("open", anything=3).options == {"anything": 3}


@pytest.mark.parametrize(
    ("name", "hyperparameters", "message"),
    [
        ("loss", {"power": 3}, "power is 3; it must be 2 or 4"),
        ("secmi", {"interval": 0}, "interval is 0"),
        ("secmi", {"interval": -1}, "interval is -1"),
        ("sima_mc", {"num_draws": 0}, "'sima_mc': num_draws is 0"),
        ("dime", {"num_draws": 0}, "'dime': num_draws is 0"),
        ("t_mc", {"num_pairs": 0}, "'t_mc': num_pairs is 0"),
        ("dime", {"gamma": 0.0}, "gamma is 0.0"),
        ("dime", {"gamma": float("nan")}, "gamma is nan"),
        ("pfami", {"num_crops": 0}, "num_crops is 0"),
        ("pfami", {"largest_crop": 1.5}, "crops from 1.5 down to 0.7"),
        ("pfami", {"smallest_crop": 0.0}, "crops from 0.95 down to 0.0"),
        ("pfami", {"smallest_crop": 0.96}, "crops from 0.95 down to 0.96"),
        ("pfami", {"timesteps": []}, "no timesteps"),
        ("clid", {"timesteps": []}, "no timesteps"),
        ("clid", {"reduction": "halves"}, "reduction is 'halves'; it must be one of: null, thirds"),
        ("dsm", {"interval": 0}, "interval is 0"),
        ("dsm", {"guidance_scale": float("nan")}, "guidance_scale is nan"),
    ],
)
def test_hyperparameters_outside_their_range(name, hyperparameters, message):
    with pytest.raises(UserError, match=message):
        statistics(get_attack(name, **hyperparameters))


@pytest.mark.parametrize("timestep", [-1, 1000])
@pytest.mark.parametrize("name", [name for name in BUILT_IN if name not in OWN_TIMESTEPS])
def test_timestep_outside_the_schedule(name, timestep):
    with pytest.raises(UserError, match=f"timestep {timestep} is outside the schedule: choose one from 0 to 999"):
        statistics(get_attack(name), timesteps=[0, timestep])


@pytest.mark.parametrize(("name", "timestep"), [("pfami", 100), ("clid", 440)])
def test_own_timesteps_on_a_short_schedule(name, timestep):
    with pytest.raises(UserError, match=f"timestep {timestep} is outside the schedule: choose one from 0 to 99"):
        statistics(get_attack(name), CountingPredictor(num_train_timesteps=100))


def test_no_timesteps():
    with pytest.raises(UserError, match="no timesteps given"):
        statistics(get_attack("sima"), timesteps=[])


def test_a_timestep_that_is_no_integer():
    with pytest.raises(TypeError):
        statistics(get_attack("sima"), timesteps=[10.5])


def test_secmi_at_the_end_of_the_schedule():
    with pytest.raises(UserError, match="timestep 990 needs the state at 1000, but the schedule ends at 999"):
        statistics(get_attack("secmi"), timesteps=[990])
    assert statistics(get_attack("secmi", interval=999)).isfinite().all(), "the last state of the schedule"


def test_dsm_at_the_end_of_the_schedule():
    with pytest.raises(UserError, match="timestep 980 needs the state at 1000, but the schedule ends at 999"):
        statistics(get_attack("dsm"), timesteps=[980])
    assert statistics(get_attack("dsm"), timesteps=[979]).isfinite().all(), "the last state of the schedule"


@pytest.mark.parametrize("name", ["branch_gap", "clid", "curvature", "dsm"])
def test_a_condition_that_the_samples_lack_is_refused(name):
    with pytest.raises(UserError, match="'null'") as error:
        statistics(get_attack(name), condition={"c": torch.zeros(3)}, views={})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("budget", [None, 1])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_prediction_that_is_not_finite_names_sample_and_timestep(value, budget):
    class Broken(CountingPredictor):
        def __call__(self, noisy_latent, timestep, condition):
            epsilon = super().__call__(noisy_latent, timestep, condition)
            epsilon[(timestep == 20) & (condition["c"] == 8), 0, 0, 0] = value
            return epsilon

    index = torch.tensor([5, 8, 2])
    with pytest.raises(UserError, match="the noise prediction for sample 8 at timestep 20 is not finite"):
        statistics(
            get_attack("sima"),
            Broken(),
            timesteps=[0, 10, 20],
            sample_index=index,
            condition={"c": index.float()},
            memory_budget=budget,
        )


def test_pfami_with_a_mask_that_keeps_nothing():
    with pytest.raises(UserError, match="keeps no dimension"):
        statistics(get_attack("pfami"), keep_masks=torch.zeros(1, 3, 2, 8, 8, dtype=torch.bool))


def test_autocast_on_cpu():
    with pytest.raises(UserError, match=r"autocast to torch\.bfloat16 is for a GPU"):
        statistics(get_attack("sima"), autocast=torch.bfloat16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep_masks": torch.ones(3, 2, 8, 8, dtype=torch.bool)}, "keep_masks must be a bool tensor"),
        ({"keep_masks": torch.ones(1, 3, 2, 8, 8)}, "keep_masks must be a bool tensor"),
        ({"keep_masks": torch.ones(1, 4, 2, 8, 8, dtype=torch.bool)}, "keep_masks must be a bool tensor"),
        ({"sample_index": torch.arange(2)}, "2 entries of sample_index for 3 latents"),
        ({"sample_index": torch.arange(4)}, "4 entries of sample_index for 3 latents"),
        ({"condition": {"c": torch.zeros(2)}}, "2 entries of c for 3 latents"),
        ({"views": {"null": {"c": torch.zeros(1)}}}, "1 entries of c for 3 latents"),
        ({"noise": torch.zeros(3, 2, 8, 8)}, r"noise must be \(1, 3, 2, 8, 8\)"),
    ],
)
def test_shapes_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        statistics(get_attack("loss"), **options)


def test_latents_without_channels():
    latent = torch.zeros(3, 8, 8)
    with pytest.raises(ValueError, match="keep_masks must be a bool tensor"):
        attack_statistics(get_attack("sima"), CountingPredictor(), latent, [0], torch.ones(1, 3, 8, 8, dtype=torch.bool))


def test_no_latents():
    with pytest.raises(ValueError, match="no latents"):
        statistics(get_attack("sima"), num_samples=0)


def test_a_predictor_of_the_wrong_shape():
    class Flat(CountingPredictor):
        def __call__(self, noisy_latent, timestep, condition):
            return super().__call__(noisy_latent, timestep, condition).flatten(1)

    with pytest.raises(ValueError, match=r"^noise predictor: it returns torch.float32 \(3, 128\), not .* \(3, 2, 8, 8\)"):
        statistics(get_attack("sima"), Flat())

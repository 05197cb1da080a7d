"""Attacks that ask for another condition: against the same written plainly, in closed form, and where it says nothing."""

import math

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from sklearn.preprocessing import RobustScaler

from ldm_privacy import randomness
from ldm_privacy.attacks.base import get_attack, membership_scores
from ldm_privacy.attacks.clid import Mixing, fitted_mixing
from ldm_privacy.attacks.conditions import on_condition
from ldm_privacy.attacks.query import ROWS_PER_GRADIENT, DenoiserQuery
from ldm_privacy.attacks.runner import attack_statistics, draw_noise, masked_sums
from ldm_privacy.errors import UserError
from ldm_privacy.models.ideal import IdealDenoiser, MembershipBlindPredictor
from ldm_privacy.testing import CountingPredictor
from tests.reference import attacks as plain
from tests.reference.predictors import Told, ToldMemoriser

SHAPE = (2, 3, 4)
INDEX = torch.arange(5)
LATENT = randomness.normal("latent", (INDEX,), SHAPE).double()
MASKS = torch.stack([torch.ones(5, *SHAPE), randomness.uniform("keep", (INDEX,), SHAPE)]) > 0.5
OWN, *REDUCED = (randomness.normal(name, (INDEX,), ()).double() * 5 for name in ("own", "first", "second", "third", "null"))
VIEWS = {name: {"c": each} for name, each in zip(("without_1", "without_2", "without_3", "null"), REDUCED)}
TOLD = {"condition": {"c": OWN}, "views": VIEWS}
PREDICTOR = CountingPredictor(SHAPE)
ABAR = PREDICTOR.alphas_cumprod.tolist()
TIMESTEPS = [40, 0, 900]


def predict(states, timestep, condition):
    return PREDICTOR(states, torch.full((len(states),), timestep), {"c": condition})


@pytest.mark.parametrize(
    ("name", "hyperparameters"),
    [
        ("branch_gap", {}),
        ("curvature", {}),
        ("dsm", {}),
        ("dsm", {"guidance_scale": 1}),
        ("dsm", {"guidance_scale": 3.0, "interval": 7}),
        ("dsm", {"interval": 1}),
    ],
)
def test_the_plain_version(name, hyperparameters):
    attack = get_attack(name, **hyperparameters)
    statistics = attack_statistics(attack, PREDICTOR, LATENT, TIMESTEPS, MASKS, seed=5, **TOLD)
    noise = draw_noise(attack, LATENT, TIMESTEPS, seed=5)
    for mask, keep in enumerate(MASKS):
        for place, timestep in enumerate(TIMESTEPS):
            given = (ABAR, LATENT, timestep, keep, noise[place], OWN, REDUCED[-1])
            expected = getattr(plain, name)(predict, *given, **hyperparameters)
            torch.testing.assert_close(statistics[mask, place], expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize(("reduction", "reduced"), [("null", REDUCED[-1:]), ("thirds", REDUCED)])
def test_the_parts_of_clid_against_the_plain_version(reduction, reduced):
    attack = get_attack("clid", reduction=reduction, timesteps=[440, 20])
    own, less = masked_sums(attack, PREDICTOR, LATENT, [7], MASKS, seed=5, **TOLD)
    noise = draw_noise(attack, LATENT, [440, 20], seed=5)
    for mask, keep in enumerate(MASKS):
        likelihood, discrepancy = plain.clid(predict, ABAR, LATENT, keep, noise, [440, 20], OWN, reduced)
        count = keep.sum((1, 2, 3))
        torch.testing.assert_close(-own[mask, 0] / count, likelihood, rtol=1e-9, atol=0)
        torch.testing.assert_close((less - own)[mask, 0] / count, discrepancy, rtol=1e-9, atol=1e-12)


def test_before_it_is_fitted_clid_is_the_likelihood_and_the_discrepancy_in_equal_parts():
    attack = get_attack("clid")
    own, less = masked_sums(attack, PREDICTOR, LATENT, [7], MASKS, **TOLD)
    torch.testing.assert_close(attack_statistics(attack, PREDICTOR, LATENT, [7], MASKS, **TOLD), (-own + less - own) / 2)


def test_the_sums_of_clid_are_those_of_the_loss_under_each_condition():
    """The same noise for every condition of a sample, and that of the loss."""
    own, less = masked_sums(get_attack("clid"), PREDICTOR, LATENT, [7], MASKS, seed=3, **TOLD)
    for found, condition in ((own, OWN), (less, REDUCED[-1])):
        loss = attack_statistics(
            get_attack("loss"), PREDICTOR, LATENT, [440, 450, 460], MASKS, seed=3, condition={"c": condition}
        )
        torch.testing.assert_close(found, loss.mean(1, keepdim=True))


def half_and_half(num_samples, gap, shift):
    """Sums of CLiD, members with a lower loss and a larger discrepancy; labels; half of them to fit on."""
    index = torch.arange(num_samples)
    is_member, fitted_on = index % 2 == 0, index % 4 < 2
    drawn = randomness.normal("sums", (index,), (2,)).double().exp()
    own = 100 * drawn[:, 0] - shift * is_member
    return (own, own + 0.1 * drawn[:, 1] + gap * is_member), is_member, fitted_on


@pytest.mark.parametrize(("gap", "shift"), [(0.1, 0), (0.05, 30), (0, 40), (0, 0), (5, 0), (0, 1000), (5, 1000)])
def test_what_clid_fits_against_the_plain_version(gap, shift):
    (own, less), is_member, fitted_on = half_and_half(80, gap, shift)
    attack = get_attack("clid").calibrated(tuple(each[None, fitted_on] for each in (own, less)), is_member[fitted_on])
    score = membership_scores(attack, attack.combine(own[None, None], less[None, None]))[0, 0]
    expected, best = plain.clid_scores(-own, less - own, is_member, fitted_on)
    torch.testing.assert_close(score, expected, rtol=1e-9, atol=1e-9)
    weight = fitted_mixing(-own[fitted_on], (less - own)[fitted_on], is_member[fitted_on]).weight
    assert weight == best[len(best) // 2] / 100
    if gap == 5 and shift == 0:
        assert weight > 0.5, "the discrepancy alone tells the sides apart"


def test_what_clid_fits_is_no_hyperparameter_and_leaves_the_attack_as_it_was():
    (own, less), is_member, _ = half_and_half(40, 0.1, 0)
    attack = get_attack("clid", reduction="thirds", timesteps=[30])
    fitted = attack.calibrated((own[None], less[None]), is_member)
    assert repr(fitted) == repr(attack) == "CLiD(reduction='thirds', timesteps=[30])"
    assert attack._mixing == Mixing() != fitted._mixing
    assert fitted.num_fitted == 1, "labels are looked at for the weight alone"


@pytest.mark.parametrize("constant", ["discrepancy", "likelihood", "both"])
def test_a_half_without_spread_gives_finite_scores_that_rank_by_the_other_part(constant):
    (own, less), is_member, fitted_on = half_and_half(40, 0.1, 200)
    gap = torch.zeros_like(own) if constant != "likelihood" else less - own
    own = torch.full_like(own, 7.0) if constant != "discrepancy" else own
    sums = (own, own + gap)
    attack = get_attack("clid").calibrated(tuple(each[None, fitted_on] for each in sums), is_member[fitted_on])
    score = attack.combine(*(each[None, None] for each in sums))[0, 0]
    assert score.isfinite().all()
    order = {"discrepancy": -own, "likelihood": gap, "both": torch.zeros_like(own)}[constant]
    assert torch.equal(score.argsort(stable=True), order.argsort(stable=True))


@pytest.mark.parametrize("constant", [(), (0,), (1,), (0, 1)])
def test_what_clid_fits_scales_as_a_robust_scaler(constant):
    (own, less), is_member, _ = half_and_half(40, 0.1, 200)
    parts = np.stack([-own, less - own], axis=1)
    parts[:, list(constant)] = 7
    found, scaler = fitted_mixing(*torch.from_numpy(parts).T, is_member), RobustScaler().fit(parts)
    assert found.centre == pytest.approx(scaler.center_, rel=1e-12)
    assert found.spread == pytest.approx(scaler.scale_, rel=1e-12)
    scaled = torch.from_numpy(scaler.transform(parts) @ [1 - found.weight, found.weight])
    torch.testing.assert_close(found(*torch.from_numpy(parts).T), scaled, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["loss", "sima"])
def test_under_another_condition_an_attack_is_that_of_samples_whose_own_it_is(name):
    attack = get_attack(name)
    other = on_condition(attack, "null")
    given = {"predictor": PREDICTOR, "latent": LATENT, "timesteps": TIMESTEPS, "keep_masks": MASKS, "seed": 5}
    found, plain_one = (attack_statistics(each, **given, **TOLD) for each in (other, attack))
    assert torch.equal(found, attack_statistics(attack, **given, condition=VIEWS["null"]))
    assert torch.equal(plain_one, attack_statistics(attack, **given, condition=TOLD["condition"]))
    assert not torch.equal(found, plain_one)
    assert (attack.view, other.view) == ("own", "null")


def test_an_attack_that_chooses_its_conditions_itself_is_put_under_no_other():
    for attack in (get_attack("branch_gap"), get_attack("dsm"), on_condition(get_attack("sima"), "null")):
        with pytest.raises(UserError, match="chooses its conditions itself"):
            on_condition(attack, "shuffled")


def test_closed_form_of_two_point_masses():
    """The own condition names the sample itself, the null condition a latent m: epsilon = (z - sqrt(abar) m) / sigma."""
    latent, other = LATENT[:1], LATENT[1:2]
    predictor, keep = Told(IdealDenoiser(latent), IdealDenoiser(other)), torch.ones(1, 1, *SHAPE, dtype=torch.bool)
    told = {"condition": {"c": torch.tensor([0])}, "views": {"null": {"c": torch.tensor([1])}}}
    distance = float((latent - other).square().sum())
    t, u, g = 500, 530, 4.0
    a, b = float(predictor.alphas_cumprod[t]), float(predictor.alphas_cumprod[u])
    turn = 1 - math.sqrt(a / b) * math.sqrt((1 - b) / (1 - a))
    expected = {
        "branch_gap": a / (1 - a) * distance,
        "curvature": a / (1 - a) ** 2 * distance,
        "dsm": ((g - 1) * turn) ** 2 * b / (1 - b) * distance,
        "clid": a / (1 - a) * distance / 2,
    }
    options = {"dsm": {"guidance_scale": g, "interval": u - t}, "clid": {"timesteps": [t]}}
    for name, value in expected.items():
        attack = get_attack(name, **options.get(name, {}))
        statistics = attack_statistics(attack, predictor, latent, [t], keep, **told)
        torch.testing.assert_close(float(statistics), value, rtol=1e-8, atol=0)


def test_closed_form_of_a_point_mass_and_a_normal_distribution():
    """Null: independent normal dimensions, epsilon = sigma (z - sqrt(abar) mean) / v with v = abar variance + sigma^2."""
    latent, t = LATENT[:1], 300
    blind = MembershipBlindPredictor(LATENT)
    predictor = Told(IdealDenoiser(latent), blind)
    told = {"condition": {"c": torch.tensor([0])}, "views": {"null": {"c": torch.tensor([1])}}}
    attack = get_attack("curvature")
    noise = draw_noise(attack, latent, [t])[0]
    abar = float(predictor.alphas_cumprod[t])
    centred = math.sqrt(abar) * (latent - blind.mean) + math.sqrt(1 - abar) * noise
    spread = abar * blind.variance + 1 - abar
    expected = (noise / math.sqrt(1 - abar) - (1 - abar) * centred / spread.square()).square().sum()
    statistics = attack_statistics(attack, predictor, latent, [t], torch.ones(1, 1, *SHAPE, dtype=torch.bool), **told)
    torch.testing.assert_close(statistics[0, 0, 0], expected, rtol=1e-9, atol=0)


class Deaf(CountingPredictor):
    """Doesn't listen to its condition."""

    def __call__(self, noisy_latent, timestep, condition):
        return super().__call__(noisy_latent, timestep, {})


def test_a_predictor_that_does_not_listen_has_no_gap_no_discrepancy_and_no_curvature_of_the_condition():
    predictor = Deaf(SHAPE)
    for name in ("branch_gap", "curvature"):
        assert not attack_statistics(get_attack(name), predictor, LATENT, TIMESTEPS, MASKS, **TOLD).any()
    own, less = masked_sums(get_attack("clid", reduction="thirds"), predictor, LATENT, [7], MASKS, **TOLD)
    torch.testing.assert_close(own, less, rtol=1e-14, atol=0)
    guided, plain_step = (
        attack_statistics(get_attack("dsm", guidance_scale=scale), predictor, LATENT, TIMESTEPS, MASKS, **TOLD)
        for scale in (7.5, 1)
    )
    assert torch.equal(guided, plain_step)
    assert guided.all()


def test_clid_ranks_an_image_that_stands_there_many_times_below_single_ones():
    """Without its caption it is the likeliest answer."""
    repeated = torch.cat([LATENT[:1].expand(30, *SHAPE), LATENT[1:]])
    own, keep = torch.tensor([0, 30, 31, 32, 33]), torch.ones(1, 5, *SHAPE, dtype=torch.bool)
    told = {"condition": {"c": own}, "views": {"null": {"c": torch.full((5,), -1)}}}
    with_repeats, alone = (
        attack_statistics(get_attack("clid"), ToldMemoriser(each), LATENT, [0], keep, **{**told, "condition": {"c": number}})[
            0, 0
        ]
        for each, number in ((repeated, own), (LATENT, INDEX))
    )
    assert with_repeats.argmin() == 0
    assert alone.argmin() != 0
    assert with_repeats[0] < 0.1 * alone[0]


def test_a_pass_with_gradients_holds_what_its_fewer_rows_allow():
    """Bytes kept for the way back, per number of the input; a pass without gradients is taken to hold 2 KiB."""
    blocks = {"block_out_channels": (32, 96), "layers_per_block": 1, "norm_num_groups": 8}
    text = {"cross_attention_dim": 64, "attention_head_dim": 4, "down_block_types": ["CrossAttnDownBlock2D"] * 2}
    network = UNet2DConditionModel(8, 4, 4, up_block_types=["CrossAttnUpBlock2D"] * 2, **blocks, **text).eval()
    kept = {each.untyped_storage().data_ptr(): 0 for each in network.parameters()}

    def keep(tensor):
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes())
        return tensor

    def predictor(noisy_latent, timestep, condition):
        return network(noisy_latent, timestep, condition["c"]).sample

    predictor.alphas_cumprod = PREDICTOR.alphas_cumprod
    states, words = torch.randn(2, 4, 8, 8), torch.randn(2, 16, 64)
    query = DenoiserQuery(predictor, torch.arange(2), condition={"c": words}, rows_per_call=2 * ROWS_PER_GRADIENT)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda each: each):
        query.pulled_back(states, 10)
    assert 2048 < sum(kept.values()) / states.numel() < 2048 * ROWS_PER_GRADIENT

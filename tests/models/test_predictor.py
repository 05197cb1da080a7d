"""A network as a noise predictor: what its output means, in which precision it is asked, and answers that it may not give."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ldm_privacy.diffusion import add_noise, epsilon_from_output, flow_alphas_cumprod, training_target
from ldm_privacy.errors import UserError
from ldm_privacy.models.ideal import linear_alphas_cumprod
from ldm_privacy.models.predictor import (
    NetworkPredictor,
    WithoutVariance,
    bytes_per_number,
    num_parameters,
    rows_per_pass,
)
from ldm_privacy.randomness import normal

ABAR = linear_alphas_cumprod()
TIMESTEP = torch.tensor([0, 400, 999])


@pytest.fixture
def states():
    latent, noise = (normal(name, (torch.arange(3),), (2, 4, 4)).double() for name in ("latent", "noise"))
    return latent, noise, add_noise(latent, noise, ABAR, TIMESTEP)


@pytest.mark.parametrize(
    "wrap", [lambda output: output, lambda output: SimpleNamespace(sample=output)], ids=["tensor", "record"]
)
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_a_network_that_outputs_its_target_predicts_the_noise(states, prediction_type, wrap):
    latent, noise, noisy = states
    output = training_target(latent, noise, ABAR, TIMESTEP, prediction_type)

    def network(noisy_latent, timestep, *, shift):
        assert noisy_latent is noisy
        assert timestep is TIMESTEP
        return wrap(output + shift)

    predictor = NetworkPredictor(network, ABAR, prediction_type)
    torch.testing.assert_close(predictor(noisy, TIMESTEP, {"shift": 0}), noise)
    assert not torch.allclose(predictor(noisy, TIMESTEP, {"shift": 1}), noise)


TIMES = {
    None: [1000 / 1001, 401000 / 1001, 1000000 / 1001],
    "sigma_1000": [1000 / 1001, 401000 / 1001, 1000000 / 1001],
    "sigma": [1 / 1001, 401 / 1001, 1000 / 1001],
    "one_minus_sigma": [1000 / 1001, 600 / 1001, 1 / 1001],
    "index": [0, 400, 999],
}


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_flow_is_given_its_own_state_and_time_and_answers_with_the_noise(states, time, sign):
    latent, noise, _ = states
    abar, sigma = flow_alphas_cumprod(), (TIMESTEP.double() + 1)[:, None, None, None] / 1001

    def network(state, number):
        torch.testing.assert_close(state, (1 - sigma) * latent + sigma * noise)
        torch.testing.assert_close(number, torch.tensor(TIMES[time], dtype=torch.float64))
        return sign * (noise - latent)

    predictor = NetworkPredictor(network, abar, "flow", time=time, negated=sign < 0)
    torch.testing.assert_close(predictor(add_noise(latent, noise, abar, TIMESTEP), TIMESTEP, {}), noise)


@pytest.mark.parametrize("time", [*TIMES])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_what_is_no_flow_is_given_z_t_itself_whatever_it_is_told_of_the_time(states, prediction_type, time):
    latent, noise, noisy = states
    abar = ABAR[TIMESTEP].double()
    sigma = (1 - abar).sqrt() / (abar.sqrt() + (1 - abar).sqrt())
    of_sigma = {"sigma": sigma, "sigma_1000": 1000 * sigma, "one_minus_sigma": 1 - sigma}

    def network(state, number):
        assert state is noisy
        torch.testing.assert_close(number.double(), of_sigma.get(time, TIMESTEP.double()))
        return training_target(latent, noise, ABAR, TIMESTEP, prediction_type)

    torch.testing.assert_close(NetworkPredictor(network, ABAR, prediction_type, time=time)(noisy, TIMESTEP, {}), noise)


def test_a_network_gets_what_is_made_of_the_condition_that_travels(states):
    def network(noisy_latent, timestep, *, shift):
        return states[1] + shift

    predictor = NetworkPredictor(network, ABAR, given=lambda condition: {"shift": condition["number"] / 2})
    torch.testing.assert_close(predictor(states[2], TIMESTEP, {"number": 3}), states[1] + 1.5)


def test_the_output_is_the_noise_where_nothing_is_said(states):
    assert NetworkPredictor(lambda noisy_latent, timestep: states[1], ABAR)(states[2], TIMESTEP, {}) is states[1]


class Precise(nn.Module):
    """Its answer is its input; it knows what it was given."""

    def __init__(self, dtype):
        super().__init__()
        self.count = nn.Parameter(torch.zeros(2, dtype=torch.int64), requires_grad=False)
        self.weight = nn.Parameter(torch.ones(3, dtype=dtype))

    def forward(self, noisy_latent, timestep, **condition):
        self.given = {"noisy_latent": noisy_latent, "timestep": timestep, **condition}
        return noisy_latent


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_network_is_asked_in_its_own_precision_and_answers_in_float32(states, dtype):
    network, noisy = Precise(dtype), states[2].float()
    condition = {"class_labels": torch.tensor([1, 2, 3]), "encoder_hidden_states": torch.full((3, 2), 0.1)}
    output = NetworkPredictor(network, ABAR)(noisy, TIMESTEP, condition)
    assert output.dtype == torch.float32
    assert torch.equal(output, noisy.to(dtype).float())
    assert network.given["timestep"] is TIMESTEP
    assert network.given["class_labels"] is condition["class_labels"]
    assert torch.equal(network.given["encoder_hidden_states"], condition["encoder_hidden_states"].to(dtype))
    assert num_parameters(network) == 5


class WithVariance(nn.Module):
    """What is predicted, and the variance behind it, of as many channels."""

    def __init__(self):
        super().__init__()
        self.config = {"in_channels": 2, "block_out_channels": (24, 48)}

    def forward(self, noisy_latent, timestep, *, shift):
        predicted = noisy_latent * timestep[:, None, None, None] + shift
        return SimpleNamespace(sample=torch.cat([predicted, -torch.ones_like(noisy_latent)], dim=1))


def test_of_a_network_that_outputs_a_variance_too_only_what_it_predicts_is_seen(states):
    noisy, network = states[2], WithoutVariance(WithVariance())
    assert torch.equal(network(noisy, TIMESTEP, shift=0.5), noisy * TIMESTEP[:, None, None, None] + 0.5)
    predictor = NetworkPredictor(network, ABAR)
    assert torch.equal(predictor(noisy, TIMESTEP, {"shift": 0.5}), network(noisy, TIMESTEP, shift=0.5))
    assert predictor.bytes_per_number == 200 * 24 / 2, "the width is that of the network inside"
    assert list(network.children()) == [network.network], "it is found where parameters are counted and moved"


def test_a_prediction_type_that_is_unknown_is_refused_and_never_read_as_another(states):
    for call in (
        lambda: NetworkPredictor(lambda noisy_latent, timestep: noisy_latent, ABAR, "v"),
        lambda: epsilon_from_output(*states[:2], ABAR, TIMESTEP, "v"),
        lambda: training_target(*states[:2], ABAR, TIMESTEP, "v"),
    ):
        with pytest.raises(UserError, match=r"^prediction_type: 'v' is unknown; known: epsilon, v_prediction, sample, flow\.$"):
            call()


def test_an_answer_of_another_shape_is_refused(states):
    predictor = NetworkPredictor(lambda noisy_latent, timestep: noisy_latent[:, :1], ABAR)
    with pytest.raises(UserError, match=r"^target: the network returns \(1, 4, 4\) for a latent of shape \(2, 4, 4\)\.$"):
        predictor(states[2], TIMESTEP, {})


def test_rows_go_through_in_passes_of_the_memory_budget_each_with_its_own_timestep_and_condition(limit_memory):
    sizes = []

    def network(noisy_latent, timestep, *, embedding):
        sizes.append(len(noisy_latent))
        return (noisy_latent * embedding[:, :, None, None]).cos() + timestep[:, None, None, None]

    network.config = {"in_channels": 4, "block_out_channels": (12,)}  # what it holds is its own, not what is taken of others
    given = torch.randn(7, 4)  # what travels is a number; what it stands for is looked up pass by pass
    predictor = NetworkPredictor(network, ABAR, given=lambda told: {"embedding": given[told["number"]]})
    rows, number = torch.randn(23, 4, 3, 3), torch.arange(23) % 7
    timestep = torch.arange(23) * 40
    whole = predictor(rows, timestep, {"number": number})
    for most, expected in ((23, [23]), (22, [11, 12]), (5, [4, 5, 4, 5, 5]), (0, [1] * 23)):
        sizes.clear()
        limit_memory(2 * most * 36 * predictor.bytes_per_number)
        torch.testing.assert_close(predictor(rows, timestep, {"number": number}), whole)
        assert sizes == expected


@pytest.mark.parametrize(
    ("config", "width"),
    [
        ({"block_out_channels": (320, 640, 1280, 1280), "in_channels": 4, "attention_head_dim": 8}, 320 / 4),
        ({"block_out_channels": [128, 256], "in_channels": 3}, 128 / 3),
        ({"num_attention_heads": 16, "attention_head_dim": 72, "in_channels": 4, "patch_size": 2}, 1152 / 16),
        ({"num_attention_heads": 24, "attention_head_dim": 128, "in_channels": 64}, 3072 / 64),
        ({"attention_head_dim": 24, "in_channels": 4, "patch_size": 2}, 24 / 16),
        ({"num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 4, "patch_size": (1, 2, 2)}, 16 / 16),
        ({}, 32),
        (None, 32),
        ("none", 32),
    ],
)
def test_what_a_pass_holds_goes_with_the_width_of_the_network(config, width):
    assert bytes_per_number(SimpleNamespace(config=config)) == 200 * width


def test_half_of_the_budget_is_for_a_pass(limit_memory):
    latent = torch.zeros(5, 4, 8, 8)
    network = SimpleNamespace(config={"block_out_channels": (32, 64), "in_channels": 4})
    limit_memory(2**28)
    # 2^27 bytes at 200 for each of 32 channels of 64 pixels; None is taken to have as many for each of its numbers.
    assert rows_per_pass(NetworkPredictor(network, ABAR), latent) == 2**27 // (200 * 32 * 64)
    assert rows_per_pass(None, latent) == 2**27 // (200 * 32 * 256)
    assert rows_per_pass(SimpleNamespace(bytes_per_number=2**19), latent) == 1
    assert rows_per_pass(SimpleNamespace(bytes_per_number=2**29), latent) == 1
    assert rows_per_pass(None, latent, 2 * 200 * 32 * 256 * 3) == 3

"""Every denoiser under every condition that it takes: steps, compiled or not."""

import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from ldm_privacy.data.captions import Captions
from ldm_privacy.data.conditions import ClassLabels, Unconditional
from ldm_privacy.models.dit import dit
from ldm_privacy.models.ideal import linear_alphas_cumprod
from ldm_privacy.models.predictor import output_of
from ldm_privacy.models.unet import unet
from ldm_privacy.models.unet_condition import unet_condition
from ldm_privacy.training.denoiser import DenoiserModule
from tests.training.test_stepwise import fit

MEMBERS = torch.arange(32)
UNET = {"block_out_channels": (8,), "norm_num_groups": 4, "layers_per_block": 1}
NETWORKS = {
    "unet": lambda **given: unet(**UNET, **given),
    "unet_condition": lambda **given: unet_condition(**UNET, num_heads=2, **given),
    "dit": lambda **given: dit(width=16, num_layers=1, num_heads=2, **given),
}
CONDITIONS = {
    "none": Unconditional,
    "labels": lambda: ClassLabels(labels=lambda rows: rows % 3, num_classes=3, dropout=0.3),
    "captions": lambda: Captions.build(
        captions=lambda rows: [[f"number {row % 7}", "a number"] for row in rows.tolist()],
        member_index=MEMBERS,
        heldout_index=torch.tensor([32]),
        max_tokens=6,
        dropout=0.3,
    ),
}
PAIRS = [("unet", "none"), ("unet", "labels"), ("unet_condition", "captions"), ("dit", "none"), ("dit", "labels")]


def module(network, condition, **options):
    source = CONDITIONS[condition]()
    torch.manual_seed(0)
    built = NETWORKS[network](latent_channels=4, latent_size=4, **source.network_arguments())
    choices, num_choices = source.choices(MEMBERS)
    told = {"choices": choices, "num_choices": num_choices, "null": source.null(), "given": source.given}
    latents, abar = torch.randn(1, 32, 4, 4, 4), linear_alphas_cumprod().float()
    options = {"batch_size": 16, "learning_rate": 1e-3, "condition_dropout": source.dropout, **told, **options}
    return DenoiserModule(built, abar, latents, **options)


@pytest.mark.parametrize(("network", "condition"), PAIRS)
def test_steps_train_the_network_and_nothing_else(network, condition):
    before = {name: value.clone() for name, value in module(network, condition).state_dict().items()}
    kind = {"none": "sample", "labels": "v_prediction", "captions": "epsilon"}[condition]
    after = fit(module(network, condition, prediction_type=kind), max_epochs=1).state_dict()
    assert after.keys() == before.keys()
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved
    assert not any("text" in name for name in after), "the encoder is no part of what is trained"


def test_averaged_weights_are_a_copy_of_the_network_and_not_of_what_it_is_trained_on():
    mine = module("dit", "labels")
    other = AveragedModel(mine).module
    assert type(other) is DenoiserModule
    assert all(mean is not value for mean, value in zip(other.parameters(), mine.parameters(), strict=True))
    assert other.latents is mine.latents
    assert other.choices["class_labels"] is mine.choices["class_labels"]
    assert other.null["class_labels"] is mine.null["class_labels"]


@pytest.mark.slow
@pytest.mark.parametrize(("network", "condition"), [("unet_condition", "captions"), ("dit", "labels")])
def test_compiled_steps_are_the_same_arithmetic(network, condition, traced):
    plain = fit(module(network, condition), max_epochs=1)
    fast = fit(module(network, condition, compile_mode="default", channels_last=True), max_epochs=1)
    assert traced[0] == ["default"]
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(fast.state_dict()[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("network", "condition"), [pair for pair in PAIRS if pair[1] != "none"])
def test_what_it_predicts_depends_on_the_condition_alone_of_each_sample(network, condition):
    one = module(network, condition)
    generator = torch.Generator().manual_seed(1)
    for weight in one.parameters():  # as if trained: no weight is 0
        weight.data += 0.1 * torch.randn(weight.shape, generator=generator)
    own = {name: value[:3, 0] for name, value in one.choices.items()}
    other = {name: value.roll(1, 0) for name, value in own.items()}
    latent, timestep = torch.randn(3, 4, 4, 4), torch.tensor([10, 400, 900])
    predictor = one.predictor
    epsilon = predictor(latent, timestep, own)
    assert bool((predictor(latent, timestep, other) != epsilon).flatten(1).any(1).all())
    torch.testing.assert_close(
        predictor(latent, timestep, {name: torch.cat([value[:1], other[name][1:]]) for name, value in own.items()})[:1],
        epsilon[:1],
    )


@pytest.mark.parametrize(("network", "condition"), PAIRS)
def test_dropout_drops_something_in_training_and_nothing_in_an_audit(network, condition):
    source = CONDITIONS[condition]()
    told = source.given(source(MEMBERS[:4]))
    latent, timestep = torch.randn(4, 4, 4, 4), torch.tensor([10, 400, 700, 900])
    outputs = {}
    for dropout in (0.0, 0.5):
        torch.manual_seed(0)
        built = NETWORKS[network](latent_channels=4, latent_size=4, dropout=dropout, **source.network_arguments())
        for weight in built.parameters():  # as if trained: no weight is 0
            weight.data += 0.1 * torch.randn(weight.shape)
        for is_training in (True, False):
            built.train(is_training)
            outputs[dropout, is_training] = [output_of(built, latent, timestep, told).detach() for _ in range(2)]
    assert torch.equal(*outputs[0.5, False])
    assert torch.equal(outputs[0.5, False][0], outputs[0.0, True][0])
    first, second = outputs[0.5, True]
    assert bool((first != second).flatten(1).any(1).all())


@pytest.mark.parametrize("condition", ["labels", "captions"])
def test_what_is_told_wrongly_is_told_to_steps_alone(condition, monkeypatch):
    one = module({"labels": "dit", "captions": "unet_condition"}[condition], condition, condition_dropout=0.0)
    source = CONDITIONS[condition]()
    source.noise = 0.9
    one.given, one.given_in_training = source.given, source.given_in_training
    told = []
    monkeypatch.setattr(one, "_objective", lambda *given: told.append(given[6]) or given[3].sum())
    torch.manual_seed(0)
    one.loss(torch.arange(16))
    own = source.given({name: value[:16, 0] for name, value in one.choices.items()})
    assert told[0].keys() == own.keys()
    assert not any(torch.equal(told[0][name], value) for name, value in own.items())
    predictor = one.predictor
    assert predictor.given == source.given, "an audit asks with what is true"

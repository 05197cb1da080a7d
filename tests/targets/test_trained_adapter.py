"""A LoRA that trains: peft's arithmetic, the base to the last bit without it, and nothing of the base in what is kept of it."""

import copy

import pytest
import torch

from ldm_privacy.errors import UserError
from ldm_privacy.models.ideal import linear_alphas_cumprod
from ldm_privacy.models.predictor import bytes_per_number
from ldm_privacy.targets.adapters.trained import Lora
from ldm_privacy.training.denoiser import DenoiserModule
from ldm_privacy.training.per_sample import check_per_sample_gradients
from tests.targets.pipelines import conditional_unet

TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "conv1", "proj_in"]


@pytest.fixture
def unet():
    torch.manual_seed(0)
    return conditional_unet()


def given():
    draw = torch.Generator().manual_seed(1)
    state, told = torch.randn(2, 4, 8, 8, generator=draw), torch.randn(2, 5, 16, generator=draw)
    return {"sample": state, "timestep": torch.tensor([100, 700]), "encoder_hidden_states": told}


@torch.no_grad()
def random(lora):
    """An adapter as if trained."""
    draw = torch.Generator().manual_seed(2)
    for each in lora.parameters():
        each.copy_(0.3 * torch.randn(each.shape, generator=draw))
    return lora


def test_it_begins_as_its_base_and_is_it_again_while_off(unet):
    before = unet(**given()).sample
    lora = Lora(unet, rank=4, targets=TARGETS)
    assert torch.equal(lora(**given()).sample, before)
    random(lora)
    assert (lora(**given()).sample - before).abs().max() > 1e-2
    with lora.off():
        assert torch.equal(unet(**given()).sample, before)
    assert not torch.equal(lora(**given()).sample, before)


def test_it_is_pefts(unet):
    from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict

    theirs = copy.deepcopy(unet)
    inject_adapter_in_model(LoraConfig(r=4, lora_alpha=6, target_modules=TARGETS), theirs)
    lora = random(Lora(unet, rank=4, alpha=6, targets=TARGETS))
    state = {name.removeprefix("unet."): value for name, value in lora.state_dict().items()}
    put = set_peft_model_state_dict(theirs, state)
    assert not put.unexpected_keys
    with torch.no_grad():
        torch.testing.assert_close(lora(**given()).sample, theirs.eval()(**given()).sample, rtol=1e-5, atol=1e-6)


def test_what_is_trained_copied_and_stored_is_the_adapter_alone(unet):
    lora = Lora(unet.train(), rank=2, targets=["to_q"])
    own = {each.data_ptr() for each in lora.parameters()}
    assert not own & {each.data_ptr() for each in unet.parameters()}
    assert not any(each.requires_grad for each in unet.parameters())
    assert not any(each.training for each in lora.train().base.modules()), "the base stays as it is"
    twin = copy.deepcopy(lora)
    assert twin.base is unet
    assert all(name.startswith("unet.") and name.endswith((".lora_A.weight", ".lora_B.weight")) for name in lora.state_dict())
    lora(**given()).sample.square().mean().backward()
    moved = [name for name, each in lora.named_parameters() if each.grad is not None and each.grad.any()]
    assert moved
    assert all("lora_B" in name for name in moved), "the other factor's gradient begins at 0"
    assert bytes_per_number(lora) == bytes_per_number(unet)


def test_a_copy_computes_with_its_own_weights(unet):
    lora = Lora(unet, rank=2, targets=TARGETS)
    before = unet(**given()).sample
    twin = random(copy.deepcopy(lora))
    assert (twin(**given()).sample - before).abs().max() > 1e-2
    assert torch.equal(lora(**given()).sample, before), "whose adapter is at its beginning"
    twin(**given()).sample.square().mean().backward()
    assert all(each.grad is None for each in lora.parameters())
    with lora.off():
        assert torch.equal(unet(**given()).sample, before)


def test_gradients_of_each_sample_are_found_in_an_adapter(unet):
    lora, asked = Lora(unet, rank=2, targets=["to_q", "to_out.0"]), given()
    told = {"encoder_hidden_states": asked["encoder_hidden_states"]}
    check_per_sample_gradients(lora, asked["sample"], asked["timestep"], told)
    assert all(each.grad is None for each in lora.parameters())


def test_a_module_that_is_meant_twice_has_one_adapter(unet):
    names = [list(Lora(unet, rank=2, targets=each).state_dict()) for each in (["to_q"], ["to_q", "attn1.to_q", "to_q"])]
    assert names[0] == names[1]


def test_the_base_goes_along_to_a_device(unet):
    lora = Lora(unet, rank=2, targets=["to_q"]).to("meta")
    assert {each.device.type for network in (lora, unet) for each in network.parameters()} == {"meta"}


def test_a_layout_reaches_the_base(unet):
    lora = Lora(unet, rank=2, targets=["conv1"])
    settings = {"batch_size": 2, "learning_rate": 1e-3, "channels_last": True}
    DenoiserModule(lora, linear_alphas_cumprod(), torch.zeros(1, 2, 4, 8, 8), **settings)
    weights = [each for network in (lora, unet) for each in network.parameters() if each.ndim == 4]
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in weights)


@pytest.mark.slow
def test_a_compiled_step_is_one_graph(unet, traced):
    lora = random(Lora(unet, rank=2, targets=["to_q", "conv1"]))
    expected = lora(**given()).sample
    compiled = torch.compile(lambda network, **named: network(**named).sample, mode="default", dynamic=False)
    torch.testing.assert_close(compiled(lora, **given()), expected, rtol=1e-5, atol=1e-6)
    assert len(traced[1]) == 1


def test_a_target_that_means_nothing_is_refused(unet):
    with pytest.raises(
        UserError, match=r"^denoiser\.adapter\.targets: 'q' is the end of no linear layer's or convolution's name"
    ):
        Lora(unet, rank=2, targets=["to_q", "q"])

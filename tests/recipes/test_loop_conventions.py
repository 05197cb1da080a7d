"""Watching networks that are called otherwise than a UNet, flows, and networks that are not what is said of them."""

import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel, SD3Transformer2DModel
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import PreTrainedTokenizerFast

from ldm_privacy.diffusion import flow_alphas_cumprod
from ldm_privacy.errors import UserError
from ldm_privacy.models.predictor import NetworkPredictor
from ldm_privacy.models.text.tiny import tiny_text_encoder
from ldm_privacy.recipes.loop.watch import MemorizationWatch
from ldm_privacy.targets.families.flux import Packed
from ldm_privacy.targets.families.sd3 import Joint
from ldm_privacy.types import Intervals

QUICK = {"attacks": ["loss"], "intervals": Intervals(num_bootstrap=10), "calibrations": ()}
DRAW = torch.Generator().manual_seed(0)
LATENT = torch.rand(48, 4, 8, 8, generator=DRAW) * 2 - 1
TOLD = {
    "encoder_hidden_states": torch.randn(48, 3, 16, generator=DRAW),
    "pooled_projections": torch.randn(48, 8, generator=DRAW),
}
FLOW = FlowMatchEulerDiscreteScheduler(shift=3.0)
SHAPES = {"num_attention_heads": 2, "attention_head_dim": 8, "joint_attention_dim": 16, "pooled_projection_dim": 8}


def sd3():
    shapes = {"sample_size": 8, "in_channels": 4, "out_channels": 4, "caption_projection_dim": 16, "pos_embed_max_size": 8}
    return SD3Transformer2DModel(**SHAPES, **shapes, num_layers=1)


def flux():
    shapes = {"in_channels": 16, "num_layers": 1, "num_single_layers": 1, "axes_dims_rope": (2, 2, 4)}
    return FluxTransformer2DModel(**SHAPES, **shapes, guidance_embeds=True)


@pytest.mark.parametrize(
    ("make", "wrapped", "time", "predict"),
    [
        (
            sd3,
            Joint,
            "sigma_1000",
            lambda network, state, time, condition: network(hidden_states=state, timestep=time, **condition),
        ),
        (
            flux,
            lambda network: Packed(network, 3.5),
            "sigma",
            lambda network, state, time, condition: Packed(network, 3.5)(state, time / 1000, **condition),
        ),
    ],
    ids=["sd3", "flux"],
)
def test_transformers_of_flows_are_called_as_the_script_says(make, wrapped, time, predict):
    torch.manual_seed(0)
    network = make()
    watch = MemorizationWatch(LATENT[:24], LATENT[24:], FLOW, condition=TOLD, predict=predict, **QUICK)
    found = watch(network, step=0)
    assert 0 <= found["memorization/loss/all/auroc"] <= 1
    assert watch.facts["self-check"].startswith("leaves ")
    family = NetworkPredictor(wrapped(network), flow_alphas_cumprod(), "flow", time=time)
    timestep, told = torch.arange(3) * 300, {name: value[:3] for name, value in TOLD.items()}
    with watch._looking(network, 1) as (target, _), torch.no_grad():
        torch.testing.assert_close(target.predictor(LATENT[:3], timestep, told), family(LATENT[:3], timestep, told))
    plain = MemorizationWatch(LATENT[:24], LATENT[24:], FLOW, condition=TOLD, **QUICK)
    with pytest.raises(UserError, match=r"^target: the network can't take a latent of shape \(4, 8, 8\) [^\n]*$"):
        plain(network, step=0)


def test_a_flow_is_asked_where_it_leaks_or_at_the_sigmas_that_are_named():
    asked = lambda **how: MemorizationWatch(LATENT[:24], LATENT[24:], FLOW, **how, **QUICK).memorization.audit  # noqa: E731
    audit = asked()
    assert list(audit.timesteps) == [99, 199, 299, 399]
    assert [round(each, 2) for each in audit.sigmas.values()] == [0.1, 0.2, 0.3, 0.4]
    assert list(asked(sigmas=[0.7]).timesteps) == [700]
    assert list(asked(timesteps=range(50, 1000, 500)).timesteps) == [50, 550]
    for how, words in (
        ({"sigmas": [0.3], "timesteps": [3]}, "audit.timesteps is given too"),
        ({"sigmas": [30]}, "sigmas: 30 is no share of noise"),
        ({"timesteps": [1000]}, "outside the noise schedule"),
    ):
        with pytest.raises(UserError, match=words):
            asked(**how)
    with pytest.raises(UserError, match="they are of flows; this denoiser predicts epsilon"):
        MemorizationWatch(LATENT[:24], LATENT[24:], DDPMScheduler(), sigmas=[0.3], **QUICK)


class Remembers(nn.Module):
    """It outputs v of the nearest known image."""

    def __init__(self):
        super().__init__()
        self.known = nn.Parameter(LATENT.clone())

    def forward(self, noisy, timestep):
        abar = DDPMScheduler().alphas_cumprod[timestep][:, None, None, None]
        nearest = torch.cdist(noisy.flatten(1), (self.known * abar.sqrt()[0]).flatten(1)).argmin(1)
        clean = self.known[nearest]
        epsilon = (noisy - abar.sqrt() * clean) / (1 - abar).sqrt()
        return abar.sqrt() * epsilon - (1 - abar).sqrt() * clean


def test_a_network_that_is_not_what_is_said_of_it_is_refused_at_the_first_look():
    network, told = Remembers(), {"timesteps": [100], "every_n_steps": 1}
    watch = MemorizationWatch(LATENT[:24], LATENT[24:], DDPMScheduler(), **told, **QUICK)
    with pytest.raises(
        UserError,
        match=r"^target: the network fits v as its output better than epsilon as its output, as declared: [^\n]*"
        r"prediction_type= and predict= say it; self_check=False checks nothing\.$",
    ):
        watch(network, step=0)
    unchecked = MemorizationWatch(LATENT[:24], LATENT[24:], DDPMScheduler(), self_check=False, **told, **QUICK)
    assert unchecked(network, step=0)
    assert "self-check" not in unchecked.facts
    right = MemorizationWatch(LATENT[:24], LATENT[24:], DDPMScheduler(), prediction_type="v_prediction", **told, **QUICK)
    assert right(network, step=0)
    assert right(network, step=1)
    assert "v as its output" not in right.facts["self-check"]


CAPTIONS = [f"a {'red' if number % 3 else 'green'} thing" for number in range(48)]


class Words(nn.Module):
    """A text model with a layer that an adapter fits."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.network = tiny_text_encoder(CAPTIONS, num_tokens=6).network.requires_grad_(False)
        self.config, self.last = self.network.config, nn.Linear(self.network.config.hidden_size, 8)

    def forward(self, ids, return_dict=False):
        return (self.last(self.network(input_ids=ids).last_hidden_state),)


class Sees(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 8))

    def forward(self, noisy, timestep, encoder_hidden_states):
        return noisy + (encoder_hidden_states.mean(1) @ self.weight.T)[..., None, None]


def test_what_a_reference_is_told_does_not_move_with_the_training():
    end, plain = "<|endoftext|>", Words()
    tokens = tiny_text_encoder(CAPTIONS, num_tokens=6).tokenizer
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokens, eos_token=end, pad_token=end, model_max_length=6)
    told = {"captions": CAPTIONS, "tokenizer": tokenizer, "reference": Sees(), "timesteps": [100], **QUICK}
    plain.config.hidden_size = 8
    watch = MemorizationWatch(LATENT[:24], LATENT[24:], DDPMScheduler(), text_encoder=plain, **told)
    with pytest.raises(UserError, match=r"^reference: the text encoder trains, and no adapter of it alone: [^\n]*$"):
        watch(Sees(), step=0)
    ids = tokenizer(CAPTIONS[:1], max_length=6, padding="max_length", truncation=True, return_tensors="pt").input_ids
    base = plain.requires_grad_(False)(ids)[0]
    plain.last = get_peft_model(nn.Sequential(plain.last), LoraConfig(r=2, target_modules=["0"], init_lora_weights=False))
    assert not torch.equal(plain.eval()(ids)[0], base)
    watch = MemorizationWatch(LATENT[:24], LATENT[24:], DDPMScheduler(), text_encoder=plain, **told)
    with watch._looking(Sees(), 0) as (target, _):
        number = {name: value[:1] for name, value in watch.samples.condition.items()}
        of_base = target.reference.given(number)["encoder_hidden_states"]
        of_target = target.predictor.given(number)["encoder_hidden_states"]
    torch.testing.assert_close(of_base, base)
    torch.testing.assert_close(of_target, plain(ids)[0])

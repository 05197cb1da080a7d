"""Watching the loops that people have: a look changes nothing of them, to the last bit, and asks the network as they do."""

import copy
import re
from contextlib import contextmanager
from types import SimpleNamespace

import PIL.Image
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.training_utils import EMAModel, cast_training_params
from peft import LoraConfig
from torch import nn
from transformers import PreTrainedTokenizerFast

from ldm_privacy.data.images import to_pixels
from ldm_privacy.errors import UserError
from ldm_privacy.models.text.tiny import tiny_text_encoder
from ldm_privacy.recipes.loop.watch import MemorizationWatch
from ldm_privacy.types import Intervals

SCHEDULER = DDPMScheduler()
GENERATOR = torch.Generator().manual_seed(0)
LATENT = torch.rand(48, 4, 8, 8, generator=GENERATOR) * 2 - 1
TOLD = {"encoder_hidden_states": torch.randn(48, 3, 8, generator=GENERATOR)}
QUICK = {"timesteps": [100], "attacks": ["loss"], "intervals": Intervals(num_bootstrap=10), "calibrations": ()}
STEPS, LOOK_AT = 4, 2


@pytest.fixture(scope="module")
def unet():
    """With dropout, so that a step depends on the mode and on the random state."""
    torch.manual_seed(0)
    blocks = {"down_block_types": ["CrossAttnDownBlock2D"], "up_block_types": ["CrossAttnUpBlock2D"]}
    shapes = {"in_channels": 4, "out_channels": 4, "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 2}
    return UNet2DConditionModel(
        **blocks, **shapes, block_out_channels=[8], cross_attention_dim=8, mid_block_type=None, dropout=0.1
    )


def right(run, watch):
    watch(run.unet, step=LOOK_AT)


def pass_of(run, network):
    """What a careless look does, in the precision of the training."""
    with torch.no_grad():
        noise = torch.randn_like(LATENT[:4])
        network(noise, torch.zeros(4).long(), TOLD["encoder_hidden_states"][:4])


def in_train_mode(run, watch):
    pass_of(run, run.unet)


def evaluates_and_trains(run, watch):
    run.unet.eval()
    pass_of(run, run.unet)
    run.unet.train()


def stays_in_evaluation(run, watch):
    with torch.random.fork_rng(devices=[]):
        run.unet.eval()
        pass_of(run, run.unet)


def strips_the_autocast(run, watch):
    with torch.random.fork_rng(devices=[]):
        pass_of(run, run.accelerator.unwrap_model(run.unet, keep_fp32_wrapper=False).eval())
        run.unet.train()


def trained(unet, look=None, *, precision="no", lora=False, ema=None, compiled=False):
    """What a loop of diffusers' form leaves, with a look after the second step: weights, optimizer, averages, random state."""
    network = copy.deepcopy(unet)
    if lora:
        network.requires_grad_(False)
        network.to({"no": torch.float32, "bf16": torch.bfloat16}[precision])
        layers = ["to_q", "to_k", "to_v", "to_out.0"]
        torch.manual_seed(1)
        network.add_adapter(LoraConfig(r=2, lora_alpha=2, lora_dropout=0.1, target_modules=layers, init_lora_weights=False))
        cast_training_params(network, torch.float32)
    weights = [each for each in network.parameters() if each.requires_grad]
    averages = ema(network) if ema else None
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(mixed_precision=precision, cpu=True, gradient_accumulation_steps=2)
    optimizer = torch.optim.AdamW(weights, lr=1e-2)
    network.train()
    model, optimizer = accelerator.prepare(network, optimizer)
    if compiled:
        model = torch.compile(model, backend="eager")
    watch = None
    if look is right:
        compared = {"reference": "adapter", "calibrations": ["ratio"]} if lora else {}
        how = {**QUICK, **compared, "ema": averages, "every_n_steps": 2}
        watch = MemorizationWatch(LATENT[:24], LATENT[24:], SCHEDULER, condition=TOLD, **how)
    run = SimpleNamespace(unet=model, accelerator=accelerator)
    torch.manual_seed(2)
    step = 0
    while step < STEPS:
        with accelerator.accumulate(model):
            rows = torch.randint(24, (4,))
            noise, timestep = torch.randn_like(LATENT[rows]), torch.randint(1000, (4,))
            noisy = SCHEDULER.add_noise(LATENT[rows], noise, timestep).to(network.dtype)
            output = model(noisy, timestep, TOLD["encoder_hidden_states"][rows].to(network.dtype)).sample
            accelerator.backward((output.float() - noise).square().mean())
            optimizer.step()
            optimizer.zero_grad()
        if accelerator.sync_gradients:
            step += 1
            if averages is not None:
                averages.step(network.parameters()) if isinstance(averages, EMAModel) else averages.update_parameters(network)
            if step == LOOK_AT and look is not None:
                look(run, watch)
    left = [each.detach().clone() for each in weights] + [torch.get_rng_state()]
    left += [value for state in optimizer.state_dict()["state"].values() for value in state.values()]
    if averages is not None:
        left += averages.shadow_params if isinstance(averages, EMAModel) else list(averages.parameters())
    left += [torch.tensor([module.training for module in network.modules()])]
    left += [torch.tensor([each.requires_grad for each in network.parameters()])]
    return left


def ema_model(network):
    return EMAModel(network.parameters(), decay=0.5)


def averaged_model(network):
    return torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5))


def same(mine, theirs):
    return len(mine) == len(theirs) and all(torch.equal(a, b) for a, b in zip(mine, theirs))


LOOPS = {
    "plain": {},
    "bf16": {"precision": "bf16"},
    "ema": {"ema": ema_model},
    "averaged": {"ema": averaged_model, "precision": "bf16"},
    "compiled": {"compiled": True},
    "lora": {"lora": True},
    "lora bf16": {"lora": True, "precision": "bf16"},
}


@pytest.mark.parametrize("loop", [pytest.param(each, marks=[pytest.mark.slow] * (each == "compiled")) for each in LOOPS])
def test_a_training_with_a_look_ends_the_same_to_the_last_bit(unet, loop):
    assert same(trained(unet, right, **LOOPS[loop]), trained(unet, **LOOPS[loop]))


def test_the_ways_that_change_it_are_seen_to(unet):
    unwatched = trained(unet)
    for wrong in (in_train_mode, evaluates_and_trains, stays_in_evaluation):
        assert not same(trained(unet, wrong), unwatched), wrong.__name__


class KohyaLora(nn.Module):
    """A LoRA of kohya's kind: modules of its own that stand in for the forward methods of the network's layers."""

    def __init__(self, network):
        super().__init__()
        torch.manual_seed(1)
        self.multiplier, self.parts = 1.0, nn.ModuleList()
        for layer in [each for each in network.modules() if type(each) is nn.Linear]:
            down, up = nn.Linear(layer.in_features, 2, bias=False), nn.Linear(2, layer.out_features, bias=False)
            self.parts.append(nn.Sequential(down, nn.Dropout(0.2), up))
            layer.forward = self.around(layer.forward, self.parts[-1])

    def around(self, forward, part):
        return lambda state: forward(state) + part(state) * self.multiplier


def trained_in_the_manner_of_kohya(unet, *, watched):
    network = copy.deepcopy(unet).requires_grad_(False).train()
    lora = KohyaLora(network)

    @contextmanager
    def base():
        lora.multiplier = 0.0
        try:
            yield
        finally:
            lora.multiplier = 1.0

    how = {**QUICK, "calibrations": ["ratio"], "reference": base, "beside": [lora]}
    watch = MemorizationWatch(LATENT[:24], LATENT[24:], SCHEDULER, condition=TOLD, **how) if watched else None
    optimizer, found = torch.optim.AdamW(lora.parameters(), lr=1e-2), {}
    torch.manual_seed(2)
    for step in range(3):
        if watch is not None:
            found = watch(network, step=step, is_last=step == 2) or found
        timestep = torch.randint(1000, (4,))
        output = network(torch.randn(4, 4, 8, 8), timestep, TOLD["encoder_hidden_states"][:4]).sample
        optimizer.zero_grad()
        output.square().mean().backward()
        optimizer.step()
    return list(lora.parameters()), found


def test_a_lora_of_kohyas_kind_ends_the_same_and_has_its_base(unet):
    watched, found = trained_in_the_manner_of_kohya(unet, watched=True)
    assert same(watched, trained_in_the_manner_of_kohya(unet, watched=False)[0])
    assert "memorization/loss_ratio/all/auroc" in found


def test_what_is_looked_at_are_the_averages(unet):
    network = copy.deepcopy(unet)
    averages = EMAModel(network.parameters())
    how = {"condition": TOLD, **QUICK}
    expected = MemorizationWatch(LATENT[:24], LATENT[24:], SCHEDULER, **how)(network, step=0)
    with torch.no_grad():
        for each in network.parameters():
            each.mul_(3)
    plain = MemorizationWatch(LATENT[:24], LATENT[24:], SCHEDULER, **how)(network, step=0)
    watch = MemorizationWatch(LATENT[:24], LATENT[24:], SCHEDULER, ema=averages, **how)
    found = watch(network, step=0)
    assert found["denoiser/loss_members"] == expected["denoiser/loss_members"] != plain["denoiser/loss_members"]
    assert watch.facts["weights"] == "averaged (EMAModel)"


CAPTIONS = [f"a {'red' if number % 3 else 'green'} thing" for number in range(48)]


class Words(nn.Module):
    """A text model that trains, in small."""

    def __init__(self):
        super().__init__()
        self.network = tiny_text_encoder(CAPTIONS, num_tokens=6).network
        self.config, self.shift = self.network.config, nn.Parameter(torch.zeros(()))

    def forward(self, ids, return_dict=False):
        assert not self.training
        return (self.network(input_ids=ids).last_hidden_state[..., :8] + self.shift,)


def test_captions_are_encoded_as_in_training_and_anew_where_the_text_encoder_trains(unet):
    end = "<|endoftext|>"
    tokens = tiny_text_encoder(CAPTIONS, num_tokens=6).tokenizer
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokens, eos_token=end, pad_token=end, model_max_length=6)
    words = Words()
    words.config.hidden_size = 8
    told = {"captions": CAPTIONS, "text_encoder": words.train(), "tokenizer": tokenizer}
    watch = MemorizationWatch(LATENT[:24], LATENT[24:], SCHEDULER, **told, **QUICK)
    padded = {"max_length": 6, "padding": "max_length", "truncation": True, "return_tensors": "pt"}

    def given():
        ids = tokenizer(CAPTIONS, **padded).input_ids
        with torch.no_grad():
            return {"encoder_hidden_states": words.eval()(ids)[0]}, {
                "encoder_hidden_states": words(tokenizer([""], **padded).input_ids)[0]
            }

    for step, shift in ((0, 0.0), (1000, 2.0)):
        with torch.no_grad():
            words.train().shift.fill_(shift)
        found = watch(unet, step=step)
        assert words.training
        own, null = given()
        direct = MemorizationWatch(LATENT[:24], LATENT[24:], SCHEDULER, condition=own, null=null, **QUICK)(unet, step=step)
        for name in ("memorization/loss/all/auroc", "memorization/loss_null/all/auroc", "denoiser/loss_members"):
            assert found[name] == pytest.approx(direct[name], abs=1e-6), (step, name)
    words.requires_grad_(False)
    frozen = MemorizationWatch(LATENT[:24], LATENT[24:], SCHEDULER, **told, **QUICK)
    frozen(unet, step=0)
    assert not frozen.training.told.trains


def test_images_may_be_files_pixels_or_numbers(unet):
    pixels = torch.randint(256, (48, 4, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    of_pixels = MemorizationWatch(pixels[:24], pixels[24:], SCHEDULER, condition=TOLD, **QUICK)
    numbers = pixels.float() / 127.5 - 1
    assert torch.equal(of_pixels.samples.latent, numbers)
    mixed = MemorizationWatch(pixels[:24], numbers[24:], SCHEDULER, condition=TOLD, **QUICK)
    assert torch.equal(mixed.samples.latent, numbers)
    files = [PIL.Image.fromarray(each[:3].permute(1, 2, 0).numpy()).resize((12, 20)) for each in pixels]
    watch = MemorizationWatch(files[:24], files[24:], SCHEDULER, resolution=8, **QUICK)
    assert torch.equal(watch.images, torch.stack([to_pixels(each, resolution=8, channels=3) for each in files]))
    assert watch.images_of(torch.tensor([3])).dtype == torch.float32


def test_what_does_not_go_together_costs_one_line():
    sides = LATENT[:24], LATENT[24:]

    def refused(words, *sides, **how):
        with pytest.raises(UserError, match=f"^{re.escape(words)}[^\n]*$"):
            MemorizationWatch(*sides, SCHEDULER, **{**QUICK, **how})

    refused("captions: 3 for 24 members and 24 held-out images", *sides, captions=["a"] * 3, text_encoder=len)
    refused("captions: missing;", *sides, text_encoder=nn.Identity())
    refused("captions: the network is told what a text encoder makes of them; give text_encoder", *sides, captions=CAPTIONS)
    refused("tokenizer: missing;", *sides, captions=CAPTIONS, text_encoder=nn.Identity())
    refused("condition: 3 rows of 'label' for 48 images", *sides, condition={"label": torch.zeros(3)})
    refused("members: values up to 255; images in [-1, 1]", 255 * torch.ones(24, 1, 8, 8), LATENT[24:])
    refused("heldout: images of shape (4, 4, 4), and the members' are (4, 8, 8)", LATENT[:24], LATENT[24:, :, :4, :4])
    refused("members: of images that are no tensor the resolution is needed", [1], LATENT[24:])
    refused("vae: a Identity is no AutoencoderKL", *sides, vae=nn.Identity())


def test_a_look_costs_what_is_told(unet):
    watch = MemorizationWatch(LATENT[:24], LATENT[24:], SCHEDULER, condition=TOLD, every_n_steps=100, **QUICK)
    rows = []
    hook = unet.register_forward_pre_hook(lambda module, arguments: rows.append(len(arguments[0])))
    told = watch.cost(unet, step_seconds=0.01)
    rows.clear()
    watch(unet, step=0)
    assert told.passes == {"denoiser": 48 * (1 + 4)}
    assert told.passes["denoiser"] + told.check_passes == sum(rows)
    assert told.check_passes == 48 * 3
    assert told.share == told.seconds / (told.seconds + 1)
    assert re.fullmatch(
        r"A look: 240 denoiser passes, [\d.e-]+ s, [\d.]+% of the training with a look every 100 steps; "
        r"the first one [\d.e-]+ s, with 144 passes of the self-check\.",
        str(told),
    )
    rows.clear()
    watch(unet, step=100)
    assert told.passes["denoiser"] == sum(rows)
    hook.remove()
    assert watch.cost(unet).check_passes == 0


def test_taking_accelerates_autocast_off_changes_it(unet):
    assert not same(trained(unet, strips_the_autocast, precision="bf16"), trained(unet, precision="bf16"))

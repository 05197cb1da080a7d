"""LoRA files: every form gives the live adapter's numbers, off is the base to the last bit, and nothing is read in part."""

import dataclasses
import gc
import json
import shutil
import threading
import weakref

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPTextModel

from ldm_privacy.attacks.base import get_attack
from ldm_privacy.attacks.runner import attack_statistics
from ldm_privacy.data.captions import Captions
from ldm_privacy.errors import UserError
from ldm_privacy.targets.door import Opening, open_target
from ldm_privacy.targets.lora import Base
from tests.targets.loras import (
    ALPHA,
    ATTENTION,
    LAYERS,
    RANK,
    TEXT,
    attached,
    epsilons,
    in_every_form,
    inputs,
    kohya,
    live,
    prefixed,
    state_of,
    written,
)

UNET_FORMS = ("diffusers", "older diffusers", "kohya", "peft", "bare")
TEXT_FORMS = ("diffusers", "older diffusers", "kohya")


@pytest.fixture(scope="module")
def unet(sd_folder):
    """The folder's UNet with a live adapter of linear modules and convolutions."""
    return attached(UNet2DConditionModel.from_pretrained(sd_folder / "unet"), LAYERS)


@pytest.fixture(scope="module")
def text(sd_folder):
    """The folder's text model with a live adapter."""
    return attached(CLIPTextModel.from_pretrained(sd_folder / "text_encoder"), TEXT, seed=1)


@pytest.fixture(scope="module")
def forms(tmp_path_factory, unet):
    """Form -> where the UNet's adapter lies in it."""
    return in_every_form(tmp_path_factory.mktemp("loras"), unet)


@pytest.fixture(scope="module")
def text_forms(tmp_path_factory, unet, text):
    """The same of both adapters."""
    return in_every_form(tmp_path_factory.mktemp("text_loras"), unet, text)


@pytest.fixture(scope="module")
def base(sd_folder):
    return Base.open(Opening(base=sd_folder))


@pytest.fixture(scope="module")
def base_epsilons(sd_folder):
    """Of the folder opened by itself."""
    return epsilons(open_target(sd_folder))


@pytest.fixture
def changed(tmp_path, forms):
    """A function (change of the diffusers form's tensors, header) -> the file of what it makes of them."""

    def write(change, settings=None, **header):
        state = load_file(forms["diffusers"] / "pytorch_lora_weights.safetensors")
        return written(tmp_path / "changed.safetensors", change(state), settings, **header)

    return write


def refusal(path, base, **how):
    with pytest.raises(UserError) as caught:
        open_target(path, base=base, **how)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("form", UNET_FORMS)
def test_every_form_equals_the_live_adapter_and_off_the_base(form, forms, unet, sd_folder, base_epsilons):
    target = open_target(forms[form], base=sd_folder)
    on = epsilons(target)
    assert torch.equal(on, epsilons(live(open_target(sd_folder), unet)))
    assert (on - base_epsilons).abs().max() > 0.1
    assert torch.equal(epsilons(target, reference=True), base_epsilons)
    assert f"rank {RANK}, alpha {ALPHA:g} (" in target.facts["adapter"]
    assert target.facts["adapter"].startswith(form.rpartition(" ")[2])
    assert "assumed" not in target.facts["adapter"]


@pytest.mark.parametrize("form", TEXT_FORMS)
def test_a_text_encoders_adapter_is_on_for_the_target_and_off_for_its_reference(
    form, text_forms, unet, text, sd_folder, base_epsilons
):
    target = open_target(text_forms[form], base=sd_folder)
    plain = open_target(sd_folder)
    assert torch.equal(epsilons(target), epsilons(live(plain, unet, text)))
    assert torch.equal(epsilons(target, reference=True), base_epsilons)
    assert not torch.equal(epsilons(target), epsilons(live(plain, unet)))  # captions that only the reference is told
    assert target.facts["adapter modules"] == "8 in text_encoder, 56 in unet"
    assert target.encoder.record != plain.encoder.record


def test_diffusers_own_loading_gives_the_same(forms, sd_folder, base):
    unet = UNet2DConditionModel.from_pretrained(sd_folder / "unet")
    state, alphas, told = StableDiffusionPipeline.lora_state_dict(forms["diffusers"], return_lora_metadata=True)
    StableDiffusionPipeline.load_lora_into_unet(state, alphas, unet.eval(), metadata=told)
    assert torch.equal(epsilons(base.adapted(forms["kohya"])), epsilons(live(base.target, unet)))


def test_captions_go_through_both_encoders(text_forms, base):
    target = base.adapted(text_forms["diffusers"])
    index = torch.arange(4)
    captions = Captions(
        captions=lambda numbers: [[f"cat {number}"] for number in numbers],
        member_index=index[:2],
        heldout_index=index[2:],
        encoder=target.encoder,
    )
    told, texts = target.told_by(captions), [f"cat {number}" for number in range(4)]
    latent, timestep = inputs(target, 4)
    with torch.no_grad():
        off = base.target.predictor(latent, timestep, base.target.encoder(texts, latent.device))
        assert torch.equal(told.reference(latent, timestep, captions(index)), off)
        on = target.predictor(latent, timestep, target.encoder(texts, latent.device))
        assert torch.equal(told.predictor(latent, timestep, captions(index)), on)
    told.check(latent, captions(index))


def test_several_adapters_of_one_base_in_use_at_once_leave_it_as_it_is(
    forms, text_forms, base, base_epsilons, sd_folder, tmp_path
):
    before = {name: value.clone() for name, value in base.target.modules["unet"].state_dict().items()}
    other = attached(UNet2DConditionModel.from_pretrained(sd_folder / "unet"), ATTENTION, seed=5)
    first = base.adapted(forms["kohya"])
    second = base.adapted(written(tmp_path / "other.safetensors", kohya(state_of(other), "lora_unet")))
    third = base.adapted(text_forms["kohya"])
    alone = [epsilons(each) for each in (first, second, third)]
    found: dict[int, list] = {}

    def ask(number, target):
        found[number] = [epsilons(target) for _ in range(3)]

    threads = [threading.Thread(target=ask, args=each) for each in enumerate((first, second, third, base.target))]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    for number, expected in enumerate([*alone, base_epsilons]):
        assert all(torch.equal(each, expected) for each in found[number])
    assert torch.equal(alone[1], epsilons(live(base.target, other)))
    after = base.target.modules["unet"].state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert first.reference_fingerprint == second.reference_fingerprint == base.target.fingerprint
    assert len({each.fingerprint["adapter"] for each in (first, second, third)}) == 3


def test_an_adapter_that_is_dropped_is_gone(forms, base, base_epsilons):
    target = base.adapted(forms["kohya"])
    layer = weakref.ref(next(iter(target.predictor.network.adapter.layers.values())))
    epsilons(target)
    del target
    gc.collect()
    assert layer() is None
    assert torch.equal(epsilons(base.target), base_epsilons)


def test_an_exception_in_a_pass_leaves_the_adapter_off(forms, base, base_epsilons):
    target = base.adapted(forms["kohya"])
    latent, timestep = inputs(target)
    with pytest.raises(Exception, match=r"shape|size"):
        target.predictor(latent, timestep, {"encoder_hidden_states": torch.zeros(2, 3, 5)})
    assert torch.equal(epsilons(target, reference=True), base_epsilons)
    assert torch.equal(epsilons(base.target), base_epsilons)


def test_attacks_go_back_through_it_and_inference_mode_is_left(forms, base):
    with torch.inference_mode():
        target = base.adapted(forms["kohya"])
    latent, timestep = inputs(target)
    condition = target.encoder(["a", "b"], latent.device)
    slopes = []
    for predictor in (target.predictor, target.reference):
        leaf = latent.clone().requires_grad_(True)
        slopes.append(torch.autograd.grad(predictor(leaf, timestep, condition).square().sum(), leaf)[0])
    assert (slopes[0] - slopes[1]).abs().max() > 1e-3
    step = torch.zeros_like(latent)
    step[:, 0, 0, 0] = 1e-3
    with torch.no_grad():
        up, down = (target.predictor(latent + sign * step, timestep, condition).double().square().sum() for sign in (1, -1))
    torch.testing.assert_close((up - down) / 2e-3, slopes[0][:, 0, 0, 0].sum().double(), rtol=0.02, atol=0.02)


def test_a_base_may_be_said_as_a_string_with_a_home(forms, base_epsilons, sd_folder, monkeypatch):
    monkeypatch.setenv("HOME", str(sd_folder.parent))
    target = open_target(str(forms["kohya"]), base=f"~/{sd_folder.name}")
    assert torch.equal(epsilons(target, reference=True), base_epsilons)


@pytest.mark.parametrize("scale", [0.5, 2.0, -1.0])
def test_strength_multiplies_what_is_added(scale, forms, base, sd_folder):
    unet = attached(UNet2DConditionModel.from_pretrained(sd_folder / "unet"), LAYERS)
    unet.set_adapters("default", scale)
    target = open_target(forms["kohya"], base=sd_folder, scale=scale)
    assert torch.equal(epsilons(target), epsilons(live(base.target, unet)))
    assert f"strength {scale:g}" in target.facts["adapter"]


def test_an_alpha_that_is_lost_is_assumed_and_said_and_can_be_given(forms, changed, base, sd_folder):
    without = changed(lambda state: state)
    right, assumed = epsilons(base.adapted(forms["kohya"])), open_target(without, base=sd_folder)
    assert f"alpha {RANK} (assumed, as the rank: its file says none)" in assumed.facts["adapter"]
    assert (epsilons(assumed) - right).abs().max() > 0.1
    given = open_target(without, base=sd_folder, alpha=ALPHA)
    assert torch.equal(epsilons(given), right)
    assert "alpha 2 (as given)" in given.facts["adapter"]
    stated = changed(lambda state: state, ss_network_dim="4", ss_network_alpha="2.0")
    assert torch.equal(epsilons(open_target(stated, base=sd_folder)), right)
    resized = changed(lambda state: state, ss_network_dim="8", ss_network_alpha="2.0")
    assert "assumed" in open_target(resized, base=sd_folder).facts["adapter"]
    assert refusal(forms["kohya"], sd_folder, alpha=4.0) == f"alpha: {forms['kohya']} says its own, 2; leave it out."


@pytest.mark.parametrize(
    "changes",
    [{"alpha_pattern": {"to_q": 8.0}, "rank_pattern": {"conv1": 2}}, {"use_rslora": True}],
    ids=["patterns", "rslora"],
)
def test_settings_of_single_modules(changes, base, sd_folder, tmp_path):
    unet = attached(UNet2DConditionModel.from_pretrained(sd_folder / "unet"), LAYERS, **changes)
    unet.save_lora_adapter(tmp_path)
    target = base.adapted(tmp_path)
    assert torch.equal(epsilons(target), epsilons(live(base.target, unet)))


def test_the_middle_of_a_training_in_half_precision(unet, base, tmp_path):
    state = {name: value.half() for name, value in kohya(state_of(unet), "lora_unet").items()}
    target = base.adapted(written(tmp_path / "half.safetensors", state))
    rounded = attached(UNet2DConditionModel.from_pretrained(base.place / "unet"), LAYERS)
    for name, value in rounded.named_parameters():
        if ".lora_" in name:
            value.data = value.data.half().float()
    assert torch.equal(epsilons(target), epsilons(live(base.target, rounded)))


def test_names_of_the_first_diffusers(base, unet, tmp_path):
    names = {}
    for name, value in state_of(attached(UNet2DConditionModel.from_pretrained(base.place / "unet"), ATTENTION)).items():
        role = "down" if ".lora_A." in name else "up"
        module, _, projection = name.rsplit(".lora_", 1)[0].replace("to_out.0", "to_out").rpartition(".")
        names[f"unet.{module}.processor.{projection}_lora.{role}.weight"] = value
    old = base.adapted(written(tmp_path / "old.safetensors", names), alpha=ALPHA)
    new = attached(UNet2DConditionModel.from_pretrained(base.place / "unet"), ATTENTION)
    assert torch.equal(epsilons(old), epsilons(live(base.target, new)))


def test_without_a_base_it_says_which(forms, changed, sd_folder, tmp_path):
    assert "a LoRA for a UNet that it doesn't name; name the folder of the model that it belongs to: base=FOLDER" in refusal(
        forms["bare"], None
    )
    stated = changed(lambda state: state, ss_base_model_version="sdxl_base_v1-0")
    assert "for sdxl_base_v1-0 (ss_base_model_version in its header)" in refusal(stated, None)
    wide = {name: torch.ones(4, 768) if name.endswith("to_k.lora_A.weight") else value for name, value in _two(forms).items()}
    assert "for Stable Diffusion 1, by its shapes" in refusal(written(tmp_path / "wide.safetensors", wide), None)
    assert refusal(forms["bare"], tmp_path / "nosuch").startswith(f"base: {tmp_path / 'nosuch'} does not exist")
    assert refusal(forms["bare"], forms["peft"]) == f"base: {forms['peft']} is an adapter itself; name its base's folder."
    assert refusal(sd_folder, sd_folder).startswith("base: ")


def _two(forms):
    """The factors of one module, of keys from captions."""
    state = load_file(forms["diffusers"] / "pytorch_lora_weights.safetensors")
    return {
        name: value for name, value in state.items() if "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k" in name
    }


def test_another_models_adapter_is_refused_and_never_read_in_part(forms, unet, changed, sd_folder, tmp_path):
    state = state_of(unet)
    extra = changed(
        lambda each: (
            each | {"unet.nosuch.to_q.lora_A.weight": torch.ones(4, 8), "unet.nosuch.to_q.lora_B.weight": torch.ones(8, 4)}
        )
    )
    assert f"1 of its 57 modules are none of {sd_folder}'s, the first 'unet.nosuch.to_q'" in refusal(extra, sd_folder)
    other = written(tmp_path / "sd3.safetensors", prefixed(state, "transformer."))
    assert "56 of its 56 modules are none of" in refusal(other, sd_folder)
    assert "a transformer (Stable Diffusion 3?), by its names" in refusal(other, sd_folder)
    wide = changed(lambda each: each | {name: torch.ones(4, 24) for name in each if name.endswith("attn2.to_k.lora_A.weight")})
    said = refusal(wide, sd_folder)
    assert "4 of its 56 modules don't fit those of" in said
    assert "(4, 24)" in said
    texts = written(
        tmp_path / "te2.safetensors",
        prefixed(_two(forms), "")
        | prefixed(
            {"q_proj.lora_A.weight": torch.ones(4, 16), "q_proj.lora_B.weight": torch.ones(16, 4)}, "text_encoder_2.layers.0."
        ),
    )
    assert "1 of its 2 modules are none of" in refusal(texts, sd_folder)


def _more(name, shape=(4, 4)):
    return lambda state: state | {name: torch.ones(shape)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_more("lora_unet_mid_block_x.hada_w1_a"), "1 of its 113 tensors are of the kind LoHa, the first 'lora_unet_mid"),
        (_more("lora_unet_mid_block_x.lokr_w1"), "kind LoKr"),
        (_more("lora_unet_mid_block_x.dora_scale"), "kind DoRA"),
        (_more("base_model.model.mid_block.x.lora_magnitude_vector"), "kind DoRA"),
        (_more("base_model.model.mid_block.x.ia3_l"), "kind IA3"),
        (_more("lora_unet_mid_block_x.lora_mid.weight", (4, 4, 3, 3)), "kind Tucker"),
        (_more("lora_unet_mid_block_x.diff"), "kind full difference"),
        (_more("lora_unet_mid_block_x.oft_blocks"), "kind OFT"),
        (_more("unet.mid_block.x.lora_B.bias", (4,)), "kind bias"),
        (_more("<cat>", (16,)), "kind textual inversion"),
        (_more("unet.conv_in.weight"), "1 of its 113 tensors are no LoRA's, the first 'unet.conv_in.weight'"),
        (_more("unet.conv_in.base_layer.weight"), "a whole network that was saved with its adapter alive"),
        (_more("unet.x.lora_A.weight"), "'unet.x' has one of two factors, down alone"),
        (_more("unet.x.alpha", ()), "'unet.x' has an alpha and no factors"),
        (lambda state: {name: value[:0] if "lora_A" in name else value[:, :0] for name, value in state.items()}, "common rank"),
        (lambda state: {name: value[:2] if "lora_A" in name else value for name, value in state.items()}, "no common rank"),
        (lambda state: {name: value * float("nan") for name, value in state.items()}, "holds NaN or infinity"),
        (lambda state: {name: value * ("lora_A" in name) for name, value in state.items()}, "changes nothing"),
        (lambda state: state | {f"{name[:-7]}.b.weight": value for name, value in state.items()}, "more than one adapter"),
    ],
)
def test_what_is_no_whole_lora_is_refused_in_one_line(change, said, changed, sd_folder):
    path = changed(change)
    message = refusal(path, sd_folder)
    assert message.startswith(f"{path}: ")
    assert said in message


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lora_alpha": "x"}, "lora_alpha is 'x', which is to be a finite number"),
        ({"lora_alpha": float("nan")}, "lora_alpha is nan, which is to be a finite number"),
        ({"lora_alpha": [2]}, "lora_alpha is [2], which is to be a finite number"),
        ({"alpha_pattern": ["to_q"]}, "alpha_pattern is ['to_q'], which is to name modules"),
        ({"alpha_pattern": {"to_q": "x"}}, "alpha_pattern of 'to_q' is 'x', which is to be a finite number"),
        ({"alpha_pattern": {"(": 2.0}}, "alpha_pattern names '(', a regular expression"),
        ({"alpha_pattern": {"(a+)+b": 2.0}}, "alpha_pattern names '(a+)+b', a regular expression"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights='pissa_niter_4', which changes the base's own weights"),
        ({"init_lora_weights": "olora"}, "init_lora_weights='olora', which changes the base's own weights"),
    ],
)
def test_settings_that_cant_be_or_mean_another_base_are_refused(changes, said, forms, sd_folder, tmp_path):
    folder = shutil.copytree(forms["peft"], tmp_path / "peft")
    told = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(told | changes))
    assert said in refusal(folder, sd_folder)


@pytest.mark.parametrize("alpha", [torch.tensor(float("nan")), torch.tensor(float("inf")), torch.ones(2)])
def test_an_alpha_that_is_no_finite_number_is_refused(alpha, forms, sd_folder, tmp_path):
    state = load_file(forms["kohya"])
    name = next(each for each in state if each.endswith(".alpha"))
    path = written(tmp_path / "alpha.safetensors", state | {name: alpha})
    assert refusal(path, sd_folder).startswith(f"{path}: {name} is ")
    bare = {each: value for each, value in state.items() if not each.endswith(".alpha")}
    path = written(tmp_path / "header.safetensors", bare, ss_network_dim=str(RANK), ss_network_alpha="nan")
    assert "ss_network_alpha is 'nan', which is to be a finite number" in refusal(path, sd_folder)


def test_settings_of_another_kind_and_files_that_cant_be_read(forms, sd_folder, tmp_path):
    folder = shutil.copytree(forms["peft"], tmp_path / "peft")
    told = json.loads((folder / "adapter_config.json").read_text())
    for changes, said in [({"use_dora": True}, "say DoRA"), ({"peft_type": "LOHA"}, "say LOHA")]:
        (folder / "adapter_config.json").write_text(json.dumps(told | changes))
        assert f"its settings {said}; of adapters, LoRA alone can be opened" in refusal(folder, sd_folder)
    (folder / "adapter_config.json").write_text("no")
    assert "is no JSON" in refusal(folder, sd_folder)
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    assert "a pickle isn't read" in refusal(folder, sd_folder)
    whole = forms["kohya"].read_bytes()
    (cut := tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    assert f"{cut}: can't be read, it is truncated or no safetensors file" in refusal(cut, sd_folder)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"scale": 0.0}, "scale: 0; an adapter of that strength changes nothing"),
        ({"alpha": -1.0}, "alpha: -1; give a positive"),
    ],
)
def test_strengths_that_cant_be(how, said, forms, sd_folder):
    assert said in refusal(forms["kohya"], sd_folder, **how)


def test_a_pass_that_leaves_a_module_out_is_refused(forms, base, monkeypatch):
    target = base.adapted(forms["kohya"])
    monkeypatch.setitem(
        base.target.modules["unet"]._modules, "mid_block", None
    )  # as an attention would that calls no projection
    with pytest.raises(UserError, match=r"adapter: 14 of its modules aren't called by the network, the first 'unet\.mid_block"):
        epsilons(target)


def test_a_reference_that_is_the_target_is_refused(base):
    target = base.target
    same = dataclasses.replace(target, reference=target.predictor)
    latent, _ = inputs(target)
    with pytest.raises(UserError, match="reference: it returns what the target returns, to the last bit"):
        same.check(latent, target.encoder(["a", "b"], latent.device))


@pytest.mark.slow
def test_what_it_learnt_by_heart_is_seen_against_its_base_alone(base, tmp_path):
    """Twelve random latents, told by captions; 36 others of the same kind."""
    unet = attached(
        UNet2DConditionModel.from_pretrained(base.place / "unet"), ["to_v", "to_k", "conv1", "conv2", "time_emb_proj"]
    )
    draw, members, others, timesteps = torch.Generator().manual_seed(3), 12, 36, [200, 300, 400]
    latent = torch.randn(members + others, 4, 8, 8, generator=draw)
    texts = [f"{first}{second}" for first in "abcdef" for second in "stuvwxyz"]
    condition = base.target.encoder(texts, latent.device)
    told = condition["encoder_hidden_states"][:members].repeat(3, 1, 1)
    factors = [value.requires_grad_(True) for name, value in unet.named_parameters() if ".lora_" in name]
    for name, value in unet.named_parameters():
        if ".lora_B." in name:
            value.data.zero_()
    optimizer = torch.optim.Adam(factors, lr=5e-2)
    timestep = torch.tensor(timesteps).repeat_interleave(members)
    abar = base.target.predictor.alphas_cumprod[timestep].view(-1, 1, 1, 1)
    for _ in range(120):
        noise = torch.randn(3 * members, 4, 8, 8, generator=draw)
        state = abar.sqrt() * latent[:members].repeat(3, 1, 1, 1) + (1 - abar).sqrt() * noise
        loss = (unet(state, timestep, told).sample - noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    target = base.adapted(written(tmp_path / "trained.safetensors", kohya(state_of(unet.requires_grad_(False)), "lora_unet")))
    keep = torch.ones(1, *latent.shape, dtype=torch.bool)
    on, off = (
        attack_statistics(get_attack("loss"), predictor, latent, timesteps, keep, condition=condition)[0].log().mean(0)
        for predictor in (target.predictor, target.reference)
    )

    def auroc(statistic):
        return (statistic[:members, None] < statistic[None, members:]).double().mean().item()

    noise_level = ((members + others + 1) / (12 * members * others)) ** 0.5  # of the AUROC of two equal sides
    assert auroc(on - off) > 0.95
    assert abs(auroc(off) - 0.5) < 2.5 * noise_level

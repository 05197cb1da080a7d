"""Folders that aren't whole, or aren't what they say: each refused in one line that says what to do, none loaded in part."""

import importlib.util
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from ldm_privacy.errors import UserError
from ldm_privacy.targets import place
from ldm_privacy.targets.door import open_target

WEIGHTS = {
    "unet": "unet/diffusion_pytorch_model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
    "text_encoder": "text_encoder/model.safetensors",
}


def renamed(old, new):
    """A damage: the file under another name."""
    return lambda folder: (folder / old).rename(folder / new)


def halved(folder):
    """Every file of weights as its variant fp16."""
    for name in WEIGHTS.values():
        save_file(
            {key: value.half() for key, value in load_file(folder / name).items()},
            (folder / name).with_suffix(".fp16.safetensors"),
        )
        (folder / name).unlink()


def weights(part, change):
    """A damage: other tensors."""

    def damage(folder):
        save_file(change(load_file(folder / WEIGHTS[part])), folder / WEIGHTS[part])

    return damage


def settings(file, **changes):
    """A damage: other settings."""

    def damage(folder):
        (folder / file).write_text(json.dumps({**json.loads((folder / file).read_text()), **changes}))

    return damage


def text(file, content):
    return lambda folder: (folder / file).write_text(content)


def without(*names):
    return lambda stored: {name: value for name, value in stored.items() if not any(each in name for each in names)}


def live(stored):
    base = {name.replace("to_q.", "to_q.base_layer."): value for name, value in stored.items()}
    return {**base, "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.default_0.weight": torch.ones(2, 8)}


UNET, VAE, TEXT, INDEX = "unet/config.json", "vae/config.json", "text_encoder/config.json", "model_index.json"
DAMAGES = {
    "fp16 files alone": (halved, {}, r"unet: holds weights of the variant fp16 alone; say target\.variant=fp16\."),
    "no such variant": (
        lambda folder: None,
        {"variant": "fp16"},
        r"unet: holds no diffusion_pytorch_model\.fp16\.safetensors, but .* are not mixed\. Leave target\.variant out",
    ),
    "mixed variants": (
        lambda folder: (halved(folder), renamed(WEIGHTS["vae"].replace(".s", ".fp16.s"), WEIGHTS["vae"])(folder)),
        {"variant": "fp16"},
        r"vae: holds no diffusion_pytorch_model\.fp16\.safetensors, but .* not mixed\.",
    ),
    "another variant": (halved, {"variant": "ema"}, r"does not exist \(there: target\.variant=fp16\); the folder is not whole"),
    "pickled unet": (
        renamed(WEIGHTS["unet"], "unet/diffusion_pytorch_model.bin"),
        {},
        r"unet: holds diffusion_pytorch_model\.bin and no .*; a pickle can run code and isn't read\. .*save_pretrained",
    ),
    "pickled text encoder": (
        renamed(WEIGHTS["text_encoder"], "text_encoder/pytorch_model.bin"),
        {},
        r"text_encoder: holds pytorch_model\.bin and no model\.safetensors; a pickle",
    ),
    "no weights": (
        lambda folder: (folder / WEIGHTS["vae"]).unlink(),
        {},
        r"vae/diff.*: does not exist; the folder is not whole",
    ),
    "no folder of a part": (
        lambda folder: shutil.rmtree(folder / "vae"),
        {},
        r"vae: does not exist, and a StableDiff.* needs it",
    ),
    "no tokenizer": (lambda folder: shutil.rmtree(folder / "tokenizer"), {}, r"tokenizer: does not exist, and a Stable"),
    "no scheduler": (lambda folder: shutil.rmtree(folder / "scheduler"), {}, r"scheduler: does not exist, and a Stable"),
    "no config": (lambda folder: (folder / UNET).unlink(), {}, r"unet: holds no config\.json; the folder is not whole"),
    "index no JSON": (text(INDEX, "{"), {}, r"model_index\.json is no JSON .*; the folder is damaged"),
    "index no settings": (text(INDEX, "[1]"), {}, r"model_index\.json holds no settings; the folder is damaged"),
    "index without a class": (settings(INDEX, _class_name=None), {}, r"model_index\.json: doesn't say which pipeline"),
    "class no text": (settings(INDEX, unet=["diffusers", 7]), {}, r"unet is no class \(\['diffusers', 7\]\); UNet2DCond"),
    "part nowhere": (settings(INDEX, vae=[None, None]), {}, r"vae is not there; AutoencoderKL is needed"),
    "part no list": (settings(INDEX, vae=1), {}, r"vae is no class \(1\); AutoencoderKL is needed"),
    "no such number": (settings(TEXT, initializer_factor=None), {}, r"text_encoder: CLIPTextModel can't be used \("),
    "tokens without number": (
        settings("tokenizer/tokenizer_config.json", model_max_length="x"),
        {},
        r"model_max_length is 'x', no number",
    ),
    "part of another class": (settings(INDEX, vae=["diffusers", "VQModel"]), {}, r"vae is a VQModel; AutoencoderKL is needed"),
    "class outside the folder": (settings(INDEX, unet=["../evil", "Evil"]), {}, r"unet is a Evil; UNet2DConditionModel"),
    "unknown pipeline": (
        settings(INDEX, _class_name="ShapEPipeline"),
        {},
        r"a ShapEPipeline can't be opened\. These can: .*Stable",
    ),
    "config no JSON": (text(UNET, "{"), {}, r"unet/config\.json is no JSON .*; the folder is damaged"),
    "config of another class": (
        settings(UNET, _class_name="UNet2DModel"),
        {},
        r"is of a UNet2DModel, but .* calls it a UNet2DC",
    ),
    "another text model": (settings(TEXT, model_type="t5"), {}, r"describes a t5, and a clip_text_model is needed"),
    "missing": (
        weights("unet", without("down_blocks.0.resnets")),
        {},
        r"unet: UNet.*\(\d+ weights are missing, the first 'down",
    ),
    "missing of the text encoder": (weights("text_encoder", without("layers.1.")), {}, r"16 weights are missing, the first"),
    "unknown": (
        weights("vae", lambda s: {**s, "more": torch.ones(1)}),
        {},
        r"vae: .*1 weights are unknown, the first 'more'\)",
    ),
    "other shapes": (settings(UNET, block_out_channels=[8, 24]), {}, r"weights don't match, the first '.*' has shape \("),
    "of a live adapter": (
        weights("unet", live),
        {},
        r"was saved with a live adapter \(\d+ weights, the first '.*base_layer.*base=",
    ),
    "truncated": (
        lambda folder: (folder / WEIGHTS["unet"]).write_bytes((folder / WEIGHTS["unet"]).read_bytes()[:-100]),
        {},
        r"unet/diff.*: can't be read, it is truncated",
    ),
    "quantised": (settings(UNET, quantization_config={"load_in_4bit": True}), {}, r"unet/config\.json: the part is quantised"),
    "huge": (settings(UNET, block_out_channels=[8 * 10**5, 10**6]), {}, r"unet: .*weights don't match"),
    "too huge to count": (
        settings(UNET, block_out_channels=[8 * 10**12] * 2),
        {},
        r"unet: UNet2DConditionModel can't be used \(",
    ),
    "endless": (settings(UNET, layers_per_block=10**9), {}, r"unet: .* ask for more layers_per_block than"),
    "endless text": (settings(TEXT, num_hidden_layers=10**9), {}, r"text_encoder: .* ask for more num_hidden_layers than"),
    "settings that make nothing": (
        settings(UNET, down_block_types=["Nope"]),
        {},
        r"unet: UNet2DConditionModel can't be used \(",
    ),
    "inpainting": (settings(UNET, in_channels=9), {}, r"unet: takes 9 channels and returns 4, .*\(for inpainting 9"),
    "SDXL's unet": (
        settings(UNET, addition_embed_type="text_time"),
        {},
        r"addition_embed_type text_time, .* Stable Diffusion XL",
    ),
    "class embeddings": (
        settings(UNET, num_class_embeds=10),
        {},
        r"has num_class_embeds 10, which a Stable.* has no input for",
    ),
    "another text width": (settings(UNET, cross_attention_dim=32), {}, r"texts of width 32, but text_encoder gives 16"),
    "unknown scaling": (settings(VAE, latents_scale=2.0), {}, r"vae: has latents_scale, which isn't understood"),
    "two shifts": (settings(VAE, shift_factor=0.1, latents_mean=[1.0] * 4), {}, r"vae: .*shift_factor and latents_mean"),
    "mean of other channels": (settings(VAE, latents_mean=[1.0] * 16), {}, r"vae: .*latents_mean, \[.*\], is not 4 numbers"),
    "no scaling": (settings(VAE, scaling_factor=0), {}, r"vae: .* are to be positive numbers"),
    "unknown prediction": (
        settings("scheduler/scheduler_config.json", prediction_type="guess"),
        {},
        r"scheduler: .*'guess' is not",
    ),
    "no tokenizer's files": (
        lambda folder: [file.unlink() for file in (folder / "tokenizer").iterdir()],
        {},
        r"no tokenizer could be loaded from '.*tokenizer'",
    ),
    "half on a CPU": (lambda folder: None, {"dtype": "float16"}, r"^dtype: float16 is for GPUs; on a CPU use dtype=float32"),
    "no dtype": (lambda folder: None, {"dtype": "int8"}, r"^dtype: 'int8' is none of float32, bfloat16, float16\.$"),
    "what it doesn't take": (
        lambda folder: None,
        {"guidance": 3.5},
        r"^guidance: .* is a StableDiffusionPipeline, which takes none",
    ),
}


@pytest.mark.parametrize(("damage", "how", "message"), DAMAGES.values(), ids=DAMAGES)
def test_each_damage_is_one_line(sd_copy, damage, how, message):
    damage(sd_copy)
    before = torch.random.get_rng_state()
    with pytest.raises(UserError, match=message) as caught:
        open_target(sd_copy, **how)
    said = str(caught.value)
    assert len(said.splitlines()) == 1
    assert said.startswith("dtype:") or str(sd_copy) in said
    assert torch.equal(torch.random.get_rng_state(), before)


def test_what_is_named_and_never_needed_may_be_missing(sd_folder):
    assert not (sd_folder / "safety_checker").exists()
    assert not (sd_folder / "feature_extractor").exists()
    open_target(sd_folder)


def test_fp16_files_are_read_where_asked_for_and_computed_in_float32(sd_copy):
    halved(sd_copy)
    target = open_target(sd_copy, variant="fp16")
    assert {each.dtype for network in target.modules.values() for each in network.parameters()} == {torch.float32}
    assert target.facts["assumed"].count("stored as float16, taken as float32") == 3


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda shards, index: shards[1].unlink(), r"00002-of-.*safetensors: does not exist, but .*index\.json names it"),
        (
            lambda shards, index: save_file({"a": torch.ones(1)}, shards[0]),
            r"00001-of-.*: holds other weights than .* says, as",
        ),
        (lambda shards, index: index.write_text("{}"), r"index\.json: doesn't say which files the weights lie in"),
        (
            lambda shards, index: index.write_text(
                json.dumps({"weight_map": {"a": "../vae/diffusion_pytorch_model.safetensors"}})
            ),
            r"index\.json: doesn't say which files the weights lie in \(weight_map: name -> file beside it\)",
        ),
    ],
    ids=["missing", "others", "no map", "outside"],
)
def test_shards_that_are_not_whole(sd_folder, sd_copy, damage, message):
    from diffusers import UNet2DConditionModel

    (sd_copy / WEIGHTS["unet"]).unlink()
    UNet2DConditionModel.from_pretrained(sd_folder / "unet").save_pretrained(sd_copy / "unet", max_shard_size="100KB")
    shards = sorted((sd_copy / "unet").glob("*-of-*.safetensors"))
    damage(shards, sd_copy / "unet" / "diffusion_pytorch_model.safetensors.index.json")
    with pytest.raises(UserError, match=message):
        open_target(sd_copy)


def test_a_folder_of_live_adapters_as_diffusers_saves_it(sd_folder, sd_copy):
    from diffusers import UNet2DConditionModel
    from peft import LoraConfig

    unet = UNet2DConditionModel.from_pretrained(sd_folder / "unet")
    unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_k"]))
    unet.save_pretrained(sd_copy / "unet")
    with pytest.raises(UserError, match=r"unet: was saved with a live adapter .*unload_lora_weights.*base="):
        open_target(sd_copy)


def test_a_path_is_never_a_name_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match=r"^stabilityai/sd-turbo does not exist; .* is downloaded first: hf download stabilityai/sd-turbo "
    ):
        open_target("stabilityai/sd-turbo")
    with pytest.raises(UserError, match=r"^nothing does not exist; name a folder or a file here\.$"):
        open_target("nothing")
    with pytest.raises(UserError, match=r"^sd/model\.safetensors does not exist; name a folder or a file here\.$"):
        open_target("sd/model.safetensors")
    with pytest.raises(
        UserError, match=r"no kind of target that is known \(checkpoint, .*\)\. A folder of diffusers has a model_index"
    ):
        open_target(tmp_path)


def test_what_is_not_installed_is_named(sd_folder, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(place, "find_spec", lambda name: None if name == "transformers" else find(name))
    with pytest.raises(UserError, match=r"needs transformers: pip install 'ldm-privacy\[diffusers\]'\.$"):
        open_target(sd_folder)


def test_nothing_large_is_read_before_what_is_small_is_known(sd_copy, monkeypatch):
    """A missing file, a foreign class, another width: told from settings and headers alone."""

    def never(*arguments, **options):
        raise AssertionError("weights are read")

    monkeypatch.setattr("ldm_privacy.targets.parts.read_safetensors", never)
    for damage in (settings(UNET, cross_attention_dim=32), lambda folder: (folder / WEIGHTS["text_encoder"]).unlink()):
        damage(sd_copy)
        with pytest.raises(UserError):
            open_target(sd_copy)

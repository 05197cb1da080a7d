"""Single files: the same model as the folder that they were made from, to the last bit, or refused in one line."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.file_forms import save_single_file
from ldm_privacy.errors import UserError
from ldm_privacy.targets.door import open_target

CPU = torch.device("cpu")
UNET, VAE, CLIP = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."
OPEN_CLIP = {
    "embeddings.position_embedding.weight": "positional_embedding",
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "final_layer_norm.": "ln_final.",
    "encoder.layers.": "transformer.resblocks.",
    "layer_norm": "ln_",
    ".fc1.": ".c_fc.",
    ".fc2.": ".c_proj.",
    ".self_attn.": ".attn.",
}


@pytest.fixture(scope="module")
def whole(sd_folder, tmp_path_factory):
    """The folder as one file."""
    path = tmp_path_factory.mktemp("single") / "model.safetensors"
    save_single_file(sd_folder, path)
    return path


@pytest.fixture
def changed(whole, tmp_path):
    """A function (change of the tensors, remarks) -> the file of those."""

    def make(change=lambda stored: stored, **remarks):
        path = tmp_path / "changed.safetensors"
        save_file(
            change(load_file(whole)), path, metadata={name.replace("_", ".", 1): value for name, value in remarks.items()}
        )
        return path

    return make


@pytest.fixture
def layout(sd_folder, tmp_path):
    """Settings and tokenizer without a weight."""
    return shutil.copytree(sd_folder, tmp_path / "layout", ignore=shutil.ignore_patterns("*.safetensors"))


def of_layout(layout, file, **changes):
    path = layout / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def predictions(target):
    generator = torch.Generator().manual_seed(0)
    z, t = torch.randn(3, 4, 8, 8, generator=generator), torch.tensor([0, 400, 999])
    return target.predictor(z, t, target.encoder(["a cat", "", "two"], CPU))


def as_open_clip(stored):
    """The text model under the names of Stable Diffusion 2's files: projections of attention lie in one."""
    named = {name: value for name, value in stored.items() if not name.startswith(CLIP)}
    texts = {name.removeprefix(f"{CLIP}text_model."): value for name, value in stored.items() if name.startswith(CLIP)}
    for layer in sorted({name.split(".")[2] for name in texts if name.startswith("encoder.")}):
        for kind in ("weight", "bias"):
            parts = [texts.pop(f"encoder.layers.{layer}.self_attn.{each}_proj.{kind}") for each in "qkv"]
            named[f"cond_stage_model.model.transformer.resblocks.{layer}.attn.in_proj_{kind}"] = torch.cat(parts)
    for name, value in texts.items():
        for new, old in OPEN_CLIP.items():
            name = name.replace(new, old)
        named[f"cond_stage_model.model.{name}"] = value
    return named | {"cond_stage_model.model.logit_scale": torch.ones(())}


@pytest.mark.parametrize("change", [dict, as_open_clip], ids=["names of version 1", "names of version 2"])
def test_it_is_the_folder_it_was_made_from(sd_folder, layout, changed, change):
    folder, file = open_target(sd_folder), open_target(changed(change), layout=layout)
    assert file.fingerprint == folder.fingerprint
    assert torch.equal(predictions(file), predictions(folder))
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(file.codec.encode(images), folder.codec.encode(images))
    assert file.facts["target"].startswith("file ")
    assert f", layout {layout}, StableDiffusionPipeline" in file.facts["target"]
    assert file.facts["assumed"] == "number of attention heads, prediction type, betas and latent scaling are the layout's"


def test_without_a_layout_it_says_which_is_needed(whole, changed):
    with pytest.raises(UserError, match=r"single file \(Stable Diffusion 1\) holds no settings .*layout=FOLDER"):
        open_target(whole)
    for add, family in (
        ("conditioner.embedders.1.model.ln_final.weight", "Stable Diffusion XL"),
        (f"{UNET}joint_blocks.0.x", "Stable Diffusion 3"),
    ):
        with pytest.raises(UserError, match=rf"single file \({family}\)"):
            open_target(changed(lambda stored, add=add: {**stored, add: torch.ones(1)}))
    with pytest.raises(UserError, match=r"single file \(Stable Diffusion 2\)"):
        open_target(changed(as_open_clip))


@pytest.mark.parametrize("kinds", [(UNET,), (UNET, VAE)])
def test_parts_that_the_file_lacks_are_the_layouts(sd_folder, layout, changed, kinds):
    path = changed(lambda stored: {name: value for name, value in stored.items() if name.startswith(kinds)})
    file, folder = open_target(path, layout=sd_folder), open_target(sd_folder)
    assert torch.equal(predictions(file), predictions(folder))
    assert file.fingerprint == folder.fingerprint
    assert "text_encoder: the file has none, the layout's is taken" in file.facts["assumed"]
    with pytest.raises(
        UserError, match=r"changed\.safetensors: holds no (vae|text_encoder), and its layout neither .*name a layout"
    ):
        open_target(path, layout=layout)


def test_averaged_weights_beside_the_others_are_said(layout, whole, changed):
    path = changed(lambda stored: {**stored, "model_ema.diffusion_modelout2bias": torch.ones(4)})
    file = open_target(path, layout=layout)
    assert "averaged weights too (model_ema.); the others are used" in file.facts["assumed"]
    assert torch.equal(predictions(file), predictions(open_target(whole, layout=layout)))


def test_the_files_own_schedule_is_the_layouts(sd_folder, layout, changed):
    abar = open_target(sd_folder).predictor.alphas_cumprod
    for kept in (abar, abar.half()):
        open_target(changed(lambda stored, kept=kept: {**stored, "alphas_cumprod": kept}), layout=layout)
    with pytest.raises(UserError, match=r"its alphas_cumprod are not those of its layout .*scheduler\.$"):
        open_target(changed(lambda stored: {**stored, "alphas_cumprod": abar**1.1}), layout=layout)


def test_what_no_part_needs_is_left_out(layout, whole, changed):
    of_layout(layout, "scheduler/scheduler_config.json", _class_name="DDIMScheduler", rescale_betas_zero_snr=True)
    of_layout(layout, "model_index.json", scheduler=["diffusers", "DDIMScheduler"])
    names = ("ztsnr", "betas", "sqrt_recipm1_alphas_cumprod", "sqrt_one_minus_alphas_cumprod", "alphas_cumprod_prev")
    path = changed(lambda stored: {**stored, **{name: torch.ones(1) for name in (*names, "cond_stage_model.logit_scale")}})
    assert torch.equal(predictions(open_target(path, layout=layout)), predictions(open_target(whole, layout=layout)))


FIRST = f"{UNET}input_blocks.0.0.weight"
WRONG = {
    "predicts v": (
        {"modelspec_prediction_type": "v"},
        None,
        {},
        r"says that it predicts v_prediction, but its layout .* epsilon\.",
    ),
    "predicts v by a mark": ({}, lambda s: {**s, "v_pred": torch.ones(1)}, {}, r"says that it predicts v_prediction, but"),
    "ends in noise alone": (
        {},
        lambda s: {**s, "ztsnr": torch.ones(1)},
        {},
        r"betas end in noise alone \(ztsnr\), but those of its layout .* don't; name one with rescale_betas_zero_snr",
    ),
    "a part that isn't known": (
        {},
        lambda s: {**s, "control_model.x": torch.ones(1), "control_model.y": torch.ones(1)},
        {},
        r"2 of its \d+ weights belong to no part of a StableDiffusionPipeline that is known, the first 'control_model\.x'",
    ),
    "a text model elsewhere": (
        {},
        lambda s: {n.replace(CLIP, "cond_stage_model."): v for n, v in s.items()},
        {},
        r"belong to no part of .*, the first 'cond_stage_model\.text_model\.",
    ),
    "a second autoencoder": (
        {},
        lambda s: {**s, "vae.encoder.conv_in.weight": torch.ones(1)},
        {},
        r"1 of its \d+ weights belong to no part of .*, the first 'vae\.encoder",
    ),
    "missing": (
        {},
        lambda s: {n: v for n, v in s.items() if n != FIRST},
        {},
        r"unet: .*1 weights are missing, the first 'conv_in\.weight'",
    ),
    "unknown": (
        {},
        lambda s: {**s, f"{UNET}more.weight": torch.ones(2)},
        {},
        r"1 weights have no place in the unet .* 'model\.diff.*more\.weight'",
    ),
    "truncated vae": (
        {},
        lambda s: {n: v for n, v in s.items() if "decoder.up" not in n},
        {},
        r"vae: .*weights are missing, the first 'decoder",
    ),
    "no denoiser": (
        {},
        lambda s: {n: v for n, v in s.items() if not n.startswith(UNET)},
        {},
        r"holds no denoiser \(model\.diff",
    ),
    "other widths": (
        {},
        None,
        {"unet/config.json": {"block_out_channels": [16, 16]}},
        r"don't match, the first '.*' has shape \(8, ",
    ),
    "other depth": ({}, None, {"unet/config.json": {"layers_per_block": 2}}, r"(the unet|unet: UNet).*"),
    "other text width": ({}, None, {"text_encoder/config.json": {"hidden_size": 32}}, r"width 16, but text_encoder gives 32"),
    "another family": (
        {},
        None,
        {"model_index.json": {"_class_name": "StableDiffusionNonePipeline"}},
        r"can't be opened\. These can",
    ),
}


@pytest.mark.parametrize(("remarks", "change", "settings", "message"), WRONG.values(), ids=WRONG)
def test_what_does_not_belong_together_is_one_line(layout, changed, remarks, change, settings, message):
    for file, changes in settings.items():
        of_layout(layout, file, **changes)
    path = changed(change or dict, **remarks)
    with pytest.raises(UserError, match=message) as caught:
        open_target(path, layout=layout)
    assert len(str(caught.value).splitlines()) == 1


def test_a_layout_is_a_folder_that_is_there(whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for place, said in ((tmp_path.__class__("nosuch"), "nosuch"), ("nosuch", "nosuch"), ("~/nosuch", f"{tmp_path}/nosuch")):
        with pytest.raises(UserError, match=rf"^layout: {said} does not exist"):
            open_target(whole, layout=place)
    with pytest.raises(UserError, match=r"model_index\.json: does not exist; name the folder of a diffusers pipeline"):
        open_target(whole, layout=tmp_path)
    with pytest.raises(UserError, match=r"^variant: .* is a single_file, which takes none; it is for: diffusers_folder"):
        open_target(whole, layout=tmp_path, variant="fp16")


def test_a_file_is_recognised_by_its_header_alone(whole, changed, tmp_path, monkeypatch):
    from ldm_privacy.targets import single_file

    monkeypatch.setattr(single_file, "read_safetensors", lambda *arguments: pytest.fail("weights are read"))
    assert single_file.SingleFile.recognises(whole)
    save_file({"unet.down.lora_A.weight": torch.ones(2, 2)}, tmp_path / "other.safetensors")
    assert not single_file.SingleFile.recognises(tmp_path / "other.safetensors")

"""A single file of Stable Diffusion XL, two text models in it, is the folder that it was made from."""

import torch
from safetensors.torch import load_file, save_file

from benchmarks.file_forms import save_single_file
from ldm_privacy.targets.door import open_target
from tests.targets import more_pipelines
from tests.targets.test_single_file import OPEN_CLIP


def save_xl(folder, path):
    """As its authors name it: CLIP as transformers does, OpenCLIP with query, key and value in one."""
    save_single_file(folder, path)
    first, written = "cond_stage_model.transformer.", {}
    for name, weight in load_file(path).items():
        for old, new in (("add_embedding.linear_1", "label_emb.0.0"), ("add_embedding.linear_2", "label_emb.0.2")):
            name = name.replace(old, new)
        written[name.replace(first, "conditioner.embedders.0.transformer.")] = weight
    parts = {}
    for name, weight in load_file(folder / "text_encoder_2" / "model.safetensors").items():
        name = name.removeprefix("text_model.")
        for old, new in OPEN_CLIP.items():
            name = name.replace(old, new)
        if name == "text_projection.weight":
            written["conditioner.embedders.1.model.text_projection"] = weight.T.contiguous()
        elif "_proj." in name and "attn.out_proj" not in name and "c_proj" not in name:
            module, _, kind = name.rpartition(".")
            block, _, which = module.rpartition(".")
            parts.setdefault(f"{block}.in_proj_{kind}", {})[which] = weight
        else:
            written[f"conditioner.embedders.1.model.{name}"] = weight
    for name, found in parts.items():
        written[f"conditioner.embedders.1.model.{name}"] = torch.cat([found[f"{each}_proj"] for each in "qkv"])
    save_file(written, path)


def test_it_predicts_what_the_folder_does(tmp_path):
    folder = more_pipelines.sdxl(tmp_path / "xl", projection_dim=8)
    save_xl(folder, tmp_path / "xl.safetensors")
    whole, single = open_target(folder), open_target(tmp_path / "xl.safetensors", layout=folder)
    told = whole.encoder(["a cat", ""], torch.device("cpu"))
    assert all(torch.equal(value, told[name]) for name, value in single.encoder(["a cat", ""], torch.device("cpu")).items())
    latent, timestep = torch.randn(2, 4, 8, 8), torch.tensor([30, 800])
    assert torch.equal(single.predictor(latent, timestep, told), whole.predictor(latent, timestep, told))
    assert torch.equal(single.codec.decode(latent), whole.codec.decode(latent))
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        assert all(torch.equal(a, b) for a, b in zip(single.modules[part].parameters(), whole.modules[part].parameters())), part

"""Weights in the file forms of other programs: an adapter under kohya's names, Stable Diffusion as its authors' single file."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor


def save_kohya(trained: Mapping[str, Tensor], alpha: float, path: Path) -> None:
    """An adapter of a UNet, given under peft's names (`<module>.lora_A.weight`), under kohya's, with its alpha."""
    written: dict[str, Tensor] = {}
    for name, weight in trained.items():
        module, _, which = name.removesuffix(".weight").rpartition(".lora_")
        kohya = f"lora_unet_{module.replace('.', '_')}"
        written[f"{kohya}.lora_{'down' if which == 'A' else 'up'}.weight"] = weight.contiguous()
        written[f"{kohya}.alpha"] = torch.tensor(float(alpha))
        rank = str(min(weight.shape))
    metadata = {"ss_network_module": "networks.lora", "ss_network_dim": rank, "ss_network_alpha": str(float(alpha))}
    save_file(written, path, metadata=metadata)


def save_single_file(folder: Path, path: Path) -> None:
    """A Stable Diffusion folder as one file: UNet, autoencoder and text model, under their authors' names."""
    unet, vae = (json.loads((folder / part / "config.json").read_text()) for part in ("unet", "vae"))
    maps: dict[str, Callable[[str], str]] = {
        "unet/diffusion_pytorch_model": lambda name: unet_name(name, unet["layers_per_block"], unet["up_block_types"]),
        "vae/diffusion_pytorch_model": lambda name: vae_name(name, len(vae["block_out_channels"])),
        "text_encoder/model": lambda name: f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}",
    }
    written = {}
    for file, renamed in maps.items():
        for name, weight in load_file(folder / f"{file}.safetensors").items():
            is_linear = "mid_block.attentions" in name and weight.dim() == 2 and file.startswith("vae")
            written[renamed(name)] = weight[:, :, None, None].contiguous() if is_linear else weight
    save_file(written, path)


def unet_name(name: str, layers_per_block: int, up_block_types: Sequence[str]) -> str:
    """Of a UNet's weight: layers are counted through all blocks, one more in each; what samples up stands last in its layer."""
    per = layers_per_block + 1

    def upsampler(block: int, at: int) -> str:
        return f"output_blocks.{block * per + per - 1}.{1 + ('Attn' in up_block_types[block])}.conv"

    for old, new in UNET_ENDS:
        name = name.replace(old, new)
    if ".attentions." not in name:
        for old, new in UNET_RESNET:
            name = name.replace(old, new)
    counted: list[tuple[str, Callable[[int, int], str]]] = [
        (r"down_blocks\.(\d+)\.resnets\.(\d+)", lambda block, at: f"input_blocks.{1 + block * per + at}.0"),
        (r"down_blocks\.(\d+)\.attentions\.(\d+)", lambda block, at: f"input_blocks.{1 + block * per + at}.1"),
        (r"down_blocks\.(\d+)\.downsamplers\.(\d+)\.conv", lambda block, at: f"input_blocks.{(block + 1) * per}.0.op"),
        (r"up_blocks\.(\d+)\.resnets\.(\d+)", lambda block, at: f"output_blocks.{block * per + at}.0"),
        (r"up_blocks\.(\d+)\.attentions\.(\d+)", lambda block, at: f"output_blocks.{block * per + at}.1"),
        (r"up_blocks\.(\d+)\.upsamplers\.(\d+)\.conv", upsampler),
        (r"mid_(block)\.resnets\.(\d+)", lambda _, at: f"middle_block.{2 * at}"),
        (r"mid_(block)\.attentions\.(\d+)", lambda _, at: "middle_block.1"),
    ]
    return f"model.diffusion_model.{_counted(name, counted)}"


def vae_name(name: str, num_levels: int) -> str:
    """Of an autoencoder's weight: the decoder's levels are counted from the finest."""
    for old, new in VAE_ATTENTION if ".attentions." in name else VAE_OTHERS:
        name = name.replace(old, new)
    counted: list[tuple[str, Callable[[int, int], str]]] = [
        (r"down_blocks\.(\d+)\.resnets\.(\d+)", lambda level, at: f"down.{level}.block.{at}"),
        (r"down_blocks\.(\d+)\.downsamplers\.(\d+)", lambda level, at: f"down.{level}.downsample"),
        (r"up_blocks\.(\d+)\.resnets\.(\d+)", lambda level, at: f"up.{num_levels - 1 - level}.block.{at}"),
        (r"up_blocks\.(\d+)\.upsamplers\.(\d+)", lambda level, at: f"up.{num_levels - 1 - level}.upsample"),
        (r"mid_(block)\.resnets\.(\d+)", lambda _, at: f"mid.block_{at + 1}"),
        (r"mid_(block)\.attentions\.(\d+)", lambda _, at: "mid.attn_1"),
    ]
    return f"first_stage_model.{_counted(name, counted)}"


def _counted(name: str, rules: list[tuple[str, Callable[[int, int], str]]]) -> str:
    for pattern, renamed in rules:
        if found := re.search(pattern, name):
            block = int(found[1]) if found[1].isdigit() else 0
            return name.replace(found[0], renamed(block, int(found[2])))
    return name


UNET_ENDS = (
    ("time_embedding.linear_1", "time_embed.0"),
    ("time_embedding.linear_2", "time_embed.2"),
    ("conv_in", "input_blocks.0.0"),
    ("conv_norm_out", "out.0"),
    ("conv_out", "out.2"),
)
UNET_RESNET = (
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
)
VAE_ATTENTION = (
    ("group_norm", "norm"),
    ("to_q", "q"),
    ("to_k", "k"),
    ("to_v", "v"),
    ("to_out.0", "proj_out"),
)
VAE_OTHERS = (("conv_norm_out", "norm_out"), ("conv_shortcut", "nin_shortcut"))

"""LoRA on the tiny pipelines: the live adapter of peft, and its file in every form that people have."""

import copy
import dataclasses
import json
import math
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from safetensors.torch import save_file

RANK, ALPHA = 4, 2.0  # so that an alpha that is lost shows
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
TEXT = ["q_proj", "k_proj", "v_proj", "out_proj"]
LAYERS = [*ATTENTION, "proj_in", "conv1", "time_emb_proj", "ff.net.2"]


def attached(network, target_modules, *, seed=0, **changes):
    """The network with a live adapter "default" whose factors are random."""
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=target_modules, init_lora_weights=False, **changes)
    torch.manual_seed(seed)
    inject_adapter_in_model(config, network)
    return network.eval().requires_grad_(False)


def state_of(network) -> dict:
    """Module.lora_A.weight -> factor."""
    return {name: value.clone() for name, value in get_peft_model_state_dict(network, adapter_name="default").items()}


def settings_of(network) -> dict:
    """What peft was told."""
    told = network.peft_config["default"].to_dict()
    return {name: sorted(value) if isinstance(value, set) else value for name, value in told.items()}


def kohya(state: dict, prefix: str, alpha: float | None = ALPHA) -> dict:
    """The same under kohya's names."""
    renamed = {}
    for name, value in state.items():
        module, factor = name.rsplit(".", 2)[0], name.split(".")[-2]
        stem = f"{prefix}_{module.replace('.', '_')}"
        renamed[f"{stem}.{'lora_down' if factor == 'lora_A' else 'lora_up'}.weight"] = value
        if alpha is not None:
            renamed[f"{stem}.alpha"] = torch.tensor(alpha)
    return renamed


def prefixed(state: dict, prefix: str) -> dict:
    return {f"{prefix}{name}": value for name, value in state.items()}


def written(file: Path, state: dict, settings: dict | None = None, **header: str) -> Path:
    """A safetensors file, with what peft was told in its header where that is given."""
    file.parent.mkdir(parents=True, exist_ok=True)
    stated = {} if settings is None else {"lora_adapter_metadata": json.dumps(settings, default=str)}
    save_file({name: value.clone().contiguous() for name, value in state.items()}, file, {"format": "pt", **stated, **header})
    return file


def in_every_form(folder: Path, unet, text=None) -> dict[str, Path]:
    """Form -> where the adapter of a live UNet (and text model) lies in it, written by diffusers and peft where they can."""
    from diffusers import StableDiffusionPipeline

    state, told = state_of(unet), settings_of(unet)
    parts = {"unet": (state, told)}
    if text is not None:
        parts["text_encoder"] = (state_of(text), settings_of(text))
    layers = {f"{part}_lora_layers": each for part, (each, _) in parts.items()}
    settings = {f"{part}_lora_adapter_metadata": each for part, (_, each) in parts.items()}
    StableDiffusionPipeline.save_lora_weights(folder / "diffusers", **layers, **settings)
    prefixes = {"unet": "lora_unet", "text_encoder": "lora_te_text_model"}
    names = {name: value for part, (each, _) in parts.items() for name, value in kohya(each, prefixes[part]).items()}
    forms = {"diffusers": folder / "diffusers", "kohya": written(folder / "kohya.safetensors", names)}
    old = {"lora_A": "lora.down", "lora_B": "lora.up"}
    older = {
        f"{part}.{name.replace('lora_A', old['lora_A']).replace('lora_B', old['lora_B'])}": value
        for part, (each, _) in parts.items()
        for name, value in each.items()
    }
    nested = {f"{part}.{name}": value for part, (_, each) in parts.items() for name, value in each.items()}
    forms["older diffusers"] = written(folder / "older.safetensors", older, nested)
    if text is None:
        unet.save_lora_adapter(folder / "bare")
        forms["bare"] = folder / "bare"
        written(folder / "peft" / "adapter_model.safetensors", prefixed(state, "base_model.model."))
        (folder / "peft" / "adapter_config.json").write_text(json.dumps(told, default=str))
        forms["peft"] = folder / "peft"
    return forms


def inputs(target, count=2, seed=1):
    """(latent, timestep, condition) that a target of captions takes."""
    draw = torch.Generator().manual_seed(seed)
    latent = torch.randn(count, *target.codec.latent_shape(3, 16), generator=draw)
    timestep = torch.tensor([100, 700] * math.ceil(count / 2))[:count]
    return latent, timestep


def epsilons(target, *, reference=False):
    """What a target's predictor (or its reference) says of `inputs`, told two captions."""
    texts = ["a cat", "the end"]
    encoder = target.encoder
    if reference and target.reference_encoder is not None:
        encoder = target.reference_encoder
    latent, timestep = inputs(target)
    with torch.no_grad():
        return (target.reference if reference else target.predictor)(latent, timestep, encoder(texts, latent.device))


def live(target, denoiser, text=None):
    """A target around networks with live adapters of peft."""
    inner = target.predictor.network
    if isinstance(inner, type(denoiser)):
        outer = denoiser
    else:  # a family's own wrapper
        outer = copy.copy(inner)
        outer._modules = dict.fromkeys(inner._modules, denoiser)
    encoder = copy.copy(target.encoder)
    if text is not None:
        encoder.network = text
    return dataclasses.replace(target, predictor=dataclasses.replace(target.predictor, network=outer), encoder=encoder)

"""Which module of a base a name in a LoRA's file means, whoever wrote it."""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ldm_privacy.errors import UserError
from ldm_privacy.targets.adapters.file import Factors, LoraFile, check_lora_names, factors_of

_TEXT_PARTS = {
    "te": ("text_encoder",),
    "te1": ("text_encoder",),
    "te2": ("text_encoder_2",),
    "te3": ("text_encoder_3", "text_encoder_2"),
}
"""kohya's names of the text encoders; the third of Stable Diffusion 3 is the second of Flux."""
_OLD = (
    (r"^text_model\.", ""),
    (r"\.processor\.", "."),
    (r"\.self_attn\.to_([qkv])$", r".self_attn.\1_proj"),
    (r"\.self_attn\.to_out$", ".self_attn.out_proj"),
    (r"\.to_out$", ".to_out.0"),
)
"""Older spellings -> today's."""


class Modules:
    """The modules of a base that a LoRA can change, findable under every name that files have for them.

    Args:
        parts: Part -> network.
        denoiser: The part that bare names mean.
    """

    def __init__(self, parts: Mapping[str, nn.Module], denoiser: str):
        self.denoiser = denoiser
        self.by_name = {part: _changeable(network) for part, network in parts.items() if part != "vae"}
        self._flat: dict[str, dict[str, str]] = {}
        for part, modules in self.by_name.items():
            times = Counter(name.replace(".", "_") for name in modules)
            flat = {name.replace(".", "_"): name for name in modules}
            self._flat[part] = {flattened: name for flattened, name in flat.items() if times[flattened] == 1}

    def __call__(self, name: str) -> tuple[str, str] | None:
        """(part, module) of a name in a file; None where there is none such."""
        if kohya := re.match(r"lora_(unet|transformer|te\d?)_(?:text_model_)?(.+)", name):
            parts = _TEXT_PARTS.get(kohya[1], (self.denoiser,))
            part = next((each for each in parts if each in self.by_name), "")
            found = self._flat.get(part, {}).get(kohya[2])
            return found and (part, found)  # type: ignore[return-value]
        name = re.sub(r"^(base_model\.model\.)+", "", name)
        first, _, rest = name.partition(".")
        part, module = (first, rest) if re.fullmatch(r"unet|transformer|text_encoder(_\d)?", first) else (self.denoiser, name)
        modules = self.by_name.get(part, {})
        for old, new in _OLD:
            module = module if module in modules else re.sub(old, new, module)
        return (part, module) if module in modules else None


def _changeable(network: nn.Module) -> dict[str, nn.Module]:
    """Those that are linear or convolutions, by name; older transformers put one more module around a text model."""
    found = {name: each for name, each in network.named_modules() if isinstance(each, nn.Linear | nn.Conv2d)}
    return {name.removeprefix("text_model."): each for name, each in found.items()}


def whose(file: LoraFile) -> str:
    """What the adapter seems to be made for, in words, from its header or else from its names and shapes."""
    for key in ("modelspec.architecture", "ss_base_model_version", "ss_sd_model_name"):
        if stated := file.header.get(key):
            return f"{stated} ({key} in its header)"
    if stated := next(
        (each["base_model_name_or_path"] for each in file.settings.values() if each.get("base_model_name_or_path")), None
    ):
        return f"{stated} (base_model_name_or_path in its settings)"
    names = " ".join(file.factors)
    if re.search("single_transformer_blocks|single_blocks", names):
        return "Flux, by its names"
    if re.search("add_k_proj|joint_blocks|attn_add_q_proj", names) or "transformer." in names:
        return "a transformer (Stable Diffusion 3?), by its names"
    if re.search("lora_te2_|text_encoder_2|add_embedding", names):
        return "Stable Diffusion XL, by its names"
    widths = {each.down.shape[1] for name, each in file.factors.items() if re.search(r"attn2[._](processor\.)?to_k$", name)}
    known = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2", 2048: "Stable Diffusion XL"}
    return next((f"{known[width]}, by its shapes" for width in widths & set(known)), "a UNet that it doesn't name")


def converted(file: LoraFile, pipeline: str, network: nn.Module) -> Mapping[str, Factors]:
    """The factors under the names that diffusers' own conversion gives; those of the file where it knows no better.

    Args:
        file: With names that the base doesn't have.
        pipeline: The class of diffusers that knows them, by name.
        network: The denoiser.
    """
    import diffusers

    layout = {"unet_config": network.config} if isinstance(network, diffusers.UNet2DConditionModel) else {}
    try:
        found: Any = getattr(diffusers, pipeline).lora_state_dict(dict(file.weights), **layout)
        state, alphas = found if isinstance(found, tuple) else (found, None)
        state = {**state, **{name: torch.tensor(value) for name, value in (alphas or {}).items()}}
        check_lora_names(file.path, state)
        factors = factors_of(file.path, state)
    except (UserError, LookupError, TypeError, ValueError, RuntimeError, AttributeError):
        return file.factors  # it stumbles over whatever it doesn't know
    if _size(factors) != _size(file.factors):
        return file.factors  # it leaves out what it doesn't know
    if any(each.alpha is not None for each in file.factors.values()) and not alphas:
        for each in factors.values():  # it multiplied them into the weights
            each.alpha = float(each.rank)
    return factors


def _size(factors: Mapping[str, Factors]) -> int:
    return sum(each.up.numel() for each in factors.values())


def factors_misfit(module: nn.Module, factors: Factors) -> str | None:
    """How the factors don't belong to a module, in words; None: they do."""
    shape = tuple(module.weight.shape)  # type: ignore[union-attr,arg-type]
    needed = (factors.rank, *shape[1:]), (shape[0], factors.rank, *(1 for _ in shape[2:]))
    if (tuple(factors.down.shape), tuple(factors.up.shape)) == needed and getattr(module, "groups", 1) == 1:
        return None
    return f"whose factors {tuple(factors.down.shape)} and {tuple(factors.up.shape)} are none of a weight of shape {shape}"

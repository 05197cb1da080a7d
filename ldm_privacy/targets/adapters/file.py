"""The file of a LoRA: factors by module, alpha by module, and a refusal of all that is something else, never a part of it."""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ldm_privacy.errors import UserError
from ldm_privacy.models.folder import settings_of
from ldm_privacy.models.weights import header_of, read_safetensors

CONFIG = "adapter_config.json"
FILES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
_FACTOR = re.compile(r"(?P<module>.+?)(?:[._]lora|\.lora_linear_layer)[._](?P<role>down|up|A|B)(?:\.(?!weight)\w+)?\.weight")
_ALPHA = re.compile(r"(?P<module>.+?)(?:_lora\.down\.weight)?\.alpha")  # diffusers' conversion leaves the middle there
OTHERS = {
    "DoRA": r"\.dora_scale$|\.lora_magnitude_vector",
    "LoHa": r"\.hada_",
    "LoKr": r"\.lokr_",
    "OFT": r"\.oft_",
    "IA3": r"\.ia3_|\.on_input$",
    "Tucker": r"\.lora_mid\.",
    "full difference": r"\.diff(_b)?$",
    "embedding": r"\.lora_embedding_[AB]",
    "textual inversion": r"^(emb_params|clip_[lg]|<[^>]+>)$",
    "bias": r"\.(lora_B|lora_up|lora\.up)(\.\w+)?\.bias$",
}
"""Kinds of weights beside a LoRA's own -> what their names have in common."""
_INITS = (None, True, False, "gaussian", "eva", "orthogonal")
"""What peft's init_lora_weights may have been: those that leave the base's weights as they are."""
_FORMS = {
    "kohya": r"lora_(unet|transformer|te\d?)_",
    "peft": r"base_model\.model\.",
    "diffusers": r"(unet|transformer|text_encoder(_\d)?)\.",
}


@dataclass
class Factors:
    """What a LoRA adds to one module: scale * up(down(x))."""

    down: Tensor
    up: Tensor
    alpha: float | None = None

    @property
    def rank(self) -> int:
        return self.down.shape[0]


@dataclass(frozen=True)
class LoraFile:
    """What a file holds, under its own names.

    Attributes:
        path: Of the safetensors file.
        form: "diffusers", "kohya", "peft", or "bare" where names have nothing in front.
        weights: Its tensors, as they lie there.
        factors: Module, as the file calls it -> its factors.
        settings: Part as named in front ("unet"; "" where nothing is) -> what peft was told ("lora_alpha", ...).
        header: What else stands in it.
        sha256: Of the file.
    """

    path: Path
    form: str
    weights: Mapping[str, Tensor]
    factors: Mapping[str, Factors]
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    header: Mapping[str, str] = field(default_factory=dict)
    sha256: str = ""

    @classmethod
    def read(cls, path: Path) -> "LoraFile":
        """The LoRA of a file or a folder. Raises UserError where it is none, or of a kind that isn't known, or not whole."""
        file = file_at(path)
        names, header = header_of(file)
        check_lora_names(file, names)
        settings = peft_settings(file, header)
        for each in settings.values():
            kind = "DoRA" if each.get("use_dora") else str(each.get("peft_type") or "LORA")
            if kind.upper() != "LORA":
                raise UserError(f"{file}: its settings say {kind}; of adapters, LoRA alone can be opened.")
            if (init := each.get("init_lora_weights")) not in _INITS:
                raise UserError(
                    f"{file}: its settings say init_lora_weights={init!r}, which changes the base's own weights, too; save it "
                    "as an ordinary LoRA (path_initial_model_for_weight_conversion of peft), or merged into its base."
                )
            _check_alphas(file, each)
        weights = read_safetensors(file)
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        return cls(file, form_of(names), weights, factors_of(file, weights), settings, header, digest)

    def known_alpha(self, part: str, module: str, rank: int) -> tuple[float, str] | None:
        """Of a module that names none itself: the numerator of its scale and who says so; None where nobody does.

        Args:
            part: Of the base ("unet").
            module: In that part.
            rank: Of its factors.
        """
        told = self.settings.get(part, self.settings.get("", {}))
        if (alpha := told.get("lora_alpha")) is not None:
            patterns = told.get("alpha_pattern") or {}
            own = next((value for name, value in patterns.items() if f".{module}".endswith(f".{name}")), alpha)
            root = math.sqrt(rank) if told.get("use_rslora") else 1.0
            return float(own) * root, "its settings"
        if self.header.get("ss_network_dim") == str(rank) and (stated := self.header.get("ss_network_alpha")):
            return _finite(self.path, "ss_network_alpha", stated), "its header"
        return None


def file_at(path: Path) -> Path:
    """The adapter's file at a path. Raises UserError where there are pickles alone."""
    if not path.is_dir():
        return path
    for name in FILES:
        if (path / name).is_file():
            return path / name
    raise UserError(f"{path}: holds no {' and no '.join(FILES)}; a pickle isn't read, save the adapter as safetensors.")


def is_adapters(name: str) -> bool:
    """Whether a tensor of that name belongs to an adapter, of whatever kind."""
    return bool(_FACTOR.fullmatch(name)) or any(re.search(pattern, name) for pattern in OTHERS.values())


def check_lora_names(file: Path, names: Iterable[str]) -> None:
    """Raise UserError, with number and first name, for what is no LoRA's."""
    names = list(names)
    if saved_alive := [name for name in names if ".base_layer." in name]:
        raise UserError(
            f"{file}: a whole network that was saved with its adapter alive ('{saved_alive[0]}'); save the adapter alone "
            "(save_lora_weights), or merge it first (fuse_lora, unload_lora_weights)."
        )
    for kind, pattern in OTHERS.items():
        if found := [name for name in names if re.search(pattern, name)]:
            raise UserError(
                f"{file}: {len(found)} of its {len(names)} tensors are of the kind {kind}, the first '{found[0]}'; "
                "of adapters, LoRA alone can be opened, and none in part. Merged into its base it is an ordinary folder."
            )
    if foreign := [name for name in names if not _FACTOR.fullmatch(name) and not _ALPHA.fullmatch(name)]:
        raise UserError(f"{file}: {len(foreign)} of its {len(names)} tensors are no LoRA's, the first '{foreign[0]}'.")


def factors_of(what: Path, weights: Mapping[str, Tensor]) -> dict[str, Factors]:
    """Factors by module, float32. Raises UserError for one without its other, ranks that differ or are 0, and NaN."""
    found: dict[str, dict[str, Tensor]] = {}
    alphas: dict[str, float] = {}
    for name, weight in weights.items():
        if alpha := _ALPHA.fullmatch(name):
            value = weight.item() if weight.numel() == 1 else f"a tensor of shape {tuple(weight.shape)}"
            alphas[alpha["module"]] = _finite(what, name, value)
        elif match := _FACTOR.fullmatch(name):
            role = {"A": "down", "B": "up"}.get(match["role"], match["role"])
            if role in found.setdefault(match["module"], {}):
                raise UserError(f"{what}: holds more than one adapter: '{name}' is a second one of that module.")
            weight = weight.float()
            if not weight.isfinite().all():
                raise UserError(f"{what}: '{name}' holds NaN or infinity.")
            found[match["module"]][role] = weight
    factors = {}
    for module, pair in found.items():
        if len(pair) < 2:
            raise UserError(f"{what}: '{module}' has one of two factors, {next(iter(pair))} alone.")
        down, up = pair["down"], pair["up"]
        if down.ndim not in (2, 4) or down.ndim != up.ndim or down.shape[0] != up.shape[1] or not down.shape[0]:
            shapes = f"{tuple(down.shape)} and {tuple(up.shape)}"
            raise UserError(f"{what}: the factors of '{module}' have shapes {shapes}, which have no common rank.")
        factors[module] = Factors(down, up, alphas.pop(module, None))
    if alphas:
        raise UserError(f"{what}: '{next(iter(alphas))}' has an alpha and no factors.")
    if not any(each.down.any() and each.up.any() for each in factors.values()):
        raise UserError(f"{what}: changes nothing: a factor of each of its {len(factors)} modules is zero; it wasn't trained.")
    return factors


def form_of(names: Iterable[str]) -> str:
    """How the file's modules are named: the form that all names have; "bare" where they have none."""
    names = list(names)
    return next((form for form, pattern in _FORMS.items() if all(re.match(pattern, name) for name in names)), "bare")


def peft_settings(file: Path, header: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """What peft was told, by part: from the header, or from the file beside. Raises UserError where that is no JSON."""
    if (stated := header.get("lora_adapter_metadata")) is not None:
        try:
            told = json.loads(stated)
        except ValueError:
            told = None
        if not isinstance(told, dict):
            raise UserError(f"{file}: lora_adapter_metadata in its header is no JSON.")
    elif (beside := file.parent / CONFIG).is_file():
        told = settings_of(beside)
    else:
        return {}
    by_part: dict[str, dict[str, Any]] = {}
    for name, value in told.items():
        part, _, setting = name.rpartition(".")
        by_part.setdefault(part, {})[setting] = value
    return by_part


def _finite(file: Path, name: str, value: Any) -> float:
    """A number that a file says. Raises UserError where it is none, NaN or infinite."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{file}: {name} is {value!r}, which is to be a finite number.")
    return number


def _check_alphas(file: Path, told: Mapping[str, Any]) -> None:
    """Raise UserError for alphas that are no numbers, or of modules named by a regular expression: none is run from a file."""
    if (alpha := told.get("lora_alpha")) is not None:
        _finite(file, "lora_alpha", alpha)
    patterns = told.get("alpha_pattern") or {}
    if not isinstance(patterns, dict):
        raise UserError(f"{file}: alpha_pattern is {patterns!r}, which is to name modules with an alpha each.")
    for name, value in patterns.items():
        if not re.fullmatch(r"[\w.]+", name):
            raise UserError(f"{file}: alpha_pattern names {name!r}, a regular expression; names of modules are read alone.")
        _finite(file, f"alpha_pattern of '{name}'", value)

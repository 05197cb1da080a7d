"""The parts of a diffusers pipeline's folder, each loaded once, whole or not at all.

Not by the libraries' own loaders: they leave weights that a file lacks uninitialised or random, read pickles, mix variants, and
say little. Nothing is downloaded.
"""

import hashlib
import inspect
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ldm_privacy.diffusion import PredictionType
from ldm_privacy.errors import UserError
from ldm_privacy.models.folder import settings_of
from ldm_privacy.models.schedule import schedule_of
from ldm_privacy.models.text.encoder import text_model
from ldm_privacy.models.text.pretrained import tied, tokenizer_in, with_names_of
from ldm_privacy.models.weights import built_with, header_of, read_safetensors, with_new_names
from ldm_privacy.targets.place import check_installed
from ldm_privacy.targets.stored import check_names, digest_of, weight_files

INDEX = "model_index.json"
_TEXT_MODELS = {"CLIPTextModel": "clip_text_model", "CLIPTextModelWithProjection": "clip_text_model", "T5EncoderModel": "t5"}
"""Class -> `model_type` of its settings."""
_NAMED_TODAY = {("Transformer2DModel", "ada_norm_zero"): "DiTTransformer2DModel"}
"""Class and kind of its normalisation -> what diffusers makes of it today."""
_DENOISERS = ("unet", "transformer")


class Parts:
    """What a pipeline is made of, by part.

    Args:
        folder: With `model_index.json`, and a folder for each part.
        device: Where networks go.
        dtype: Of the denoiser's weights; autoencoder and text encoders are float32 in any case.
        variant: Of the weights' files.

    Attributes:
        modules: Part -> network, those that were asked for.
        hashes: Part -> SHA-256 of its settings and weights, of the tokenizer's files, of the scheduler's settings.
        notes: What was assumed or left out, in words.

    Raises:
        UserError: There is no such folder, or no index in it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        variant: str | None = None,
    ):
        self.folder, self.device, self.dtype, self.variant = folder, torch.device(device), dtype, variant
        self.modules: dict[str, nn.Module] = {}
        self.hashes: dict[str, str] = {}
        self.notes: list[str] = []

    @cached_property
    def index(self) -> dict[str, Any]:
        """What `model_index.json` says."""
        file = self.folder / INDEX
        if not file.is_file():
            raise UserError(f"{file}: does not exist; name the folder of a diffusers pipeline, in which it lies.")
        index = _read(file)
        if not isinstance(index.get("_class_name"), str):
            raise UserError(f"{file}: doesn't say which pipeline it is (_class_name); the folder is not whole.")
        return index

    @property
    def place(self) -> str:
        """Where it came from, in words."""
        return f"folder {self.folder}"

    @property
    def kind(self) -> str:
        """The pipeline's class, by name."""
        return self.index["_class_name"]

    def class_of(self, part: str) -> str | None:
        """The class of a part, by name; None where the pipeline has none such."""
        entry = self.index.get(part)
        return entry[1] if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], str) else None

    def library_of(self, part: str) -> str | None:
        """Where its class is from; None where the pipeline has none such."""
        return self.index[part][0] if self.has(part) else None

    def has(self, part: str) -> bool:
        """Whether the pipeline has that part."""
        return self.class_of(part) is not None

    def within(self, part: str) -> Path:
        """Where a part's files lie: in a folder of its own; beside the index where there is none, as in DDPM's first ones."""
        own, root = self.folder / part, self.folder / ("scheduler_config.json" if part == "scheduler" else "config.json")
        return own if own.is_dir() or not root.is_file() else self.folder

    def settings(self, part: str) -> dict[str, Any]:
        """What its config.json (a scheduler's scheduler_config.json) says. Raises UserError where it is of another class."""
        within, name = self._there(self.within(part)), self.class_of(part)
        names = ("scheduler_config.json", "config.json") if part == "scheduler" else ("config.json",)
        file = next((within / each for each in names if (within / each).is_file()), None)
        if file is None:
            raise UserError(f"{within}: holds no config.json; the folder is not whole.")
        settings = _read(file)
        if name != (own := settings.get("_class_name", name)):
            raise UserError(f"{file}: is of a {own}, but {self.folder / INDEX} calls it a {name}; they don't belong together.")
        if "quantization_config" in settings:
            raise UserError(f"{file}: the part is quantised, which can't be audited; name the folder that it was made from.")
        return settings

    def require(self, **classes: str | tuple[str, ...] | None) -> None:
        """What can be known before anything large is read: raises UserError unless all of it is there.

        Args:
            classes: Part -> class that it is to be, or several; None for what is no network (scheduler, tokenizer).
        """
        if any(self.library_of(part) == "transformers" for part in classes):
            check_installed(str(self.folder), "transformers", "tokenizers")
        for part, names in classes.items():
            if names is not None:
                self._one_of(part, (names,) if isinstance(names, str) else names)
                self.check_weights(part, self.settings(part))
            elif not self.has(part):
                raise UserError(f"{self.folder / INDEX}: {part} is not there, and a {self.kind} needs it.")
            else:
                self._there(self.within(part))

    def check_weights(self, part: str, settings: dict[str, Any]) -> None:
        """Raise UserError where headers tell that the part's weights are not there, or not its own."""
        names = [name for file in self._files(part) for name in header_of(file)[0]]
        check_names(self.folder / part, settings, names)

    def weights(self, part: str) -> dict[str, Tensor]:
        """The tensors of a part by name, as they lie there."""
        return {name: value for file in self._files(part) for name, value in read_safetensors(file).items()}

    def _files(self, part: str) -> list[Path]:
        stem = "diffusion_pytorch_model" if self.library_of(part) == "diffusers" else "model"
        return weight_files(self.within(part), stem, self.variant)

    def network(self, part: str, *classes: str) -> nn.Module:
        """A network of diffusers, frozen, in evaluation mode, on the device.

        Args:
            part: Its folder ("unet").
            classes: That it may be, by name.

        Raises:
            UserError: It is another class; its weights are missing, unknown or don't fit its settings.
        """
        if part in self.modules:
            return self.modules[part]
        name, settings = self._one_of(part, classes), self.settings(part)
        name = _NAMED_TODAY.get((name, str(settings.get("norm_type"))), name)
        import diffusers

        maker: Any = getattr(diffusers, name)
        known = inspect.signature(maker.__init__).parameters
        foreign = [key for key, value in settings.items() if key not in known and key[0] != "_" and value not in (None, False)]
        if foreign and part not in _DENOISERS:  # what it does to latents isn't known
            raise UserError(
                f"{self.folder / part}: has {foreign[0]}, which isn't understood; its latents can't be told from it."
            )
        if foreign:
            self.notes.append(f"{part}: settings that a {name} doesn't have here are left out: {', '.join(foreign)}")
        given = {key: value for key, value in settings.items() if key in known}
        dtype = self.dtype if part in _DENOISERS else torch.float32
        weights = self.taken(part, settings, with_new_names(self.weights(part)), dtype)
        what = f"{self.folder / part}: {name}"
        return self.kept(part, built_with(lambda: maker.from_config(dict(given)), weights, what, dtype=dtype))

    def text_model(self, part: str, kind: str = "CLIPTextModel") -> nn.Module:
        """A text model of transformers of that class, as `network`."""
        if part not in self.modules:
            self._one_of(part, (kind,))
            settings, asked = self.settings(part), _TEXT_MODELS[kind]
            if (own := settings.get("model_type", asked)) != asked:
                raise UserError(f"{self.folder / part / 'config.json'}: describes a {own}, and a {asked} is needed.")
            weights = self.taken(part, settings, with_names_of(kind, self.weights(part)), torch.float32)
            self.kept(part, text_model(settings, tied(kind, weights), f"{self.folder / part}: {kind}", kind))
        return self.modules[part]

    def tokenizer(self, part: str) -> Any:
        """transformers' tokenizer of that folder."""
        within = self._there(self.folder / part)
        digest = hashlib.sha256()
        for file in sorted(each for each in within.iterdir() if each.is_file()):
            digest.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
        self.hashes[part] = digest.hexdigest()
        return tokenizer_in(within)

    def schedule(self, part: str = "scheduler") -> tuple[Tensor, PredictionType]:
        """alphas_cumprod and prediction type; see `schedule_of`. Only what it was trained with counts, not how it samples."""
        settings = self.settings(part)
        self.hashes[part] = digest_of(settings, {})
        if clips := [name for name in ("clip_sample", "thresholding") if settings.get(name)]:
            self.notes.append(f"{part}: {' and '.join(clips)} limits what is sampled with it, and nothing here")
        try:
            abar, kind = schedule_of({"_class_name": self.class_of(part), **settings})
        except UserError as error:
            raise UserError(f"{self.folder / part}: {error}") from None
        return abar.to(self.device), kind

    def taken(self, part: str, settings: dict[str, Any], weights: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
        """A part's weights, checked and told from others by their hash, then in `dtype`; each is held once.

        Raises UserError for those of a live adapter, and settings of more layers than there are weights.
        """
        check_names(self.folder / part, settings, list(weights))
        self.hashes[part] = digest_of(settings, weights)
        kinds = sorted({str(each.dtype).removeprefix("torch.") for each in weights.values() if each.is_floating_point()})
        if kinds != [str(dtype).removeprefix("torch.")]:
            self.notes.append(f"{part}: stored as {', '.join(kinds)}, taken as {str(dtype).removeprefix('torch.')}")
        for name, value in weights.items():
            weights[name] = value.to(dtype) if value.is_floating_point() else value
        return weights

    def kept(self, part: str, network: nn.Module) -> nn.Module:
        """A network as all of them are held: frozen, in evaluation mode, on the device, under its part's name."""
        self.modules[part] = network.to(self.device).eval().requires_grad_(False)
        return network

    def _one_of(self, part: str, classes: tuple[str, ...]) -> str:
        """The part's class. Raises UserError where it is none of `classes`."""
        name, entry = self.class_of(part), self.index.get(part)
        if name is None or name not in classes:
            found = f"no class ({entry!r})" if name is None else f"a {name}"
            found = "not there" if entry in (None, [None, None]) else found
            raise UserError(f"{self.folder / INDEX}: {part} is {found}; {' or '.join(classes)} is needed.")
        return name

    def _there(self, within: Path) -> Path:
        """That folder of a part. Raises UserError where it isn't there."""
        if not within.is_dir():
            raise UserError(f"{within}: does not exist, and a {self.kind} needs it; the folder is not whole.")
        return within


def _read(file: Path) -> dict[str, Any]:
    try:
        return settings_of(file)
    except UserError as error:
        raise UserError(f"{error}; the folder is damaged. Download it again.") from None

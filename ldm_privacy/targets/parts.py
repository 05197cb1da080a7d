"""The parts of a diffusers pipeline's folder, each loaded once, whole or not at all.

Not by the libraries' own loaders: they leave weights that a file lacks uninitialised or random, read pickles, mix variants, and
say little.
"""

import hashlib
import inspect
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ldm_privacy.errors import UserError
from ldm_privacy.models.folder import settings_of
from ldm_privacy.models.weights import built_with, read_safetensors

INDEX = "model_index.json"


class Parts:
    """What a pipeline is made of, by part.

    Args:
        folder: With `model_index.json`, and a folder for each part.
        device: Where networks go.
        dtype: Of the denoiser's weights; autoencoder and text encoders are float32 in any case.
        variant: Of the weights' files.

    Attributes:
        modules: Part -> network, those that were asked for.
        hashes: Part -> SHA-256 of its settings and weights.
        notes: What was assumed, in words.

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
        return settings_of(file)

    @property
    def kind(self) -> str:
        """The pipeline's class, by name."""
        return str(self.index.get("_class_name"))

    def class_of(self, part: str) -> str | None:
        """The class of a part, by name; None where the pipeline has none such."""
        entry = self.index.get(part)
        return entry[1] if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], str) else None

    def has(self, part: str) -> bool:
        """Whether the pipeline has that part."""
        return self.class_of(part) is not None

    def settings(self, part: str) -> dict[str, Any]:
        """What the part's config.json (a scheduler's scheduler_config.json) says, without the library's own remarks."""
        files = [self.folder / part / name for name in ("config.json", "scheduler_config.json")]
        found = next((file for file in files if file.is_file()), None)
        if found is None:
            raise UserError(f"{self.folder / part}: holds no config.json; the folder is not whole.")
        return {name: value for name, value in settings_of(found).items() if not name.startswith("_")}

    def weights(self, part: str) -> dict[str, Tensor]:
        """The tensors of a part by name, as they lie there."""
        stem = "model" if part.startswith("text_encoder") else "diffusion_pytorch_model"
        variant = f".{self.variant}" if self.variant else ""
        file = self.folder / part / f"{stem}{variant}.safetensors"
        if not file.is_file():
            raise UserError(f"{file}: does not exist.")
        return read_safetensors(file)

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
        name = self.class_of(part)
        if name not in classes:
            raise UserError(f"{self.folder / INDEX}: {part} is a {name}; {' or '.join(classes)} is needed.")
        import diffusers

        maker: Any = getattr(diffusers, name)  # one of `classes`
        settings, weights = self.settings(part), self.weights(part)
        self.hashes[part] = _hash(settings, weights)
        known = inspect.signature(maker.__init__).parameters
        settings = {key: value for key, value in settings.items() if key in known}
        network = built_with(lambda: maker.from_config(dict(settings)), weights, f"{self.folder / part}: {name}")
        dtype = torch.float32 if part == "vae" else self.dtype
        self.modules[part] = network.to(self.device, dtype).eval().requires_grad_(False)
        return self.modules[part]

    def own(self) -> dict[str, Any]:
        """Facts of what was read."""
        return {"folder": str(self.folder), "pipeline": self.kind}


def _hash(settings: Mapping[str, Any], weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of settings and weights: of the numbers, wherever and however they lie."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name in sorted(weights):
        value = weights[name].contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()

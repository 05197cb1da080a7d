"""A vision network of somebody else's, out of a local folder of transformers, as a source of image features."""

import hashlib
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from ldm_privacy.errors import UserError, reason_of
from ldm_privacy.models.folder import config_of, file_of, settings_of
from ldm_privacy.models.weights import built_with, read_safetensors
from ldm_privacy.types import Image

CONFIG, WEIGHTS, PREPROCESSOR = "config.json", "model.safetensors", "preprocessor_config.json"
KINDS = ("CLIPVisionModel", "Dinov2Model", "ResNetModel", "ViTModel")
"""Of transformers: the bare networks, without a head."""
_OLD_NAMES: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"^vision_model\.", ""),
    (r"attention\.attention\.(query|key|value)\.", lambda found: f"attention.{found[1][0]}_proj."),
    (r"attention\.output\.dense\.", "attention.o_proj."),
    (r"^encoder\.layer\.", "layers."),
    (r"intermediate\.dense\.", "mlp.fc1."),
    (r"(?<=\d)\.output\.dense\.", ".mlp.fc2."),
)
"""Files hold weights under names of transformers' first years; a network of today has others."""
_MODES = {0: "nearest-exact", 2: "bilinear", 3: "bicubic"}
"""Of PIL's numbers for resampling."""


class FeatureNetwork:
    """Features of images in [-1, 1], differentiable in the image; one pass of the network a call.

    Images are resized, cropped and normalised as the folder's preprocessor_config.json says, a grey one is made of three
    equal channels; its values are not rounded to bytes and not clipped. The network is frozen and in evaluation mode. Features
    have the image's dtype.

    Args:
        network: One of `KINDS`, with float32 weights.
        preprocessor: What preprocessor_config.json says.
        path: Where it was read.
        sha256: Of the folder's three files.

    Attributes:
        name: The folder's last name with the kind of network.
    """

    def __init__(self, network: nn.Module, preprocessor: dict[str, Any], *, path: str, sha256: str):
        self.network, self.path, self.sha256 = network.eval().requires_grad_(False), path, sha256
        self.name = f"{Path(path).expanduser().resolve().name} ({type(network).__name__})"
        edge, self._crop, self._mode = _sizes(preprocessor)
        self._edge: int | tuple[int, int] | None = edge
        count = (1, 3, 1, 1)
        mean, std = (torch.tensor(each).reshape(count) for each in _statistics(preprocessor))
        self._mean, self._std = mean, std

    @classmethod
    def open(cls, path: str, *, sha256: str | None = None, resolution: int | None = None) -> "FeatureNetwork":
        """The network of a local folder: config.json, model.safetensors and preprocessor_config.json, whole or refused.

        Not by transformers' own loader, which leaves weights that the file lacks random. It looks at a blank image, twice.

        Args:
            path: A folder that `save_pretrained` of one of `KINDS` and of its image processor wrote.
            sha256: That the files must have; None: any.
            resolution: Height and width of the images to come; None: the network's own.

        Raises:
            UserError: No such folder, a file or a weight is missing, unknown or doesn't fit, another kind of network, another
                hash, or there are no features of a blank image.
        """
        if find_spec("transformers") is None:
            raise UserError("a feature network needs transformers: pip install 'ldm-privacy[captions]'.")
        folder = Path(path).expanduser()
        if not folder.is_dir():
            raise UserError(
                f"path: there is no folder '{path}'. Name a local one that holds {CONFIG}, {WEIGHTS}, {PREPROCESSOR}."
            )
        try:
            files = [file_of(path, name) for name in (CONFIG, WEIGHTS, PREPROCESSOR)]
        except FileNotFoundError as error:
            raise UserError(f"path: {error}. Name a local folder that holds {CONFIG}, {WEIGHTS}, {PREPROCESSOR}.") from None
        found = digest_of_files(files)
        if sha256 is not None and found != sha256.lower():
            raise UserError(
                f"sha256: '{path}' has {found}, not {sha256}: its files changed. Put them back, or name their hash."
            )
        try:
            network = _network_of(settings_of(files[0]), files)
            made = cls(network, settings_of(files[2]), path=path, sha256=found)
            made._look_at_nothing(resolution)
            return made
        except UserError as error:
            raise UserError(
                f"path: {str(error).rstrip('.')}. Name a folder whose files are whole and belong together."
            ) from None

    def to(self, device: torch.device | str) -> "FeatureNetwork":
        """Move it; returns self."""
        self.network.to(device)
        self._mean, self._std = self._mean.to(device), self._std.to(device)
        return self

    def pooled(self, image: Image) -> Tensor:
        """(batch, dim): the pooled output; of a ViTModel the class token, for its pooler is not in every file."""
        output = self._output(image)
        is_vit = type(self.network).__name__ == "ViTModel"
        return (output.last_hidden_state[:, 0] if is_vit else output.pooler_output.flatten(1)).to(image)

    def layers(self, image: Image) -> list[Tensor]:
        """(batch, channels, height, width) of every layer, from the embedding on; of a transformer its patches' tokens."""
        output = self._output(image)
        return [(state if state.ndim == 4 else _as_map(state)).to(image) for state in output.hidden_states]

    def prepared(self, image: Image) -> Tensor:
        """(batch, 3, height, width): what the network sees of images (batch, 1 or 3, height, width) in [-1, 1]."""
        pixels = (image.expand(-1, 3, -1, -1) + 1) / 2
        if self._edge is not None:
            size = self._edge
            if isinstance(size, int):
                height, width = pixels.shape[-2:]
                short = min(height, width)
                size = (size * height // short, size * width // short)
            options = {} if self._mode == "nearest-exact" else {"antialias": True}
            pixels = interpolate(pixels, size=size, mode=self._mode, **options)
        if self._crop is not None:
            sides = []
            for want, have in zip(self._crop[::-1], pixels.shape[:-3:-1]):
                before = -((have - want) // 2)  # below 0 it is cut, above it is black
                sides += [before, want - have - before]
            pixels = pad(pixels, sides)
        return (pixels - self._mean) / self._std

    def _look_at_nothing(self, resolution: int | None) -> None:
        """Raise UserError where there are no features of a black image: files may be whole and not belong together."""
        own = getattr(self.network.config, "image_size", None)
        size = resolution or (own if isinstance(own, int) else 224)
        try:
            with torch.no_grad():
                blank = -torch.ones(1, 3, size, size)
                found = [self.pooled(blank), *self.layers(blank)]
        except Exception as error:  # the library raises whatever it stumbles over in images that it doesn't expect
            raise UserError(f"{self.name} can't look at an image of {size} pixels ({reason_of(error)})") from None
        if not all(each.isfinite().all() for each in found):
            raise UserError(f"{self.name} makes of an image of {size} pixels what is not finite")

    def _output(self, image: Image) -> Any:
        return self.network(pixel_values=self.prepared(image), output_hidden_states=True)


def digest_of_files(files: list[Path]) -> str:
    """One sha256 of the contents of several files, in their order."""
    digest = hashlib.sha256()
    for each in files:
        with each.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _network_of(settings: dict[str, Any], files: list[Path]) -> nn.Module:
    import transformers

    kinds = settings.get("architectures")
    kind = kinds[0] if isinstance(kinds, list) and kinds else None
    if kind not in KINDS:
        raise UserError(f"{files[0]} describes a {kind}, and one of {', '.join(KINDS)} is needed")
    maker = getattr(transformers, kind)
    weights = {name: each for name, each in read_safetensors(files[1]).items() if not name.endswith("position_ids")}
    options = {"add_pooling_layer": any("pooler." in name for name in weights)} if kind == "ViTModel" else {}
    try:
        config = config_of(maker.config_class, settings)
        with torch.device("meta"):
            expected = set(maker(config, **options).state_dict())
    except Exception as error:  # the library raises whatever it stumbles over in settings that it doesn't check
        raise UserError(f"{files[0]} makes no {kind} ({reason_of(error)})") from None
    named = {name if name in expected else _new_name(name, expected): each for name, each in weights.items()}
    return built_with(lambda: maker(config, **options), named, f"the {kind} {files[1]}", dtype=torch.float32)


def _new_name(name: str, expected: set[str]) -> str:
    """The first name on the way from the old to the new one that the network has; as it was where none is."""
    new = name
    for old, replacement in _OLD_NAMES:
        new = re.sub(old, replacement, new)
        if new in expected:
            return new
    return name


def _as_map(tokens: Tensor) -> Tensor:
    """Tokens of square images, (batch, 1 + patches, channels), without the first, as (batch, channels, height, width)."""
    patches = tokens[:, 1:].transpose(1, 2)
    return patches.unflatten(2, (round(patches.shape[2] ** 0.5), -1))


def _sizes(preprocessor: dict[str, Any]) -> tuple[int | tuple[int, int] | None, tuple[int, int] | None, str]:
    """What the short edge, or height and width, become; what is cut from the middle; how it is resized."""

    def of(size: object, name: str) -> int | tuple[int, int]:
        size = {"shortest_edge": size} if isinstance(size, int) else size
        found = tuple(size.get(each) for each in ("height", "width")) if isinstance(size, dict) else ()
        edge = size.get("shortest_edge") if isinstance(size, dict) else None
        numbers = (edge,) if edge is not None else found
        if not numbers or not all(isinstance(each, int) and 0 < each <= 4096 for each in numbers):
            raise UserError(f"{PREPROCESSOR} has the {name} {size!r}, which is none")
        return numbers[0] if len(numbers) == 1 else numbers  # type: ignore[return-value]

    resample = preprocessor.get("resample", 3)
    if not isinstance(resample, int) or resample not in _MODES:
        raise UserError(f"{PREPROCESSOR} has resample {resample!r}, and one of {sorted(_MODES)} is needed")
    edge: int | tuple[int, int] | None = None
    crop: int | tuple[int, int] | None = None
    if preprocessor.get("do_resize", True):
        edge = of(preprocessor.get("size"), "size")
    if preprocessor.get("do_center_crop", False):
        crop = of(preprocessor.get("crop_size"), "crop_size")
    if isinstance(edge, int) and edge < 384 and isinstance(share := preprocessor.get("crop_pct"), float) and 0 < share <= 1:
        edge, crop = int(edge / share), edge  # of ConvNextImageProcessor, which ResNet's folders name
    return edge, (crop, crop) if isinstance(crop, int) else crop, _MODES[resample]


def _statistics(preprocessor: dict[str, Any]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of pixels in [0, 1], by channel."""
    factor = preprocessor.get("rescale_factor", 1 / 255)
    is_255th = isinstance(factor, int | float) and abs(factor * 255 - 1) < 1e-3
    if not is_255th or not preprocessor.get("do_rescale", True):
        raise UserError(f"{PREPROCESSOR} has another rescale_factor than 1/255, which can't be used")
    if not preprocessor.get("do_normalize", True):
        return [0.0] * 3, [1.0] * 3
    found = [preprocessor.get(name) for name in ("image_mean", "image_std")]
    for each, least in zip(found, (-1e3, 1e-6)):
        is_list = isinstance(each, list) and len(each) == 3
        if not is_list or not all(isinstance(number, int | float) and least < number < 1e3 for number in each):  # type: ignore[union-attr]
            raise UserError(f"{PREPROCESSOR} has no image_mean and image_std of three numbers, these above 0")
    return found[0], found[1]  # type: ignore[return-value]

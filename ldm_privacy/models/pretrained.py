"""An AutoencoderKL of somebody else's: a diffusers folder, or a repository of the Hub."""

from collections.abc import Mapping
from typing import Any

from diffusers import AutoencoderKL
from torch import Tensor

from ldm_privacy.errors import UserError
from ldm_privacy.models.channel_map import ChannelMap, scaling_factor
from ldm_privacy.models.codec import Codec
from ldm_privacy.models.folder import absolute
from ldm_privacy.models.kl import KLCodec, autoencoder_with
from ldm_privacy.models.own_scaling import diffusers_scaling
from ldm_privacy.models.part import CONFIG, WEIGHTS, Part
from ldm_privacy.models.weights import read_safetensors, with_new_names
from ldm_privacy.registry import CHANNEL_MAPS, CODECS


@CODECS.register("pretrained")
class PretrainedCodec(KLCodec):
    """An AutoencoderKL as it lies in somebody else's folder. A checkpoint says where, and its SHA-256, but holds no copy.

    Args:
        autoencoder, channel_map: See `KLCodec`.
        source: Where it lies: path or base, subfolder, revision, sha256.
    """

    name = "pretrained"

    def __init__(self, autoencoder: AutoencoderKL, source: Mapping[str, Any], channel_map: ChannelMap | None = None):
        super().__init__(autoencoder, channel_map)
        self.source = dict(source)

    @classmethod
    def build(  # type: ignore[override]
        cls,
        *,
        path: str | None = None,
        base: str | None = None,
        subfolder: str | None = None,
        revision: str | None = None,
        image_channels: int,
        resolution: int,
    ) -> "PretrainedCodec":
        """The AutoencoderKL of a diffusers folder or a Hub id; safetensors only.

        Not by diffusers' own loader, which leaves weights that the file lacks uninitialised and says nothing.

        Args:
            path: A local folder with `config.json` and `diffusion_pytorch_model.safetensors`, or a Hub id; else UserError, also
                where a weight is missing, unknown or doesn't fit the config. None: the base's.
            base: The pipeline that is fine-tuned.
            subfolder: Where in it the autoencoder lies ("vae" in Stable Diffusion's repositories).
            revision: Branch, tag or commit on the Hub.
            image_channels, resolution: Of the data; UserError where the autoencoder doesn't fit them.
        """
        key = "autoencoder.network.path"
        if (place := path or base) is None:
            raise UserError(
                f"{key}: missing; name a local diffusers folder or a Hub id, or the whole pipeline with base=FOLDER."
            )
        try:
            part = Part.find(place, subfolder=subfolder, revision=revision)
        except FileNotFoundError as error:
            raise UserError(
                f"{key}: no autoencoder could be loaded from '{place}' ({error}). Name a local diffusers folder "
                f"that holds {CONFIG} and {WEIGHTS} (and autoencoder.network.subfolder)."
            ) from None
        try:
            autoencoder = _read(part)
        except UserError as error:
            where = "" if any(str(file) in str(error) for file in (part.config, part.weights)) else f"{part.weights}: "
            raise UserError(
                f"{key}: {where}{str(error).rstrip('.')}. Name a folder whose {CONFIG} and {WEIGHTS} are whole "
                "and belong together."
            ) from None
        named = {"path" if path is not None else "base": absolute(place)}
        codec = cls(autoencoder, {**named, "subfolder": subfolder, "revision": revision, "sha256": part.sha256})
        in_channels = autoencoder.config["in_channels"]
        if in_channels != image_channels or resolution % codec.factor:
            takes = f"takes {in_channels} channels and resolutions divisible by {codec.factor}"
            data = f"data.channels is {image_channels} and data.resolution {resolution}"
            raise UserError(f"{key}: '{place}' {takes}, but {data}.")
        return codec

    def record(self) -> dict[str, Any]:
        return {"class": self.name, **self.source, "channel_map": self.channel_map.record()}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "PretrainedCodec":
        source = {name: value for name, value in record.items() if name not in ("class", "channel_map")}
        autoencoder, channel_map = _read(Part.of_checkpoint(source)), record.get("channel_map")
        channels = autoencoder.config["latent_channels"]
        return cls(autoencoder, source, ChannelMap.from_record(channel_map if isinstance(channel_map, dict) else {}, channels))


@CHANNEL_MAPS.register("auto")
def auto(means: Tensor, codec: Codec) -> ChannelMap:
    """`diffusers` of a pretrained autoencoder, `scaling_factor` of another one."""
    return diffusers_scaling(means, codec) if isinstance(codec, PretrainedCodec) else scaling_factor(means)


def _read(part: Part) -> AutoencoderKL:
    return autoencoder_with(part.settings("AutoencoderKL"), with_new_names(read_safetensors(part.weights)))

"""An AutoencoderKL of somebody else's: a diffusers folder, or a repository of the Hub."""

from pathlib import Path

from ldm_privacy.errors import UserError
from ldm_privacy.models.folder import file_of, settings_of
from ldm_privacy.models.kl import KLCodec, autoencoder_with
from ldm_privacy.models.weights import read_safetensors, with_new_names
from ldm_privacy.registry import CODECS

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"


@CODECS.register("pretrained")
def pretrained_codec(
    *, path: str, subfolder: str | None = None, revision: str | None = None, image_channels: int, resolution: int
) -> KLCodec:
    """The AutoencoderKL of a diffusers folder or a Hub id; safetensors only.

    Not by diffusers' own loader, which leaves weights that the file lacks uninitialised and says nothing.

    Args:
        path: A local folder with `config.json` and `diffusion_pytorch_model.safetensors`, or a Hub id; else UserError, also
            where a weight is missing, unknown or doesn't fit the config.
        subfolder: Where in it the autoencoder lies ("vae" in Stable Diffusion's repositories).
        revision: Branch, tag or commit on the Hub.
        image_channels, resolution: Of the data; UserError where the autoencoder doesn't fit them.
    """
    try:
        config, weights = (file_of(path, name, subfolder=subfolder, revision=revision) for name in (CONFIG, WEIGHTS))
    except FileNotFoundError as error:
        raise UserError(
            f"autoencoder.network.path: no autoencoder could be loaded from '{path}' ({error}). Name a local diffusers folder "
            f"that holds {CONFIG} and {WEIGHTS} (and autoencoder.network.subfolder)."
        ) from None
    try:
        autoencoder = autoencoder_with(_settings(config), with_new_names(read_safetensors(weights)))
    except UserError as error:
        where = "" if any(str(file) in str(error) for file in (config, weights)) else f"{weights}: "
        raise UserError(
            f"autoencoder.network.path: {where}{str(error).rstrip('.')}. Name a folder whose {CONFIG} and {WEIGHTS} are whole "
            "and belong together."
        ) from None
    codec, in_channels = KLCodec(autoencoder), autoencoder.config["in_channels"]
    if in_channels != image_channels or resolution % codec.factor:
        takes = f"takes {in_channels} channels and resolutions divisible by {codec.factor}"
        data = f"data.channels is {image_channels} and data.resolution {resolution}"
        raise UserError(f"autoencoder.network.path: '{path}' {takes}, but {data}.")
    return codec


def _settings(file: Path) -> object:
    settings = settings_of(file)
    if (kind := settings.get("_class_name", "AutoencoderKL")) != "AutoencoderKL":
        raise UserError(f"{file} describes a {kind}, and an AutoencoderKL is needed")
    return settings

"""What a family of pipelines is: how its parts become one target."""

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from ldm_privacy.diffusion import PredictionType
from ldm_privacy.errors import UserError
from ldm_privacy.models.codec import Codec
from ldm_privacy.models.kl import KLCodec
from ldm_privacy.models.predictor import num_parameters
from ldm_privacy.models.text.towers import TextTower
from ldm_privacy.registry import FAMILIES
from ldm_privacy.targets.door import Opening
from ldm_privacy.targets.parts import INDEX, Parts
from ldm_privacy.targets.target import Target


class Family:
    """Pipelines that are built alike. A subclass writes `open`: one file each, `@FAMILIES.register("name")` above it.

    Attributes:
        pipelines: The classes of diffusers that it opens, by the name that `model_index.json` gives.
        denoiser: The part that is attacked ("unet", "transformer").
        lora_pipeline: The class of diffusers that reads its adapters' files; None where it has none.
        takes: Fields of `Opening` that it looks at, beside those of every folder.
    """

    pipelines: ClassVar[tuple[str, ...]] = ()
    denoiser: ClassVar[str] = "unet"
    lora_pipeline: ClassVar[str | None] = None
    takes: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def open(cls, parts: Parts, opening: Opening) -> Target:
        """The target of those parts. Raises UserError where one is missing, or of a kind that it doesn't know."""
        raise NotImplementedError

    @classmethod
    def facts(
        cls, parts: Parts, codec: Codec, alphas_cumprod: Tensor, kind: PredictionType, *, condition: str, **more: str
    ) -> dict[str, str]:
        """What such a target is, in words, for the top of a report.

        Args:
            parts: With every network that was loaded.
            codec, alphas_cumprod, kind: Of the target.
            condition: What its denoiser is told, and what the null condition is.
            more: Further inputs that were fixed, and the like: name -> value.
        """
        network = parts.modules[cls.denoiser]
        dtypes = sorted({str(each.dtype).removeprefix("torch.") for each in network.parameters() if each.is_floating_point()})
        facts = {
            "target": f"{parts.place}, {parts.kind}",
            "latents": str(codec),
            "denoiser": f"{type(network).__name__}, {num_parameters(network):,} parameters, predicts {kind}",
            "schedule": schedule_words(parts.settings("scheduler"), alphas_cumprod, kind),
            "condition": condition,
            "precision": f"{' and '.join(dtypes)}; autoencoder and text encoders float32",
            **more,
            "parts": ", ".join(_part(parts, name, digest) for name, digest in sorted(parts.hashes.items())),
        }
        return {**facts, "assumed": "; ".join(parts.notes)} if parts.notes else facts


def kl_codec(parts: Parts, part: str = "vae") -> KLCodec:
    """The AutoencoderKL of a pipeline with its scaling, in float32. Raises UserError where it can't be read or understood."""
    autoencoder: Any = parts.network(part, "AutoencoderKL")
    try:
        return KLCodec.scaled(autoencoder)
    except UserError as error:
        raise UserError(f"{parts.folder / part}: {error}") from None


def tower(parts: Parts, number: str, kind: str = "CLIPTextModel", num_tokens: int | None = None) -> TextTower:
    """A text model of a pipeline with several, with its tokenizer: "" the first, "_2", "_3"; see `TextTower`."""
    model = parts.text_model(f"text_encoder{number}", kind)
    tokenizer = parts.tokenizer(f"tokenizer{number}")
    try:
        return TextTower(model, tokenizer, num_tokens=num_tokens, all_states=kind != "T5EncoderModel")
    except UserError as error:
        raise UserError(f"{parts.folder / f'tokenizer{number}'}: {error}; they don't belong together.") from None


def encoder_record(parts: Parts) -> dict[str, Any]:
    """Of a text encoder that is made of all of the pipeline's text models; see `TextEncoder`."""
    hashes = [digest for part, digest in sorted(parts.hashes.items()) if part.startswith(("text_encoder", "tokenizer"))]
    return {"name": str(parts.folder), "hash": " ".join(hashes)}


def t5_tokens(opening: Opening, default: int) -> int:
    """Tokens that T5 reads of a caption. Raises UserError for a number that diffusers' pipelines don't take."""
    num_tokens = default if opening.num_tokens is None else opening.num_tokens
    if not 2 <= num_tokens <= 512:
        raise UserError(f"num_tokens: {num_tokens}; T5 is told from 2 to 512 tokens of a caption.")
    return num_tokens


def flow_schedule(parts: Parts) -> tuple[Tensor, PredictionType]:
    """alphas_cumprod and "flow". Raises UserError where the scheduler is of another kind of diffusion."""
    abar, kind = parts.schedule()
    if kind != "flow":
        name = parts.class_of("scheduler")
        raise UserError(f"{parts.folder / INDEX}: a {parts.kind} is a flow, and its scheduler, a {name}, isn't.")
    return abar, kind


def width_of(parts: Parts, part: str, setting: str, default: int) -> int:
    """A whole number of a part's settings. Raises UserError where it is something else."""
    value = default if (found := parts.settings(part).get(setting)) is None else found
    if type(value) is not int or value < 1:
        raise UserError(f"{parts.folder / part}: {setting} is {value!r}, which is to be a whole number; the folder is damaged.")
    return value


def check_fit(parts: Parts, part: str, **given: tuple[int, str]) -> None:
    """Raise UserError, before it is read, for a part that takes another width than others give.

    Args:
        parts: Of the folder.
        part: Which.
        given: Setting of the part -> (what it has to be, by what).
    """
    settings = parts.settings(part)
    for name, (value, what) in given.items():
        if settings.get(name, value) != value:
            raise UserError(
                f"{parts.folder / part}: {name} is {settings[name]}, but {value} comes from {what}; they don't belong together."
            )


def schedule_words(settings: dict[str, Any], alphas_cumprod: Tensor, kind: PredictionType) -> str:
    """A noise schedule, from its scheduler's settings and as it came out."""
    if kind == "flow":
        return f"rectified flow, {len(alphas_cumprod)} timesteps of sigma"
    betas = "betas of its own" if settings.get("trained_betas") else f"betas {settings.get('beta_schedule', 'linear')}"
    rescaled = ", rescaled to end in noise alone" if settings.get("rescale_betas_zero_snr") else ""
    first, last = (float(alphas_cumprod[at]) for at in (0, -1))
    return f"{len(alphas_cumprod)} timesteps, {betas}{rescaled}, alphas_cumprod {first:.4g} to {last:.3g}"


def _part(parts: Parts, name: str, digest: str) -> str:
    network = parts.modules.get(name)
    what = f" ({num_parameters(network):,} parameters)" if network is not None else ""
    return f"{name} {parts.class_of(name)}{what} {digest[:12]}"


def family_of(parts: Parts) -> type[Family]:
    """The family of a folder. Raises UserError, with those that there are, where none opens its pipeline."""
    families: dict[str, type[Family]] = {name: FAMILIES.get(name) for name in FAMILIES}  # type: ignore[misc]
    for family in families.values():
        if parts.kind in family.pipelines:
            return family
    known = ", ".join(sorted(pipeline for family in families.values() for pipeline in family.pipelines))
    raise UserError(f"{parts.folder / INDEX}: a {parts.kind} can't be opened. These can: {known}.")


def open_as(family: type[Family], parts: Parts, opening: Opening, *, shared: tuple[str, ...]) -> Target:
    """The family's target. Raises UserError where something was given that neither it takes nor is `shared` by all families."""
    if foreign := [each for each in opening.given() if each not in (*shared, *family.takes)]:
        raise UserError(f"{foreign[0]}: {parts.folder} is a {parts.kind}, which takes none.")
    target = family.open(parts, opening)
    return replace(target, fingerprint={**target.fingerprint, "dtype": opening.dtype})  # hashes are of what was stored


def is_pipeline(path: Path) -> bool:
    """Whether a path is a folder of diffusers."""
    return (path / INDEX).is_file()

"""The CLIP text model of a local folder, or of a repository of the Hub: Stable Diffusion's, say."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ldm_privacy.errors import UserError, reason_of
from ldm_privacy.models.folder import settings_of
from ldm_privacy.models.part import CONFIG, Part
from ldm_privacy.models.text.encoder import ClipEncoder, text_model
from ldm_privacy.models.weights import read_safetensors

WEIGHTS = "model.safetensors"
_KIND = "clip_text_model"


def pretrained_text_encoder(
    path: str,
    *,
    subfolder: str | None = None,
    tokenizer_subfolder: str | None = None,
    revision: str | None = None,
    num_tokens: int | None = None,
) -> ClipEncoder:
    """The CLIPTextModel and the tokenizer of a folder or a Hub id; safetensors only.

    Not by transformers' own loader, releases of which leave weights under older names random and say little.

    Args:
        path: A local folder, or a Hub id.
        subfolder: Where in it `config.json` and `model.safetensors` lie ("text_encoder" in Stable Diffusion's repositories).
        tokenizer_subfolder: Where the tokenizer lies ("tokenizer" there); beside the weights where None.
        revision: Branch, tag or commit on the Hub.
        num_tokens: Of every text; as many as model and tokenizer take where None, and UserError where they take fewer.

    Raises:
        UserError: A file, or a weight, is missing, unknown or doesn't fit; the tokenizer is of another vocabulary.
    """
    try:
        part = Part.find(path, subfolder=subfolder, revision=revision, weights=WEIGHTS)
    except FileNotFoundError as error:
        raise UserError(
            f"encoder: no text encoder could be loaded from '{path}' ({error}). Name tiny, or a local folder that holds "
            f"{CONFIG} and {WEIGHTS} (and denoiser.condition.subfolder)."
        ) from None
    try:
        settings = settings_of(part.config)
        if (kind := settings.get("model_type")) != _KIND:
            raise UserError(f"{part.config} describes a {kind}, and a {_KIND} is needed")
        weights = with_names_of("CLIPTextModel", read_safetensors(part.weights))
        network = text_model(settings, weights, f"the text encoder {part.weights}")
    except UserError as error:
        raise UserError(
            f"encoder: {str(error).rstrip('.')}. Name a folder whose files are whole and belong together."
        ) from None
    record = {"name": path, "subfolder": subfolder, "revision": revision, "hash": part.sha256}
    try:
        tokenizer = tokenizer_in(path, subfolder if tokenizer_subfolder is None else tokenizer_subfolder, revision)
        encoder = clip_encoder(network, tokenizer, record)
    except UserError as error:
        raise UserError(f"tokenizer_subfolder: {error}") from None
    if num_tokens is not None and num_tokens > encoder.num_tokens:
        raise UserError(f"max_tokens: {num_tokens}, but the text encoder '{path}' takes {encoder.num_tokens}.")
    return encoder if num_tokens is None else clip_encoder(network, tokenizer, record, num_tokens=num_tokens)


def clip_encoder(network: nn.Module, tokenizer: Any, record: dict[str, Any], *, num_tokens: int | None = None) -> ClipEncoder:
    """Text model and tokenizer as an encoder.

    Args:
        network: A CLIPTextModel.
        tokenizer: transformers' own.
        record: See `TextEncoder`; its "name" is what messages say.
        num_tokens: Of every text; as many as both take where None.

    Raises:
        UserError: The tokenizer has more tokens than the text model.
    """
    config: Any = network.config
    if len(tokenizer) > config.vocab_size:
        raise UserError(
            f"a tokenizer of {len(tokenizer)} tokens, and the text model of '{record['name']}' has {config.vocab_size}."
        )
    most = min(config.max_position_embeddings, tokenizer.model_max_length)  # 1e30 where the tokenizer says nothing
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    return ClipEncoder(network, backend, num_tokens=num_tokens or most, pad=pad, record=record)


def tokenizer_in(path: str | Path, subfolder: str | None = None, revision: str | None = None) -> Any:
    """transformers' tokenizer of a local folder, or else of the Hub. Raises UserError where it is none."""
    from transformers import AutoTokenizer

    folder = Path(path).expanduser()
    try:
        if folder.is_dir():
            found = AutoTokenizer.from_pretrained(folder / (subfolder or ""), local_files_only=True, trust_remote_code=False)
        else:
            where = {"subfolder": subfolder or "", "revision": revision or "main"}
            found = AutoTokenizer.from_pretrained(path, **where, trust_remote_code=False)
        if not isinstance(found.model_max_length, int) or found.model_max_length < 2:
            raise ValueError(f"model_max_length is {found.model_max_length!r}, no number of tokens")
    except Exception as error:  # the library raises whatever it stumbles over in files that it doesn't check
        raise UserError(
            f"no tokenizer could be loaded from '{path}'{f', {subfolder}' if subfolder else ''} "
            f"({reason_of(error).rstrip(':')})."
        ) from None
    return found


def with_names_of(kind: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A text model's weights under the names of today: without what stood in front of all, and what was no weight."""
    prefix = "text_model." if kind == "CLIPTextModel" else ""
    named = {name.removeprefix(prefix): weight for name, weight in weights.items()}
    return {name: weight for name, weight in named.items() if not name.endswith("embeddings.position_ids")}


def tied(kind: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same, with both names of T5's one embedding, which files hold under either."""
    names = ("shared.weight", "encoder.embed_tokens.weight") if kind == "T5EncoderModel" else ()
    one = next((weights[name] for name in names if name in weights), None)
    return {**weights, **{name: one for name in names if one is not None and name not in weights}}

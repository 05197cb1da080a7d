"""What a denoiser is told of a text: a frozen CLIP text model's last hidden states, or what other encoders make of it."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from ldm_privacy.models.folder import config_of
from ldm_privacy.models.weights import built_with

if TYPE_CHECKING:
    from tokenizers import Tokenizer

HIDDEN_STATES = "encoder_hidden_states"


class TextEncoder(Protocol):
    """Texts -> keyword arguments of a denoiser.

    Attributes:
        shapes: Argument -> shape of one text's, batch left out: {"encoder_hidden_states": (tokens, width)}.
        num_tokens: Of every text, after cutting and padding.
        record: For a checkpoint: what brings it back, or tells another one from it.
    """

    shapes: Mapping[str, tuple[int, ...]]
    num_tokens: int
    record: dict[str, Any]

    def token_ids(self, texts: Sequence[str]) -> tuple[Tensor, int]:
        """(texts, num_tokens) int64, and how many texts were cut: their last token is that of the end all the same."""

    def __call__(self, texts: Sequence[str], device: torch.device) -> dict[str, Tensor]:
        """Argument -> (texts, *shape) on that device, float32 in any precision of a run."""


class EncoderIn:
    """A text encoder that is asked inside a context: with an adapter on, or with none.

    Args:
        encoder: Any.
        context: Made anew for every call.
        record: What tells it from that encoder.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        context: Callable[[], AbstractContextManager[Any]],
        record: Mapping[str, Any] | None = None,
    ):
        self.encoder, self.context = encoder, context
        self.shapes, self.num_tokens, self.record = encoder.shapes, encoder.num_tokens, {**encoder.record, **(record or {})}

    def token_ids(self, texts: Sequence[str]) -> tuple[Tensor, int]:
        """As that encoder's."""
        return self.encoder.token_ids(texts)

    def __call__(self, texts: Sequence[str], device: torch.device) -> dict[str, Tensor]:
        """As that encoder's, in the context."""
        with self.context():
            return self.encoder(texts, device)


class ClipEncoder:
    """Texts -> token ids -> last hidden states, after the last normalisation, padded and without a mask as Stable Diffusion's.

    Args:
        network: A CLIPTextModel with float32 weights.
        tokenizer: Puts the tokens of beginning and end around a text; cuts and pads nothing.
        num_tokens: Of every text, after cutting and padding.
        pad: What follows the end.
        record: See `TextEncoder`.
    """

    def __init__(self, network: nn.Module, tokenizer: "Tokenizer", *, num_tokens: int, pad: int, record: dict[str, Any]):
        self.network, self.tokenizer, self.num_tokens, self.pad, self.record = network, tokenizer, num_tokens, pad, record
        self.shapes: Mapping[str, tuple[int, ...]] = {HIDDEN_STATES: (num_tokens, network.config.hidden_size)}  # type: ignore[union-attr,dict-item]

    def token_ids(self, texts: Sequence[str]) -> tuple[Tensor, int]:
        """(texts, num_tokens) int64, and how many texts were cut: their last token is that of the end all the same."""
        ids, is_cut = padded_ids(self.tokenizer, texts, num_tokens=self.num_tokens, pad=self.pad)
        return ids, int(is_cut.sum())

    @torch.inference_mode(False)  # training steps use what a first audit asked for
    @torch.no_grad()
    def __call__(self, texts: Sequence[str], device: torch.device) -> dict[str, Tensor]:
        """{"encoder_hidden_states": (texts, num_tokens, width)}. One pass of the text model."""
        with torch.autocast(device.type, enabled=False):
            states = self.network.to(device)(input_ids=self.token_ids(texts)[0].to(device)).last_hidden_state
        return {HIDDEN_STATES: states.float()}


def padded_ids(tokenizer: "Tokenizer", texts: Sequence[str], *, num_tokens: int, pad: int) -> tuple[Tensor, Tensor]:
    """(texts, num_tokens) int64, and (texts,) bool, which were cut: their last token is that of the end all the same."""
    found = [each.ids for each in tokenizer.encode_batch(list(texts))]
    cut = [ids if len(ids) <= num_tokens else [*ids[: num_tokens - 1], ids[-1]] for ids in found]
    padded = [ids + [pad] * (num_tokens - len(ids)) for ids in cut]
    is_cut = torch.tensor([len(ids) > num_tokens for ids in found], dtype=torch.bool)
    return torch.tensor(padded).reshape(-1, num_tokens), is_cut


def text_model(settings: dict[str, Any], state: object, what: str, kind: str = "CLIPTextModel") -> nn.Module:
    """A frozen text model of transformers with those settings and weights. Raises UserError where they don't fit each other."""
    import transformers

    maker: Any = getattr(transformers, kind)

    def build() -> nn.Module:
        model = maker(config_of(maker.config_class, settings))
        # Some releases have one more module around the same.
        return getattr(model, "text_model", model) if kind == "CLIPTextModel" else model

    with torch.random.fork_rng(devices=[]):
        return built_with(build, state, what).eval().requires_grad_(False)

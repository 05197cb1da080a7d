"""Several text models, each with a tokenizer of its own, as one text encoder: that of SDXL, Stable Diffusion 3 and Flux."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ldm_privacy.errors import UserError
from ldm_privacy.models.text.encoder import padded_ids


class TextTower:
    """A text model and its tokenizer: texts -> the record that the model returns; no attention mask.

    Args:
        network: A text model of transformers with float32 weights.
        tokenizer: Of transformers; it puts its own tokens around a text.
        num_tokens: Of every text, after cutting and padding; as many as model and tokenizer take where None.
        all_states: The record holds the hidden states of each layer, not of the last alone.

    Raises:
        UserError: The tokenizer has more tokens than the text model.
    """

    def __init__(self, network: nn.Module, tokenizer: Any, *, num_tokens: int | None = None, all_states: bool = True):
        config: Any = network.config
        if len(tokenizer) > config.vocab_size:
            raise UserError(f"a tokenizer of {len(tokenizer)} tokens, and its text model has {config.vocab_size}")
        self.network, self.width, self.all_states = network, int(config.hidden_size), all_states
        self.num_tokens = num_tokens or min(config.max_position_embeddings, tokenizer.model_max_length)
        self.pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        self.tokenizer = tokenizer.backend_tokenizer
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()

    def token_ids(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(texts, num_tokens) int64, and (texts,) bool, which were cut."""
        return padded_ids(self.tokenizer, texts, num_tokens=self.num_tokens, pad=self.pad)

    def __call__(self, texts: Sequence[str], device: torch.device) -> Any:
        """One pass of the text model."""
        ids = self.token_ids(texts)[0].to(device)
        return self.network.to(device)(input_ids=ids, output_hidden_states=self.all_states)


class TowersEncoder:
    """A `TextEncoder` of several text models.

    Args:
        towers: In the order in which `combine` takes what they return.
        combine: What the towers return for a batch of texts -> argument of the denoiser -> (texts, *shape).
        shapes: Argument -> shape of one text's.
        record: See `TextEncoder`.
        empty_is_zero: The empty text is zeros, not what the towers make of it.
    """

    def __init__(
        self,
        towers: Sequence[TextTower],
        combine: Callable[[list[Any]], dict[str, Tensor]],
        *,
        shapes: Mapping[str, tuple[int, ...]],
        record: dict[str, Any],
        empty_is_zero: bool = False,
    ):
        self.towers, self.combine, self.shapes, self.record = towers, combine, shapes, record
        self.empty_is_zero = empty_is_zero
        self.num_tokens = max(tower.num_tokens for tower in towers)

    def token_ids(self, texts: Sequence[str]) -> tuple[Tensor, int]:
        """(texts, tokens of all towers) int64, and how many texts no tower reads to the end."""
        ids, is_cut = zip(*(tower.token_ids(texts) for tower in self.towers))
        return torch.cat(ids, 1), int(torch.stack(is_cut).all(0).sum())

    @torch.inference_mode(False)  # training steps use what a first audit asked for
    @torch.no_grad()
    def __call__(self, texts: Sequence[str], device: torch.device) -> dict[str, Tensor]:
        """Argument -> (texts, *shape), float32. One pass of each text model."""
        with torch.autocast(device.type, enabled=False):
            found = self.combine([tower(texts, device) for tower in self.towers])
        if self.empty_is_zero:
            said = torch.tensor([bool(text) for text in texts], device=device)
            found = {name: value * said.reshape(-1, *[1] * (value.ndim - 1)) for name, value in found.items()}
        return {name: value.float() for name, value in found.items()}

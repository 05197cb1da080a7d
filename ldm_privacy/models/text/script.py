"""The text encoders of a training script, as it holds them: objects of transformers, or a function of texts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ldm_privacy.errors import UserError
from ldm_privacy.models.text.encoder import HIDDEN_STATES


class ScriptEncoder:
    """A text model and its tokenizer: padded to the full length and without a mask, as diffusers' training scripts encode.

    The text model is asked where it lies, in its own precision, and not moved; it may be training.

    Args:
        network: A text model of transformers; its first output is what the denoiser attends to.
        tokenizer: Of transformers.
    """

    def __init__(self, network: nn.Module, tokenizer: Any):
        config: Any = network.config
        self.network, self.tokenizer = network, tokenizer
        # 1e30 where the tokenizer says nothing.
        self.num_tokens = int(min(tokenizer.model_max_length, config.max_position_embeddings))
        self.shapes: Mapping[str, tuple[int, ...]] = {HIDDEN_STATES: (self.num_tokens, config.hidden_size)}
        self.record = {"name": type(network).__name__}

    def token_ids(self, texts: Sequence[str]) -> tuple[Tensor, int]:
        """(texts, num_tokens) int64, and how many texts were cut."""
        whole = self.tokenizer(list(texts), verbose=False).input_ids
        padded = self.tokenizer(
            list(texts), max_length=self.num_tokens, padding="max_length", truncation=True, return_tensors="pt"
        )
        return padded.input_ids, sum(len(ids) > self.num_tokens for ids in whole)

    @torch.inference_mode(False)
    @torch.no_grad()
    def __call__(self, texts: Sequence[str], device: torch.device) -> dict[str, Tensor]:
        """{"encoder_hidden_states": (texts, num_tokens, width)}, float32. One pass of the text model."""
        here = next(self.network.parameters()).device
        states = self.network(self.token_ids(texts)[0].to(here), return_dict=False)[0]
        return {HIDDEN_STATES: states.to(device, torch.float32)}


class FunctionEncoder:
    """A function from texts to keyword arguments of the denoiser: of SDXL's two text models, say.

    Args:
        function: Texts -> argument -> (texts, ...) tensors; a mapping in place of a tensor is one in the denoiser's arguments
            too, and its entries are then called `argument.entry`.

    Raises:
        UserError: It returns something else for [""].
    """

    num_tokens = 0
    """Not known."""

    def __init__(self, function: Callable[[list[str]], Mapping[str, Any]]):
        self.function = function
        self.record: dict[str, Any] = {"name": getattr(function, "__name__", type(function).__name__)}
        self.shapes: Mapping[str, tuple[int, ...]] = {
            name: tuple(value.shape[1:]) for name, value in self([""], torch.device("cpu")).items()
        }

    def token_ids(self, texts: Sequence[str]) -> tuple[Tensor, int]:
        """(texts, 0): the function keeps them to itself."""
        return torch.zeros(len(texts), 0, dtype=torch.int64), 0

    @torch.inference_mode(False)
    @torch.no_grad()
    def __call__(self, texts: Sequence[str], device: torch.device) -> dict[str, Tensor]:
        """Argument -> (texts, *shape), float32."""
        found = flat(self.function(list(texts)))
        for name, value in found.items():
            if not isinstance(value, Tensor) or value.shape[:1] != (len(texts),):
                what = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise UserError(
                    f"text_encoder: its '{name}' for {len(texts)} texts is {what}; a tensor with a row each is needed."
                )
        return {name: value.to(device, torch.float32) for name, value in found.items()}


def flat(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that are mappings, entry by entry: {"a": {"b": c}} -> {"a.b": c}."""
    found: dict[str, Any] = {}
    for name, value in arguments.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{entry}": each for entry, each in flat(value).items()}
        else:
            found[name] = value
    return found


def nested(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flat`."""
    found: dict[str, Any] = {}
    for name, value in arguments.items():
        *path, last = name.split(".")
        place = found
        for each in path:
            place = place.setdefault(each, {})
        place[last] = value
    return found

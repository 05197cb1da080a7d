"""A text encoder without downloads, for small runs: byte pairs of the members' captions, and a small random CLIP text model."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ldm_privacy.errors import UserError, reason_of
from ldm_privacy.models.text.encoder import ClipEncoder, text_model

if TYPE_CHECKING:
    from tokenizers import Tokenizer

NUM_TOKENS = 77
_BEGIN, _END = "<|startoftext|>", "<|endoftext|>"


def tiny_text_encoder(
    captions: Sequence[str],
    *,
    num_tokens: int = NUM_TOKENS,
    vocab_size: int = 512,
    seed: int = 0,
    stored: Mapping[str, Any] | None = None,
) -> ClipEncoder:
    """Byte-level BPE that is learned from those captions, and a frozen random CLIPTextModel: width 64, two layers.

    Every text has tokens, in whatever language, for each byte is one. The same captions, in any order, give the same encoder;
    a checkpoint keeps it whole, as tokenizer and weights.

    Args:
        captions: Of the members alone: what held-out ones say is nothing that a model learns from.
        num_tokens: Of every text.
        vocab_size: Of the tokenizer, at most; 258 at least, for the bytes, beginning and end.
        seed: Of the weights.
        stored: The `record` of an encoder to bring back; then captions and seed count nothing. Raises UserError where it is
            damaged.
    """
    tokenizer = _learned(captions, vocab_size) if stored is None else _read(stored)
    begin, end = _ends(tokenizer)
    settings = {
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": num_tokens,
        "bos_token_id": begin,
        "eos_token_id": end,
        "pad_token_id": end,
    }
    weights = _random(settings, seed) if stored is None else stored.get("weights")
    network = text_model(settings, weights, "its text encoder")
    record = {"name": "tiny", "tokenizer": tokenizer.to_str(), "weights": dict(network.state_dict())}
    return ClipEncoder(network, tokenizer, num_tokens=num_tokens, pad=end, record=record)


def _learned(captions: Sequence[str], vocab_size: int) -> "Tokenizer":
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[_BEGIN, _END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sorted(captions), trainer)
    ends = [*zip((_BEGIN, _END), _ends(tokenizer))]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{_BEGIN} $A {_END}", special_tokens=ends)
    return tokenizer


def _ends(tokenizer: "Tokenizer") -> tuple[int, int]:
    """Of the tokens of beginning and end. Raises UserError where there are none."""
    begin, end = (tokenizer.token_to_id(token) for token in (_BEGIN, _END))
    if begin is None or end is None:
        raise UserError("the tokenizer of its text encoder is another one")
    return begin, end


def _read(stored: Mapping[str, Any]) -> "Tokenizer":
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(stored["tokenizer"])
    except Exception as error:  # the library raises plain exceptions
        raise UserError(f"the tokenizer of its text encoder is missing or damaged ({reason_of(error)})") from None


def _random(settings: dict[str, Any], seed: int) -> dict[str, torch.Tensor]:
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLIPTextModel(CLIPTextConfig(**settings))
    return getattr(model, "text_model", model).state_dict()

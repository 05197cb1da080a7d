"""Text encoders by the names that configs give them."""

from collections.abc import Mapping
from typing import Any

from ldm_privacy.errors import UserError
from ldm_privacy.models.text.encoder import TextEncoder


def named_text_encoder(
    name: str,
    captions: list[list[str]],
    *,
    stored: Mapping[str, Any] | None,
    tiny: dict[str, Any],
    pretrained: dict[str, Any],
    num_tokens: int | None,
) -> TextEncoder:
    """The text encoder of that name; where one is stored, that one or UserError.

    Args:
        name: "tiny", or what `pretrained_text_encoder` reads.
        captions: Of the members, which tiny's tokenizer is made of.
        stored: The `record` of the one that a denoiser was trained with; None for a new training.
        tiny, pretrained: Further arguments of the one and of the other.
        num_tokens: Of a caption; as many as the encoder takes (tiny: 77) where None.
    """
    from ldm_privacy.models.text.pretrained import pretrained_text_encoder
    from ldm_privacy.models.text.tiny import NUM_TOKENS, tiny_text_encoder

    then = (stored or {}).get("hash")
    if name == "tiny" and then is None:
        texts = [caption for each in captions for caption in each]
        return tiny_text_encoder(texts, num_tokens=num_tokens or NUM_TOKENS, **tiny, stored=stored)
    now = None if name == "tiny" else pretrained_text_encoder(name, **pretrained, num_tokens=num_tokens)
    if now is None or (stored is not None and then != now.record["hash"]):
        raise UserError(
            f"encoder: '{name}' is not the text encoder that the denoiser was trained with, '{(stored or {}).get('name')}': "
            "its weights are others. Name that one."
        )
    if stored is not None:
        now.record = dict(stored)  # which says where it lay then
    return now

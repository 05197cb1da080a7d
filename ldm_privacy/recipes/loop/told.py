"""What the network of a watched loop is told of each audited image."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ldm_privacy.data.captions import Captions
from ldm_privacy.errors import UserError
from ldm_privacy.models.predictor import as_it_is
from ldm_privacy.models.text.encoder import EncoderIn, TextEncoder
from ldm_privacy.models.text.script import FunctionEncoder, ScriptEncoder, flat
from ldm_privacy.targets.script import Context
from ldm_privacy.targets.target import unwrapped
from ldm_privacy.types import Condition


class Told:
    """Conditions of the audited images, members first; of captions what travels is their numbers.

    Args:
        num_members, num_heldout: Images.
        captions: One for each image, or several, of which audits take the first.
        text_encoder: A text model of transformers, with its tokenizer; or a function, see `FunctionEncoder`.
        tokenizer: Of the text model.
        trains: The text encoder moves. Where one of a text model's parameters is trained, that is known.
        condition: In place of captions: name -> (images, ...); a mapping in place of a tensor is one in the arguments, too.
        null: The same with one row.
        memory_mib: For encoded captions; what is beyond is encoded again in each pass.

    Attributes:
        own, null: Name -> (images, ...) and (1, ...); {} where the network is told nothing.
        words: How, in words.

    Raises:
        UserError: Captions and their encoder, or captions and a condition, don't go together; there are not as many as images.
    """

    def __init__(
        self,
        num_members: int,
        num_heldout: int,
        *,
        captions: Sequence[str | Sequence[str]] | None = None,
        text_encoder: nn.Module | Callable[[list[str]], Any] | None = None,
        tokenizer: Any = None,
        trains: bool = False,
        condition: Any = None,
        null: Any = None,
        memory_mib: float = 1024.0,
    ):
        self.network = unwrapped(text_encoder) if isinstance(text_encoder, nn.Module) else None
        self.captions: Captions | None = None
        self._trains = trains
        self._base: Captions | None = None
        count = num_members + num_heldout
        if captions is None:
            if text_encoder is not None:
                raise UserError("captions: missing; give one for each image, members first, or leave text_encoder out.")
            self.own, self.null = flat(condition or {}), flat(null or {})
            for name, value in self.own.items():
                if len(value) != count:
                    raise UserError(f"condition: {len(value)} rows of '{name}' for {count} images, members first.")
            self.words = f"given tensors: {', '.join(self.own)}" if self.own else "nothing"
            return
        if condition is not None or text_encoder is None:
            what = "leave condition out" if condition is not None else "give text_encoder and tokenizer, too"
            raise UserError(f"captions: the network is told what a text encoder makes of them; {what}.")
        if len(captions) != count:
            raise UserError(
                f"captions: {len(captions)} for {num_members} members and {num_heldout} held-out images, in that order."
            )
        texts = [[each] if isinstance(each, str) else list(each) for each in captions]
        index = torch.arange(count)
        self.captions = Captions(
            captions=lambda rows: [texts[row] for row in rows.tolist()],
            member_index=index[:num_members],
            heldout_index=index[num_members:],
            encoder=_encoder(text_encoder, tokenizer),
            memory_mib=memory_mib,
            memory_key="memory_mib",
        )
        self.own, self.null = self.captions(index), self.captions.null()
        self.words = f"captions through {self.captions.encoder.record['name']}"

    @property
    def trains(self) -> bool:
        """Whether captions have to be encoded anew at a look."""
        return self._trains or (self.network is not None and any(each.requires_grad for each in self.network.parameters()))

    @property
    def given(self) -> Callable[[Condition], Condition]:
        """See `ConditionSource.given`."""
        return as_it_is if self.captions is None else self.captions.given

    def base(self, context: Context | None) -> Callable[[Condition], Condition]:
        """The same for the reference: through the text encoder in that context, encoded once."""
        if self.captions is None or context is None or not self.trains:
            return self.given
        if self._base is None:
            self._base = self.captions.through(EncoderIn(self.captions.encoder, context))
        return self._base.given

    def refresh(self) -> None:
        """Encode anew from here on, where the text encoder trains."""
        if self.captions is not None and self.trains:
            self.captions.forget()

    def reduced(self, index: Tensor) -> dict[str, dict[str, Tensor]]:
        """Captions with a third removed, by view; none of other conditions."""
        return {} if self.captions is None else self.captions.reduced(index)


def _encoder(text_encoder: nn.Module | Callable[[list[str]], Any], tokenizer: Any) -> TextEncoder:
    if not isinstance(text_encoder, nn.Module):
        return FunctionEncoder(text_encoder)
    if tokenizer is None:
        raise UserError(f"tokenizer: missing; the text encoder is a {type(text_encoder).__name__}. Give its tokenizer, too.")
    return ScriptEncoder(unwrapped(text_encoder), tokenizer)

"""Captions through a frozen text encoder: what travels with a sample is the number of its caption."""

import copy
import hashlib
import logging
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Annotated, Any

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat
from torch import Tensor

from ldm_privacy.data.conditions import ConditionSource, Dropout
from ldm_privacy.data.embeddings import Embeddings
from ldm_privacy.diffusion import per_sample
from ldm_privacy.errors import UserError
from ldm_privacy.models.text.encoder import HIDDEN_STATES, TextEncoder
from ldm_privacy.models.text.named import named_text_encoder
from ldm_privacy.registry import CONDITIONS
from ldm_privacy.types import Condition

log = logging.getLogger("ldm_privacy")


@CONDITIONS.register("captions")
class Captions(ConditionSource):
    """`caption`: the number of a caption among all distinct ones of members and held-out, in alphabetical order; 0 is "".

    The network gets what a frozen text encoder makes of it: `encoder_hidden_states` (batch, tokens, width) of a CLIP text
    model, padded and without a mask. The null condition is the encoded empty string, and so is the condition of an image
    without a caption. Audits take an image's first caption, a training step draws one of all. Each distinct caption is encoded
    once, on first use.

    Args:
        captions: Sample indices -> captions of each; None where the data have none.
        member_index, heldout_index: Of the split.
        encoder: Of the texts.
        memory_mib: For the embeddings of all encoders that they go `through`, in MiB; those least used lately are dropped, and
            made anew where they are asked for.
        memory_key: What sets it, as the warning says it where they don't fit.
        dropout: Share of the training's samples that are told the empty string.
        noise: Standard deviation of normal noise on the embeddings, in training and on all but the empty caption's, in units of
            the root mean square of each array of a caption (CLIP's states have about 1). Source: Somepalli et al. 2023,
            2305.20086, "Gaussian noise" among the training-time mitigations; theirs is absolute (`rand_noise_lam` of their
            code), and on every caption.

    Raises:
        UserError: No captions, or empty ones alone.
    """

    note = "audits and pictures take an image's first caption, each training step draws one of all"

    def __init__(
        self,
        *,
        captions: Callable[[Tensor], list[list[str]] | None],
        member_index: Tensor,
        heldout_index: Tensor,
        encoder: TextEncoder,
        memory_mib: float = 1024.0,
        memory_key: str = "denoiser.condition.memory_mib",
        dropout: float = 0.1,
        noise: float = 0.0,
    ):
        self.dropout, self.noise, self.encoder, self.memory_mib = dropout, noise, encoder, memory_mib
        if noise:
            self.note += f"; in training noise of {noise:g} of their size was added to the embeddings"
        self.memory_key = memory_key
        of_all = captions(torch.cat([member_index, heldout_index]))
        if of_all is None:
            raise UserError("'captions' needs captions; name their column with data.source.caption_column.")
        if not any(of_all):
            raise UserError("'captions' needs captions, and all are empty; name their column with data.source.caption_column.")
        if without := sum(not each for each in of_all):
            log.warning("%d of %d images have no caption: the denoiser is told the empty one of them.", without, len(of_all))
        self.captions = captions
        self.texts = ["", *sorted({caption for each in of_all for caption in each})]
        self._number = {text: number for number, text in enumerate(self.texts)}
        ids, num_cut = encoder.token_ids(self.texts)
        if num_cut:
            counted = f"{num_cut} of {len(self.texts) - 1} captions"
            log.warning("%s are longer than %d tokens: what is beyond is not read.", counted, encoder.num_tokens)
        digest = hashlib.sha256("\0".join(self.texts).encode() + ids.numpy().tobytes()).hexdigest()
        self._record = {"class": "captions", "captions": digest, "encoder": encoder.record}
        self._tables: list[Embeddings] = []
        """Of all encoders that the same numbers go through."""
        self.embeddings = self._embedded()
        self._warn_unless_fits()

    @classmethod
    def build(
        cls,
        *,
        captions: Callable[[Tensor], list[list[str]] | None],
        member_index: Tensor,
        heldout_index: Tensor,
        stored: Mapping[str, Any] | None = None,
        base: str | None = None,
        encoder: str = "tiny",
        subfolder: str | None = None,
        tokenizer_subfolder: str | None = None,
        revision: str | None = None,
        max_tokens: Annotated[int, Field(ge=3)] | None = None,
        vocab_size: Annotated[int, Field(ge=258)] = 512,
        seed: NonNegativeInt = 0,
        memory_mib: PositiveFloat = 1024.0,
        dropout: Dropout = 0.1,
        noise: Annotated[float, Field(ge=0, le=100)] = 0.0,
    ) -> "Captions":
        """With the text encoder of that name.

        Args:
            captions, member_index, heldout_index, memory_mib, dropout, noise: As of the class.
            stored: The `record` in a checkpoint that is evaluated or resumed: its text encoder, exactly, or UserError.
            base: The pipeline that is fine-tuned.
            encoder: "tiny" (byte pairs of the members' captions and a small random text model, stored in the checkpoint),
                "base" (that of the pipeline which is fine-tuned), or a local folder or Hub id of a CLIP text model.
            subfolder, tokenizer_subfolder, revision: Where in it weights and tokenizer lie; see `pretrained_text_encoder`.
            max_tokens: Of a caption, those of beginning and end among them; what is longer is cut, and counted in a warning. As
                many as the encoder takes (tiny: 77) where None.
            vocab_size: Of tiny's tokenizer, at most.
            seed: Of tiny's weights.

        Raises:
            UserError: transformers is not installed; no such text encoder, or not the stored one; as the class.
        """
        if any(find_spec(name) is None for name in ("transformers", "tokenizers")):
            raise UserError("'captions' needs transformers: pip install 'ldm-privacy[captions]'.")
        is_tiny = encoder == "tiny"
        if encoder == "base":
            if base is None:
                raise UserError("encoder: no base is named; give base=FOLDER (or a Hub id), or name another text encoder.")
            encoder, subfolder = base, subfolder or "text_encoder"
            tokenizer_subfolder = tokenizer_subfolder or "tokenizer"
        found = named_text_encoder(
            encoder,
            captions(member_index) or [],
            stored=(stored or {}).get("encoder"),
            tiny={"vocab_size": vocab_size, "seed": seed},
            pretrained={"subfolder": subfolder, "tokenizer_subfolder": tokenizer_subfolder, "revision": revision},
            num_tokens=max_tokens,
        )
        made = cls(
            captions=captions,
            member_index=member_index,
            heldout_index=heldout_index,
            encoder=found,
            memory_mib=memory_mib,
            dropout=dropout,
            noise=noise,
        )
        if is_tiny:
            made.members_part = "what the tokenizer has of the members' captions"
        return made

    def through(self, encoder: TextEncoder) -> "Captions":
        """The same captions under the same numbers through another encoder: of a base whose adapter changes the text's too."""
        other, has_fitted = copy.copy(self), self.embeddings.fits
        other.encoder = encoder
        other.embeddings = other._embedded()
        if has_fitted:
            other._warn_unless_fits()
        return other

    def forget(self) -> None:
        """Encode anew from here on: the text encoder has been trained."""
        self.embeddings.forget()

    def _embedded(self) -> Embeddings:
        """Each text's arrays end to end in one row: they are kept, dropped and looked up together."""
        sizes = [torch.Size(shape).numel() for shape in self.encoder.shapes.values()]

        def encode(numbers: range, device: torch.device) -> Tensor:
            found = self.encoder([self.text(number) for number in numbers], device)
            return torch.cat([found[name].flatten(1) for name in self.encoder.shapes], 1)

        table = Embeddings(
            encode,
            count=4 * len(self.texts) - 3,
            expected=len(self.texts),
            shape=(sum(sizes),),
            max_bytes=self.memory_mib * 2**20,
        )
        self._tables.append(table)
        for each in self._tables:
            each.limit(self.memory_mib * 2**20 / len(self._tables))
        return table

    def _warn_unless_fits(self) -> None:
        if not self.embeddings.fits:
            log.warning(
                "%d captions don't fit into %s (%g MiB; all take %.3g): they are encoded again and again.",
                *(len(self.texts) - 1, self.memory_key, self.memory_mib),
                sum(each.expected_bytes for each in self._tables) / 2**20,
            )

    def text(self, number: int) -> str:
        """The caption of that number; those beyond the data's own are captions with a third removed, three each."""
        if number < len(self.texts):
            return self.texts[number]
        whole, third = divmod(number - len(self.texts), 3)
        words = self.texts[whole + 1].split()
        return " ".join(words[: len(words) * third // 3] + words[len(words) * (third + 1) // 3 :])

    def __call__(self, sample_index: Tensor) -> dict[str, Tensor]:
        return {"caption": self.choices(sample_index)[0]["caption"][:, 0]}

    def choices(self, sample_index: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Every caption of each sample, filled up with 0, and how many they are; the empty one where it has none."""
        found = [[self._number[caption] for caption in each] or [0] for each in self.captions(sample_index) or []]
        most = max(map(len, found), default=1)
        numbers = torch.tensor([each + [0] * (most - len(each)) for each in found]).reshape(-1, most)
        return {"caption": numbers}, torch.tensor([len(each) for each in found], dtype=torch.int64)

    def null(self) -> dict[str, Tensor]:
        return {"caption": torch.tensor([0])}

    def reduced(self, sample_index: Tensor) -> dict[str, dict[str, Tensor]]:
        """ "without_1" to "without_3": the first caption without its first, second or last third, by words."""
        own = self(sample_index)["caption"]
        first = len(self.texts) + 3 * (own - 1)
        found = {f"without_{third + 1}": torch.where(own > 0, first + third, 0) for third in range(3)}
        for each in self._tables:
            each.expect(torch.cat(list(found.values())))
        return {view: {"caption": numbers} for view, numbers in found.items()}

    def given(self, condition: Condition) -> Condition:
        """What the encoder makes of each caption. No pass for those that are kept."""
        shapes, rows = self.encoder.shapes, self.embeddings(condition["caption"])
        parts = rows.split([torch.Size(shape).numel() for shape in shapes.values()], 1)
        return {name: part.reshape(-1, *shape) for (name, shape), part in zip(shapes.items(), parts)}

    def given_in_training(self, condition: Condition, count: int, share: Callable[[Tensor], Tensor]) -> Condition:
        given = dict(self.given(condition))
        for name, value in given.items() if self.noise else ():
            drawn = share(torch.randn(count, *value.shape[1:], dtype=value.dtype, device=value.device))
            size = self.noise * value.flatten(1).square().mean(1).sqrt() * (condition["caption"] > 0)
            given[name] = value + per_sample(size, value) * drawn
        return given

    def words(self, sample_index: Tensor) -> list[str]:
        return [self.texts[number] for number in self(sample_index)["caption"].tolist()]

    def network_arguments(self) -> dict[str, Any]:
        return {"cross_attention_dim": self.encoder.shapes[HIDDEN_STATES][-1]}

    def record(self) -> dict[str, Any]:
        return self._record

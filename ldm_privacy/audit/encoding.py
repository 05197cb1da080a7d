"""Encoding images: posterior means and latents of any number of them, once, then found in a store."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldm_privacy.device import ahead, explain_out_of_memory, lower_memory, passes, rows_within
from ldm_privacy.geometry.store import Store, fingerprint, in_file
from ldm_privacy.models.codec import Codec
from ldm_privacy.processes import gather, is_main, share_of
from ldm_privacy.types import Image, Images, Latent, Progress

log = logging.getLogger("ldm_privacy")


@dataclass
class Encoding:
    """What images are, and what a frozen codec makes of them.

    Of several processes each computes its share, and all find the same in the store. Whatever has a row for each sample goes
    there as it is computed and is mapped from there; images are fetched by a thread, a batch ahead of the codec.

    Attributes:
        codec: On `device`.
        images: Sample indices -> images.
        content: Identifies the images (a hash of pixels and size): part of every fingerprint.
        store_folder: Where results are kept; None: nowhere.
        device: Where passes run.
        progress: Shows how far it is.
        memory: What was found or computed before, by fingerprint: with another target of the same codec it is not read again.
        latents_gib: For latents that are computed from what is stored; beyond it they lie in a file of the store's folder.
            None: no bound, as where there is no store.
    """

    codec: Codec
    images: Images
    content: str
    store_folder: Path | None
    device: torch.device
    progress: Progress
    memory: dict[str, Any] | None = None
    latents_gib: float | None = None
    _reused: dict[int, list[str]] = field(default_factory=dict, init=False)
    """Of so many samples, what was found in the store and not told yet."""

    def means(self, index: Tensor, *, mirrored: bool = False) -> Tensor:
        """Posterior means of those samples, (samples, channels, height, width), on the CPU, in every process.

        One encoder pass a sample, for the images or for their mirror images.
        """

        def mean(image: Image) -> Tensor:
            return self.codec.mean(image.flip(-1) if mirrored else image)

        def compute(mine: Tensor) -> Iterator[dict[str, Tensor]]:
            return self.batches(f"Encoding {which}images", "encoding images", lambda image: {"mean": mean(image)}, mine)

        which = "mirrored " if mirrored else ""
        return self.stored(f"{which}latents", index, {}, compute, of_all=True)["mean"]

    def held(self, batches: Iterable[Tensor], num_bytes: int) -> Tensor:
        """Batches of latents as one tensor on the CPU: in memory, or where they are beyond `latents_gib` mapped from a file.

        Of several processes each has a file of its own.
        """
        if self.latents_gib is None or self.store_folder is None or num_bytes <= self.latents_gib * 2**30:
            return torch.cat(list(batches))
        return in_file(batches, self.store_folder)

    def latents(self, *means: Tensor) -> Latent:
        """`codec.channel_map` of posterior means, one after the other, on the CPU; see `held`."""
        rows = _chunks(means[0])
        return self.held(
            (self.codec.channel_map(each[some]) for each in means for some in rows), sum(each.nbytes for each in means)
        )

    def joined(self, known: Sequence[tuple[Tensor, Tensor]], index: Tensor) -> Tensor:
        """The rows of those samples, on the CPU, see `held`. `known`: sample indices and their rows, no sample twice."""
        everyone, order = torch.cat([each for each, _ in known]).sort()
        place, tables = order[torch.searchsorted(everyone, index)], [table for _, table in known]

        def rows(chunk: slice) -> Tensor:
            found, first = tables[0].new_empty(len(place[chunk]), *tables[0].shape[1:]), 0
            for table in tables:
                here = (place[chunk] >= first) & (place[chunk] < first + len(table))
                found[here] = table[place[chunk][here] - first]
                first += len(table)
            return found

        num_bytes = len(index) * tables[0][:1].nbytes
        return self.held((rows(chunk) for chunk in _chunks(tables[0], len(index))), num_bytes)

    def stored(
        self,
        noun: str,
        index: Tensor,
        settings: Mapping[str, Any],
        compute: Callable[[Tensor], Iterable[Mapping[str, Tensor]]],
        *,
        of_codec: bool = True,
        of_all: bool = False,
    ) -> Mapping[str, Tensor]:
        """This process's rows of a quantity: found in the store, or computed and stored as one file for all processes.

        `compute` gets this process's sample indices and returns its rows by batches, on the CPU. `of_codec`: the codec has a
        part in it. `of_all`: The rows of all processes.
        """
        share = share_of(len(index))
        if self.store_folder is None and self.memory is None:
            return _joined(gather(list(compute(index[share]))) if of_all else [list(compute(index[share]))])
        codec, weights = (self.codec.settings(), self.codec.weights()) if of_codec else (None, {})
        name = fingerprint(weights, {"quantity": noun, "codec": codec, "images": self.content, **settings}, index)
        memory = {} if self.memory is None else self.memory
        if name not in memory:
            if self.store_folder is None:
                memory[name] = _joined(gather(list(compute(index[share]))))
            else:
                store = Store(self.store_folder, noun)
                memory[name], is_found = store.get_or_compute(name, index, lambda: compute(index[share]))
                if is_found:
                    self._reused.setdefault(len(index), []).append(noun)
        return memory[name] if of_all else {column: value[share] for column, value in memory[name].items()}

    def tell_reused(self) -> None:
        """One line for all that was found in the store since the last one."""
        words = "; ".join(f"{', '.join(nouns)} of {count}" for count, nouns in self._reused.items())
        if words and is_main():
            log.info("%s samples reused from %s.", words[0].upper() + words[1:], self.store_folder)
        self._reused.clear()

    @torch.no_grad()
    def batches(
        self, words: str, step: str, function: Callable[..., dict[str, Tensor]], index: Tensor, *columns: Tensor
    ) -> Iterator[dict[str, Tensor]]:
        """`function` of the images of those samples, and of the columns, as many at a time as the codec takes, on the CPU."""
        advice = f"while {step}: {lower_memory(self.device)}."
        with explain_out_of_memory(lambda: advice), self.progress(words, len(index)) as done:
            batches = passes(len(index), self.codec.images_per_pass(self.images(index[:1]).shape[1:]))
            for rows, image in zip(batches, ahead(self.images, [index[rows] for rows in batches])):
                found = function(image, *(column[rows] for column in columns))
                yield {name: value.cpu() for name, value in found.items()}
                done(rows.stop)


def _chunks(rows: Tensor, count: int | None = None) -> list[slice]:
    """So many such rows, all of them by default, in parts that fit the memory budget with a few copies of them."""
    most = rows_within(4 * rows.element_size() * rows.shape[1:].numel(), torch.device("cpu"))
    return passes(len(rows) if count is None else count, most)


def _joined(shares: Iterable[Iterable[Mapping[str, Tensor]]]) -> dict[str, Tensor]:
    """The rows of all batches of all of them."""
    batches = [batch for share in shares for batch in share]
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}

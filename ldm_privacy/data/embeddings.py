"""What a text encoder makes of captions, kept within a budget of memory."""

from collections.abc import Callable

import torch
from torch import Tensor

CHUNK = 16
"""Captions that are encoded together."""


class Embeddings:
    """Embeddings by the number of a caption, made on first use in chunks of neighbours; those least used lately are dropped.

    A caption's numbers depend on its chunk alone: not on who asks, in which order, or what was dropped (on one device; another
    one starts anew). Once all that is expected is there, looking up waits for no device.

    Args:
        encode: (numbers of a chunk, device) -> (len(numbers), *shape), float32 on that device.
        count: Of all numbers, 0 .. count - 1.
        expected: How many of them, from 0 on, will be asked for; `expect` adds others.
        shape: Of one embedding: (tokens, width).
        max_bytes: The budget; one chunk fits into any.
    """

    def __init__(
        self,
        encode: Callable[[range, torch.device], Tensor],
        *,
        count: int,
        expected: int,
        shape: tuple[int, ...],
        max_bytes: float,
    ):
        self.encode, self.count, self.shape = encode, count, shape
        self.chunk_bytes = 4 * CHUNK * torch.Size(shape).numel()
        self.max_chunks = max(1, int(max_bytes // self.chunk_bytes))
        self._expected = {*range(-(-expected // CHUNK))}
        self._slots: dict[int, int] = {}
        """Chunk -> its place in the table, the one that was used last at the end."""
        self._table: Tensor | None = None
        self._rows: Tensor | None = None
        """Number -> row of the flat table, once all that is expected is there."""

    def limit(self, max_bytes: float) -> None:
        """Another budget from here on; where it holds another number of chunks, all are made anew."""
        max_chunks = max(1, int(max_bytes // self.chunk_bytes))
        if max_chunks != self.max_chunks:
            self.max_chunks, self._table = max_chunks, None

    @property
    def expected_bytes(self) -> int:
        """That all that is expected takes."""
        return len(self._expected) * self.chunk_bytes

    @property
    def fits(self) -> bool:
        """Whether all that is expected can be kept."""
        return len(self._expected) <= self.max_chunks

    def expect(self, numbers: Tensor) -> None:
        """These will be asked for too."""
        self._expected |= {*(numbers // CHUNK).unique().tolist()}
        self._table = None

    def forget(self) -> None:
        """What was made is made anew: the encoder's weights have moved."""
        self._table = None

    def __call__(self, numbers: Tensor) -> Tensor:
        """(batch,) -> (batch, *shape), on their device."""
        if self._table is None or self._table.device != numbers.device:
            self._start(numbers.device)
        assert self._table is not None
        if self._rows is not None:
            return self._table.flatten(0, 1)[self._rows[numbers]]
        distinct, inverse = numbers.cpu().unique(return_inverse=True)
        chunk = distinct // CHUNK
        # Indexing copies, so that a chunk may go as soon as it was read.
        parts = [self._chunk(each)[(distinct[chunk == each] % CHUNK).to(numbers.device)] for each in chunk.unique().tolist()]
        self._rows = self._all_rows()
        return torch.cat(parts)[inverse.to(numbers.device)]

    @torch.inference_mode(False)
    def _start(self, device: torch.device) -> None:
        self._slots, self._rows = {}, None
        num_chunks = min(len(self._expected), self.max_chunks)
        self._table = torch.zeros(num_chunks, CHUNK, *self.shape, device=device)

    @torch.inference_mode(False)
    @torch.no_grad()
    def _chunk(self, number: int) -> Tensor:
        assert self._table is not None
        slot = self._slots.pop(number, None)
        if slot is None:
            is_full = len(self._slots) == len(self._table)
            slot = self._slots.pop(next(iter(self._slots))) if is_full else len(self._slots)
            numbers = range(number * CHUNK, min((number + 1) * CHUNK, self.count))
            self._table[slot, : len(numbers)] = self.encode(numbers, self._table.device)
        self._slots[number] = slot
        return self._table[slot]

    @torch.inference_mode(False)
    def _all_rows(self) -> Tensor | None:
        """Where every expected number lies; None before all are there."""
        if not self._expected <= self._slots.keys():
            return None
        assert self._table is not None
        # Beyond the table's end lies what nobody expected: an IndexError, not the numbers of another caption.
        slots = torch.full((-(-self.count // CHUNK),), len(self._table))
        slots[list(self._slots)] = torch.tensor(list(self._slots.values()))
        rows = slots[:, None] * CHUNK + torch.arange(CHUNK)
        return rows.flatten().to(self._table.device)

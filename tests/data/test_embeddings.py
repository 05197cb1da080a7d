"""Embeddings within a budget: the same numbers for whoever asks, in whatever order."""

import pytest
import torch

from ldm_privacy.data.embeddings import CHUNK, Embeddings

COUNT, SHAPE = 5 * CHUNK + 3, (3, 2)


class Encoder:
    """What it makes of a number depends on its neighbours in the pass, as a real one's rounding does; it keeps the passes."""

    def __init__(self):
        self.passes = []

    def __call__(self, numbers, device):
        self.passes.append(numbers)
        told = torch.tensor([number + len(numbers) / 100 + numbers[0] / 1000 for number in numbers])
        return told[:, None, None].expand(-1, *SHAPE)


def embeddings(chunks=10.0, *, expected=COUNT):
    size = 4 * CHUNK * torch.Size(SHAPE).numel()
    return Embeddings(encoder := Encoder(), count=COUNT, expected=expected, shape=SHAPE, max_bytes=chunks * size), encoder


def by_chunks():
    """Every embedding, from the definition."""
    chunks = [range(start, min(start + CHUNK, COUNT)) for start in range(0, COUNT, CHUNK)]
    return torch.cat([Encoder()(numbers, None) for numbers in chunks])


@pytest.mark.parametrize("chunks", [0.1, 1, 2.5, 6, 10])
def test_any_order_of_asking_gives_the_same_numbers_and_the_budget_is_held(chunks):
    kept, encoder = embeddings(chunks)
    assert kept.fits is (chunks >= 6)
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        numbers = torch.randint(COUNT, (int(torch.randint(1, 9, (), generator=generator)),), generator=generator)
        assert torch.equal(kept(numbers), by_chunks()[numbers])
        assert len(kept._table) <= max(1, int(chunks)), "a table no larger than the budget"
    if kept.fits:
        assert len(encoder.passes) == len({*encoder.passes}) <= 6, "each once"


def test_the_chunk_that_was_used_last_stays():
    kept, encoder = embeddings(2)
    for chunk in (0, 1, 0, 2, 0, 1):
        kept(torch.tensor([chunk * CHUNK]))
    assert [numbers[0] // CHUNK for numbers in encoder.passes] == [0, 1, 2, 1]


def test_nothing_is_made_that_nobody_asked_for():
    kept, encoder = embeddings()
    assert encoder.passes == []
    kept(torch.tensor([COUNT - 1, COUNT - 1]))
    assert encoder.passes == [range(5 * CHUNK, COUNT)]


def test_once_all_is_there_a_look_up_reads_no_number_of_the_device(monkeypatch):
    kept, _ = embeddings(expected=2 * CHUNK)
    for asked in ([3], [CHUNK]):
        kept(torch.tensor(asked))
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: pytest.fail("a number was read"))
    numbers = torch.tensor([CHUNK + 2, 0, CHUNK + 2])
    assert torch.equal(kept(numbers), by_chunks()[numbers])
    with pytest.raises(IndexError):
        kept(torch.tensor([COUNT - 1]))


def test_what_is_expected_later_is_found_too():
    kept, _ = embeddings(expected=CHUNK)
    assert torch.equal(kept(torch.tensor([1])), by_chunks()[[1]])
    later = torch.tensor([COUNT - 1, 2 * CHUNK])
    kept.expect(later)
    numbers = torch.tensor([0, COUNT - 1, 2 * CHUNK, 1])
    assert torch.equal(kept(numbers), by_chunks()[numbers])
    assert torch.equal(kept(numbers), by_chunks()[numbers])


def test_steps_can_use_what_an_audit_asked_for():
    kept, _ = embeddings(expected=CHUNK)
    with torch.inference_mode():
        kept(torch.tensor([4]))
    weight = torch.ones(2, requires_grad=True)
    (kept(torch.tensor([4])) * weight).sum().backward()
    assert torch.equal(weight.grad, by_chunks()[4].sum(0))

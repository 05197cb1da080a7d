"""The moving average against its formula, one number at a time."""

import pytest
import torch

from ldm_privacy.training.averaging import newest_share, update_average


@pytest.mark.parametrize("decay", [0.3, 0.9999])
def test_an_average_is_the_formula_after_every_update(decay):
    generator = torch.Generator().manual_seed(0)
    history = torch.randn(40, 5, generator=generator, dtype=torch.float64)
    means = [torch.full((2,), 7.0, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)]
    expected = [0.0] * 5  # what was there before the first update counts for nothing
    for count, row in enumerate(history.tolist()):
        kept = 0.0 if count == 0 else min(decay, (count + 1) / (count + 10))
        expected = [kept * mean + (1 - kept) * value for mean, value in zip(expected, row)]
        values = [torch.nn.Parameter(part) for part in history[count].split([2, 3])]
        update_average(means, values, num_updates=count, decay=decay)
        torch.testing.assert_close(torch.cat(means).tolist(), expected, rtol=1e-12, atol=1e-12)
    assert not any(mean.requires_grad for mean in means)


def test_the_first_update_copies_and_the_warm_up_ends_at_the_decay():
    mean, value = torch.randn(2, 100)
    update_average([mean], [value], num_updates=0, decay=0.999)
    assert torch.equal(mean, value)
    assert [newest_share(count, 0.5) for count in (0, 1, 7, 8, 9, 10**6)] == pytest.approx([1, 9 / 11, 9 / 17, 0.5, 0.5, 0.5])

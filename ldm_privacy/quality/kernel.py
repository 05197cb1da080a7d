"""Kernel distances: unbiased squared maximum mean discrepancies, and KID among them."""

from collections.abc import Callable

import torch
from torch import Tensor

from ldm_privacy.quality.distance import Distance

Kernel = Callable[[Tensor, Tensor], Tensor]
"""(a, features), (b, features) -> (a, b)."""

_ROWS_AT_ONCE = 1024


def kid(
    generated: Tensor, reference: Tensor, *, group: Tensor | None = None, generated_group: Tensor | None = None
) -> Distance:
    """KID: `kernel_distance` with k(x, y) = (x.y / d + 1)^3 (Binkowski et al. 2018, arXiv 1801.01401).

    Over all pairs of images, where torchmetrics' `KernelInceptionDistance` averages over random subsets: its value with one
    subset of all images. Unbiased, so a value of few images is not larger than one of many, and may lie below 0.

    Args:
        generated, reference: (generations, d), (references, d).
        group, generated_group: See `kernel_distance`.
    """

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / x.shape[1] + 1) ** 3

    return kernel_distance(generated, reference, kernel, group=group, generated_group=generated_group)


def kernel_distance(
    generated: Tensor,
    reference: Tensor,
    kernel: Kernel,
    *,
    group: Tensor | None = None,
    generated_group: Tensor | None = None,
) -> Distance:
    """Unbiased MMD^2 = mean k(g, g') + mean k(r, r') - 2 mean k(g, r), over pairs of different images.

    (Gretton et al., JMLR 2012, eq. 3.) Images of one group are no pair: they are like each other for another reason. How far an
    image (a group) moves the value: by leaving it out (jackknife, Efron & Stein, Ann. Statist. 1981, whose variance is never
    too small on average, and too large by the second-order part where the two sets have one law). A bootstrap would
    draw images twice, and a pair of one image with itself moves the value up. No randomness. n m + n^2 + m^2 kernel values.

    Args:
        generated, reference: Features, (generations, d) and (references, d); computed in double precision, on the CPU.
        kernel: See `Kernel`.
        group, generated_group: (references,), (generations,) labels, three or more of a side; None: each by itself.
    """
    generated, reference = generated.cpu().double(), reference.cpu().double()
    unit, generated_unit = _units(len(reference), group), _units(len(generated), generated_group)
    rows, columns = [], torch.zeros(len(reference), dtype=torch.float64)
    for chunk in generated.split(_ROWS_AT_ONCE):
        across = kernel(chunk, reference)
        rows.append(across.sum(1))
        columns += across.sum(0)
    of_generated = _left_out(_pairs(generated, kernel, generated_unit), torch.cat(rows), generated_unit, len(reference))
    of_reference = _left_out(_pairs(reference, kernel, unit), columns, unit, len(generated))
    within = of_generated[0] + of_reference[0]
    value = within - 2 * float(columns.sum()) / (len(generated) * len(reference))
    return Distance(value, of_generated[1], of_reference[1])


def _units(count: int, group: Tensor | None) -> Tensor:
    """(samples,) numbers of the units, from 0 on."""
    return torch.arange(count) if group is None else torch.unique(group.cpu(), return_inverse=True)[1]


def _pairs(features: Tensor, kernel: Kernel, unit: Tensor) -> Tensor:
    """(samples,): the sum of the kernel of each with all those that are of other units."""
    chunks = zip(features.split(_ROWS_AT_ONCE), unit.split(_ROWS_AT_ONCE))
    return torch.cat([kernel(chunk, features).masked_fill(own[:, None] == unit, 0).sum(1) for chunk, own in chunks])


def _left_out(within: Tensor, across: Tensor, unit: Tensor, num_others: int) -> tuple[float, Tensor]:
    """The mean kernel within one side, and (units,): how far leaving each unit out moves the value, as `Distance` has it."""
    size = torch.bincount(unit).double()
    total = torch.zeros_like(size).index_add(0, unit, within)
    cross = torch.zeros_like(size).index_add(0, unit, across)
    count, squares = size.sum(), size.square().sum()
    pairs = count.square() - squares
    without = (total.sum() - 2 * total) / ((count - size).square() - squares + size.square())
    without = without - 2 * (cross.sum() - cross) / ((count - size) * num_others)
    scale = ((len(size) - 1) / len(size)) ** 0.5
    return float(total.sum() / pairs), scale * (without.mean() - without)

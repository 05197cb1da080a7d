"""Which images quality is told against: their choice, and how few of a side an interval can be made of."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ldm_privacy.errors import UserError
from ldm_privacy.randomness import uniform

FEWEST = 20
"""Images of a side: of fewer no interval means anything."""
FEWEST_UNITS = 3
"""Groups of a side: leaving one of two out leaves no pair."""

Groups = Callable[[Tensor], Tensor | None]
"""Sample indices -> group numbers, or None."""


def chosen(index: Tensor, count: int, seed: int, group: Tensor | None = None) -> Tensor:
    """`count` sample indices, those of the smallest hash of their own or of their group, ascending."""
    index = index.cpu()
    order = uniform("quality", (seed, index if group is None else group.cpu()), ()).argsort(stable=True)
    return index[order[:count]].sort().values


def chosen_sides(sides: Mapping[str, Tensor], most: int, *, groups: Groups, seed: int) -> list[Tensor]:
    """Of each side, by its name in words, the same number of sample indices: `most`, or as many as the smaller side has.

    Raises:
        UserError: A side is smaller than `FEWEST`, or what is chosen of it is of fewer groups than `FEWEST_UNITS`.
    """
    found = [chosen(index, min(most, *map(len, sides.values())), seed) for index in sides.values()]
    for (name, index), mine in zip(sides.items(), found):
        count, units = len(index), num_units(mine, groups)
        if count < FEWEST or units < FEWEST_UNITS:
            few = f"{count} {name}, and quality is told against {FEWEST}"
            if count >= FEWEST:
                few = f"{name} of {units} group{'s' * (units != 1)}, and an interval of quality takes {FEWEST_UNITS}"
            raise UserError(f"{few} or more: give more of them, or leave it out (watch.quality=null).")
    return found


def num_units(index: Tensor, groups: Groups) -> int:
    """Groups of those samples; samples, where there are no groups."""
    group = groups(index)
    return len(index) if group is None else len(group.unique())


def apart(audited: Tensor, heldout: Tensor, most: int, *, groups: Groups, seed: int) -> tuple[Tensor, Tensor]:
    """Audited images to reconstruct and as many other held-out images, `most` at most; no group has images among both.

    Sample indices, ascending; none of either where a side had fewer than half of `FEWEST`, or too few groups.
    """
    mine = chosen(audited, most, seed, groups(audited))
    others = heldout.cpu()[~torch.isin(heldout.cpu(), mine)]
    own, group = groups(mine), groups(others)
    if own is not None and group is not None:
        others = others[~torch.isin(group, own)]
    count = min(len(mine), len(others))
    sides = [chosen(each, count, seed, groups(each)) for each in (mine, others)]
    few = count < FEWEST // 2 or min(num_units(each, groups) for each in sides) < FEWEST_UNITS
    mine, others = (each[:0] if few else each for each in sides)
    return mine, others

"""Groups that fill a count as nearly as whole groups can."""

from collections.abc import Sequence

import numpy as np


def choose_groups(sizes: Sequence[int], count: int) -> list[int]:
    """Positions of groups whose sizes sum to the largest number not above `count` that any choice reaches.

    Earlier groups are preferred: in a random order the choice is random. If taking each group that still fits reaches
    the count, that is the choice. Otherwise the subset-sum table (Bellman, 1957) decides, which keeps for each sum the
    first group that made it reachable; groups in front of that one make up the rest, so no group is used twice.

    Args:
        sizes: Rows in each group, in the order of preference, each at least 1.
        count: The most rows wanted.

    Returns:
        Positions in ascending order; empty when no group fits. At most O(len(sizes) * count) steps, O(count) memory.
    """
    chosen, left = [], count
    for position, size in enumerate(sizes):
        if size <= left:
            chosen.append(position)
            left -= size
    if left == 0:
        return chosen
    unreached = -1
    last_group = np.full(count + 1, unreached, dtype=np.int64)
    reachable = np.zeros(count + 1, dtype=bool)
    reachable[0] = True
    for position, size in enumerate(sizes):
        if size > count:
            continue
        new = np.flatnonzero(reachable[:-size] & ~reachable[size:]) + size
        reachable[new] = True
        last_group[new] = position
        if reachable[count]:
            break
    total = int(np.flatnonzero(reachable)[-1])
    chosen = []
    while total:
        position = int(last_group[total])
        chosen.append(position)
        total -= sizes[position]
    return sorted(chosen)

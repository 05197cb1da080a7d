"""The largest sum of any subset that stays within a bound, by trying every subset."""

from itertools import combinations


def largest_sum_within(sizes: list[int], bound: int) -> int:
    sums = (sum(subset) for length in range(len(sizes) + 1) for subset in combinations(sizes, length))
    return max(total for total in sums if total <= bound)

"""What a scan of a digit looks like, in words, measured from its pixels."""

import numpy as np

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def described(ink: np.ndarray, digit: np.ndarray) -> list[str]:
    """Each scan in words, as "a handwritten seven, bold, slanted right": the digit, and up to three words for what is measured.

    Of the ink as a distribution over the pixels (columns x, rows y, downwards), with variances and covariance about its centre:
    its sum, "light" below 17.5 and "bold" above 21.5; the proportions sqrt(var x / var y), "narrow" below .49 and "wide" above
    .64; the slope -cov(x, y) / var y, "slanted left" below -.15 and "slanted right" above .06. About a fifth of the scans lies
    beyond each of these bounds.

    Args:
        ink: (scans, height, width), 0 = paper, 1 = black.
        digit: (scans,) of 0 to 9.
    """
    row, column = np.mgrid[: ink.shape[1], : ink.shape[2]]
    amount = ink.sum((1, 2))
    y, x = ((axis - (ink * axis).sum((1, 2), keepdims=True) / amount[:, None, None]) for axis in (row, column))
    of_x, of_y, of_both = ((ink * each).sum((1, 2)) / amount for each in (x * x, y * y, x * y))
    measured = (
        (amount, 17.5, "light", 21.5, "bold"),
        (np.sqrt(of_x / of_y), 0.49, "narrow", 0.64, "wide"),
        (-of_both / of_y, -0.15, "slanted left", 0.06, "slanted right"),
    )
    words = [np.select([value < low, value > high], [below, above], "") for value, low, below, high, above in measured]
    return [
        ", ".join([f"a handwritten {NAMES[digit[scan]]}", *(str(word[scan]) for word in words if word[scan])])
        for scan in range(len(ink))
    ]

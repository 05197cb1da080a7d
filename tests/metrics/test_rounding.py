"""What is written of a bound holds as well."""

import math

import pytest

from ldm_privacy.metrics.rounding import at_least, at_most


@pytest.mark.parametrize(
    ("value", "upper", "lower"),
    [
        (6.501, "6.51", "6.50"),
        (2.999, "3", "2.99"),
        (1.68, "1.68", "1.68"),
        (0.29, "0.29", "0.29"),
        (0.0, "0", "0.00"),
        (0.0012341, "0.00124", "0.00"),
        (12.34, "12.4", "12.34"),
        (8.0, "8", "8.00"),
    ],
)
def test_bounds_are_rounded_to_their_own_side(value, upper, lower):
    assert (at_most(value), at_least(value)) == (upper, lower)
    assert float(lower) <= value <= float(upper)


def test_what_is_unbounded_is_said_to_be_and_delta_has_its_own_digits():
    assert at_most(math.inf) == "inf"
    assert at_most(40**-1.1, 2) == "0.018"

"""Bounds as text: rounded so that what is written holds as well."""

from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal


def at_most(value: float, digits: int = 3) -> str:
    """An upper bound, of so many significant digits; never less than it is."""
    return f"{float(Context(digits, ROUND_CEILING).create_decimal(str(value))):.{digits}g}"


def at_least(value: float) -> str:
    """A lower bound, to two places; never more than it is."""
    return f"{Decimal(str(value)).quantize(Decimal('0.01'), ROUND_FLOOR)}"

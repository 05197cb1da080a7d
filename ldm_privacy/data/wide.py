"""Images of more than 8 bits: which of their values is black and which white, and what is said where that is a guess."""

import math
from typing import Annotated, Literal

import numpy as np
import PIL.Image
from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from ldm_privacy.errors import UserError

TOPS = {"I;16": 65535.0, "I": 65535.0, "F": 1.0}
"""Mode -> the value that is white where nothing else is said; 32-bit integers are taken for 16-bit ones in a wider type."""


def _two_numbers(limits: tuple[float, float]) -> tuple[float, float]:
    low, high = limits
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise PydanticCustomError("limits", "should be two numbers, the smaller first, or auto")
    return limits


ValueRange = Literal["auto"] | Annotated[tuple[float, float], AfterValidator(_two_numbers)] | None
"""The values that become black and white: those given, "auto" for the smallest and largest there are, None for the type's."""


class WideImages:
    """Grey of more than 8 bits to 8, round(255 (value - black) / (white - black)); what was seen is remembered, to be said.

    Args:
        limits: Black and white; values outside become the nearer one. None: 0, and the top of the image's type (see `TOPS`;
            4095 in a file of 12 bits), and ValueError for values outside.
    """

    def __init__(self, limits: tuple[float, float] | None = None):
        self.limits = limits
        self.low, self.high = math.inf, -math.inf
        self._darkest, self._brightest = math.inf, 0.0  # as shares of the types
        self._num, self._first = 0, ""
        self._num_cut, self._first_cut = 0, ""
        self._num_colour, self._first_colour, self._top_colour = 0, "", 0

    def values(self, image: PIL.Image.Image, stored: str, name: str) -> tuple[np.ndarray, float] | None:
        """The values of a grey image of more than 8 bits, float64 (height, width), and the top of its type; None for others.

        `stored` is its `raw_mode`, `name` how messages call it. Raises ValueError where a value is not finite.
        """
        if image.mode in ("RGB", "RGBA") and ";16" in stored:
            self._see_colour(image, name)
        if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
            return None
        values = np.array(image).astype(np.float64)
        low, high = float(values.min()), float(values.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError("it holds values that are not finite")
        top = 4095.0 if "I;12" in stored else TOPS[image.mode[:4]]
        self._first = self._first or name
        self._num += 1
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._darkest, self._brightest = min(self._darkest, low / top), max(self._brightest, high / top)
        if self.limits is not None and (low < self.limits[0] or high > self.limits[1]):
            self._first_cut = self._first_cut or f"{name}, {low:g} to {high:g}"
            self._num_cut += 1
        return values, top

    def narrowed(self, image: PIL.Image.Image, stored: str, name: str) -> PIL.Image.Image:
        """The image with 8 bits; others than grey of more bits as they are."""
        if (found := self.values(image, stored, name)) is None:
            return image
        values, top = found
        if self.limits is None and not 0 <= values.min() <= values.max() <= top:
            raise ValueError(
                f"mode {image.mode} with values from {values.min():g} to {values.max():g}, outside 0..{top:g}: say what is "
                "black and white with data.source.value_range=auto, or with two numbers"
            )
        black, white = self.limits or (0.0, top)
        return PIL.Image.fromarray(np.rint((values.clip(black, white) - black) * (255.0 / (white - black))).astype(np.uint8))

    def add(self, later: "WideImages") -> None:
        """Remember what another one saw, of images that come after those that were seen here."""
        self.low, self.high = min(self.low, later.low), max(self.high, later.high)
        self._darkest, self._brightest = min(self._darkest, later._darkest), max(self._brightest, later._brightest)
        self._top_colour = max(self._top_colour, later._top_colour)
        for kind in ("", "_cut", "_colour"):
            setattr(self, f"_num{kind}", getattr(self, f"_num{kind}") + getattr(later, f"_num{kind}"))
            setattr(self, f"_first{kind}", getattr(self, f"_first{kind}") or getattr(later, f"_first{kind}"))

    def observed(self) -> tuple[float, float] | None:
        """The smallest and largest value seen; None where no image was wide. Raises UserError where they are one."""
        if self._num and self.low == self.high:
            raise UserError(
                f"data.source.value_range: auto finds one value alone, {self.low:g}, in {self._num} images; give two numbers."
            )
        return (self.low, self.high) if self._num else None

    def notes(self) -> list[str]:
        """What a user should know of what was seen, a line each."""
        lines = []
        if self.limits is None and self._num and self._brightest - self._darkest < 0.5:
            lines.append(
                f"data.source: {self._num} images of more than 8 bits hold values from {self.low:g} to {self.high:g} alone "
                f"(the first: {self._first}): they become {255 * self._darkest:.0f} to {255 * self._brightest:.0f} of 255. Set "
                f"data.source.value_range=auto, or two numbers{self._guess()}, black and white."
            )
        if self.limits is not None and self._num_cut:
            black, white = self.limits
            lines.append(
                f"data.source.value_range: {self._num_cut} images hold values outside {black:g} to {white:g}, which are cut "
                f"off (the first: {self._first_cut})."
            )
        if self._num_colour and (self._top_colour < 128 or self.limits is not None):
            lines.append(
                f"data.source: {self._num_colour} colour images of 16 bits (the first: {self._first_colour}) are read by their "
                f"upper 8 bits, at most {self._top_colour} of 255; data.source.value_range is for grey ones. Store them with 8."
            )
        if self.limits is not None and not self._num:
            lines.append("data.source.value_range changes nothing: no grey image has more than 8 bits.")
        return lines

    def _guess(self) -> str:
        is_whole = self.low >= 0 and self.high == int(self.high) and 1 <= self.high < 2**15
        return f" such as [0,{2 ** int(self.high).bit_length() - 1}]" if is_whole else ""

    def _see_colour(self, image: PIL.Image.Image, name: str) -> None:
        self._first_colour = self._first_colour or name
        self._num_colour += 1
        self._top_colour = max(self._top_colour, int(np.array(image)[..., :3].max()))


def raw_mode(image: PIL.Image.Image) -> str:
    """How the file holds the pixels, in Pillow's words; it is known until they are read, and "[]" of an image in memory."""
    return str(getattr(image, "tile", []))

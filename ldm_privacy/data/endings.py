"""Which files are images, by the end of their names. Nothing heavy is imported here."""

import PIL.Image

_NO_IMAGES = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
"""Formats that Pillow knows by name and can't read, or not without other programs."""


def image_endings() -> set[str]:
    """In lower case, with their dot: of every format that can be read here."""
    PIL.Image.init()
    return {ending for ending, kind in PIL.Image.EXTENSION.items() if kind in PIL.Image.OPEN and kind not in _NO_IMAGES}

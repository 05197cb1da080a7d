"""Images, their members / held-out / public split, and where they come from."""

from ldm_privacy.data.columns import Columns, find_columns
from ldm_privacy.data.draw import draw_split, split_from_index_file
from ldm_privacy.data.duplicates import Duplicates, find_duplicates, remove_duplicates
from ldm_privacy.data.images import decode_image, flip_horizontal, to_float, to_pixels, to_uint8
from ldm_privacy.data.module import ImageData
from ldm_privacy.data.sources import Digits, Folder, Hub, ImageSource, Parquet, Saved
from ldm_privacy.data.split import Split

__all__ = [
    "Columns",
    "Digits",
    "Duplicates",
    "Folder",
    "Hub",
    "ImageData",
    "ImageSource",
    "Parquet",
    "Saved",
    "Split",
    "decode_image",
    "draw_split",
    "find_columns",
    "find_duplicates",
    "flip_horizontal",
    "remove_duplicates",
    "split_from_index_file",
    "to_float",
    "to_pixels",
    "to_uint8",
]

"""Images at several scales."""

from torch.nn.functional import adaptive_avg_pool2d

from ldm_privacy.types import Image


def halved(image: Image) -> Image:
    """Half as many pixels a side, rounded down, each the mean of those that it covers."""
    height, width = image.shape[-2:]
    return adaptive_avg_pool2d(image, (height // 2, width // 2))

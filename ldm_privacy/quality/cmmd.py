"""CMMD: a kernel distance of CLIP's image embeddings."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ldm_privacy.quality.distance import Distance
from ldm_privacy.quality.kernel import kernel_distance

SCALE, SIGMA = 1000.0, 10.0


def cmmd(
    generated: Tensor, reference: Tensor, *, group: Tensor | None = None, generated_group: Tensor | None = None
) -> Distance:
    """CMMD: `kernel_distance` with k(x, y) = exp(-|x - y|^2 / (2 sigma^2)), sigma 10, of unit vectors, times 1,000.

    (Jayasumana et al. 2024, arXiv 2401.09603.) Unbiased; the published code keeps the pairs of an image with itself, which
    adds about 1,000 (1 - mean k) (1/n + 1/m), some .01 at 1,000 images a side.

    Args:
        generated, reference: (generations, d), (references, d), embeddings of CLIP's image encoder, of any length.
        group, generated_group: See `kernel_distance`.
    """

    def gaussian(a: Tensor, b: Tensor) -> Tensor:
        return SCALE * torch.exp((a @ b.T - 1) / SIGMA**2)  # of unit vectors |a - b|^2 = 2 - 2 a.b

    features = normalize(generated.double()), normalize(reference.double())
    return kernel_distance(*features, gaussian, group=group, generated_group=generated_group)

"""FID: the Fréchet distance of two normal laws of features."""

import torch
from torch import Tensor, nn

from ldm_privacy.quality.distance import Distance, deviations


def frechet(
    generated: Tensor, reference: Tensor, *, group: Tensor | None = None, generated_group: Tensor | None = None
) -> Distance:
    """FID = |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^{1/2}), by torchmetrics (Heusel et al. 2017, arXiv 1706.08500, eq. 6).

    Biased: two sets of one law have a distance above 0, about as 1/n, so only numbers at the same n can be compared, and the
    interval is one of the value at that n. How far an image moves it is the derivative in its weight,
    `2 (m1 - m2).c + |c|^2 - c.T c` with c = x - m1 and T = S1^{-1/2} (S1^{1/2} S2 S1^{1/2})^{1/2} S1^{-1/2}, the optimal map
    between the two laws; on the span of the images where there are fewer of them than features. No randomness; a few
    decompositions of d x d.

    Args:
        generated, reference: (generations, d), (references, d); computed in double precision, on the CPU.
        group, generated_group: (references,), (generations,) labels of images that are one unit of the interval; None: each
            by itself.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    generated, reference = generated.cpu().double(), reference.cpu().double()
    metric = FrechetInceptionDistance(feature=_Given(generated.shape[1]))
    metric.update(reference, real=True)
    metric.update(generated, real=False)
    moments = [(each.mean(0), each.T.cov()) for each in (generated, reference)]
    return Distance(
        float(metric.compute()),
        deviations(_terms(generated, *moments[0], *moments[1]), generated_group),
        deviations(_terms(reference, *moments[1], *moments[0]), group),
    )


class _Given(nn.Module):
    """Stands where torchmetrics wants a network: the features are computed already."""

    def __init__(self, num_features: int):
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def _terms(features: Tensor, mean: Tensor, cov: Tensor, other_mean: Tensor, other_cov: Tensor) -> Tensor:
    """The derivative of FID in the weight of each row, (rows,), but for a constant."""
    centred = features - mean
    value, vector = torch.linalg.eigh(cov)
    kept = value > value.max() * len(value) * torch.finfo(value.dtype).eps
    root, vector = value[kept].sqrt(), vector[:, kept]
    inner = root[:, None] * (vector.T @ other_cov @ vector) * root
    inner_value, inner_vector = torch.linalg.eigh(inner)
    # c.T c = |(inner)^{1/4} S1^{-1/2} c|^2
    half = inner_vector * inner_value.clamp_min(0).sqrt().sqrt()
    mapped = (centred @ vector / root) @ half
    return 2 * centred @ (mean - other_mean) + centred.square().sum(1) - mapped.square().sum(1)

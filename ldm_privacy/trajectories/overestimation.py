"""Overestimation: the guided clean prediction of the first steps is k times the training image, with k above 1."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ldm_privacy.types import Latent


@dataclass(frozen=True, eq=False)
class Overestimation:
    """Of one clean prediction a row, float64.

    Attributes:
        gain: (batch,), k in x0hat - mean = k (x - mean) + rest, least squares; NaN where x is the mean.
        error: (batch,), ||x0hat - x||^2 over the numbers of a latent.
    """

    gain: Tensor
    error: Tensor


def overestimation(clean_prediction: Latent, clean: Latent, *, mean: Latent | None = None) -> Overestimation:
    """k = <x0hat - mean, x - mean> / ||x - mean||^2 and the error of x0hat, at one step.

    Args:
        clean_prediction: (batch, ...), x0hat, guided or not.
        clean: (batch, ...), x.
        mean: (...) or (batch, ...), of the latents; 0 where None.

    Source: Kim, Kim, Lee 2025, arXiv 2509.25705, sections 3 and 4.
    """
    predicted, own = clean_prediction.double().flatten(1), clean.double().flatten(1)
    error = (predicted - own).square().mean(1)
    if mean is not None:
        centre = mean.to(clean).expand_as(clean).double().flatten(1)
        predicted, own = predicted - centre, own - centre
    square = own.square().sum(1)
    return Overestimation(torch.where(square > 0, (predicted * own).sum(1) / square, torch.nan), error)

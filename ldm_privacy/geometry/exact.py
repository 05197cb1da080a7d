"""Exact influence: the squared column norms of the whole Jacobian, a few columns at a time."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ldm_privacy.geometry.estimate import InfluenceEstimate, check_influence, check_sample_index, concatenate
from ldm_privacy.geometry.jacobian import DecoderJacobian, at_least_float32, in_parts
from ldm_privacy.registry import INFLUENCE_ESTIMATORS
from ldm_privacy.types import Decoder, Influence, Latent


@INFLUENCE_ESTIMATORS.register("exact")
class ExactInfluence:
    """G_ii = ||dD/dz_i||^2 from all of J, without noise.

    J is taken by columns (J e_i, D of them) or by rows (J^T e_p, one a pixel number), whichever costs less: a column
    counts as two rows. Where the decoder's operations have no second derivative and no forward mode, rows always work.
    Cost per sample: `products_per_sample`, at most min(2 D, pixels) decoder backward passes. No randomness.

    Args:
        float64: Compute in double precision; weights in single precision are converted as they are used.
    """

    def __init__(self, *, float64: bool = False):
        self.float64 = float64

    def products_per_sample(self, num_dimensions: int, num_pixels: int) -> int:
        """D products J e_i or one J^T e_p a pixel number, as the class says; where columns don't work, always the latter."""
        return num_dimensions if 2 * num_dimensions < num_pixels else num_pixels

    def __call__(self, decoder: Decoder, latent: Latent, sample_index: Tensor) -> InfluenceEstimate:
        """Influence of each sample, with standard error 0. See `InfluenceEstimator`; float64 where asked for."""
        check_sample_index(latent, sample_index)
        if self.float64:
            latent = latent.double()

        def exact(jacobian: DecoderJacobian, rows: slice) -> InfluenceEstimate:
            influence = self._squared_columns(jacobian, latent[rows]).to(latent.device, at_least_float32(latent))
            check_influence(influence, sample_index[rows])
            return InfluenceEstimate(influence, torch.zeros_like(influence))

        return concatenate(in_parts(exact, decoder, latent))

    def _squared_columns(self, jacobian: DecoderJacobian, latent: Latent) -> Influence:
        """Like `latent`, float64."""
        num_dimensions, num_pixels = latent.shape[1:].numel(), jacobian.image.shape[1:].numel()
        vectors_per_pass = jacobian.vectors_within(max(num_dimensions, num_pixels))
        if self.products_per_sample(num_dimensions, num_pixels) < num_pixels:
            try:
                columns = [
                    jacobian.times(unit, vectors_per_pass=vectors_per_pass).double().flatten(2).square().sum(2)
                    for unit in _unit_vectors(latent, vectors_per_pass)
                ]
                return torch.cat(columns).T.reshape(latent.shape)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError:  # no second derivative: rows need only the first
                pass
        total = torch.zeros(latent.shape, dtype=torch.float64, device=latent.device)
        for unit in _unit_vectors(jacobian.image, vectors_per_pass):
            total += jacobian.transpose_times(unit, vectors_per_pass=vectors_per_pass).double().square().sum(0)
        return total


def _unit_vectors(like: Tensor, per_chunk: int) -> Iterator[Tensor]:
    """Chunks (vectors, batch, ...) that together are all unit vectors of one sample, the same for each of the batch."""
    size = like.shape[1:].numel()
    for place in torch.arange(size, device=like.device).split(per_chunk):
        unit = torch.nn.functional.one_hot(place, size).to(like.dtype)
        yield unit.reshape(-1, 1, *like.shape[1:]).expand(-1, *like.shape)

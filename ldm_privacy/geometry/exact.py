"""Exact influence: the squared column norms of the whole Jacobian, a few columns at a time."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ldm_privacy.errors import UserError
from ldm_privacy.geometry.estimate import InfluenceEstimate, check_finite, check_sample_index, concatenate
from ldm_privacy.geometry.jacobian import DecoderJacobian, at_least_float32, gradients_enabled
from ldm_privacy.registry import INFLUENCE_ESTIMATORS
from ldm_privacy.types import Decoder, Influence, Latent


@INFLUENCE_ESTIMATORS.register("exact")
class ExactInfluence:
    """G_ii = ||dD/dz_i||^2 from all of J, without noise.

    J is taken by columns (J e_i, D of them) or by rows (J^T e_p, one a pixel number), whichever costs less: a column
    counts as two rows. Where the decoder's operations have no second derivative and no forward mode, rows always work.
    Cost per sample: `products_per_sample`, at most min(2 D, pixels) decoder backward passes; a call decodes its first sample
    once more. No randomness.

    Args:
        memory_mib: Budget for what one pass keeps, above 0: samples x vectors x the decoder's activations, which are
            measured. One sample and one vector are always taken.
        float64: Compute in double precision; weights in single precision are converted as they are used.
    """

    def __init__(self, *, memory_mib: float = 512.0, float64: bool = False):
        if not memory_mib > 0:
            raise UserError(f"memory_mib: {memory_mib} is no memory budget; it must be above 0.")
        self.memory_mib = memory_mib
        self.float64 = float64

    def products_per_sample(self, num_dimensions: int, num_pixels: int) -> int:
        """D products J e_i or one J^T e_p a pixel number, as the class says; where columns don't work, always the latter."""
        return num_dimensions if 2 * num_dimensions < num_pixels else num_pixels

    def __call__(self, decoder: Decoder, latent: Latent, sample_index: Tensor) -> InfluenceEstimate:
        """Influence of each sample, with standard error 0. See `InfluenceEstimator`; float64 where asked for."""
        check_sample_index(latent, sample_index)
        if self.float64:
            latent = latent.double()
        pairs = self._pairs_per_pass(decoder, latent[:1])
        size = max(1, min(len(latent), pairs))
        estimates = []
        for chunk, index in zip(latent.split(size), sample_index.split(size)):
            influence = self._squared_columns(DecoderJacobian(decoder, chunk), chunk, max(1, pairs // size))
            influence = influence.to(latent.device, at_least_float32(latent))
            check_finite(influence, index)
            estimates.append(InfluenceEstimate(influence, torch.zeros_like(influence)))
        return concatenate(estimates)

    def _pairs_per_pass(self, decoder: Decoder, latent: Latent) -> int:
        """How many (sample, vector) pairs fit the budget: what autograd keeps of one sample's decoding, thrice over."""
        kept = {}

        def keep(tensor: Tensor) -> Tensor:
            # Weights are kept too, but once for all samples.
            if not isinstance(tensor, torch.nn.Parameter):
                kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), gradients_enabled(latent):
            DecoderJacobian(decoder, latent)
        return max(1, int(self.memory_mib * 2**20 / (3 * max(sum(kept.values()), 1))))

    def _squared_columns(self, jacobian: DecoderJacobian, latent: Latent, vectors_per_pass: int) -> Influence:
        """Like `latent`, float64."""
        num_dimensions, num_pixels = latent.shape[1:].numel(), jacobian.image.shape[1:].numel()
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

"""Local distortion: the leading part of ½ ln det(J^T J), matrix-free."""

import math
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from ldm_privacy.errors import UserError
from ldm_privacy.geometry.estimate import check_counts
from ldm_privacy.geometry.jacobian import DecoderJacobian, at_least_float32, in_parts
from ldm_privacy.randomness import normal
from ldm_privacy.types import Decoder, Latent


@dataclass(frozen=True)
class Distortion:
    """Sum of the logarithms of the `rank` largest singular values of J at each latent (Rao, Qu, Moyer 2025, 2511.20592).

    The log of how much the decoder stretches volume along its `rank` most stretched directions; a singular value of 0 counts
    as 1e-12. The singular values come from the whole of J where the image has no more numbers than the other way takes
    products, else from a randomized block Krylov method (Musco, Musco 2015, 1504.05477):

    A block of rank + oversample random directions is extended by applications of J^T J, kept orthonormal to all before it in
    double precision. The singular values of J on the whole space spanned are the result: never above the true ones, and
    far closer for the same passes than those of the last block alone (subspace iteration), above all where the spectrum
    is flat. After `num_power_iterations` applications it goes on, for a sample, until none of its values grew by more than
    half the tolerance in the last one; the growth falls off geometrically, so that the rest is within the tolerance.

    Cost per sample: one decode and `products_per_sample` products with J or J^T. Memory per sample for q applications:
    (rank + oversample) (q + 3) images, beside the decoder's activations; J itself would be D images. Randomness: the
    first block, from `seed`; the same for every sample, so that nothing depends on the batch.

    Args:
        rank: Singular values, at least 1; in the randomized method at most D.
        oversample: Further directions in the block, at least 0.
        num_power_iterations: Applications of J^T J, at least.
        seed: Of the first block.
        tolerance: Relative error that is allowed in each singular value, above 0; infinity for a fixed number of applications.
        vectors_per_pass: In the randomized method; None: 4 on a CPU; elsewhere, where small passes leave the device idle, as
            many as 32 on images of 32x32 and fewer on larger ones; always fewer where they don't fit in memory.
        exact: Whether the whole of J is taken; None: where it costs no more products.
    """

    rank: int = 20
    oversample: int = 10
    num_power_iterations: int = 2
    _: KW_ONLY
    seed: int = 0
    tolerance: float = 0.01
    vectors_per_pass: int | None = None
    exact: bool | None = None

    def __post_init__(self) -> None:
        check_counts(1, rank=self.rank, vectors_per_pass=self.vectors_per_pass)
        check_counts(0, oversample=self.oversample, num_power_iterations=self.num_power_iterations)
        if not self.tolerance > 0:
            raise UserError(f"tolerance: {self.tolerance} is not above 0.")

    def __call__(self, decoder: Decoder, latent: Latent) -> Tensor:
        """(batch,), of `singular_values`. Arguments, precision and errors as in `ldm_privacy.geometry`."""
        values = self.singular_values(decoder, latent)
        return values.double().clamp_min(1e-12).log().sum(1).to(at_least_float32(latent))

    def products_per_sample(self, num_dimensions: int, num_pixels: int, *, most: bool = False) -> int:
        """Products J v and J^T u that a sample costs beside its decode; D latent dimensions, numbers in the image.

        Of `num_power_iterations` applications, or with `most` of as many as the tolerance can ask for.
        """
        if self._is_exact(num_pixels):
            return num_pixels
        block = min(self.rank + self.oversample, num_dimensions)
        # Nothing is applied any more once the basis spans the whole latent space.
        applications = -(-num_dimensions // block) - 1
        if not most or self.tolerance == math.inf:
            applications = min(self.num_power_iterations, applications)
        return applications * block + min((applications + 1) * block, num_dimensions)

    def singular_values(self, decoder: Decoder, latent: Latent) -> Tensor:
        """The `rank` largest singular values of J at each latent, (batch, rank), descending.

        From the whole of J: in float64, and no more than J has.
        """
        return torch.cat(in_parts(lambda jacobian, rows: self._of_batch(jacobian, latent[rows]), decoder, latent))

    def _of_batch(self, jacobian: DecoderJacobian, latent: Latent) -> Tensor:
        num_dimensions, num_pixels = latent.shape[1:].numel(), jacobian.image.shape[1:].numel()
        if self._is_exact(num_pixels):
            return _all_singular_values(jacobian)[:, : self.rank]
        if self.rank > num_dimensions:
            raise UserError(
                f"rank: {self.rank} singular values of a latent with D = {num_dimensions} dimensions; use at most that many."
            )
        block = normal("distortion", (self.seed,), (num_dimensions, min(self.rank + self.oversample, num_dimensions)))
        vectors_per_pass = self.vectors_per_pass or jacobian.vectors_within(vectors_at_once(latent.device, num_pixels))
        values = self._krylov(jacobian, latent, block.double().to(latent.device), vectors_per_pass)
        return values.to(at_least_float32(latent))

    def _is_exact(self, num_pixels: int) -> bool:
        if self.exact is not None:
            return self.exact
        return num_pixels <= (self.rank + self.oversample) * (2 * self.num_power_iterations + 1)

    def _krylov(self, jacobian: DecoderJacobian, latent: Latent, block: Tensor, vectors_per_pass: int) -> Tensor:
        """(batch, rank) float64, from a first block (D, vectors)."""
        newest = basis = torch.linalg.qr(block).Q.expand(len(latent), -1, -1)
        images: list[Tensor] = []
        gram = torch.zeros(len(latent), 0, 0, dtype=torch.float64, device=jacobian.image.device)
        values = torch.zeros(len(latent), self.rank, dtype=torch.float64, device=latent.device)
        is_done = torch.zeros(len(latent), dtype=torch.bool, device=latent.device)
        while True:
            vectors = newest.permute(2, 0, 1).reshape(-1, *latent.shape).to(latent.dtype)
            images.append(jacobian.times(vectors, vectors_per_pass=vectors_per_pass))
            gram = _extended_gram(gram, images)
            found = torch.linalg.eigvalsh(gram).flip(1)[:, : self.rank].clamp_min(0).sqrt().to(latent.device)
            # Values that are zero to rounding fluctuate by their own size; they don't count.
            scale = torch.maximum(found, 1e-6 * found[:, :1]).clamp_min(torch.finfo(found.dtype).tiny)
            growth = ((found - values) / scale).amax(1)
            # Each sample keeps what it had when it was done itself, whatever else is in the batch.
            values = torch.where(is_done[:, None], values, found)
            if len(images) > self.num_power_iterations:
                is_done = is_done | (growth <= self.tolerance / 2)
            room = block.shape[0] - basis.shape[2]
            if is_done.all() or not room:
                return values
            products = jacobian.transpose_times(images[-1], vectors_per_pass=vectors_per_pass)
            products = products.flatten(2).permute(1, 2, 0).to(latent.device, torch.float64)
            newest = _orthonormal_to(basis, products[..., :room])
            basis = torch.cat([basis, newest], dim=2)


def vectors_at_once(device: torch.device, num_pixels: int) -> int:
    """What `vectors_per_pass` is where nothing is said, for images of so many numbers."""
    return 4 if device.type == "cpu" else max(1, min(32, 32 * 3 * 32 * 32 // num_pixels))


def _all_singular_values(jacobian: DecoderJacobian) -> Tensor:
    """(batch, min(pixels, D)) float64, from all rows of J: one product with J^T for each number of the image."""
    image = jacobian.image
    unit = torch.eye(image.shape[1:].numel(), dtype=image.dtype, device=image.device).reshape(-1, 1, *image.shape[1:])
    rows = jacobian.transpose_times(unit.expand(-1, *image.shape))
    return torch.linalg.svdvals(rows.flatten(2).transpose(0, 1).double())


def _orthonormal_to(basis: Tensor, block: Tensor) -> Tensor:
    """An orthonormal basis of the part of `block` that is orthogonal to `basis`, both (batch, D, vectors).

    Scaled columns and a second round keep it orthonormal to rounding where next to nothing of a column is new.
    """
    for _ in range(2):
        block = block / block.norm(dim=1, keepdim=True).clamp_min(torch.finfo(block.dtype).tiny)
        block = torch.linalg.qr(block - basis @ (basis.mT @ block)).Q
    return block - basis @ (basis.mT @ block)


def _extended_gram(gram: Tensor, images: list[Tensor]) -> Tensor:
    """The inner products of J's images of the basis, (batch, vectors, vectors), with those of the last images added.

    In double precision, so that the images' own rounding, 1e-7 of the largest singular value, is all there is. `gram` is that
    of all but the last; images are (vectors, batch, *image) each.
    """
    newest = images[-1].flatten(2).transpose(0, 1).double()
    border = torch.cat([image.flatten(2).transpose(0, 1).double() @ newest.mT for image in images], dim=1)
    old = gram.shape[1]
    return torch.cat([torch.cat([gram, border[:, :old]], dim=2), border.mT], dim=1)

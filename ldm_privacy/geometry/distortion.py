"""Local distortion: the leading part of ½ ln det(J^T J), matrix-free."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ldm_privacy.errors import UserError
from ldm_privacy.geometry.jacobian import DecoderJacobian
from ldm_privacy.randomness import normal
from ldm_privacy.types import Decoder, Latent


def local_distortion(
    decoder: Decoder,
    latent: Latent,
    rank: int = 20,
    oversample: int = 10,
    num_power_iterations: int = 2,
    seed: int = 0,
    *,
    tolerance: float = 0.01,
    decode_batch_size: int = 4,
    vectors_per_pass: int = 1,
) -> Tensor:
    """Sum of the logarithms of the `rank` largest singular values of J at each latent (Rao, Qu, Moyer 2025, 2511.20592).

    The log of how much the decoder stretches volume along its `rank` most stretched directions. Arguments, cost, accuracy
    and errors as in `top_singular_values`; a singular value of 0 counts as 1e-12.

    Returns:
        (batch,), on the latent's device.
    """
    values = top_singular_values(
        decoder,
        latent,
        rank,
        oversample,
        num_power_iterations,
        seed,
        tolerance=tolerance,
        decode_batch_size=decode_batch_size,
        vectors_per_pass=vectors_per_pass,
    )
    return values.double().clamp_min(1e-12).log().sum(1).to(values.dtype)


def exact_distortion(decoder: Decoder, latent: Latent, rank: int = 20) -> Tensor:
    """`local_distortion` from the whole of J: cheaper where J has few rows, as on images of a few hundred numbers.

    Cost per sample: one product with J^T for each number of the image. Memory per sample: J.

    Returns:
        (batch,), on the latent's device.
    """
    jacobian = DecoderJacobian(decoder, latent)
    shape = jacobian.image.shape[1:]
    unit = torch.eye(shape.numel(), dtype=latent.dtype, device=latent.device).reshape(-1, 1, *shape)
    rows = jacobian.transpose_times(unit.expand(-1, len(latent), *shape))
    values = torch.linalg.svdvals(rows.flatten(2).transpose(0, 1).double())[:, :rank]
    return values.clamp_min(1e-12).log().sum(1).to(latent.dtype)


@dataclass(frozen=True)
class Distortion:
    """Local distortion, the cheaper way: `local_distortion`, or `exact_distortion` where the image has no more numbers than
    the randomized method takes products.

    Args:
        rank, oversample, num_power_iterations, seed: As in `local_distortion`.
        batch_size: Samples that are decoded together.
        vectors_per_pass: Directions that go through the decoder together; None: 4 on a CPU; elsewhere, where small passes
            leave the device idle, as many as 32 on images of 32x32 and fewer on larger ones.
    """

    rank: int = 20
    oversample: int = 10
    num_power_iterations: int = 2
    seed: int = 0
    batch_size: int = 32
    vectors_per_pass: int | None = None

    def __call__(self, decoder: Decoder, latent: Latent) -> Tensor:
        """(batch,), on the latent's device. Cost and errors as of the function that is chosen, and one decoder pass."""
        with torch.no_grad():
            image_size = decoder(latent[:1]).numel()
        wide = max(1, min(32, 32 * 3 * 32 * 32 // image_size))
        if image_size <= (self.rank + self.oversample) * (2 * self.num_power_iterations + 1):
            return torch.cat([exact_distortion(decoder, part, self.rank) for part in latent.split(self.batch_size)])
        return local_distortion(
            decoder,
            latent,
            self.rank,
            self.oversample,
            self.num_power_iterations,
            self.seed,
            decode_batch_size=self.batch_size,
            vectors_per_pass=self.vectors_per_pass or (4 if latent.device.type == "cpu" else wide),
        )


def top_singular_values(
    decoder: Decoder,
    latent: Latent,
    rank: int = 20,
    oversample: int = 10,
    num_power_iterations: int = 2,
    seed: int = 0,
    *,
    tolerance: float = 0.01,
    decode_batch_size: int = 4,
    vectors_per_pass: int = 1,
) -> Tensor:
    """The `rank` largest singular values of J at each latent, by a randomized block Krylov method (Musco, Musco 2015,
    1504.05477).

    A block of rank + oversample random directions is extended by applications of J^T J, kept orthonormal to all before it in
    double precision. The singular values of J on the whole space spanned are the result: never above the true ones, and
    far closer for the same passes than those of the last block alone (subspace iteration), above all where the spectrum
    is flat. After `num_power_iterations` applications it goes on, for a sample, until none of its values grew by more than
    half the tolerance in the last one; the growth falls off geometrically, so that the rest is within the tolerance.

    Cost per sample for q applications: (rank + oversample) (2 q + 1) products with J or J^T. Memory per sample:
    (rank + oversample) (q + 3) images, beside the decoder's activations; J itself would be D images. Randomness: the
    first block, from `seed`; the same for every sample, so that nothing depends on the batch.

    Args:
        decoder: Latent -> image, samples independent of each other.
        latent: (batch, channels, height, width).
        rank: Singular values wanted, at most D.
        oversample: Further directions in the block.
        num_power_iterations: Applications of J^T J, at least.
        seed: Of the first block.
        tolerance: Relative error that is allowed in each singular value; infinity for a fixed number of applications.
        decode_batch_size: Samples that are decoded together.
        vectors_per_pass: Directions that go through the decoder together.

    Returns:
        (batch, rank), descending, on the latent's device, in its precision but at least float32.

    Raises:
        UserError: rank outside 1..D, a negative count, a tolerance that is not positive, or a latent that the decoder can't
            take.
    """
    num_dimensions = latent.shape[1:].numel()
    if not 1 <= rank <= num_dimensions:
        raise UserError(
            f"rank: {rank} singular values of a latent with D = {num_dimensions} dimensions; use 1 to {num_dimensions}."
        )
    for name, count in (("oversample", oversample), ("num_power_iterations", num_power_iterations)):
        if count < 0:
            raise UserError(f"{name}: {count} is negative.")
    if not tolerance > 0:
        raise UserError(f"tolerance: {tolerance} is not above 0.")
    start_block = normal("distortion", (seed,), (num_dimensions, min(rank + oversample, num_dimensions))).double()
    values = [
        _krylov_singular_values(
            DecoderJacobian(decoder, latent[start : start + decode_batch_size]),
            latent[start : start + decode_batch_size],
            start_block.to(latent.device),
            rank,
            num_power_iterations,
            tolerance,
            vectors_per_pass,
        )
        for start in range(0, max(len(latent), 1), decode_batch_size)
    ]
    return torch.cat(values).to(torch.promote_types(latent.dtype, torch.float32))


def _krylov_singular_values(
    jacobian: DecoderJacobian,
    latent: Latent,
    block: Tensor,
    rank: int,
    num_power_iterations: int,
    tolerance: float,
    vectors_per_pass: int,
) -> Tensor:
    num_dimensions = block.shape[0]
    basis = torch.linalg.qr(block).Q.expand(len(latent), -1, -1)
    newest, images = basis, []
    gram = torch.zeros(len(latent), 0, 0, dtype=torch.float64, device=jacobian.image.device)
    values = torch.zeros(len(latent), rank, dtype=torch.float64, device=latent.device)
    is_done = torch.zeros(len(latent), dtype=torch.bool, device=latent.device)
    iteration = 0
    while True:
        images.append(jacobian.times(_as_vectors(newest, latent), vectors_per_pass=vectors_per_pass))
        gram = _extended_gram(gram, images)
        found = torch.linalg.eigvalsh(gram).flip(1)[:, :rank].clamp_min(0).sqrt().to(latent.device)
        # Values that are zero to rounding fluctuate by their own size; they don't count.
        scale = torch.maximum(found, 1e-6 * found[:, :1]).clamp_min(torch.finfo(found.dtype).tiny)
        growth = ((found - values) / scale).amax(1)
        # Each sample keeps what it had when it was done itself, whatever else is in the batch.
        values = torch.where(is_done[:, None], values, found)
        if iteration >= num_power_iterations:
            is_done = is_done | (growth <= tolerance / 2) | (tolerance == math.inf)
        room = num_dimensions - basis.shape[2]
        if is_done.all() or not room:
            return values
        products = jacobian.transpose_times(images[-1], vectors_per_pass=vectors_per_pass)
        products = products.flatten(2).permute(1, 2, 0).to(latent.device, torch.float64)
        newest = _orthonormal_to(basis, products[..., :room])
        basis = torch.cat([basis, newest], dim=2)
        iteration += 1


def _as_vectors(block: Tensor, latent: Latent) -> Tensor:
    """(batch, D, vectors) -> (vectors, batch, channels, height, width)."""
    return block.permute(2, 0, 1).reshape(-1, *latent.shape).to(latent.dtype)


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

    In double precision, so that the images' own rounding, 1e-7 of the largest singular value, is all there is.

    Args:
        gram: Inner products of all but the last.
        images: Each (vectors, batch, *image).
    """
    newest = images[-1].flatten(2).transpose(0, 1).double()
    border = torch.cat([image.flatten(2).transpose(0, 1).double() @ newest.mT for image in images], dim=1)
    old = gram.shape[1]
    return torch.cat([torch.cat([gram, border[:, :old]], dim=2), border.mT], dim=1)

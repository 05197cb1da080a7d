"""Local distortion: the leading part of ½ ln det(J^T J), matrix-free."""

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
        decode_batch_size=decode_batch_size,
        vectors_per_pass=vectors_per_pass,
    )
    return values.double().clamp_min(1e-12).log().sum(1).to(values.dtype)


def top_singular_values(
    decoder: Decoder,
    latent: Latent,
    rank: int = 20,
    oversample: int = 10,
    num_power_iterations: int = 2,
    seed: int = 0,
    *,
    decode_batch_size: int = 4,
    vectors_per_pass: int = 1,
) -> Tensor:
    """The `rank` largest singular values of J at each latent, by a randomized block Krylov method (Musco, Musco 2015,
    1504.05477).

    A block of rank + oversample random directions is extended by `num_power_iterations` applications of J^T J, kept
    orthonormal to all before it in double precision. The singular values of J on the whole space spanned are the result:
    never above the true ones, and far closer for the same passes than those of the last block alone (subspace
    iteration), above all where the spectrum is flat.

    Cost per sample: (rank + oversample) (2 num_power_iterations + 1) products with J or J^T. Memory per sample:
    (rank + oversample) (num_power_iterations + 1) images, beside the decoder's activations; J itself would be D images.
    Randomness: the first block, from `seed`; the same for every sample, so that nothing depends on the batch.

    Args:
        decoder: Latent -> image, samples independent of each other.
        latent: (batch, channels, height, width).
        rank: Singular values wanted, at most D.
        oversample: Further directions in the block.
        num_power_iterations: Applications of J^T J; more where the spectrum is flat.
        seed: Of the first block.
        decode_batch_size: Samples that are decoded together.
        vectors_per_pass: Directions that go through the decoder together.

    Returns:
        (batch, rank), descending, on the latent's device, in its precision but at least float32.

    Raises:
        UserError: rank outside 1..D, a negative count, or a latent that the decoder can't take.
    """
    num_dimensions = latent.shape[1:].numel()
    if not 1 <= rank <= num_dimensions:
        raise UserError(
            f"rank: {rank} singular values of a latent with D = {num_dimensions} dimensions; use 1 to {num_dimensions}."
        )
    for name, count in (("oversample", oversample), ("num_power_iterations", num_power_iterations)):
        if count < 0:
            raise UserError(f"{name}: {count} is negative.")
    start_block = normal("distortion", (seed,), (num_dimensions, min(rank + oversample, num_dimensions))).double()
    values = [
        _krylov_singular_values(
            DecoderJacobian(decoder, latent[start : start + decode_batch_size]),
            latent[start : start + decode_batch_size],
            start_block.to(latent.device),
            num_power_iterations,
            vectors_per_pass,
        )[:, :rank]
        for start in range(0, max(len(latent), 1), decode_batch_size)
    ]
    return torch.cat(values).to(torch.promote_types(latent.dtype, torch.float32))


def _krylov_singular_values(
    jacobian: DecoderJacobian, latent: Latent, block: Tensor, num_power_iterations: int, vectors_per_pass: int
) -> Tensor:
    num_dimensions = block.shape[0]
    basis = torch.linalg.qr(block).Q.expand(len(latent), -1, -1)
    newest = basis
    images: list[Tensor] = []
    for iteration in range(num_power_iterations + 1):
        images.append(jacobian.times(_as_vectors(newest, latent), vectors_per_pass=vectors_per_pass))
        room = num_dimensions - basis.shape[2]
        if iteration == num_power_iterations or not room:
            break
        products = jacobian.transpose_times(images[-1], vectors_per_pass=vectors_per_pass)
        products = products.flatten(2).permute(1, 2, 0).to(latent.device, torch.float64)
        newest = _orthonormal_to(basis, products[..., :room])
        basis = torch.cat([basis, newest], dim=2)
    return _singular_values(images).to(latent.device)


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


def _singular_values(images: list[Tensor]) -> Tensor:
    """Singular values of J on the basis, (batch, vectors), from J's images of it, each (vectors, batch, *image).

    By the Gram matrix in double precision: the images' own rounding, 1e-7 of the largest value, is then all there is.
    """
    sizes = [len(image) for image in images]
    gram = torch.zeros(images[0].shape[1], sum(sizes), sum(sizes), dtype=torch.float64, device=images[0].device)
    flat = [image.flatten(2).transpose(0, 1) for image in images]
    starts = [sum(sizes[:number]) for number in range(len(sizes))]
    for i, left in enumerate(flat):
        for j, right in enumerate(flat[: i + 1]):
            rows, columns = slice(starts[i], starts[i] + sizes[i]), slice(starts[j], starts[j] + sizes[j])
            gram[:, rows, columns] = left.double() @ right.double().mT
            gram[:, columns, rows] = gram[:, rows, columns].mT
    return torch.linalg.eigvalsh(gram).flip(1).clamp_min(0).sqrt()

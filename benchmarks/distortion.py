"""Local distortion: `Distortion` beside what the published code and a competent user run. `benchmarks/geometry.py` calls it."""

from collections.abc import Callable
from unittest.mock import patch

import torch
from rich import box
from rich.progress import track
from rich.table import Table
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.in_turn import in_turn, times_faster
from ldm_privacy.geometry.distortion import Distortion
from ldm_privacy.geometry.jacobian import DecoderJacobian

Decode = Callable[[Tensor], Tensor]
Products = Callable[[Tensor], Tensor]
RANK = 20


def randomised_svd(times: Products, transpose_times: Products, latent: Tensor, *, oversample: int) -> Tensor:
    """(RANK,), of the last of two subspace iterations (Halko, Martinsson, Tropp 2011): 6 products a direction.

    `times` takes (vectors, D) to (vectors, pixels), `transpose_times` the other way.
    """
    basis = torch.linalg.qr(torch.randn(latent.numel(), RANK + oversample, dtype=latent.dtype, device=latent.device)).Q
    for _ in range(2):
        basis = torch.linalg.qr(transpose_times(times(basis.mT)).mT).Q
    image_basis = torch.linalg.qr(times(basis.mT).mT).Q
    return torch.linalg.svdvals(transpose_times(image_basis.mT))[:RANK]


def published_randomised_svd(decode: Decode, latent: Tensor) -> Tensor:
    """Of one sample, as the code of 2511.20592 has it: 30 further directions; every J v decodes, every block of J^T u once."""

    def times(vectors: Tensor) -> Tensor:
        points = vectors.reshape(-1, *latent.shape)
        return torch.stack([torch.autograd.functional.jvp(decode, latent, point)[1].flatten() for point in points])

    def transpose_times(vectors: Tensor) -> Tensor:
        leaf = latent.clone().requires_grad_()
        image = decode(leaf)
        images = vectors.reshape(-1, *image.shape)
        return torch.stack([torch.autograd.grad(image, leaf, each, retain_graph=True)[0].flatten() for each in images])

    return randomised_svd(times, transpose_times, latent, oversample=30)


def one_graph_randomised_svd(decode: Decode, latent: Tensor, *, oversample: int = 10) -> Tensor:
    """Of one sample, decoded once: J^T u from that graph, J v from the graph of J^T u; 10 further directions, as is usual."""
    leaf = latent.clone().requires_grad_()
    image = decode(leaf)
    cotangent = torch.zeros_like(image, requires_grad=True)
    (pulled_back,) = torch.autograd.grad(image, leaf, cotangent, create_graph=True)

    def product(output: Tensor, variable: Tensor) -> Products:
        def products(vectors: Tensor) -> Tensor:
            parts = vectors.reshape(-1, *output.shape)
            return torch.stack([torch.autograd.grad(output, variable, each, retain_graph=True)[0].flatten() for each in parts])

        return products

    return randomised_svd(product(pulled_back, cotangent), product(image, leaf), latent, oversample=oversample)


def published_whole(decode: Decode, latent: Tensor) -> Tensor:
    """Of one sample, from J row by row (`torch.autograd.functional.jacobian`), as the code of 2511.20592 for small images.

    It then takes 30 power iterations on J; here they are exact singular values, in no more time.
    """
    jacobian = torch.autograd.functional.jacobian(lambda point: decode(point).flatten(), latent)
    return torch.linalg.svdvals(jacobian.flatten(1))[:RANK]


def whole_in_forward_mode(decode: Decode, latent: Tensor) -> Tensor:
    """Of one sample, from J by columns, of which there are fewer than rows, 32 at once as in `torch.func.jacfwd`."""
    unit = torch.eye(latent.numel(), dtype=latent.dtype, device=latent.device).reshape(-1, *latent.shape)
    columns = torch.vmap(lambda vector: torch.func.jvp(decode, (latent,), (vector,))[1].flatten(), chunk_size=32)(unit)
    return torch.linalg.svdvals(columns)[:RANK]


def distortion_table(decode: Decode, latent: Tensor, rounds: int, *, with_whole: bool) -> Table:
    """Seconds a sample, errors, and ratios, of every way on those latents."""
    count, num_applied = len(latent), 0
    original = DecoderJacobian.times

    def counting(self: DecoderJacobian, value: Tensor, **arguments: int) -> Tensor:
        nonlocal num_applied
        num_applied += len(value)
        return original(self, value, **arguments)

    def by_sample(method: Callable[[Decode, Tensor], Tensor]) -> Callable[[], Tensor]:
        return lambda: torch.stack([method(decode, latent[n : n + 1]) for n in range(count)])

    variants: dict[str, Callable[[], Tensor]] = {
        "published code: randomised SVD": by_sample(published_randomised_svd),
        "randomised SVD, one graph": by_sample(one_graph_randomised_svd),
        "the same, 30 further directions": by_sample(lambda *point: one_graph_randomised_svd(*point, oversample=30)),
        "Distortion": lambda: Distortion(RANK).singular_values(decode, latent),
    }
    if with_whole:
        variants["published code: J row by row"] = by_sample(published_whole)
        variants["J in forward mode"] = by_sample(whole_in_forward_mode)
    torch.manual_seed(0)
    with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
        with patch.object(DecoderJacobian, "times", counting):
            Distortion(RANK).singular_values(decode, latent[:1])
        # Far more than the default's accuracy.
        exact = Distortion(RANK, oversample=20, tolerance=1e-5, exact=with_whole or None).singular_values(decode, latent)
        timings = in_turn(variants, track(range(rounds), "distortion"))
    block = RANK + 10
    products = {
        "published code: randomised SVD": 6 * (RANK + 30),
        "randomised SVD, one graph": 6 * block,
        "the same, 30 further directions": 6 * (RANK + 30),
        "Distortion": 2 * num_applied - block,
        "published code: J row by row": decode(latent[:1]).numel(),
        "J in forward mode": latent[0].numel(),
    }
    table = Table(
        *("method", "products", "s a sample", "largest error", "error of the distortion", "Distortion is faster by"),
        box=box.MARKDOWN,
        title=f"J is {products['published code: J row by row']} x {latent[0].numel()}, rank {RANK}, {count} sample(s)",
    )
    for name, timing in timings.items():
        relative = (timing.result.double() / exact.double() - 1).abs().max()
        of_sum = (timing.result.double().log() - exact.double().log()).sum(1).abs().max()
        table.add_row(
            name,
            str(products[name]),
            f"{timing.median / count:.2f}",
            f"{relative:.1e}",
            f"{of_sum:.1e}",
            "" if name == "Distortion" else times_faster(timings["Distortion"], timing),
        )
    return table

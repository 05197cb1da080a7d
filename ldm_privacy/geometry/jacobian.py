"""The decoder's Jacobian J as a linear map at a batch of latents: J v and J^T u, never the matrix."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from ldm_privacy.device import rows_within
from ldm_privacy.errors import UserError, reason_of
from ldm_privacy.types import Decoder, Image, Latent

_Part = TypeVar("_Part")

HELD = 2.5
"""Times as much as autograd keeps of a decoding is held while a product is taken. Measured: J^T u 1.2 to 1.6, J v 2.1 to 3.5,
see docs/reference/memory.md."""


@contextmanager
def gradients_enabled(latent: Tensor) -> Iterator[Tensor]:
    """Gradients inside `torch.no_grad` and `torch.inference_mode`: a fresh leaf of the latent to differentiate in.

    Lightning validates under `no_grad` while it fits and under `inference_mode` in `trainer.validate`. Inside this context
    both are left, autocast is off (the influence belongs to decoder and sample, not to the caller's precision), and
    attention runs as plain matrix products: PyTorch's fused kernels have no second derivative, and J v is the derivative
    of J^T u. A module whose parameters were made inside inference mode can't be differentiated; make it outside.

    Yields a copy of the latent (any float tensor, also an inference tensor) that requires gradients. Detach what leaves the
    context.
    """
    autocast_off = torch.autocast(latent.device.type, enabled=False)
    with torch.inference_mode(False), torch.enable_grad(), autocast_off, sdpa_kernel(SDPBackend.MATH):
        yield latent.detach().clone().requires_grad_()


def at_least_float32(latent: Latent) -> torch.dtype:
    """The precision of what is computed for that latent."""
    return torch.promote_types(latent.dtype, torch.float32)


class DecoderJacobian:
    """J(z) = dD/dz, pixels x D, of every sample of a batch. The batch is decoded once.

    Arguments and errors as in `ldm_privacy.geometry`. A latent in double precision is decoded in double precision even where
    the decoder's weights are in single precision: they are converted operation by operation.

    Attributes:
        image: (batch, *image), the decoded latent, detached.
        kept_bytes: Of a sample: its image, and what autograd keeps of its decoding.
    """

    def __init__(self, decoder: Decoder, latent: Latent):
        if latent.ndim != 4 or not latent.is_floating_point():
            raise UserError(
                f"the decoder takes float latents (batch, channels, height, width), got shape {tuple(latent.shape)} of "
                f"{latent.dtype}."
            )
        self._decoder = decoder
        self._backward: tuple[Tensor, Tensor] | None = None
        self._forward_mode_works = self._batching_works = True
        kept: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            # Weights are kept too, but once for all samples.
            if not isinstance(tensor, torch.nn.Parameter):
                kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
            # Autograd gives it its place in the graph again; with it, an operation that keeps its own result is never freed.
            return tensor.detach()

        with saved_tensors_hooks(keep, lambda tensor: tensor), gradients_enabled(latent) as leaf:
            self._latent = leaf
            self._image = self._checked_decode(leaf)
        self.image: Image = self._image.detach()
        self.kept_bytes = (sum(kept.values()) + self.image.numel() * self.image.element_size()) / max(1, len(latent))

    @property
    def pairs_per_pass(self) -> int:
        """How many (sample, vector) pairs fit the memory budget, at least one."""
        return rows_within(HELD * self.kept_bytes, self.image.device)

    def vectors_within(self, most: int) -> int:
        """How many vectors go through with this batch, at most `most` and at least one."""
        return max(1, min(most, self.pairs_per_pass // max(1, len(self.image))))

    def transpose_times(self, vectors: Image, *, vectors_per_pass: int = 1) -> Tensor:
        """J^T u for several u, (vectors, batch, *image) -> (vectors, batch, channels, height, width).

        One decoder backward pass a vector.
        """
        self._check_shape(vectors, self.image.shape, "probes", "the decoder's image")
        return self._products(self._image, self._latent, vectors.to(self.image), vectors_per_pass)

    def times(self, vectors: Latent, *, vectors_per_pass: int = 1) -> Tensor:
        """J v for several v, (vectors, batch, channels, height, width) -> (vectors, batch, *image).

        Forward mode where the decoder's operations have it (about two decoder passes a vector); else the derivative of
        J^T u in u, which is J v by linearity (about three).
        """
        self._check_shape(vectors, self._latent.shape, "vectors", "the latent")
        vectors = vectors.to(self._latent)
        if self._forward_mode_works:
            try:
                chunks = vectors.split(vectors_per_pass)
                return torch.cat([self._forward_mode(chunk) for chunk in chunks])
            except torch.OutOfMemoryError:
                raise
            except (RuntimeError, NotImplementedError):
                self._forward_mode_works = False
        if self._backward is None:
            with gradients_enabled(self.image) as cotangent:
                (pulled_back,) = torch.autograd.grad(self._image, self._latent, cotangent, create_graph=True)
            self._backward = pulled_back, cotangent
        return self._products(*self._backward, vectors, vectors_per_pass)

    def _products(self, output: Tensor, variable: Tensor, vectors: Tensor, vectors_per_pass: int) -> Tensor:
        """The products of every vector with d output / d variable."""

        def product(chunk: Tensor) -> Tensor:
            if self._batching_works and len(chunk) > 1:
                try:
                    return torch.autograd.grad(output, variable, chunk, retain_graph=True, is_grads_batched=True)[0]
                except torch.OutOfMemoryError:
                    raise
                except RuntimeError:  # an operation without a batching rule: one vector at a time
                    self._batching_works = False
            return torch.stack([torch.autograd.grad(output, variable, each, retain_graph=True)[0] for each in chunk])

        with torch.inference_mode(False):
            return torch.cat([product(chunk) for chunk in vectors.split(vectors_per_pass)])

    def _forward_mode(self, vectors: Tensor) -> Tensor:
        with gradients_enabled(self._latent) as leaf, torch.no_grad():
            # The copy is no inference tensor: those can't be tangents.
            point = leaf.detach()
            return torch.func.vmap(lambda vector: torch.func.jvp(self._call, (point,), (vector,))[1])(vectors.clone())

    def _call(self, latent: Tensor) -> Tensor:
        with _DoublePrecision() if latent.dtype == torch.float64 else nullcontext():
            return self._decoder(latent)

    def _checked_decode(self, latent: Tensor) -> Tensor:
        try:
            image = self._call(latent)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
            raise UserError(f"the decoder can't take a latent of shape {tuple(latent.shape)}: {reason_of(error)}") from error
        if image.ndim < 2 or len(image) != len(latent):
            raise UserError(
                f"the decoder made an image of shape {tuple(image.shape)} from a latent of shape {tuple(latent.shape)}; it "
                "must keep the batch."
            )
        return image

    @staticmethod
    def _check_shape(vectors: Tensor, shape: torch.Size, name: str, of: str) -> None:
        if vectors.shape[1:] != shape:
            raise UserError(f"{name} of shape {tuple(vectors.shape)} (vectors first) don't fit {of}, {tuple(shape)}.")


def in_parts(function: Callable[[DecoderJacobian, slice], _Part], decoder: Decoder, latent: Latent) -> list[_Part]:
    """`function` of the Jacobian at some samples and of their rows, for all samples, part by part within the memory budget.

    The first sample comes alone: it tells how many fit. No sample is decoded twice; a part is given up before the next is made.
    """
    parts: list[_Part] = []
    start, size = 0, 1
    while start < len(latent) or not parts:
        rows = slice(start, start + size)
        jacobian = DecoderJacobian(decoder, latent[rows])
        start, size = rows.stop, jacobian.pairs_per_pass
        parts.append(function(jacobian, rows))
        del jacobian
    return parts


class _DoublePrecision(TorchFunctionMode):
    """Float32 tensors that meet an operation are converted to float64 first."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map_only(Tensor, _to_double, (args, kwargs or {}))
        return func(*args, **kwargs)


def _to_double(value: Tensor) -> Tensor:
    return value.double() if value.dtype == torch.float32 else value

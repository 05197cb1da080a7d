"""A step whose batch goes through the network in parts: the gradient of the whole batch, in the memory of one part."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def accumulated(
    loss_of: Callable[[slice], Tensor], parts: Sequence[slice], parameters: Sequence[Tensor], scale: Tensor | float
) -> Tensor:
    """sum over the parts of loss_of(part), as one number whose gradient in the parameters is known already.

    For whoever calls `backward` on it that is one loss as any other: of mixed precision, of several processes, of clipping.

    Args:
        loss_of: Rows of the batch -> their part of the loss; one forward and one backward pass each.
        parts: The rows of each.
        parameters: That it is differentiated in; one that has no part in the loss is left without a gradient.
        scale: What the backward passes are multiplied by and the gradients divided by: that of a loss scaler, else 1.
    """
    return _Accumulated.apply(loss_of, parts, scale, *parameters)


class _Accumulated(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, loss_of: Callable[[slice], Tensor], parts: Sequence[slice], scale: Tensor | float, *parameters: Tensor
    ) -> Tensor:
        sums: list[Tensor | None] = [None] * len(parameters)
        total = torch.zeros(())
        for part in parts:
            with torch.enable_grad():
                loss = loss_of(part)
                found = torch.autograd.grad(scale * loss, parameters, allow_unused=True)
            total = total.to(loss.device) + loss.detach()
            pairs = [(each, more) for each, more in zip(sums, found) if each is not None and more is not None]
            if pairs:
                torch._foreach_add_(*map(list, zip(*pairs)))
            # A copy: the memory of a CUDA graph is written over by its next replay.
            sums = [more.clone() if each is None and more is not None else each for each, more in zip(sums, found)]
        ctx.sums, ctx.scale = sums, scale
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        torch._foreach_mul_([each for each in ctx.sums if each is not None], gradient / ctx.scale)
        return (None, None, None, *ctx.sums)

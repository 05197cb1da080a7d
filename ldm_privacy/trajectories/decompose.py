"""Decomposition of a trajectory's states into training latent and starting noise: x_t = w0 x + wT x_T (+ w1 mean) + rest."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from ldm_privacy.types import Latent


@dataclass(frozen=True, eq=False)
class Coefficients:
    """Least squares of every state on the same columns; all float64, on the CPU.

    Attributes:
        clean: (steps, batch), w0.
        noise: (steps, batch), wT.
        mean: (steps, batch), w1; None without the third column.
        r_squared: (steps, batch), 1 - ||rest||^2 / ||x_t||^2, in [0, 1]; without an intercept.
        cosine: (batch,), cos(x, x_T). A caption's x and fresh noise are nearly orthogonal; where they are not, w0 and wT mix.
        condition_number: (batch,), of the columns at length 1: 1 where they are orthogonal, infinite where they are dependent.
    """

    clean: Tensor
    noise: Tensor
    mean: Tensor | None
    r_squared: Tensor
    cosine: Tensor
    condition_number: Tensor

    @classmethod
    def joined(cls, parts: Sequence["Coefficients"]) -> "Coefficients":
        """Those of several batches as of one."""
        values = {each.name: [getattr(part, each.name) for part in parts] for each in fields(cls)}
        joined: dict[str, Any] = {name: None if it[0] is None else torch.cat(it, -1) for name, it in values.items()}
        return cls(**joined)


class Decomposition:
    """`decompose`, a state at a time: it keeps three (four) numbers of each and no state.

    Args:
        clean, noise, mean: See `decompose`.
    """

    def __init__(self, clean: Latent, noise: Latent, *, mean: Latent | None = None):
        columns = [clean, noise] if mean is None else [clean, noise, mean.expand_as(clean)]
        design = torch.stack([column.double().flatten(1) for column in columns], 1)
        length = design.norm(dim=2)
        # Columns of length 1, so that what counts as dependent is the same whatever the latent's scale; one of zeros has w = 0.
        self._length = torch.where(length > 0, length, 1.0)
        self._design = design / self._length[..., None]
        self._gram = self._design @ self._design.mT
        self._solve = torch.linalg.pinv(self._gram, hermitian=True)
        self._states: list[tuple[Tensor, Tensor]] = []

    def add(self, state: Latent) -> None:
        """The next state, (batch, ...). One inner product a column and sample."""
        flat = state.double().flatten(1)
        product = (self._design @ flat[..., None])[..., 0]
        weight = (self._solve @ product[..., None])[..., 0]
        # Of the solution, not of the normal equations: that keeps its sign where the columns are dependent.
        explained = (2 * weight * product).sum(1) - (weight * (self._gram @ weight[..., None])[..., 0]).sum(1)
        total = flat.square().sum(1)
        share = torch.where(total > 0, explained / total, 1.0).clamp(0, 1)
        self._states.append((weight / self._length, share))

    def coefficients(self) -> Coefficients:
        """Of all states added so far, in their order."""
        weights, shares = zip(*self._states)
        weight = torch.stack(weights).cpu()
        eigenvalues = torch.linalg.eigvalsh(self._gram).cpu()
        return Coefficients(
            clean=weight[..., 0],
            noise=weight[..., 1],
            mean=weight[..., 2] if weight.shape[-1] == 3 else None,
            r_squared=torch.stack(shares).cpu(),
            cosine=self._gram[:, 0, 1].cpu(),
            condition_number=(eigenvalues[:, -1] / eigenvalues[:, 0].clamp(min=0)).sqrt(),
        )


def decompose(states: Iterable[Latent], clean: Latent, noise: Latent, *, mean: Latent | None = None) -> Coefficients:
    """Least squares of each state on the training latent and the starting noise: x_t = w0 x + wT x_T (+ w1 mean) + rest.

    Solved by inner products in float64; where columns are dependent, the solution of least norm (of columns at length 1). No
    network passes; O(numbers of a latent) a state and sample, and a generator of states is never held.

    Args:
        states: (steps, batch, ...), or one (batch, ...) after the other: x_t after each update.
        clean: (batch, ...), x: the paired training latent (the paper's text) or the final generated one (its authors' code).
        noise: (batch, ...), x_T.
        mean: (...) or (batch, ...), the latents' mean as a third column: without it latents with a channel mean leak into w0.

    Source: Kim, Kim, Lee 2025, arXiv 2509.25705, section 4.
    """
    decomposition = Decomposition(clean, noise, mean=mean)
    for state in states:
        decomposition.add(state)
    return decomposition.coefficients()

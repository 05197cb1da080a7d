"""An audit under several conditions: own, null, shuffled; and whether the model listens to its condition at all."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ldm_privacy.attacks.base import Attack
from ldm_privacy.attacks.conditions import on_condition
from ldm_privacy.attacks.query import DenoiserQuery
from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.errors import UserError
from ldm_privacy.models.predictor import rows_per_pass
from ldm_privacy.randomness import normal
from ldm_privacy.types import Estimate, NoisePredictor

USE_PASSES = 2
"""Denoiser passes a sample that `condition_use` takes."""


class ViewOf(NamedTuple):
    """An attack under another condition: the label of the attack, and the view."""

    attack: str
    view: str


def with_views(attacks: Mapping[str, Attack], views: Sequence[str]) -> tuple[dict[str, Attack], dict[str, ViewOf]]:
    """Every attack by label, each followed by what it is under each of the views, `<attack>_<view>`; and which are those.

    An attack that compares conditions itself is not repeated. Raises UserError where a label is taken, or a view stands twice.
    """
    found: dict[str, Attack] = {}
    of: dict[str, ViewOf] = {}
    for label, attack in attacks.items():
        found[label] = attack
        for view in views if not attack.views else ():
            if (name := f"{label}_{view}") in {**attacks, **found}:
                raise UserError(f"audit.attacks: '{name}' is what '{label}' is called under audit.views; use another label.")
            found[name], of[name] = on_condition(attack, view), ViewOf(label, view)
    return found, of


def differs(samples: AuditedSamples, view: str) -> Tensor:
    """(samples,) bool: whose condition under that view is another than the own one. Queries of the others coincide."""
    found = torch.zeros(len(samples), dtype=torch.bool, device=samples.latent.device)
    for name, value in samples.told(view).items():
        found |= (value != samples.condition[name]).reshape(len(samples), -1).any(1)
    return found


def condition_use(
    predictor: NoisePredictor, samples: AuditedSamples, *, seed: int = 0, autocast: torch.dtype | None = None
) -> Tensor:
    """(samples,) float64: mean |eps(own) - eps(shuffled)| over mean |eps(own)|, 0 where the model ignores its condition.

    At z_t of the first timestep whose abar is at most one half, with one normal noise of (seed, sample index). `USE_PASSES` a
    sample; NaN for a sample whose shuffled condition is its own.
    """
    query = DenoiserQuery(
        predictor,
        samples.sample_index,
        condition=samples.condition,
        views=samples.views,
        rows_per_call=rows_per_pass(predictor, samples.latent),
        autocast=autocast,
    )
    timestep = int((query.alphas_cumprod > 0.5).sum().clamp(max=len(query.alphas_cumprod) - 1))
    noise = normal("condition-use", (seed, samples.sample_index), samples.latent.shape[1:], samples.latent.device)[None]
    own, other = (query.under(view).at_noise(samples.latent, noise, [timestep])[0] for view in ("own", "shuffled"))
    moved, size = (value.abs().flatten(1).double().mean(1) for value in (own - other, own))
    return torch.where(differs(samples, "shuffled"), moved / size, torch.nan)


def mean_use(use: Tensor, confidence: float) -> Estimate:
    """The mean of `condition_use` over samples, with its normal interval; at least two must be known."""
    known = use[use.isfinite()]
    reach = torch.special.ndtri(torch.tensor(0.5 + confidence / 2, dtype=torch.float64))
    mean, spread = float(known.mean()), float(reach * known.std(correction=1) / len(known) ** 0.5)
    return Estimate(mean, mean - spread, mean + spread)

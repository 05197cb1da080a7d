"""What a watch asks: registered names or built components; where nothing is named, what fits what is there."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ldm_privacy.attacks.base import get_attack
from ldm_privacy.audit.checks import audited_timesteps
from ldm_privacy.calibrations.base import Calibration
from ldm_privacy.diffusion import PredictionType
from ldm_privacy.errors import UserError
from ldm_privacy.registry import CALIBRATIONS, MASK_RULES

CALIBRATED = ("complexity", "history", "gained", "calibrated", "combined")
"""In the order of `configs/audit/default.yaml`: that decides what a verdict rests on."""
COMPARED = ("complexity", "reference", "ratio", "history", "gained", "calibrated", "combined")
"""Where there is a reference."""
TIMESTEPS = (30, 60, 100, 150)
SIGMAS = (0.1, 0.2, 0.3, 0.4)
"""Of a flow, where it leaks; see docs/concepts/flow.md."""

Named = Sequence[str] | Mapping[str, Any] | None
"""Registered names, or components by label; None for our own choice."""


def attacks_of(named: Named, *, is_compared: bool) -> Mapping[str, Any]:
    """Label -> attack; by default sima and loss, the stronger one first: a reference makes that loss."""
    return _made(named, ("loss", "sima") if is_compared else ("sima", "loss"), get_attack)


def calibrations_of(named: Named, *, is_compared: bool) -> Mapping[str, Calibration]:
    """Label -> calibration; by default all that what is there allows."""
    return _made(named, COMPARED if is_compared else CALIBRATED, lambda name: CALIBRATIONS.get(name)())


def masks_of(named: Named, *, has_decoder: bool) -> Mapping[str, Any]:
    """Label -> mask rule; by default all dimensions and, where there is a decoder, top, random and deviation."""
    ours = ("all", "top", "random", "deviation") if has_decoder else ("all",)
    return _made(named, ours, lambda name: MASK_RULES.get(name)())


def timesteps_of(
    timesteps: Sequence[int] | None, sigmas: Sequence[float] | None, kind: PredictionType, count: int
) -> list[int]:
    """Those of `count` that are asked for, or our own. Raises UserError as `audited_timesteps`, and for no share."""
    if timesteps is None and sigmas is None:
        timesteps, sigmas = (None, SIGMAS) if kind == "flow" else (TIMESTEPS, None)
    if wrong := [each for each in sigmas or () if not 0 < each < 1]:
        raise UserError(f"sigmas: {wrong[0]} is no share of noise between 0 and 1.")
    return audited_timesteps(None if timesteps is None else list(timesteps), sigmas, kind, count)


def _made(named: Named, ours: Sequence[str], make: Callable[[str], Any]) -> Mapping[str, Any]:
    """By label what was built already, or what `make` builds of each name."""
    named = ours if named is None else named
    return named if isinstance(named, Mapping) else {name: make(name) for name in named}

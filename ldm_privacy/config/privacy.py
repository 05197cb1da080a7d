"""What doesn't go with differential privacy, known from a config alone."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from ldm_privacy.errors import UserError

ONLY = {"devices": 1, "num_nodes": 1, "precision": "32-true", "compile": "none", "channels_last": False}
"""Of the trainer's section, what DP-SGD takes: the defaults."""


def check_privacy(tree: Mapping[str, Any]) -> None:
    """Raise UserError for settings that DP-SGD doesn't go with, or that nothing reads without it, and where Opacus is missing.

    Args:
        tree: A config whose keys are known to be right.
    """

    def section(*names: str) -> Mapping[str, Any]:
        found: Any = tree
        for name in names:
            found = found.get(name) if isinstance(found, Mapping) else None
        return found if isinstance(found, Mapping) else {}

    settings = section("denoiser", "privacy")
    if settings and "noise_multiplier" not in settings:
        raise UserError(
            f"denoiser.privacy.{next(iter(settings))}: without noise there is no DP-SGD; set denoiser.privacy.noise_multiplier "
            "too, or null for a training without."
        )
    if settings.get("noise_multiplier") is None:
        return
    if find_spec("opacus") is None:
        raise UserError('denoiser.privacy: it needs Opacus: pip install "ldm-privacy[privacy]".')
    trainer = section("trainer")
    for key, only in ONLY.items():
        if trainer.get(key, only) != only:
            told = str(only).lower()
            raise UserError(f"trainer.{key}: {trainer[key]} doesn't go with denoiser.privacy; use trainer.{key}={told}.")
    if (at := section("audit", "stop").get("at")) is not None:
        raise UserError(
            f"audit.stop.at: {at} lets audits, which see the members without noise, steer the training that denoiser.privacy "
            "protects; use audit.stop.at=null."
        )
    if section("denoiser").get("accumulate", 1) != 1:
        raise UserError(
            "denoiser.accumulate: with denoiser.privacy as many samples go through the network together as memory holds; use "
            "denoiser.accumulate=1."
        )
    if section("data", "repeats").get("share"):
        raise UserError(
            "data.repeats: a member that comes several times in an epoch is protected less than denoiser.privacy says; use "
            "data.repeats.share=0."
        )

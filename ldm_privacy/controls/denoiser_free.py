"""Denoiser-free controls: what already tells members from held-out before the denoiser is looked at."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ldm_privacy.metrics import auroc_interval
from ldm_privacy.types import Estimate, Influence, Latent, MembershipScore

MEANINGS = {
    "reconstruction error": "the autoencoder itself leaks (it was trained on the members, or the images differ)",
    "influence": "the decoder's influence itself tells the sides apart, so a mask ranked by it carries membership",
    "latent norm": "the latents themselves differ in size, so the encoder or the images tell the sides apart",
}
"""What it means when a control of that name tells members from held-out."""


def influence_score(influence: Influence) -> MembershipScore:
    """Sum of log influence: sum_i 1/2 ln(G_ii + 1e-12), float64 (batch,). No network passes, no randomness.

    Args:
        influence: (batch, channels, height, width), >= 0.
    """
    return 0.5 * (influence.double() + 1e-12).log().flatten(1).sum(dim=1)


def latent_norm_score(latent: Latent) -> MembershipScore:
    """Euclidean norm of the latent: (sum_i z_i^2)^(1/2), float64 (batch,). No network passes, no randomness.

    Args:
        latent: (batch, channels, height, width).
    """
    return latent.flatten(1).double().norm(dim=1)


def denoiser_free_controls(
    scores: Mapping[str, Tensor], is_member: Tensor, *, confidence: float = 0.95, group: Tensor | None = None
) -> dict[str, Estimate]:
    """AUROC with interval of each score; one below 0.5 tells as much as one above.

    Args:
        scores: Name -> (samples,), such as "reconstruction error", "influence" and "latent norm".
        is_member: (samples,) bool.
        confidence: Of each interval by itself: of 20 controls that tell nothing apart, one leaves out 0.5 at 0.95.
        group: (samples,) labels; intervals then resample whole groups. See `auroc_interval`.

    Returns:
        Name -> estimate, in the order given.

    Raises:
        UserError: See `auroc_interval`.
    """
    return {
        name: auroc_interval(torch.as_tensor(score), is_member, confidence=confidence, group=group)
        for name, score in scores.items()
    }


def denoiser_free_sentence(controls: Mapping[str, Estimate]) -> str:
    """Which controls tell members from held-out without the denoiser, and what that means, in plain words."""
    telling = {name: estimate for name, estimate in controls.items() if not estimate.lower <= 0.5 <= estimate.upper}
    if not controls:
        return "No denoiser-free control was computed."
    if not telling:
        reached = max(max(each.upper, 1 - each.lower) for each in controls.values())
        return (
            f"Without the denoiser no difference was found: the intervals of {_listed(controls)} include 0.5; up to "
            f"{reached:.3f} "
            "can't be excluded."
        )
    found = "; ".join(
        f"{name} has AUROC {estimate}: {MEANINGS.get(name, 'this score tells the sides apart')}"
        for name, estimate in telling.items()
    )
    return f"Members can be told from held-out without the denoiser: {found}. Attack numbers are to be read against this."


def _listed(names: Mapping[str, Estimate]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last

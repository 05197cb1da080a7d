"""A checkpoint of this program as a target."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from ldm_privacy.models.codec import Codec
from ldm_privacy.models.predictor import NetworkPredictor, as_it_is, num_parameters
from ldm_privacy.registry import TARGETS
from ldm_privacy.targets.door import Opening
from ldm_privacy.targets.privacy import Privacy
from ldm_privacy.targets.record import Checkpoint, Denoiser
from ldm_privacy.targets.target import Target
from ldm_privacy.types import Condition


@TARGETS.register("checkpoint")
class CheckpointTarget:
    """Both networks, channel map and noise schedule come from the file alone."""

    @staticmethod
    def recognises(path: Path) -> bool:
        return path.suffix == ".ckpt"

    @staticmethod
    def open(path: Path, opening: Opening) -> Target:
        return target_of_checkpoint(Checkpoint.read(path), opening.device)


def target_of_checkpoint(
    checkpoint: Checkpoint, device: torch.device | str = "cpu", given: Callable[[Condition], Condition] = as_it_is
) -> Target:
    """The target that a checkpoint holds. Raises UserError where a part is damaged.

    `given`: of the condition that it was trained with; see `ConditionSource.given`.
    """
    codec, denoiser = checkpoint.codec(), checkpoint.denoiser
    network = checkpoint.network().requires_grad_(False).to(device)
    abar, kind = denoiser.alphas_cumprod.to(device), denoiser.prediction_type
    predictor = NetworkPredictor(network, abar, kind, given)
    facts = facts_of(codec, denoiser, network, checkpoint.epoch, checkpoint.privacy)
    return Target(codec.to(device), predictor, facts, privacy=checkpoint.privacy)


def facts_of(
    codec: Codec, denoiser: Denoiser, network: nn.Module, epoch: int, privacy: Privacy | None = None
) -> dict[str, str]:
    """What such a target is, in words."""
    return {
        "target": f"checkpoint, epoch {epoch}",
        "latents": str(codec),
        "denoiser": f"{denoiser.network['class']}, {num_parameters(network):,} parameters, predicts {denoiser.prediction_type}",
        "condition": denoiser.condition.get("class", "none"),
        **({} if privacy is None else {"differential privacy": str(privacy)}),
    }

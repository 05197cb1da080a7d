"""A checkpoint of this program as a target."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ldm_privacy.models.codec import Codec
from ldm_privacy.models.predictor import NetworkPredictor, as_it_is, num_parameters
from ldm_privacy.registry import TARGETS
from ldm_privacy.targets.adapters.trained import Lora
from ldm_privacy.targets.denoiser import Denoiser
from ldm_privacy.targets.door import Opening
from ldm_privacy.targets.privacy import Privacy
from ldm_privacy.targets.record import Checkpoint
from ldm_privacy.targets.script import Called
from ldm_privacy.targets.target import Target
from ldm_privacy.types import Condition


@TARGETS.register("checkpoint")
class CheckpointTarget:
    """Both networks, channel map and noise schedule come from the file; of a fine-tuned one the base is looked up."""

    takes: ClassVar[tuple[str, ...]] = ("base",)

    @staticmethod
    def recognises(path: Path) -> bool:
        return path.suffix == ".ckpt"

    @staticmethod
    def open(path: Path, opening: Opening) -> Target:
        base = None if opening.base is None else str(opening.base)
        return target_of_checkpoint(Checkpoint.read(path, base=base), opening.device)


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
    return beside_its_base(Target(codec.to(device), predictor, facts, privacy=checkpoint.privacy), denoiser)


def facts_of(
    codec: Codec, denoiser: Denoiser, network: nn.Module, epoch: int, privacy: Privacy | None = None
) -> dict[str, str]:
    """What such a target is, in words."""
    whole = network.base if isinstance(network, Lora) else network
    told = f"{denoiser.network['class']}, {num_parameters(whole):,} parameters, predicts {denoiser.prediction_type}"
    found = {"target": f"checkpoint, epoch {epoch}", "latents": str(codec), "denoiser": told}
    if denoiser.base is not None:
        found["base"] = f"{denoiser.base}, SHA-256 of its denoiser {str(denoiser.network.get('sha256'))[:12]}"
        first, last = (float(denoiser.alphas_cumprod[at]) for at in (0, -1))
        found["schedule"] = f"{len(denoiser.alphas_cumprod)} timesteps, alphas_cumprod {first:.4g} to {last:.3g}"
    if isinstance(network, Lora):
        words = ", ".join(f"{name} {value:g}" for name, value in denoiser.adapter.items() if isinstance(value, int | float))
        on = ", ".join(denoiser.adapter["targets"])
        found["adapter"] = f"LoRA, {words}, on {on}: {num_parameters(network):,} parameters"
    return {
        **found,
        "condition": denoiser.condition.get("class", "none"),
        **({} if privacy is None else {"differential privacy": str(privacy)}),
    }


def beside_its_base(target: Target, denoiser: Denoiser) -> Target:
    """A target that was fine-tuned with its base as the reference, which anybody may have; another one as it is.

    The base of an adapter is the network with it off; that of a network that was tuned whole is read when it is first asked.
    """
    predictor = target.predictor
    if denoiser.base is None or not isinstance(predictor, NetworkPredictor):
        return target
    tuned = predictor.network
    base = Called(tuned.base, tuned.off) if isinstance(tuned, Lora) else ReadWhenAsked(denoiser.base_network)
    return replace(
        target,
        reference=replace(predictor, network=base),
        reference_fingerprint={"unet": str(denoiser.network.get("sha256")), "noise": _digest(denoiser)},
        facts={**target.facts, "reference": f"its base, {denoiser.base}"},
    )


class ReadWhenAsked:
    """A network that is read at its first pass: where nothing is compared with it, it costs nothing."""

    def __init__(self, read: Callable[[], nn.Module]):
        self.read = read

    @cached_property
    def network(self) -> nn.Module:
        return self.read()

    @property
    def config(self) -> Any:
        return self.network.config

    def __call__(self, noisy_latent: Tensor, timestep: Tensor, **condition: Tensor) -> Any:
        return self.network.to(noisy_latent.device)(noisy_latent, timestep, **condition)


def _digest(denoiser: Denoiser) -> str:
    abar = denoiser.alphas_cumprod.double().cpu().numpy().tobytes()
    return hashlib.sha256(abar + denoiser.prediction_type.encode()).hexdigest()

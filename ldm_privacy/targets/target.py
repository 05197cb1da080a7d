"""A target: all that is audited."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ldm_privacy.data.captions import Captions
from ldm_privacy.data.conditions import ConditionSource
from ldm_privacy.errors import UserError, reason_of
from ldm_privacy.models.codec import Codec
from ldm_privacy.models.predictor import NetworkPredictor, check_output
from ldm_privacy.models.text.encoder import TextEncoder
from ldm_privacy.targets.privacy import Privacy
from ldm_privacy.types import Condition, Latent, NoisePredictor, Whose, rows_of


@dataclass(frozen=True, eq=False)
class Target:
    """A model as the audit sees it.

    Attributes:
        codec: Images <-> latents.
        predictor: Epsilon at (z_t, t, condition).
        facts: What it is, in words: name -> value.
        reference: Another predictor that attacks can be calibrated against: a base without its adapter, an earlier checkpoint.
        reference_fingerprint: The reference's `fingerprint`; what it scores is stored under it, where it has one.
        insiders_reference: The reference is one that the trainer alone has: an earlier checkpoint of the run.
        fingerprint: Part -> SHA-256 of what it was read from; and whatever else decides what it answers: dtype, guidance.
        encoder: Of the captions that it is told; None where it is told none.
        reference_encoder: The reference's, where it is another one: without the adapter.
        num_classes: Of the class labels that it is told; None where it is told none.
        image_channels, resolution: Of the images that it was made for, where that is known.
        modules: Its networks by part ("unet", "vae", "text_encoder").
        privacy: What its training guarantees of the denoiser; None for nothing.
    """

    codec: Codec
    predictor: NoisePredictor
    facts: Mapping[str, str] = field(default_factory=dict)
    reference: NoisePredictor | None = None
    fingerprint: Mapping[str, str] = field(default_factory=dict)
    reference_fingerprint: Mapping[str, str] = field(default_factory=dict)
    insiders_reference: bool = False
    encoder: TextEncoder | None = None
    reference_encoder: TextEncoder | None = None
    num_classes: int | None = None
    image_channels: int | None = None
    resolution: int | None = None
    modules: Mapping[str, nn.Module] = field(default_factory=dict)
    privacy: Privacy | None = None

    @property
    def whose_reference(self) -> Whose:
        """See `Whose`."""
        return "" if self.reference is None else "insider" if self.insiders_reference else "outsider"

    def told_by(self, condition: ConditionSource) -> "Target":
        """The same, told what that source says of each sample: the networks get `condition.given`."""
        given, reference = condition.given, self.reference
        if isinstance(reference, NetworkPredictor):
            through = self.reference_encoder
            other = condition.through(through) if through is not None and isinstance(condition, Captions) else condition
            reference = replace(reference, given=other.given)
        predictor = self.predictor
        if isinstance(predictor, NetworkPredictor):
            predictor = replace(predictor, given=given)
        return replace(self, predictor=predictor, reference=reference)

    @torch.no_grad()
    def check(self, latent: Latent, condition: Condition) -> None:
        """One pass of the first sample, one of the reference.

        Raises:
            UserError: The predictor can't take it, or returns another shape; the reference returns the same numbers.
        """
        shape = tuple(latent.shape[1:])
        timestep = torch.zeros(1, dtype=torch.int64, device=latent.device)
        try:
            epsilon = self.predictor(latent[:1], timestep, rows_of(condition, slice(1)))
            check_output(epsilon, latent[:1])
            if self.reference is not None:
                same = torch.equal(epsilon, self.reference(latent[:1], timestep, rows_of(condition, slice(1))))
        except UserError:
            raise
        except Exception as error:  # whatever a network raises on input that it wasn't made for
            raise UserError(f"target: the network can't take a latent of shape {shape} ({reason_of(error)}).") from error
        if self.reference is not None and same:
            raise UserError("reference: it returns what the target returns, to the last bit; nothing can be compared with it.")


def target_of(make: Callable[[Any], object], module: object) -> Target:
    """What a user's `target=` returns, checked. Raises UserError where it is no `Target`."""
    target = make(module)
    if not isinstance(target, Target):
        raise UserError(
            f"target=: it must return a Target(codec, predictor), not {type(target).__name__}, as in "
            "examples/own_lightning_module.py."
        )
    return target


def unwrapped(network: nn.Module) -> nn.Module:
    """The network inside the wrappers of DistributedDataParallel, DeepSpeed, accelerate and torch.compile.

    By their attributes alone: accelerate's own `unwrap_model(keep_fp32_wrapper=False)` takes autocast off the training model.
    """
    while True:
        if isinstance(network, DistributedDataParallel | nn.DataParallel) or type(network).__name__ == "DeepSpeedEngine":
            network = network.module  # type: ignore[assignment]
        elif isinstance(inner := getattr(network, "_orig_mod", None), nn.Module):
            network = inner
        else:
            return network

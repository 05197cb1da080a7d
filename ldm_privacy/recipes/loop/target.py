"""What a watched loop trains, as a target for the time of a look."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.diffusion import PredictionType
from ldm_privacy.errors import UserError
from ldm_privacy.models.codec import Codec
from ldm_privacy.models.predictor import NetworkPredictor
from ldm_privacy.recipes.loop.told import Told
from ldm_privacy.targets.adapters.live import adapted, trains_outside, without_adapters
from ldm_privacy.targets.script import Base, Called, Context, Predict, base_of, check_whole, in_words
from ldm_privacy.targets.self_check import NUM_IMAGES, SHARES, SIGMAS, TIMES, rival_latents, self_check
from ldm_privacy.targets.target import Target, unwrapped
from ldm_privacy.types import rows_of
from ldm_privacy.watch.averaged import averaged
from ldm_privacy.watch.undisturbed import undisturbed


@dataclass(eq=False)
class LoopTarget:
    """All that a pass needs beside the network.

    Attributes:
        codec: Images <-> latents.
        alphas_cumprod, prediction_type: See `NetworkPredictor`.
        told: What the network is told.
        reference, ema, beside, predict: See `MemorizationWatch`.
    """

    codec: Codec
    alphas_cumprod: Tensor
    prediction_type: PredictionType
    told: Told
    reference: Any
    ema: Any
    beside: Sequence[nn.Module]
    predict: Predict | None = None

    @contextmanager
    def target(self, network: nn.Module, step: int) -> Iterator[Target]:
        """The network at that step, with the weights that are shipped; afterwards the training is as before.

        Raises:
            UserError: The weights are sharded; `reference` or `ema` are none of this network; what the reference is told
                moves with the training.
        """
        inner = unwrapped(network)
        check_whole(network)
        beside = [*self.beside, *([] if self.told.network is None else [self.told.network])]
        base = base_of(self.reference, inner, *beside)
        frozen = [] if base is None else [base.network]
        facts = {
            "target": f"{type(inner).__name__} in a training loop, step {step}",
            "denoiser": in_words(inner),
            "weights": "as they are trained" if self.ema is None else f"averaged ({type(self.ema).__name__})",
            "predicts": f"{self.prediction_type}, {len(self.alphas_cumprod)} timesteps",
            "latents": str(self.codec),
            "condition": self.told.words,
            "reference": "none" if base is None else base.words,
        }
        # Before everything is frozen: whether a text encoder trains is seen by that.
        self.told.refresh()
        called = Called(inner, predict=self.predict)
        predictor = NetworkPredictor(called, self.alphas_cumprod, self.prediction_type, self.told.given)
        reference = None
        if base is not None:
            of_base = Called(base.network, base.context, self.predict)
            reference = replace(predictor, network=of_base, given=self.told.base(self._told_in(base, beside)))
        with averaged(inner, self.ema), undisturbed(inner, *frozen, *beside):
            yield Target(self.codec, predictor, facts, reference=reference)

    def _told_in(self, base: Base, beside: Sequence[nn.Module]) -> Context | None:
        """In which context the text encoder is the base's; a context of the script is believed to see to that."""
        if self.told.captions is None or not self.told.trains or (base.context is not None and self.reference != "adapter"):
            return base.context
        held = [each for each in beside if adapted(each)]
        if not held or any(trains_outside(each) for each in beside):
            raise UserError(
                "reference: the text encoder trains, and no adapter of it alone: what the base is told would move with it. "
                "Give a function whose context makes both the base; beside= names text encoders with adapters."
            )
        return partial(without_adapters, *held)


def self_checked(target: Target, samples: AuditedSamples, seed: int) -> dict[str, str]:
    """How a target and its reference did in the self-check, as facts.

    Cost: `check_passes`, of each. Raises UserError where a network fits another convention better, or can't take the samples.
    """
    latent, condition = samples.latent[:NUM_IMAGES], rows_of(samples.condition, slice(NUM_IMAGES))
    facts = {}
    for name, predictor in (("target", target.predictor), ("reference", target.reference)):
        if predictor is None:
            continue
        words = "self-check" if name == "target" else "self-check of the reference"
        alone = replace(target, predictor=predictor, reference=None)
        try:
            facts[words] = str(self_check(alone, latent, condition, seed=seed))
        except UserError as error:
            said = str(error).replace("target:", f"{name}:", 1)
            raise UserError(
                f"{said} In a script prediction_type= and predict= say it; self_check=False checks nothing."
            ) from None
        except Exception:
            alone.check(latent, condition)
            raise
    return facts


def check_passes(target: Target, samples: AuditedSamples) -> int:
    """Network passes of `self_checked`, of each network."""
    latent = samples.latent[:NUM_IMAGES]
    is_flow = target.predictor.prediction_type == "flow"  # type: ignore[attr-defined]
    levels, times = (len(SIGMAS), len(TIMES)) if is_flow else (len(SHARES), 1)
    return len(latent) * levels * (times + len(rival_latents(target, latent)))

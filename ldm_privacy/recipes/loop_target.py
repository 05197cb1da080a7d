"""What a watched loop trains, as a target for the time of a look."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from ldm_privacy.diffusion import PredictionType
from ldm_privacy.models.codec import Codec
from ldm_privacy.models.predictor import NetworkPredictor
from ldm_privacy.recipes.loop_told import Told
from ldm_privacy.targets.script import Called, base_of, check_whole, in_words
from ldm_privacy.targets.target import Target, unwrapped
from ldm_privacy.watch.averaged import averaged
from ldm_privacy.watch.undisturbed import undisturbed


@dataclass(eq=False)
class LoopTarget:
    """All that a pass needs beside the network.

    Attributes:
        codec: Images <-> latents.
        alphas_cumprod, prediction_type: See `NetworkPredictor`.
        told: What the network is told.
        reference, ema, beside: See `MemorizationWatch`.
    """

    codec: Codec
    alphas_cumprod: Tensor
    prediction_type: PredictionType
    told: Told
    reference: Any
    ema: Any
    beside: Sequence[nn.Module]

    @contextmanager
    def target(self, network: nn.Module, step: int) -> Iterator[Target]:
        """The network at that step, with the weights that are shipped; afterwards the training is as before.

        Raises:
            UserError: The weights are sharded; `reference` or `ema` are none of this network.
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
        predictor = NetworkPredictor(Called(inner), self.alphas_cumprod, self.prediction_type, self.told.given)
        reference = None
        if base is not None:
            called = Called(base.network, base.context)
            reference = replace(predictor, network=called, given=self.told.base(base.context))
        with averaged(inner, self.ema), undisturbed(inner, *frozen, *beside):
            yield Target(self.codec, predictor, facts, reference=reference)

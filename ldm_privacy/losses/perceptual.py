"""Perceptual: the output looks to a vision network like the image."""

from typing import Any

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor
from torch.nn.functional import normalize

from ldm_privacy.errors import UserError
from ldm_privacy.losses.base import Autoencoded, CodecLoss, ShareOfBatch, Weight
from ldm_privacy.models.features import FeatureNetwork
from ldm_privacy.registry import LOSSES


@LOSSES.register("perceptual")
class Perceptual(CodecLoss):
    """Mean over a network's layers of the squared distance of features, each normalised over its channels to length 1.

    The distance is summed over channels and averaged over places, as in LPIPS without its learned weights (Zhang et al.,
    1801.03924). Two passes of the feature network a sample. A run that goes on must find the same network.

    Args:
        weight, first_step, every, share: See `CodecLoss`.
        path, sha256, resolution: See `FeatureNetwork.open`.
    """

    is_reconstruction = True

    def __init__(
        self,
        *,
        path: str,
        sha256: str | None = None,
        weight: Weight = 1.0,
        first_step: NonNegativeInt = 0,
        every: PositiveInt = 1,
        share: ShareOfBatch = 1.0,
        resolution: int,
    ):
        super().__init__(weight=weight, first_step=first_step, every=every, share=share)
        self.features = FeatureNetwork.open(path, sha256=sha256, resolution=resolution)

    @property
    def passes(self) -> dict[str, tuple[int, int]]:
        return {"feature network": (1, 1)}

    def __call__(self, batch: Autoencoded) -> Tensor:
        with torch.no_grad():
            wanted = self.features.layers(batch.image)
        found = self.features.layers(batch.output)
        distances = [(normalize(one) - normalize(other)).square().sum(1).mean() for one, other in zip(found, wanted)]
        return torch.stack(distances).mean()

    def to(self, device: torch.device | str) -> "Perceptual":
        self.features.to(device)
        return self

    def state_dict(self) -> dict[str, Any]:
        return {"sha256": self.features.sha256}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["sha256"] != self.features.sha256:
            raise UserError(
                f"'{self.features.path}' has sha256 {self.features.sha256}, but the run began with {state['sha256']}; put that "
                "network back."
            )

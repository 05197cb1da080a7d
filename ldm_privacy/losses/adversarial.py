"""Adversarial: a critic that learns beside the autoencoder can't tell its outputs from images."""

from typing import Annotated, Any

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from ldm_privacy.losses.base import Autoencoded, CodecLoss, ShareOfBatch, Weight
from ldm_privacy.losses.critic import Critic, hinge, scores
from ldm_privacy.processes import add_up
from ldm_privacy.registry import LOSSES

FIRST_STEP = 2000
"""The published first step, of 23,438."""
MOST = 1e4
"""The adaptive weight's bound."""


@LOSSES.register("adversarial")
class Adversarial(CodecLoss):
    """-mean critic(output), times an adaptive weight (Rao, Qu, Moyer, 2509.25003; Esser, Rombach, Ommer, 2012.09841).

    The weight is `weight * clamp(mean |g_r| / (mean |g_a| + 1e-4), 0, 1e4)`, with g_r and g_a the gradients of the weighted
    reconstruction losses and of this one at the decoder's last convolution. The critic (see `Critic`) learns after each step by
    the hinge loss, on images against reconstructions of their posterior *mean*, with an AdamW of its own and gradients of norm
    1 at most. Before `first_step` neither is computed: up to there the run is that without this loss.

    Cost of a sample: two passes of the critic, the second twice (image and reconstruction), one of the decoder.

    Args:
        weight, first_step, every, share: See `CodecLoss`; `first_step` None: 2,000 as published, or a quarter of the stage
            where that is less.
        learning_rate: Of the critic's AdamW.
        image_channels, resolution: Of the images; UserError under 6 pixels.
        seed: Of the critic's first weights.
        num_steps: Of the stage.
    """

    needs_decoder = needs_last_layer = needs_reconstruction = True

    def __init__(
        self,
        *,
        weight: Weight = 0.8,
        first_step: NonNegativeInt | None = None,
        every: PositiveInt = 1,
        share: ShareOfBatch = 1.0,
        learning_rate: Annotated[float, Field(gt=0, le=1)] = 2e-4,
        image_channels: int,
        resolution: int,
        seed: int,
        num_steps: int,
    ):
        if first_step is None:
            first_step = min(FIRST_STEP, num_steps // 4)
        super().__init__(weight=weight, first_step=first_step, every=every, share=share)
        self.critic = Critic(image_channels=image_channels, resolution=resolution, seed=seed)
        self.optimizer = torch.optim.AdamW(self.critic.parameters(), lr=learning_rate)

    @property
    def passes(self) -> dict[str, tuple[int, int]]:
        return {"critic": (3, 0), "decoder": (0, 1)}

    def __call__(self, batch: Autoencoded) -> Tensor:
        return -self.critic.requires_grad_(False)(batch.output).mean()

    def weighted(self, value: Tensor, batch: Autoencoded, reconstruction: Tensor) -> Tensor:
        assert batch.last_weight is not None
        gradients = [
            torch.autograd.grad(part, batch.last_weight, retain_graph=True)[0]
            for part in (reconstruction, batch.weight * value)
        ]
        add_up(gradients)
        of_reconstruction, of_this = (gradient.abs().mean() for gradient in gradients)
        factor = self.weight * (of_reconstruction / (of_this + 1e-4)).clamp(0, MOST)
        self.told = {"weight": factor}
        return factor * value

    def learn(self, batch: Autoencoded) -> dict[str, Tensor]:
        assert batch.decode is not None
        with torch.no_grad():
            reconstruction = batch.decode(batch.mean)
        loss = hinge(*scores(self.critic.requires_grad_(True), batch.image, reconstruction))
        weights = list(self.critic.parameters())
        gradients = torch.autograd.grad(batch.weight * loss, weights)
        add_up(gradients)
        for weight, gradient in zip(weights, gradients):
            weight.grad = gradient
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        self.optimizer.step()
        return {"critic": loss.detach()}

    def to(self, device: torch.device | str) -> "Adversarial":
        self.critic.to(device)
        self.optimizer.load_state_dict(self.optimizer.state_dict())  # which brings its moments to the weights' device
        return self

    def state_dict(self) -> dict[str, Any]:
        return {"critic": self.critic.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.critic.load_state_dict(state["critic"])
        self.optimizer.load_state_dict(state["optimizer"])

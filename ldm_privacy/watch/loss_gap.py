"""The denoising loss of members and of held-out samples, and the onset of the gap between them."""

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import Any

import torch
from pydantic import PositiveInt
from torch import Tensor

from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.device import explain_out_of_memory, lower_memory, passes
from ldm_privacy.diffusion import add_noise
from ldm_privacy.metrics.loss_gap import loss_gap_rise
from ldm_privacy.models.predictor import rows_per_pass
from ldm_privacy.processes import gather
from ldm_privacy.randomness import normal, uniform
from ldm_privacy.registry import WATCHERS
from ldm_privacy.targets.target import Target
from ldm_privacy.types import NoisePredictor
from ldm_privacy.watch.onset import Baseline, OnsetDetector
from ldm_privacy.watch.watcher import Every, Look, Moment, Watcher


@WATCHERS.register("loss_gap")
@dataclass(eq=False)
class LossGap(Watcher):
    """Mean denoising loss on members and on held-out samples; the gap's onset is counted from the untrained denoiser.

    The loss of a sample is the mean of (n - epsilon(z_t, t))^2 at `num_timesteps` stratified timesteps, with the same timesteps
    and noise at every look. A run whose untrained denoiser it has not seen gets no onset.

    Args:
        samples: Of this process.
        num_timesteps: Denoiser passes a sample and look.
        every: See `Watcher`.
        onset: The detector.
        seed: Of timesteps and noise.

    Attributes:
        heldout_loss: Mean over the held-out samples at the newest look.
    """

    samples: AuditedSamples
    _: KW_ONLY
    num_timesteps: PositiveInt = 4
    every: Every = Every(epochs=1)
    onset: OnsetDetector = field(default_factory=OnsetDetector)
    seed: int = 0
    heldout_loss: float = field(default=math.nan, init=False)
    _baseline: Baseline | None = field(default=None, init=False)

    def look(self, target: Target, moment: Moment) -> Look:
        """`num_timesteps` denoiser passes a sample."""
        latent, mine = self.samples.latent, [self.samples.sample_index, self.samples.is_member]
        at_once = max(1, rows_per_pass(target.predictor, latent) // self.num_timesteps)
        with explain_out_of_memory(lambda: f"while losses are looked at: {lower_memory(latent.device)}."):
            batches = (self.samples.rows(rows) for rows in passes(len(latent), at_once))
            mine.append(torch.cat([self.losses(target.predictor, batch) for batch in batches]).double())
        if self.samples.group is not None:
            mine.append(self.samples.group)
        columns = [torch.cat(shards) for shards in zip(*gather([column.cpu() for column in mine]))]
        index, is_member, loss, *groups = (column[columns[0].argsort()] for column in columns)
        members, self.heldout_loss = float(loss[is_member].mean()), float(loss[~is_member].mean())
        series = {
            "denoiser/loss_members": members,
            "denoiser/loss_heldout": self.heldout_loss,
            "denoiser/loss_gap": self.heldout_loss - members,
        }
        if moment.step == 0:
            self._baseline = Baseline(index, loss)
        elif self._baseline is not None:
            here, before = self._baseline.paired(index)
            group = groups[0][here] if groups else None
            paired = partial(loss_gap_rise, loss[here], before, is_member[here], group=group)
            rise = self.onset.look(self.time(moment), lambda confidence: paired(confidence=confidence))
            series |= rise.series("denoiser/loss_gap_")
        return Look(series, charts={f"loss/{name}": f"denoiser/loss_{name}" for name in ("gap", "heldout")})

    @torch.no_grad()
    def losses(self, predictor: NoisePredictor, batch: AuditedSamples) -> Tensor:
        """(batch,), on the device, where it stays: a copy would wait for it."""
        count, device = self.num_timesteps, batch.latent.device
        draw = torch.arange(count, device=device)[:, None]
        key = (self.seed, batch.sample_index, draw)
        position = (draw + uniform("loss-timestep", key, (), device)) / count
        timestep = (position * len(predictor.alphas_cumprod)).long().flatten()
        noise = normal("loss-noise", key, batch.latent.shape[1:], device).flatten(0, 1)
        latent = batch.latent.repeat(count, *[1] * (batch.latent.ndim - 1))
        condition = {name: value.repeat(count, *[1] * (value.ndim - 1)) for name, value in batch.condition.items()}
        noisy = add_noise(latent, noise, predictor.alphas_cumprod, timestep)
        error = (predictor(noisy, timestep, condition) - noise).square()
        return error.flatten(1).mean(1).reshape(count, -1).mean(0)

    def passes(self) -> dict[str, int]:
        return {"denoiser": self.num_timesteps * len(self.samples)}

    def sentences(self) -> list[str]:
        """When the gap opened, in words."""
        if self.onset.onset_epoch is not None:
            return [f"Onset of the loss gap: {self.unit} {self.onset.onset_epoch}."]
        if (rise := self.onset.rise) is None:
            return ["Onset of the loss gap: there was no look after the untrained denoiser's."]
        return [
            f"Onset of the loss gap: none. Its rise over the untrained denoiser was {rise.value:+.4f} at the last audit, "
            f"its lower bound {rise.lower:+.4f}."
        ]

    def summary(self) -> dict[str, Any]:
        return {"onset_epoch_loss_gap": self.onset.onset_epoch}

    def state_dict(self) -> dict[str, Any]:
        baseline = None if self._baseline is None else self._baseline.state()
        return {"onset": self.onset.state_dict(), "baseline": baseline, "heldout_loss": self.heldout_loss}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.onset.load_state_dict(state["onset"])
        self._baseline = None if state["baseline"] is None else Baseline(*state["baseline"])
        self.heldout_loss = state["heldout_loss"]

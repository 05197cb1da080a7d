"""Training in which every step is a pure function of (seed, global step): batch, flips, noise, dropout.

Nothing random has a state, so a run that stops anywhere goes on exactly as if it had not stopped, and the data live on the
device: no data loader, no copies, no waiting in the step.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypedDict

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from ldm_privacy.device import is_out_of_memory
from ldm_privacy.errors import UserError, reason_of
from ldm_privacy.processes import is_main, rank, share_of, total, world_size
from ldm_privacy.randomness import derive_seed

CompileMode = Literal["none", "default", "reduce-overhead"]
"""Modes of `torch.compile` for the network of a step; "reduce-overhead" replays CUDA graphs."""


class Steps(TypedDict, total=False):
    """How steps are made: the arguments of `StepwiseModule` that a module passes on."""

    batch_size: int
    learning_rate: float
    weight_decay: float
    seed: int
    warmup_steps: int
    compile_mode: CompileMode
    channels_last: bool


LOOK_EVERY_N_STEPS = 20
"""Steps between looks at the loss, at the clock and for a stop in all processes: a look waits for the device."""


class StepwiseModule(LightningModule):
    """A LightningModule over samples that it holds itself.

    Subclasses implement `loss(indices) -> dict` with an entry "loss"; every entry is averaged over the epoch's steps that have
    it. Nothing in a step waits for the device, except a look at the loss every `LOOK_EVERY_N_STEPS` steps.

    `compile_mode` and `channels_last` change speed and rounding (a compiled network also draws other dropout masks): names
    and shapes in checkpoints stay the same, so a run can go on with other settings of them. Only steps are compiled; audits
    and samples call the network as it is.

    Args:
        stage: "autoencoder" or "denoiser"; prefix of the series.
        num_samples: Samples per epoch.
        batch_size: Samples per step, over all processes; the last batch of an epoch may be smaller.
        learning_rate, weight_decay: Of AdamW (fused into one kernel on CUDA).
        seed: Of batches and all noise.
        warmup_steps: Steps of linear warm-up: step k, from 0, has learning_rate * min(1, (k + 1) / warmup_steps).
        compile_mode: `torch.compile` the arithmetic of a step. One graph per batch size, so two where the last batch of an
            epoch is smaller. UserError in the first step where this machine can't compile.
        channels_last: Lay convolution weights out with channels last, which tensor cores take without a copy.
    """

    def __init__(
        self,
        *,
        stage: str,
        num_samples: int,
        batch_size: int = 128,
        learning_rate: float = 2e-4,
        weight_decay: float = 1e-4,
        seed: int = 0,
        warmup_steps: int = 0,
        compile_mode: CompileMode = "none",
        channels_last: bool = False,
    ):
        super().__init__()
        self.stage, self.num_samples, self.batch_size, self.seed = stage, num_samples, batch_size, seed
        self.learning_rate, self.weight_decay, self.warmup_steps = learning_rate, weight_decay, warmup_steps
        self.compile_mode, self.channels_last = compile_mode, channels_last
        self.shown_loss: float | None = None
        self.epoch_means: dict[str, float] = {}
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._order: tuple[int, Tensor] | None = None
        self._share = slice(None)

    def loss(self, indices: Tensor) -> dict[str, Tensor]:
        """Mean losses over this process's share of a batch; "loss" is the one that is minimised.

        Args:
            indices: Places, 0 .. num_samples - 1, of the samples of the whole batch. Random numbers are drawn for all of
                them, so that they don't depend on the number of processes; `share` then picks out of both.
        """
        raise TypeError(f"{type(self).__name__} must implement loss()")

    def train_dataloader(self) -> range:
        return range(-(-self.num_samples // self.batch_size))  # no state: the global step says it all

    def configure_optimizers(self) -> torch.optim.Optimizer:
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        rate = self.learning_rate / max(self.warmup_steps, 1)
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=self.weight_decay, fused=self._is_fused)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        # By norm, and here: in every reduced precision Lightning refuses to clip for a fused optimizer, though only a loss
        # scaler could leave it gradients that are not unscaled yet.
        if gradient_clip_val:
            torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)

    @property
    def _is_fused(self) -> bool | None:
        # A loss scaler leaves unscaling to a fused optimizer, and gradients are clipped before that.
        return True if self.device.type == "cuda" and self.trainer.precision != "16-mixed" else None

    def lay_out(self, network: nn.Module, *, channels_last: bool | None = None) -> None:
        """Bring the convolution weights of `network`, a base below it too, into the memory format asked for."""
        last = self.channels_last if channels_last is None else channels_last
        layout = torch.channels_last if last else torch.contiguous_format
        network._apply(lambda each: each.contiguous(memory_format=layout) if each.ndim == 4 else each)

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function` as `compile_mode` asks; networks go in as arguments, so their weights keep their names."""
        if self.compile_mode == "none":
            return function
        # Static shapes: there are two at most, and kernels for a batch size that is known are faster.
        return torch.compile(function, mode=self.compile_mode, dynamic=False)

    def batch_indices(self, epoch: int, step: int) -> Tensor:
        """Places of the samples of one step: a permutation drawn from (seed, stage, epoch)."""
        if self._order is None or self._order[0] != epoch:
            generator = torch.Generator().manual_seed(derive_seed(f"{self.stage}-order", self.seed, epoch))
            self._order = (epoch, torch.randperm(self.num_samples, generator=generator).to(self.device))
        return self._order[1][step * self.batch_size : (step + 1) * self.batch_size]

    def share(self, whole: Tensor) -> Tensor:
        """The rows of this process's samples, of a tensor with a row for each sample of the step's batch."""
        return whole[self._share]

    def draw_apart(self) -> None:
        """From here on the step's random numbers (dropout) differ between processes; the main one's are those of a single."""
        if rank():
            torch.manual_seed(derive_seed(f"{self.stage}-step-apart", torch.initial_seed(), rank()))

    def on_train_start(self) -> None:
        # A checkpoint may hold moments in another memory format than the weights have now; fused kernels want one format.
        for optimizer in self.trainer.optimizers:
            for parameter, state in optimizer.state.items():
                for name, value in state.items():
                    if value.shape == parameter.shape and value.stride() != parameter.stride():
                        state[name] = torch.empty_like(parameter).copy_(value)

    def on_train_epoch_start(self) -> None:
        self._sums, self._counts = {}, {}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        sums = {name: total(value) for name, value in self._sums.items()}
        checkpoint["epoch_sums"] = {"sums": sums, "counts": self._counts}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # The sums over all processes, once: they are added up again at the end of the epoch.
        sums = checkpoint["epoch_sums"]["sums"].items()
        self._sums = {name: value.to(self.device) * is_main() for name, value in sums}
        self._counts = dict(checkpoint["epoch_sums"]["counts"])
        for optimizer in checkpoint["optimizer_states"]:
            for group in optimizer["param_groups"]:
                group["fused"] = self._is_fused  # of this device, not of the one that the run began on

    def memory_advice(self) -> str:
        """Where memory ran out and what to lower, after "out of memory "."""
        return f"in a step of the {self.stage}: lower {self.stage}.batch_size (now {self.batch_size})."

    def on_train_batch_start(self, batch: int, batch_idx: int) -> None:
        for optimizer in self.trainer.optimizers:
            optimizer.zero_grad()  # before the forward pass, so that it finds the gradients' memory free
            if 0 < self.global_step < self.warmup_steps:
                for group in optimizer.param_groups:  # by a factor, so that a rate that was lowered since stays lowered
                    group["lr"] *= (self.global_step + 1) / self.global_step

    def training_step(self, step: int, batch_idx: int) -> Tensor:
        # batch_idx, not the loader's number: after a resume in mid-epoch the loader counts from 0 again.
        torch.manual_seed(derive_seed(f"{self.stage}-step", self.seed, self.current_epoch, batch_idx))
        indices = self.batch_indices(self.current_epoch, batch_idx)
        mine = share_of(len(indices))
        num_mine = mine.stop - mine.start
        # Where a batch has fewer samples than there are processes, some compute one that counts for nothing.
        self._share = mine if num_mine else slice(0, 1)
        weight = num_mine / len(indices)
        losses = self._losses(indices)
        self.note(losses, weight)
        # The gradients are averaged over the processes, but the loss of the batch is the sum of their weighted parts.
        return world_size() * weight * losses["loss"]

    def note(self, values: Mapping[str, Tensor], weight: float) -> None:
        """Count a step's values in the means of the epoch, which are over the steps that have them.

        `weight`: of this process's, so that all processes' add up to 1.
        """
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0) + weight * value.detach()
            self._counts[name] = self._counts.get(name, 0) + 1

    def _losses(self, indices: Tensor) -> dict[str, Tensor]:
        if self.compile_mode == "none":
            return self.loss(indices)
        torch.compiler.cudagraph_mark_step_begin()
        try:
            losses = self.loss(indices)
        except RuntimeError as error:
            if not isinstance(error, torch._dynamo.exc.TorchDynamoException) or is_out_of_memory(error):
                raise
            reason = reason_of(getattr(error, "inner_exception", error))
            raise UserError(f"trainer.compile: torch.compile fails here ({reason}). Use trainer.compile=none.") from error
        # What a CUDA graph returns is overwritten by its next replay; the epoch's sums live longer.
        return {name: value.clone() for name, value in losses.items()}

    def on_train_batch_end(self, outputs: Any, batch: int, batch_idx: int) -> None:
        # Not through self.log: Lightning reads what the bar shows after every step, and reading waits for the device.
        if batch_idx % LOOK_EVERY_N_STEPS == 0:
            self.shown_loss = float(outputs["loss"])

    def on_train_epoch_end(self) -> None:
        means = {name: float(total(value)) / self._counts[name] for name, value in self._sums.items()}
        self.epoch_means = {f"{self.stage}/train_{name}": value for name, value in means.items()}
        log_series(self.trainer, self.stage, self.current_epoch + 1, self.epoch_means)


def log_series(trainer: Trainer, stage: str, epoch: int, series: dict[str, float]) -> None:
    """Write series to every logger; `epoch` counts finished epochs of `stage`, 0 = before the first step."""
    axis = "epoch" if stage == "denoiser" else f"{stage}/epoch"
    for logger in trainer.loggers:
        logger.log_metrics({**series, axis: epoch}, step=trainer.global_step)

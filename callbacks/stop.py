"""A limit on memorization."""

from collections.abc import Callable
from dataclasses import KW_ONLY, asdict, dataclass, field
from typing import Any, Literal, cast

from lightning.pytorch import Callback, LightningModule, Trainer

from ldm_privacy.errors import UserError
from ldm_privacy.processes import is_main
from ldm_privacy.training.denoiser import DenoiserModule
from ldm_privacy.training.stepwise import log_series
from ldm_privacy.watch.memorization import Memorization

SMALLEST_RATE = 1e-4
"""The learning rate is never lowered below this share of what the config says."""


@dataclass(eq=False, repr=False)
class StopOnMemorization(Callback):
    """Acts at every audit in which the AUROC of what the verdict rests on (`Memorization.judged`) is above a limit.

    With `bound` "upper" an audit passes only where the whole interval lies at or below the limit, so the limit holds with
    the interval's confidence at each single audit; with "lower" the training goes on until the excess itself is certain.

    Args:
        limit: In (0.5, 1). UserError (in the audit of the untrained denoiser) where it is exceeded already.
        bound: The number of the AUROC's interval that is held against the limit.
        action: "stop" ends the training after this audit; "lower_learning_rate" multiplies the optimizer's rate by `factor`.
        factor: In (0, 1).
        audits: The watcher, looked with before this callback is called.
        heldout_loss: Gives the mean denoising loss of the held-out samples at its newest look.
        say: Prints a line.
    """

    limit: float
    _: KW_ONLY
    bound: Literal["upper", "value", "lower"]
    action: Literal["stop", "lower_learning_rate"]
    factor: float
    audits: Memorization
    heldout_loss: Callable[[], float]
    say: Callable[[str], None]
    best: dict[str, float] | None = field(default=None, init=False)
    """The audit at or under the limit with the lowest held-out loss: loss, epoch, and lower, value, upper of the AUROC."""
    stopped: dict[str, float] | None = field(default=None, init=False)
    """The audit that ended the training: epoch, and lower, value, upper of the AUROC."""
    _is_best: bool = field(default=False, init=False)

    def is_best_under_limit(self) -> bool:
        """Whether the newest audit is at or under the limit, with a lower held-out loss than all such before it."""
        return self._is_best

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A run that was stopped stays so until its limit is changed.
        if self.stopped is not None and self.action == "stop" and self.stopped[self.bound] > self.limit:
            trainer.should_stop = True
        else:
            self.stopped = None
        if self.best is not None and self.best[self.bound] > self.limit:
            self.best = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._judge(trainer, pl_module, 0)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._judge(trainer, pl_module, trainer.current_epoch + 1)

    def _judge(self, trainer: Trainer, pl_module: LightningModule, epoch: int) -> None:
        news, moment = self.audits.news, self.audits.last
        if news is None or moment is None or moment.epoch != epoch:
            return
        numbers = asdict(news.auroc)
        is_above = numbers[self.bound] > self.limit
        loss = self.heldout_loss()
        self._is_best = not is_above and (self.best is None or loss < self.best["loss"])
        if self._is_best:
            self.best = {"loss": loss, "epoch": epoch, **numbers}
        if is_above and epoch == 0:
            raise UserError(self._already_above(numbers[self.bound], news.num_reported))
        if is_above and self.action == "stop":
            self.stopped = {"epoch": epoch, **numbers}
            trainer.should_stop = True
        elif self.action == "lower_learning_rate":
            before = _rate(trainer)
            if is_above:
                smallest = SMALLEST_RATE * cast(DenoiserModule, pl_module).learning_rate
                for optimizer in trainer.optimizers:
                    for group in optimizer.param_groups:
                        group["lr"] = max(self.factor * group["lr"], min(smallest, group["lr"]))
                self.say(
                    f"epoch {epoch}: {self._words} {numbers[self.bound]:.3f} is above audit.stop.limit {self.limit:g}; "
                    f"learning rate {before:.3g} -> {_rate(trainer):.3g}"
                )
            if is_main():
                log_series(trainer, "denoiser", epoch, {"denoiser/learning_rate": _rate(trainer)})

    def sentence(self) -> str | None:
        """Why the training ended and which checkpoint lies under the limit; None where it wasn't stopped."""
        if self.stopped is None:
            return None
        kept = ""
        if self.best is not None:
            checkpoint = f"checkpoints/under-limit.ckpt (epoch {int(self.best['epoch'])})"
            kept = f" {checkpoint} has the lowest held-out loss under the limit."
        return (
            f"Stopped after epoch {int(self.stopped['epoch'])}: {self._words} {self.stopped[self.bound]:.3f} is above "
            f"audit.stop.limit {self.limit:g}; going on needs another limit.{kept}"
        )

    @property
    def _words(self) -> str:
        name = {"upper": "the upper bound of the AUROC", "value": "the AUROC", "lower": "the lower bound of the AUROC"}
        return f"{name[self.bound]} ({self.audits.judged})"

    def _already_above(self, number: float, num_samples: int) -> str:
        found = f"for the untrained denoiser {self._words} is {number:.3f}"
        if self.bound == "upper":
            what = f"is below what {num_samples} reported samples can show: {found}. Audit more samples"
        else:
            why = "by sampling error or through the autoencoder. Audit more samples, train the autoencoder on other images,"
            what = f"is exceeded before the training: {found}, {why}"
        return f"audit.stop.limit: {self.limit:g} {what} or raise audit.stop.limit."

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "stopped": self.stopped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.stopped = state_dict["best"], state_dict["stopped"]


def _rate(trainer: Trainer) -> float:
    return float(trainer.optimizers[0].param_groups[0]["lr"])

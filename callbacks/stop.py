"""The gate in training: what is done at an audit that it doesn't let pass."""

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, asdict, dataclass, field
from typing import Any, Literal, cast

from lightning.pytorch import Callback, LightningModule, Trainer

from ldm_privacy.errors import UserError
from ldm_privacy.evidence.gate import Gate, Ruling
from ldm_privacy.evidence.limits.limit import Decision, Found, Judgement, reaches
from ldm_privacy.processes import is_main, on_main
from ldm_privacy.training.denoiser import DenoiserModule
from ldm_privacy.training.stepwise import log_series
from ldm_privacy.types import Estimate
from ldm_privacy.watch.memorization import Memorization
from ldm_privacy.watch.watcher import Watcher, results_of

SMALLEST_RATE = 1e-4
"""The learning rate is never lowered below this share of what the config says."""


@dataclass(eq=False, repr=False)
class StopOnMemorization(Callback):
    """Acts at every audit of which the gate says `at`, or worse.

    With `at` "undecided" an audit passes only where every upper bound is at most its limit, so each limit holds with the
    interval's confidence at each single audit; with "fail" the training goes on until an estimate reaches its limit.

    Args:
        gate: The limits. UserError (in the audit of the untrained denoiser) where one is reached already.
        at: The decision that is acted upon. A limit of which nothing was measured at that audit is not.
        action: "stop" ends the training after this audit; "lower_learning_rate" multiplies the optimizer's rate by `factor`.
        factor: In (0, 1).
        watched: The watchers, looked with before this callback is called; the audits under "memorization".
        heldout_loss: Gives the mean denoising loss of the held-out samples at its newest look.
        say: Prints a line.
    """

    gate: Gate
    _: KW_ONLY
    at: Decision
    action: Literal["stop", "lower_learning_rate"]
    factor: float
    watched: Mapping[str, Watcher]
    heldout_loss: Callable[[], float]
    say: Callable[[str], None]
    best: dict[str, Any] | None = field(default=None, init=False)
    """Of the audits that weren't acted upon the one with the lowest held-out loss: loss, epoch, what was found by limit."""
    stopped: dict[str, Any] | None = field(default=None, init=False)
    """The audit that ended the training: epoch, what was found by limit, the sentence."""
    _is_best: bool = field(default=False, init=False)

    @property
    def audits(self) -> Memorization:
        """The audits' watcher."""
        return cast(Memorization, self.watched["memorization"])

    def is_best_under_limit(self) -> bool:
        """Whether the newest audit wasn't acted upon, with a lower held-out loss than all such before it."""
        return self._is_best

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A run that was stopped stays so until its gate is changed.
        if self.stopped is not None and self.action == "stop" and self._acting(self.stopped["found"]):
            trainer.should_stop = True
        else:
            self.stopped = None
        if self.best is not None and self._acting(self.best["found"]):
            self.best = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._judge(trainer, pl_module, 0)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._judge(trainer, pl_module, trainer.current_epoch + 1)

    def _judge(self, trainer: Trainer, pl_module: LightningModule, epoch: int) -> None:
        if self.audits.last is None or self.audits.last.epoch != epoch:
            return
        if (ruling := on_main(self._rule)) is None:
            return
        read = [each for each in ruling.judgements if each.worst is not None]
        found = {each.limit: asdict(each.worst.estimate) for each in read if each.worst is not None}
        acting, loss = self._acting(found), self.heldout_loss()
        reason = next((each for each in read if each.limit in acting), None)
        self._is_best = reason is None and (self.best is None or loss < self.best["loss"])
        if self._is_best:
            self.best = {"loss": loss, "epoch": epoch, "found": found}
        if reason is not None and epoch == 0:
            raise UserError(_already_reached(reason))
        if reason is not None and self.action == "stop":
            self.stopped = {"epoch": epoch, "found": found, "sentence": reason.sentence}
            trainer.should_stop = True
        elif self.action == "lower_learning_rate":
            before = _rate(trainer)
            if reason is not None:
                smallest = SMALLEST_RATE * cast(DenoiserModule, pl_module).learning_rate
                for optimizer in trainer.optimizers:
                    for group in optimizer.param_groups:
                        group["lr"] = max(self.factor * group["lr"], min(smallest, group["lr"]))
                self.say(f"epoch {epoch}: gate {reason.sentence} Learning rate {before:.3g} -> {_rate(trainer):.3g}.")
            if is_main():
                log_series(trainer, "denoiser", epoch, {"denoiser/learning_rate": _rate(trainer)})

    def _rule(self) -> Ruling | None:
        """The main process's part; None where the newest audit was before a resume, and is judged already."""
        if (report := self.audits.report) is None or self.audits.last is None:
            return None
        return self.gate.rule(Found(report, self.audits.key, results_of(self.watched, self.audits.last.step)))

    def _acting(self, found: Mapping[str, Mapping[str, float]]) -> list[str]:
        """The limits, by name, that what was found reaches far enough for an action."""
        return [
            limit.name
            for limit in self.gate.limits
            if limit.name in found and reaches(limit.decide(Estimate(**found[limit.name])), self.at)
        ]

    def sentence(self) -> str | None:
        """Why the training ended and which checkpoint the gate lets pass; None where it wasn't stopped."""
        if self.stopped is None:
            return None
        kept = ""
        if self.best is not None:
            checkpoint = f"checkpoints/under-limit.ckpt (epoch {self.best['epoch']})"
            kept = f" {checkpoint} has the lowest held-out loss of those at which it didn't."
        return (
            f"Stopped after epoch {self.stopped['epoch']}, by the gate: {self.stopped['sentence']} Going on needs another "
            f"gate.{kept}"
        )

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "stopped": self.stopped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.stopped = state_dict["best"], state_dict["stopped"]


def _already_reached(reason: Judgement) -> str:
    """What is said of a limit that the untrained denoiser reaches."""
    assert reason.worst is not None
    found = f"for the untrained denoiser the {reason.quantity} of {reason.worst.of} is {reason.worst.estimate}"
    if reason.decision == "undecided":
        return f"{reason.limit}: {reason.most:g} is below what so few samples can show: {found}. Audit more, or raise it."
    why = (
        "by sampling error or through the autoencoder. Audit more samples, train the autoencoder on other images, or raise it."
    )
    return f"{reason.limit}: {reason.most:g} is reached before the training: {found}, {why}"


def _rate(trainer: Trainer) -> float:
    return float(trainer.optimizers[0].param_groups[0]["lr"])

"""Watchers in a Lightning trainer, of this program or of anyone's."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging

from ldm_privacy.processes import gather, is_main
from ldm_privacy.runs.looks import log_look
from ldm_privacy.targets.target import Target, target_of
from ldm_privacy.watch.undisturbed import undisturbed
from ldm_privacy.watch.watcher import Look, Moment, Watcher, look_with

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure


class Watch(Callback):
    """Lets watchers look at the model before the first step, at their cadences, and at the end.

    A look happens in a loop of its own, with averaged weights where the trainer averages them (`WeightAveraging`), in
    evaluation mode; afterwards weights, modes, gradients and random states are what they were, so a training ends with the same
    weights to the last bit with and without it. Of several processes each looks at its share. What the watchers remember is
    stored in checkpoints, so a resumed training goes on with the same curves.

    Args:
        watchers: By label, or in a list (labels are then their places).
        target: The module -> what is looked at: `lambda module: Target(codec, NetworkPredictor(module.unet, alphas_cumprod))`.
            Called at every look. UserError where it returns something else, or its network does not take the audited latents.
        say: Prints a line; None: nothing is printed.
        show: (name, picture, epoch) -> shown to the user, in the main process; None: pictures are left out.
        then: Called in the main process with the looks, by label, and their moment, once they are logged.
    """

    def __init__(
        self,
        watchers: Mapping[str, Watcher] | Sequence[Watcher],
        target: Callable[[Any], Target],
        *,
        say: Callable[[str], None] | None = None,
        show: "Callable[[str, np.ndarray | Figure, int], None] | None" = None,
        then: Callable[[Mapping[str, Look], Moment], None] = lambda looks, moment: None,
    ):
        if not isinstance(watchers, Mapping):
            watchers = {f"{place}_{type(each).__name__}": each for place, each in enumerate(watchers)}
        self.watchers, self.target, self.say, self.show, self.then = dict(watchers), target, say, show, then

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # An average that is updated after a look would be one step behind it.
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        averages = [place for place, each in enumerate(callbacks) if isinstance(each, WeightAveraging)]
        if averages and (mine := callbacks.index(self)) < averages[-1]:
            rest = callbacks[:mine] + callbacks[mine + 1 :]
            trainer.callbacks = [*rest[: averages[-1]], self, *rest[averages[-1] :]]  # type: ignore[attr-defined]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step == 0:
            self._look(trainer, pl_module, Moment(0, 0))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        part = (batch_idx + 1) / (trainer.num_training_batches + 1)
        self._look(trainer, pl_module, Moment(trainer.current_epoch, trainer.global_step, is_epoch_end=False), part)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        ends = epoch == trainer.max_epochs or trainer.should_stop or 0 < trainer.max_steps <= trainer.global_step
        self._look(trainer, pl_module, Moment(epoch, trainer.global_step, is_last=ends))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A callback after this one may have ended the training.
        self._look(trainer, pl_module, Moment(trainer.current_epoch, trainer.global_step, is_last=True))

    def _look(self, trainer: Trainer, module: LightningModule, moment: Moment, part: float = 0.0) -> None:
        """Look, where a watcher is due; `part`: how far the epoch is that is under way, below 1."""
        if not any(watcher.due(moment) for watcher in self.watchers.values()):
            return
        with _averaged(trainer, module), undisturbed(module):
            looks = look_with(self.watchers, target_of(self.target, module), moment, module.device)
        gather(None)  # the others wait here for looks of the main one alone, not in a step of theirs that would time out
        if not is_main():
            return
        series = {name: value for look in looks.values() for name, value in look.series.items()}
        charts = {chart: name for look in looks.values() for chart, name in look.shown().items()}
        if series:
            log_look(trainer.loggers, series, charts, epoch=moment.epoch + part, step=moment.step)
        for look in looks.values():
            for line in look.lines if self.say is not None else ():
                self.say(line)  # type: ignore[misc]
            for name, picture in look.pictures.items() if self.show is not None else ():
                self.show(name, picture, moment.epoch)  # type: ignore[misc]
        self.then(looks, moment)

    def state_dict(self) -> dict[str, Any]:
        return {label: watcher.full_state() for label, watcher in self.watchers.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for label, watcher in self.watchers.items():
            if label in state_dict:
                watcher.load_full_state(state_dict[label])


@contextmanager
def _averaged(trainer: Trainer, module: LightningModule) -> Iterator[None]:
    """The trainer's averaged weights in the module, where it averages them and has begun to."""
    averages = [each for each in trainer.callbacks if isinstance(each, WeightAveraging)]  # type: ignore[attr-defined]
    swapped = [each for each in averages if each._average_model is not None and int(each._average_model.n_averaged)]
    with ExitStack() as back:
        for each in swapped:
            each._swap_models(module)
            back.callback(each._swap_models, module)
        yield

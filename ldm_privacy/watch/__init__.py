"""What is looked at while a model trains: watchers know nothing of the trainer that calls them."""

from ldm_privacy.watch.generations import Generations
from ldm_privacy.watch.loss_gap import LossGap
from ldm_privacy.watch.memorization import Memorization
from ldm_privacy.watch.onset import OnsetDetector
from ldm_privacy.watch.samples import Samples
from ldm_privacy.watch.watcher import Every, Look, Moment, Watcher

__all__ = ["Every", "Generations", "Look", "LossGap", "Memorization", "Moment", "OnsetDetector", "Samples", "Watcher"]

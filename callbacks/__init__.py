"""Lightning callbacks: they take tensors from hooks, call one library object and log what comes back."""

from ldm_privacy.callbacks.checkpoints import Interrupted, RunCheckpoint
from ldm_privacy.callbacks.ema import AveragedWeights
from ldm_privacy.callbacks.nonfinite import StopOnNonFiniteLoss
from ldm_privacy.callbacks.progress import ProgressBar
from ldm_privacy.callbacks.stop import StopOnMemorization
from ldm_privacy.callbacks.watch import Watch

__all__ = ["AveragedWeights", "Interrupted", "ProgressBar", "RunCheckpoint", "StopOnMemorization", "StopOnNonFiniteLoss"]
__all__ += ["Watch"]

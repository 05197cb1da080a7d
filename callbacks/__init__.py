"""Lightning callbacks: they take tensors from hooks, call one library object and log what comes back.

`runner.py` and the two `*_stage.py` put them together, for `train.py`.
"""

from callbacks.audit import MemorizationAudit
from callbacks.checkpoints import Interrupted, RunCheckpoint
from callbacks.ema import AveragedWeights
from callbacks.generations import MemorizedGenerations
from callbacks.images import AuditFigures
from callbacks.loss_gap import LossGap
from callbacks.nonfinite import StopOnNonFiniteLoss
from callbacks.progress import ProgressBar
from callbacks.stop import StopOnMemorization

__all__ = [
    "AuditFigures",
    "AveragedWeights",
    "Interrupted",
    "LossGap",
    "MemorizationAudit",
    "MemorizedGenerations",
    "ProgressBar",
    "RunCheckpoint",
    "StopOnMemorization",
    "StopOnNonFiniteLoss",
]

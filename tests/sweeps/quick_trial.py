"""A trial of no time: python -m tests.sweeps.quick_trial FOLDER CELL SEED WORKER. Of the cell "long" it waits to be stopped."""

import signal
import sys
from pathlib import Path

from ldm_privacy.errors import UserError
from ldm_privacy.sweeps.trial import run_trial


def train(trial):
    if trial.cell == "wrong":
        raise UserError("data.num_members: 5000 is too many")
    if trial.cell == "long":
        print("waiting", flush=True)
        signal.pause()
    return {"auroc": 0.5}


if __name__ == "__main__":
    sys.exit(run_trial(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), train))

"""A trial of no time: python -m tests.sweeps.quick_trial FOLDER CELL SEED WORKER."""

import sys
from pathlib import Path

from ldm_privacy.sweeps.trial import run_trial

if __name__ == "__main__":
    sys.exit(run_trial(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), lambda trial: {"auroc": 0.5}))

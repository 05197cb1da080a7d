"""W&B's table, as terminal viewers can bear it."""

from typing import Any

import wandb


class Table(wandb.Table):
    """Without its counts of rows and columns in the history: `wandb leet` draws them as two curves."""

    def to_json(self, run_or_artifact: Any) -> dict[str, Any]:
        return {name: value for name, value in super().to_json(run_or_artifact).items() if name not in ("nrows", "ncols")}

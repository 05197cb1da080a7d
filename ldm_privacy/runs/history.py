"""Scores of the primary attack at every audit: how early the images that end up exposed were already ranked first."""

import logging
import os
from pathlib import Path

from torch import Tensor

from ldm_privacy.errors import reason_of
from ldm_privacy.evidence.exposure import EarlierScores
from ldm_privacy.types import AuditKey

log = logging.getLogger("ldm_privacy")


class ScoreHistory:
    """A parquet file per audit, named by its epoch: sample_index and score of every audited sample.

    Args:
        folder: Made at the first write.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def write(self, epoch: int, key: AuditKey, sample_index: Tensor, score: Tensor) -> None:
        """Store the scores of an audit, whole or not at all; an audit repeated after a resume replaces its file."""
        import pandas as pd

        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f"{epoch}.tmp"
        frame = pd.DataFrame({"sample_index": sample_index.numpy(), "score": score.double().numpy(), "key": str(key)})
        frame.to_parquet(temporary, index=False)
        os.replace(temporary, self.folder / f"epoch-{epoch}.parquet")

    def cut_back(self, epoch: int) -> None:
        """Delete the scores of audits after `epoch`: a resumed run may look at other epochs, or be stopped before them."""
        for path in self.folder.glob("*.*"):
            number = path.stem.removeprefix("epoch-")
            if number.isdigit() and int(number) > epoch:
                path.unlink()

    def read(self, key: AuditKey, *, until: int) -> dict[int, EarlierScores]:
        """Epoch -> scores under that attack and mask, up to and with that epoch; a damaged file is left out, with a warning."""
        import pandas as pd
        import torch

        found = {}
        for path in self.folder.glob("epoch-*.parquet"):
            number = path.stem.removeprefix("epoch-")
            if not number.isdigit() or int(number) > until:
                continue
            try:
                frame = pd.read_parquet(path, columns=["sample_index", "score", "key"])
            except (OSError, ValueError) as error:
                log.warning("%s can't be read (%s): that epoch is left out.", path, reason_of(error))
                continue
            if (frame["key"] == str(key)).all():
                index, score = (torch.tensor(frame[name].to_numpy()) for name in ("sample_index", "score"))
                found[int(number)] = EarlierScores(index, score)
        return dict(sorted(found.items()))

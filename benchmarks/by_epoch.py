"""A run's audits side by side, as in docs/results/cifar10.md: AUROC, what the mask gains, AUROC by quartile of distortion.

python benchmarks/by_epoch.py runs/cifar10_2000        # a run that evaluate.py has measured the distortion of

AUROC and gains are what the run logged; the quartiles come from its stored scores and the distortion stored since.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from ldm_privacy.audit.samples import is_calibration
from ldm_privacy.config import compose_stored
from ldm_privacy.data.split import Split
from ldm_privacy.metrics import auroc_by_quartile
from ldm_privacy.recipes.run_setup import RunSetup
from ldm_privacy.recipes.terminal import progress
from ldm_privacy.runs.folder import RunFolder
from ldm_privacy.runs.history import ScoreHistory
from ldm_privacy.runs.series import SeriesFile
from ldm_privacy.types import AuditKey, Estimate

KEY = AuditKey("sima", "all")
RIVALS = ("all", "random60", "std60")


def stored(folder: Path, quantity: str) -> tuple[Tensor, Tensor]:
    """Sample indices and the quantity, where it was measured, from the file of the store that has most."""
    files = [load_file(path) for path in folder.glob("*.safetensors")]
    file = max((file for file in files if quantity in file), key=lambda file: int(file[quantity].isfinite().sum()))
    rows = file[quantity].isfinite().reshape(len(file["sample_index"]), -1).all(1)
    return file["sample_index"][rows], file[quantity][rows]


def main() -> None:
    run = RunFolder(Path(sys.argv[1]))
    series, split = SeriesFile(run.metrics).read("denoiser"), Split.load(run.split)
    measured, distortion = stored(run.store, "distortion")

    def logged(epoch: int, name: str, *, signed: bool = False) -> str:
        value, lower, upper = (series[epoch, f"memorization/{name}{end}"] for end in ("", "_lower", "_upper"))
        return f"{value:{'+' if signed else ''}.3f} [{lower:.3f}, {upper:.3f}]"

    def of_quartile(estimate: Estimate) -> str:
        return f"{estimate.value:.3f} [{estimate.lower:.2f}, {estimate.upper:.2f}]"

    columns = ["epoch", "SimA", *(f"top60 over {rival}" for rival in RIVALS), *(f"quartile {number}" for number in range(1, 5))]
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    setup = RunSetup(compose_stored(run.config.read_text()).config, progress, split=split)
    for epoch, kept in ScoreHistory(run.scores, setup.provenance).read(keys=[KEY]).items():
        index = kept.sample_index
        chosen = ~is_calibration(index) & torch.isin(index, measured)
        index = index[chosen]
        value = distortion[torch.searchsorted(measured, index)]
        quartiles = auroc_by_quartile(kept.standing[KEY][chosen][None], split.is_member(index), value)
        gains = [logged(epoch, f"sima/top60/gain_over_{rival}", signed=True) for rival in RIVALS]
        auroc = logged(epoch, f"{KEY}/auroc")
        print("| " + " | ".join([str(epoch), auroc, *gains, *(of_quartile(each) for each in quartiles.auroc[0])]) + " |")
    by_channel = stored(run.store, "influence")[1].mean((0, 2, 3)).tolist()
    print(f"\nmean influence by channel: {', '.join(f'{value:.2f}' for value in by_channel)}")


if __name__ == "__main__":
    main()

"""What complexity and history add to an attack, and whether the mask matters for them: from the scores that runs have kept.

    python -m benchmarks.calibrated runs/small-0 runs/small-1 runs/small-2 [--attack sima] [--masks all top60 random60 std60]

Runs of one config and different seeds. The calibrated scores of all audits are made anew from `scores/`, under every mask, each
half fitted for the other. Tables in Markdown: AUROC and TPR@1%FPR by audit (mean over the runs, in brackets each of them), then
how much of the score is difficulty that something else knows, and what the mask gains at each audit under each calibration,
paired. No denoiser passes.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.progress import track
from torch import Tensor

from ldm_privacy.audit.calibrate import MOST_EARLIER, derivations, level, with_calibrated
from ldm_privacy.audit.kept import KeptScores, spread_over
from ldm_privacy.audit.report import AuditReport, report_of
from ldm_privacy.audit.samples import is_calibration
from ldm_privacy.audit.scores import AuditScores
from ldm_privacy.config import compose_stored
from ldm_privacy.data.complexity import image_complexity
from ldm_privacy.metrics import crossfit_difference
from ldm_privacy.recipes.run_setup import RunSetup
from ldm_privacy.runs.folder import RunFolder
from ldm_privacy.runs.history import ScoreHistory
from ldm_privacy.targets.record import Checkpoint
from ldm_privacy.types import AuditKey, Intervals, no_progress

FORMS = ("", "_complexity", "_history", "_calibrated")


def reports_of(folder: Path, attack: str, masks: Sequence[str]) -> tuple[dict[int, AuditReport], Tensor]:
    """Epoch -> the report of that attack under those masks, plain, with each calibration, and combined; complexities."""
    run = RunFolder(folder)
    checkpoint = Checkpoint.read(run.last)
    setup = RunSetup(compose_stored(checkpoint.config, []).config, no_progress, split=checkpoint.split)
    kept = ScoreHistory(run.scores, setup.provenance).read()
    index, keys = setup.audited_index, [AuditKey(attack, mask) for mask in masks]
    complexity = image_complexity(setup.data.images(index))
    halves = is_calibration(index, group=setup.data.groups(index))
    scales = {name: each.log_scale for name, each in setup.attacks.items()}
    found: dict[int, AuditReport] = {}
    for epoch in track(kept, f"Audits of {folder}", transient=True):
        scores = {key: each.expand(2, *each.shape[1:]).double() for key, each in kept[epoch].scores.items()}
        data = AuditScores(
            index,
            setup.audited_members,
            halves,
            setup.data.groups(index),
            kept[epoch].timesteps,
            scores,
            {key: setup.masks[key.mask].keep_fraction for key in scores},
        )
        full = with_calibrated(data, derivations(setup.calibrations, keys), scales, complexity, earlier(kept, epoch))
        wanted = {key: each for key, each in full.scores.items() if key in keys or key in full.derived}
        found[epoch] = report_of(
            AuditScores(**{**vars(full), "scores": wanted}), intervals=Intervals(num_bootstrap=200), target_fprs=(0.01,)
        )
    return found, complexity


def earlier(kept: Mapping[int, KeptScores], epoch: int) -> dict[int, KeptScores]:
    """What a calibration looks back at."""
    return {time: kept[time] for time in spread_over([each for each in kept if each < epoch], MOST_EARLIER)}


def shown(values: Sequence[float], sign: str = "") -> str:
    """Mean, and in brackets each."""
    each = " ".join(f"{value:{sign}.3f}".replace("0.", ".", 1) for value in values)
    return f"{np.mean(values):{sign}.3f}".replace("0.", ".", 1) + (f" ({each})" if len(values) > 1 else "")


def by_audit(runs: Sequence[Mapping[int, AuditReport]], attack: str, mask: str) -> None:
    """A row per audit; AUROC and TPR of each form."""
    labels = [f"{attack}{form}" for form in FORMS] + ["combined"]
    for name in ("AUROC", "TPR at 1 % FPR"):
        print(f"\n{name}, mask {mask}\n\n| epoch | {' | '.join(labels)} |\n|{'---|' * (len(labels) + 1)}")
        for epoch in runs[0]:
            cells = []
            for label in labels:
                metrics = [run[epoch].row(AuditKey(label, mask)).metrics for run in runs]
                cells.append(shown([each.auroc.value if name == "AUROC" else each.tpr_at_1fpr.value for each in metrics]))
            print(f"| {epoch} | {' | '.join(cells)} |")


def by_mask(runs: Sequence[Mapping[int, AuditReport]], attack: str, masks: Sequence[str]) -> None:
    """A row per audit, form and rival: what the first mask but the unmasked one gains."""
    claim, rivals = masks[1], [masks[0], *masks[2:]]
    print(f"\nAUROC gained by {claim}: mean over the runs, in brackets each; * = its 95 % interval leaves out 0\n")
    print(f"| epoch | score | {' | '.join(f'over {rival}' for rival in rivals)} |\n|{'---|' * (len(rivals) + 2)}")
    for epoch in runs[0]:
        for form in FORMS:
            cells = []
            for rival in rivals:
                gains = []
                for run in runs:
                    mine, other = (run[epoch].halves[AuditKey(f"{attack}{form}", mask)] for mask in (claim, rival))
                    gains.append(crossfit_difference(mine, other))
                stars = "".join("*" if gain.leaves_out(0.0) else "-" for gain in gains)
                cells.append(f"{shown([gain.value for gain in gains], '+')} {stars}")
            print(f"| {epoch} | {attack}{form} | {' | '.join(cells)} |")


def by_what_there_is(runs: Sequence[Mapping[int, AuditReport]], complexities: Sequence[Tensor], key: AuditKey) -> None:
    """A row per audit: how much of a level is difficulty that complexity or another audit knows, and how much is membership.

    At the timestep that the first half chose at the last audit; held-out samples, but for the gap.
    """
    print(f"\nWhat there is to take away from {key}\n")
    print("| epoch | R² of ln bytes | correlation with the last audit | gap |\n|---|---|---|---|")
    found: dict[int, list[tuple[float, float, float]]] = {}
    for run, complexity in zip(runs, complexities):
        last = run[max(run)]
        place = last.data.labels(key.attack).index(last.row(key).timesteps[0])
        levels = {epoch: level(report.data.scores[key][0, place], True).numpy() for epoch, report in run.items()}
        is_member = last.data.is_member.numpy()
        for epoch, each in levels.items():
            heldout = each[~is_member]
            gap = (each[is_member].mean() - heldout.mean()) / heldout.std()
            pairs = (complexity.numpy()[~is_member], levels[max(levels)][~is_member])
            explained, shared = (float(np.corrcoef(heldout, other)[0, 1]) for other in pairs)
            found.setdefault(epoch, []).append((explained**2, shared, float(gap)))
    for epoch, rows in found.items():
        print(f"| {epoch} | {' | '.join(shown(values) for values in zip(*rows))} |")


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--attack", default="sima")
    parser.add_argument("--masks", nargs="+", default=["all", "top60", "random60", "std60"], help="all, the claim, its rivals")
    options = parser.parse_args()
    found = [reports_of(folder, options.attack, options.masks) for folder in options.runs]
    runs = [reports for reports, _ in found]
    by_audit(runs, options.attack, options.masks[0])
    by_what_there_is(runs, [each for _, each in found], AuditKey(options.attack, options.masks[0]))
    if len(options.masks) > 1:
        by_mask(runs, options.attack, options.masks)


if __name__ == "__main__":
    main()

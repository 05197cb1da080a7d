"""What metrics.csv knows of a training, as figures and sentences."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from ldm_privacy.report.figures.training import GENERATIONS, LOSS_GAP, memorization_figure, onset_figure
from ldm_privacy.types import AuditKey

History = Mapping[tuple[int, str], float]
"""(epoch, series) -> value, as metrics.csv holds the denoiser's stage; of a training that counts steps, (step, series)."""


def training_figures(history: History, keys: Sequence[AuditKey], primary: AuditKey, unit: str = "epoch") -> dict[str, Figure]:
    """AUROC of every attack and mask over epochs, and the quantities with an onset on one time axis; none without audits."""
    areas = [key for key in keys if any(series == f"memorization/{key}/auroc" for _, series in history)]
    if not areas:
        return {}
    onset = onset_of(history, f"memorization/{primary}/onset_epoch")
    onsets = {
        LOSS_GAP: onset_of(history, "denoiser/loss_gap_onset_epoch"),
        f"memorization/{primary}/auroc": onset,
        GENERATIONS: onset_of(history, "generations/onset_epoch"),
    }
    return {
        "memorization": memorization_figure(history, areas, None if onset is None else (primary, onset), unit),
        "onset": onset_figure(history, onsets, unit),
    }


def onset_lines(history: History, primary: AuditKey) -> list[str]:
    """A sentence for each quantity that was looked at: its onset, or that there was none."""
    series = {
        f"Memorization onset ({primary})": (f"memorization/{primary}/auroc", f"memorization/{primary}/onset_epoch"),
        "Onset of the loss gap": (LOSS_GAP, "denoiser/loss_gap_onset_epoch"),
        "Onset of memorized generations": (GENERATIONS, "generations/onset_epoch"),
    }
    lines = []
    for name, (looked_at, found_in) in series.items():
        looks = [epoch for epoch, each in history if each == looked_at]
        onset = onset_of(history, found_in)
        if looks:
            lines.append(f"{name}: {f'none up to epoch {max(looks)}' if onset is None else f'epoch {onset}'}.")
    return lines


def onset_of(history: History, series: str) -> int | None:
    """The onset that a series holds from the audit on at which it became known; None where it never did."""
    found = {epoch: value for (epoch, each), value in history.items() if each == series}
    return int(found[max(found)]) if found else None

"""Pictures of the attacks: ROC curves, AUROC over timesteps and keep fractions, score histograms."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ldm_privacy.audit.report import AuditReport
from ldm_privacy.audit.row import AuditRow
from ldm_privacy.audit.scores import TUNED
from ldm_privacy.metrics import roc_curve
from ldm_privacy.pictures import HELDOUT_COLOUR, MEMBER_COLOUR, PALETTE
from ldm_privacy.report.figures.base import MAX_WHISKERS, legend_below, panels, style, whiskered
from ldm_privacy.types import AuditKey

CALIBRATED = "calibrated scores"
RANKING_NAMES = {"influence": "largest influence", "random": "random", "deviation": "largest deviation"}


def roc_figure(report: AuditReport) -> Figure:
    """ROC curves of the reported samples on logarithmic axes: a panel per attack, a line per mask."""
    figure, attacks = _panels(report, "ROC")
    floor = 1 / len(report.reported_membership)
    for attack, axis, rows in attacks:
        for place, (name, row) in enumerate(rows.items()):
            fpr, tpr, _ = roc_curve(report.reported_scores(row.key), report.reported_membership)
            start = int((fpr == 0).sum()) - 1  # the rise at no false positive lies on the axis
            label = f"{name} ({row.metrics.auroc.value:.3f})"
            markers = (0.2 * place / len(rows), 0.2)  # of the diagonal: no line's on another's
            line = torch.stack([fpr[start:], tpr[start:]]).clamp_min(floor)
            axis.plot(*line[:, _is_seen(line, floor)], label=label, markevery=markers, **style(place))
        axis.axline((floor, floor), (1, 1), color="0.7", linewidth=0.8)
        axis.set(xscale="log", yscale="log", xlim=(floor, 1), ylim=(floor, 1.05), title=attack)
        axis.set(xlabel="false-positive rate (held-out called member)", ylabel="true-positive rate")
        legend_below(axis, "AUROC in brackets", columns=2)
    return figure


def _is_seen(line: torch.Tensor, floor: float) -> torch.Tensor:
    """(points,) bool: a thousandth of a logarithmic axis from `floor` to 1 away from the point before; the ends."""
    place = (line.log() * (1000 / -math.log(floor))).round()
    moved = torch.ones(line.shape[1], dtype=torch.bool)
    moved[1:-1] = (place[:, 1:-1] != place[:, :-2]).any(0)
    return moved


def auroc_by_timestep_figure(report: AuditReport) -> Figure:
    """AUROC of the reported samples over timesteps: a panel per attack, a line per mask, the chosen timesteps marked.

    Of a flow over sigma.
    """
    sigmas = report.data.sigmas
    over = "sigma" if sigmas else "timestep"
    figure, attacks = _panels(report, f"AUROC over {over}s")
    for attack, axis, rows in attacks:
        for place, (name, row) in enumerate(rows.items()):
            line = style(place)
            if row.timesteps[0] is None:
                axis.axhline(row.metrics.auroc.value, label=name, **line)
            else:
                timesteps = report.data.timesteps[row.key.attack]
                every = math.ceil(len(timesteps) / MAX_WHISKERS)
                places = [sigmas.get(each, each) for each in timesteps]
                axis.plot(places, row.auroc_by_timestep, label=name, markevery=every, **line)
                for chosen in {each for each in row.timesteps if each is not None}:
                    ring = {"color": line["color"], "markersize": 9, "fillstyle": "none"}
                    axis.plot(sigmas.get(chosen, chosen), row.auroc_by_timestep[timesteps.index(chosen)], "o", **ring)
        axis.axhline(0.5, color="0.7", linewidth=0.8)
        axis.set(title=attack, xlabel=f"{over} (ring: chosen by a half for the other)", ylabel="AUROC")
        legend_below(axis)
    return figure


def keep_fraction_figure(report: AuditReport) -> Figure:
    """AUROC over the share of dimensions kept, each point at its own chosen timesteps; whiskers are its interval.

    A panel per attack, a line per ranking, the mean of the keep fractions that the halves chose marked.
    """
    figure, axes = panels(list(report.sweep), "AUROC over the share of latent dimensions kept")
    for attack, points in report.sweep.items():
        axis = axes[attack]
        rankings = list(dict.fromkeys(point.ranking for point in points))
        for place, ranking in enumerate(rankings):
            line = sorted((point for point in points if point.ranking == ranking), key=lambda point: point.keep_fraction)
            kept, areas = [point.keep_fraction for point in line], [point.auroc for point in line]
            whiskered(axis, kept, areas, place=place, count=len(rankings), label=RANKING_NAMES.get(ranking, ranking))
        tuned = report.row(AuditKey(attack, TUNED))
        axis.plot(tuned.keep_fraction, tuned.metrics.auroc.value, "o", color=PALETTE[0], markersize=7, fillstyle="none")
        axis.axhline(0.5, color="0.7", linewidth=0.8)
        axis.set(title=attack, xlabel="share kept (ring: mean of the halves' choices)", ylabel="AUROC", xlim=(0, 1.03))
        legend_below(axis, "dimensions of", columns=2)
    return figure


def histogram_figure(report: AuditReport, keys: Sequence[AuditKey]) -> Figure:
    """Membership scores of members and held-out samples of the reported samples, a panel per key; outermost 1 % cut off."""
    figure, axes = panels([str(key) for key in keys], "Membership scores (higher = member)")
    is_member = report.reported_membership
    for key in keys:
        axis, score = axes[str(key)], report.reported_scores(key).double()
        edges = torch.quantile(score[:: max(1, len(score) // 100_000)], torch.tensor([0.005, 0.995], dtype=torch.float64))
        lower, upper = edges.tolist()
        bins = np.linspace(lower, upper if upper > lower else lower + 1.0, 41)
        for name, side, colour, dashes in (
            ("members", is_member, MEMBER_COLOUR, "-"),
            ("held-out", ~is_member, HELDOUT_COLOUR, "--"),
        ):
            count, _ = np.histogram(score[side].numpy(), bins)
            axis.stairs(count / int(side.sum()), bins, linewidth=1.6, linestyle=dashes, color=colour, label=name)
        axis.set(title=str(key), xlabel="membership score", ylabel="share of samples")
        legend_below(axis)
    return figure


def _panels(report: AuditReport, title: str) -> tuple[Figure, list[tuple[str, Axes, dict[str, AuditRow]]]]:
    """A panel per attack: its name, its axis and its rows by mask; one for calibrated scores, beside what they are made of."""
    derived, groups = report.data.derived, dict[str, dict[str, AuditRow]]()
    for row in report.rows:
        if row.key not in derived:
            groups.setdefault(row.key.attack, {})[row.key.mask] = row
    plain = {of.plain for of in derived.values()}
    if calibrated := {str(row.key): row for row in report.rows if row.key in derived or row.key in plain}:
        groups[CALIBRATED] = calibrated
    figure, axes = panels(list(groups), title)
    return figure, [(name, axes[name], rows) for name, rows in groups.items()]

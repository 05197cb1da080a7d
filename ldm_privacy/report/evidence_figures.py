"""Pictures of the evidence: keep fractions, score histograms, the p-value of a whole set."""

import numpy as np
import torch
from matplotlib.figure import Figure

from ldm_privacy.audit import AuditReport
from ldm_privacy.evidence import DatasetVerdict
from ldm_privacy.report.figures import PALETTE, STYLES, panels
from ldm_privacy.types import AuditKey

RANKING_NAMES = {"influence": "largest influence", "random": "random", "deviation": "largest deviation"}


def keep_fraction_figure(report: AuditReport) -> Figure:
    """AUROC over the share of dimensions kept, each point at its own calibrated timestep; bands are its interval.

    A panel per attack, a line per ranking, the keep fraction that the calibration half chose marked.
    """
    figure, axes = panels(list(report.sweep), "AUROC over the share of latent dimensions kept")
    for attack, axis in axes.items():
        points = report.sweep[attack]
        for place, ranking in enumerate(dict.fromkeys(point.ranking for point in points)):
            line = sorted((point for point in points if point.ranking == ranking), key=lambda point: point.keep_fraction)
            kept = [point.keep_fraction for point in line]
            colour = PALETTE[place % len(PALETTE)]
            style = STYLES[place % len(STYLES)]
            name = RANKING_NAMES.get(ranking, ranking)
            axis.plot(kept, [point.auroc.value for point in line], color=colour, linestyle=style, marker=".", label=name)
            bounds = ([point.auroc.lower for point in line], [point.auroc.upper for point in line])
            axis.fill_between(kept, *bounds, color=colour, alpha=0.12, linewidth=0)
        tuned = next((row for row in report.rows if row.key.attack == attack and row.key.mask == "tuned"), None)
        if tuned is not None:
            axis.plot(tuned.keep_fraction, tuned.metrics.auroc.value, "o", color=PALETTE[0], markersize=7, fillstyle="none")
        axis.axhline(0.5, color="0.7", linewidth=0.8)
        axis.set(title=attack, xlabel="share kept (ring: chosen on the calibration half)", ylabel="AUROC", xlim=(0, 1.03))
        axis.legend(title="dimensions of", fontsize="small")
    return figure


def histogram_figure(report: AuditReport, keys: list[AuditKey]) -> Figure:
    """Membership scores of members and held-out samples of the reporting half, a panel per key; outermost 1 % cut off."""
    figure, axes = panels([str(key) for key in keys], "Membership scores (higher = member)")
    for key in keys:
        axis, score = axes[str(key)], report.reported_scores(key).double()
        edges = torch.quantile(score[:: max(1, len(score) // 100_000)], torch.tensor([0.005, 0.995], dtype=torch.float64))
        lower, upper = edges.tolist()
        bins = np.linspace(lower, upper if upper > lower else lower + 1.0, 41)
        for name, chosen, colour, style in (
            ("members", report.reported_membership, PALETTE[1], "-"),
            ("held-out", ~report.reported_membership, PALETTE[0], "--"),
        ):
            weights = np.full(int(chosen.sum()), 1 / int(chosen.sum()))
            share, _ = np.histogram(score[chosen].numpy(), bins, weights=weights)
            axis.stairs(share, bins, linewidth=1.6, linestyle=style, color=colour, label=name)
        axis.set(title=str(key), xlabel="membership score", ylabel="share of samples")
        axis.legend(fontsize="small")
    return figure


def p_value_figure(dataset: DatasetVerdict, key: AuditKey, *, alpha: float) -> Figure:
    """The Welch test over the size of the suspect set: p-values of random subsets, and how often it finds a set.

    Right panel: the share of sets of members, and of sets of held-out samples (false alarms), with p below alpha.
    """
    figure = Figure(figsize=(8.4, 3.8), layout="constrained")
    axis, shares = figure.subplots(1, 2)
    size = [point.size for point in dataset.by_size]
    floor = 1e-12
    median, low, high = (
        np.maximum([getattr(point, name) for point in dataset.by_size], floor)
        for name in ("median", "quantile_10", "quantile_90")
    )
    axis.plot(size, median, color=PALETTE[0], marker=".", label="median")
    axis.fill_between(size, low, high, color=PALETTE[0], alpha=0.15, linewidth=0, label="10 to 90 % of subsets")
    axis.axhline(alpha, color="0.5", linewidth=0.8, linestyle=":", label=f"{alpha:.2g}")
    axis.set(xscale="log", yscale="log", ylim=(max(floor, low.min() / 3), 2.0))
    axis.set(xlabel="members in the suspect set", ylabel="p-value (one-sided Welch)", title="p-value")
    axis.legend(fontsize="small")
    shares.plot(size, [point.power for point in dataset.by_size], color=PALETTE[1], marker=".", label="sets of members")
    alarms = dataset.false_alarms
    shares.plot(list(alarms), list(alarms.values()), color=PALETTE[0], linestyle="--", marker=".", label="sets of held-out")
    shares.axhline(alpha, color="0.5", linewidth=0.8, linestyle=":")
    shares.set(xscale="log", xlabel="samples in the suspect set", ylabel=f"share with p < {alpha:.2g}", ylim=(-0.02, 1.02))
    shares.set(title="sets that are told apart")
    shares.legend(fontsize="small", loc="center right")
    figure.suptitle(f"Whole sets against held-out samples: {key}")
    return figure

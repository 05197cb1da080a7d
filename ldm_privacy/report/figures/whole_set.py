"""Picture of the training set as a whole: how fast it is told from held-out samples as it grows."""

from matplotlib.figure import Figure

from ldm_privacy.evidence.dataset import DatasetVerdict
from ldm_privacy.pictures import HELDOUT_COLOUR, MEMBER_COLOUR
from ldm_privacy.report.figures.base import banded, legend_below
from ldm_privacy.types import AuditKey, Estimate

FLOOR = 1e-12
"""Smaller p-values are drawn here."""


def p_value_figure(dataset: DatasetVerdict, key: AuditKey, *, alpha: float) -> Figure:
    """The Welch test over the size of the suspect set: p-values of random subsets, and how often it finds a set.

    Right panel: the share of sets of members, and of sets of held-out samples (false alarms), with p below alpha.
    """
    figure = Figure(figsize=(8.4, 3.8), layout="constrained")
    axis, shares = figure.subplots(1, 2)
    size = [point.size for point in dataset.by_size]
    quantiles = [(point.median, point.quantile_10, point.quantile_90) for point in dataset.by_size]
    p_values = [Estimate(*(max(FLOOR, p) for p in each)) for each in quantiles]
    banded(axis, size, p_values, color=MEMBER_COLOUR, label="median (band: 10 to 90 % of subsets)")
    axis.axhline(alpha, color="0.5", linewidth=0.8, linestyle=":", label=f"{alpha:.2g}")
    axis.set(yscale="log", ylim=(max(FLOOR, min(each.lower for each in p_values) / 3), 2.0))
    axis.set(xlabel="members in the suspect set", ylabel="p-value (one-sided Welch)", title="p-value")
    legend_below(axis, columns=2)
    shares.plot(size, [point.power for point in dataset.by_size], color=MEMBER_COLOUR, marker=".", label="sets of members")
    alarms = dataset.false_alarms
    shares.plot(list(alarms), list(alarms.values()), color=HELDOUT_COLOUR, ls="--", marker=".", label="sets of held-out")
    shares.axhline(alpha, color="0.5", linewidth=0.8, linestyle=":")
    shares.set(xlabel="samples in the suspect set", ylabel=f"share with p < {alpha:.2g}", ylim=(-0.02, 1.02))
    shares.set(title="sets that are told apart")
    legend_below(shares, columns=2)
    for each in (axis, shares):
        each.set_xscale("log", base=2)  # sizes are powers of two and halfway between
        each.xaxis.set_major_formatter("{x:.0f}")
    figure.suptitle(f"Whole sets against held-out samples: {key}")
    return figure

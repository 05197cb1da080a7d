"""Picture of a comparison: AUROC over the audits, in the order that they were named in."""

from matplotlib.figure import Figure

from ldm_privacy.evidence.compare import Comparison
from ldm_privacy.report.figures.base import whiskered

MAX_NAME = 24
MAX_NAMES = 30
"""More would cover each other; then every second, third, ... audit is named."""


def over_audits_figure(comparison: Comparison) -> Figure:
    """AUROC with its interval of the primary attack and of its calibrated forms: checkpoints of a training make a curve."""
    names, curve = list(comparison.reports), comparison.curve
    figure = Figure(figsize=(min(14.0, max(6.4, 3.4 + 0.75 * len(names))), 4.6), layout="constrained")
    axis = figure.subplots()
    places = range(len(names))
    for place, (key, areas) in enumerate(curve.items()):
        whiskered(axis, places, areas, place=place, count=len(curve), label=str(key))
    axis.axhline(0.5, color="0.7", linewidth=0.8, zorder=0)
    shown = places[:: -(-len(names) // MAX_NAMES)]
    axis.set_xticks(shown, [_shortened(names[place]) for place in shown], rotation=30, ha="right", parse_math=False)
    axis.set(ylabel="AUROC", ylim=(None, 1.01))
    axis.set_title(f"AUROC of {next(iter(curve))}{' and of its calibrated forms' * (len(curve) > 1)}", parse_math=False)
    # In the order in which the lines end, so that the legend reads like them.
    handles = dict(zip(*reversed(axis.get_legend_handles_labels())))
    order = [str(key) for key in sorted(curve, key=lambda key: -curve[key][-1].value)]
    figure.legend([handles[label] for label in order], order, loc="outside right center", frameon=False)
    return figure


def _shortened(name: str) -> str:
    """Its end: checkpoints of one run differ there."""
    return name if len(name) <= MAX_NAME else f"\N{HORIZONTAL ELLIPSIS}{name[1 - MAX_NAME :]}"

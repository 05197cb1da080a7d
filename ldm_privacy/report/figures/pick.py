"""Picture of a pick: what each limit holds, checkpoint by checkpoint, and where it ends."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ldm_privacy.evidence.limits.limit import Decision, Judgement
from ldm_privacy.evidence.pick import Pick
from ldm_privacy.report.figures.base import PALETTE, panels

LOOKS: dict[Decision, tuple[str, str]] = {"pass": ("o", PALETTE[2]), "undecided": ("s", PALETTE[4]), "fail": ("X", PALETTE[1])}
"""Decision -> marker and colour."""
MAX_NAMES = 16
"""More would cover each other; then every second, third, ... is named."""


def pick_figure(pick: Pick) -> Figure:
    """A panel for each limit: the worst of what it holds with its interval against the limit; grey: after the stop."""
    limits = [each.limit for each in pick.candidates[0].ruling.judgements]
    figure, axes = panels(limits, "", columns=2, size=(6.4, 3.8))
    if (epochs := [each.epoch for each in pick.candidates if each.epoch is not None]) and len(epochs) == len(pick.candidates):
        x, names, what = [float(each) for each in epochs], list(map(str, epochs)), "epoch"
    else:
        x, names, what = [float(each) for each in range(len(pick.candidates))], [each.name for each in pick.candidates], ""
    for place, axis in enumerate(axes.values()):
        judged = [each.ruling.judgements[place] for each in pick.candidates]
        _draw(axis, x, judged, pick.num_passed, is_named=pick.named is not None)
        shown = range(0, len(x), -(-len(x) // MAX_NAMES))
        ticks, labels = [x[at] for at in shown], [names[at] for at in shown]
        turned: dict[str, Any] = {"rotation": 30, "ha": "right"} if max(map(len, labels)) > 6 else {}
        axis.set_xticks(ticks, labels, parse_math=False, fontsize="small", **turned)
        axis.set(xlabel=what, ylabel=judged[0].quantity)
        axis.set_title(f"{judged[0].limit} {judged[0].most:g}", fontsize="medium", parse_math=False)
        axis.spines[["right", "top"]].set_visible(False)
    handles, labels = next(iter(axes.values())).get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False, fontsize="small")
    return figure


def _draw(axis: Axes, x: Sequence[float], judged: Sequence[Judgement], num_passed: int, *, is_named: bool) -> None:
    """One limit; the ring is around the named one."""
    known = [(at, each.worst.estimate, each.decision) for at, each in zip(x, judged) if each.worst is not None]
    axis.plot([at for at, _, _ in known], [each.value for _, each, _ in known], color="0.6", linewidth=0.9, zorder=1)
    for decision, (marker, colour) in LOOKS.items():
        mine = [(at, each) for at, each, found in known if found == decision]
        axis.errorbar(
            [at for at, _ in mine],
            [each.value for _, each in mine],
            ([each.value - each.lower for _, each in mine], [each.upper - each.value for _, each in mine]),
            linestyle="none",
            marker=marker,
            color=colour,
            capsize=3,
            label=decision,
        )
    axis.axhline(judged[0].most, color="black", linestyle="--", linewidth=1.0, label="limit")
    if judged[0].quantity == "AUROC":
        axis.axhline(0.5, color="0.8", linewidth=0.8, zorder=0)
    step = min((after - before for before, after in pairwise(x)), default=1.0)
    axis.set_xlim(x[0] - 0.6 * step, x[-1] + 0.6 * step)
    if num_passed < len(x):
        begin = (x[num_passed - 1] + x[num_passed]) / 2 if num_passed else x[0] - 0.6 * step
        axis.axvspan(begin, x[-1] + 0.6 * step, color="0.93", zorder=-1, label="after the stop")
    if is_named and (worst := judged[num_passed - 1].worst) is not None:
        ring: dict[str, Any] = {"marker": "o", "markersize": 14, "fillstyle": "none", "linestyle": "none", "color": "black"}
        axis.plot(x[num_passed - 1], worst.estimate.value, label="named", **ring)

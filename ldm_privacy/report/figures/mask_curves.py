"""All masks of one attack over a training, each with its interval: one picture, for paper and for the browser."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ldm_privacy.report.figures.base import dodged, style, whiskered, whiskers
from ldm_privacy.types import Estimate

PLOTLY_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
PLOTLY_MARKERS = ("circle", "square", "triangle-up", "triangle-down", "diamond", "x")


@dataclass(frozen=True)
class MaskCurves:
    """AUROC of each mask of an attack at every audit.

    Attributes:
        attack: Its label.
        lines: Mask, or calibrated score -> epochs and AUROC at each.
        onset: Where memorization set in; None where it did not, or where the onset is another attack's.
        unit: That epochs are counted in: "epoch" or "step".
    """

    attack: str
    lines: Mapping[str, tuple[Sequence[int], Sequence[Estimate]]]
    onset: int | None = None
    unit: str = "epoch"

    @property
    def name(self) -> str:
        """Of its picture: the first in a folder of figures."""
        return f"attack_{self.attack}"

    def by_last(self) -> list[str]:
        """The masks, the one that ended highest first: in this order a legend beside the lines reads like their labels."""
        return sorted(self.lines, key=lambda mask: -self.lines[mask][1][-1].value)

    def draw(self, axis: Axes) -> None:
        """The lines, guessing as a grey line and the onset as a dotted one; no legend."""
        for place, (mask, (epochs, areas)) in enumerate(self.lines.items()):
            whiskered(axis, epochs, areas, place=place, count=len(self.lines), label=mask)
        axis.axhline(0.5, color="0.7", linewidth=0.8, zorder=0)
        if self.onset is not None:
            axis.axvline(self.onset, color="0.3", linewidth=0.8, linestyle=":", zorder=0)
            axis.annotate(f" onset {self.onset}", (self.onset, 0.02), xycoords=("data", "axes fraction"), fontsize="small")
        axis.set(xlabel=self.unit, ylabel="AUROC", ylim=(None, 1.01))

    def figure(self) -> Figure:
        """One panel, the legend beside it."""
        figure = Figure(figsize=(8.4, 4.8), layout="constrained")
        axis = figure.subplots()
        self.draw(axis)
        axis.set_title(f"Memorization: AUROC of {self.attack} with each mask, and calibrated, with intervals")
        handles = dict(zip(*reversed(axis.get_legend_handles_labels())))
        masks = self.by_last()
        figure.legend(
            [handles[mask] for mask in masks], masks, title="mask or score", loc="outside right center", frameon=False
        )
        return figure

    def plotly(self) -> Any:
        """The same for a browser: numbers under the pointer, masks that come and go where the legend is clicked."""
        import plotly.graph_objects as go

        figure = go.Figure()
        places = {mask: place for place, mask in enumerate(self.lines)}
        for mask in self.by_last():
            (epochs, areas), place = self.lines[mask], places[mask]
            line = {"color": style(place)["color"], "dash": PLOTLY_DASHES[place % len(PLOTLY_DASHES)]}
            x = dodged(epochs, place=place, count=len(places))
            at, middle, down, up = whiskers(x, areas)
            figure.add_scatter(
                x=x,
                y=[area.value for area in areas],
                customdata=[(area.lower, area.upper, epoch) for area, epoch in zip(areas, epochs)],
                hovertemplate="%{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}], " + self.unit + " %{customdata[2]}",
                name=mask,
                legendgroup=mask,
                mode="lines",
                line=line,
            )
            figure.add_scatter(
                x=at,
                y=middle,
                error_y={"symmetric": False, "arrayminus": down, "array": up, "width": 0, "thickness": 1},
                hoverinfo="skip",
                legendgroup=mask,
                showlegend=False,
                mode="markers",
                marker={"color": line["color"], "symbol": PLOTLY_MARKERS[place % len(PLOTLY_MARKERS)]},
            )
        figure.add_hline(0.5, line={"color": "lightgrey", "width": 1}, layer="below")
        if self.onset is not None:
            dotted = {"color": "grey", "dash": "dot", "width": 1}
            figure.add_vline(self.onset, line=dotted, annotation_text=f"onset {self.onset}")
        figure.update_layout(
            title=f"AUROC of {self.attack} with each mask, and calibrated",
            xaxis_title=self.unit,
            yaxis_title="AUROC",
            legend_title="mask or score",
            template="plotly_white",
        )
        return figure

"""Pictures of a training: AUROC over epochs, and the quantities with an onset on one time axis."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from ldm_privacy.report.figures.base import PALETTE, panels, style
from ldm_privacy.types import AuditKey

LOSS_GAP, GENERATIONS = "denoiser/loss_gap", "generations/memorized"
TITLES = {
    LOSS_GAP: "Denoising loss, held-out minus members",
    GENERATIONS: "Share of generations that copy a member",
}
REFERENCES = {LOSS_GAP: 0.0, GENERATIONS: 0.0}
CONTROLS = {GENERATIONS: ("generations/memorized_heldout", "copies of held-out images")}


def memorization_figure(
    history: Mapping[tuple[int, str], float],
    keys: Sequence[AuditKey],
    onset: tuple[AuditKey, int] | None,
    unit: str = "epoch",
) -> Figure:
    """AUROC over epochs with its interval: a panel per attack, a line per mask, the onset marked.

    Args:
        history: (epoch, series) -> value, as metrics.csv holds the denoiser's stage.
        keys: What to draw.
        onset: Attack and mask of the onset and its epoch, a vertical line in that attack's panel; None = no onset.
        unit: What `history` counts: "epoch" or "step".
    """
    attacks = list(dict.fromkeys(key.attack for key in keys))
    figure, axes = panels(attacks, "Memorization: AUROC of each audit, with its interval")
    for attack, axis in axes.items():
        for place, key in enumerate(key for key in keys if key.attack == attack):
            prefix = f"memorization/{key}/auroc"
            epochs = sorted(epoch for epoch, series in history if series == prefix)
            value, lower, upper = ([history[epoch, prefix + bound] for epoch in epochs] for bound in ("", "_lower", "_upper"))
            axis.plot(epochs, value, marker=".", label=key.mask, **style(place))
            axis.fill_between(epochs, lower, upper, color=style(place)["color"], alpha=0.12, linewidth=0)
        axis.axhline(0.5, color="0.7", linewidth=0.8)
        if onset is not None and onset[0].attack == attack:
            axis.axvline(onset[1], color="0.3", linewidth=0.8, linestyle=":")
            axis.annotate(f"onset {onset[1]}", (onset[1], 0.02), xycoords=("data", "axes fraction"), fontsize="small")
        axis.set(title=attack, xlabel=unit, ylabel="AUROC", ylim=(None, 1.01))
        axis.legend(title="mask", fontsize="small", loc="upper left")
    return figure


def onset_figure(history: Mapping[tuple[int, str], float], onsets: Mapping[str, int | None], unit: str = "epoch") -> Figure:
    """A panel per quantity, stacked on one epoch axis: its curve, its interval where it has one, its own onset.

    Args:
        history: (epoch, series) -> value, as metrics.csv holds the denoiser's stage.
        onsets: Series -> its onset, None as long as none is known, in the order of the panels: `denoiser/loss_gap`,
            `memorization/<attack>/<mask>/auroc`, `generations/memorized`. A series without any value gets no panel.
        unit: As in `memorization_figure`.
    """
    epochs_of = {name: sorted(epoch for epoch, series in history if series == name) for name in onsets}
    shown = [name for name, epochs in epochs_of.items() if epochs]
    figure = Figure(figsize=(7.0, 0.9 + 2.1 * max(1, len(shown))), layout="constrained")
    axes = figure.subplots(max(1, len(shown)), 1, sharex=True, squeeze=False)[:, 0]
    figure.suptitle("Onset of memorization")
    for place, (name, axis) in enumerate(zip(shown, axes)):
        colour, epochs = PALETTE[place % len(PALETTE)], epochs_of[name]
        axis.plot(epochs, [history[epoch, name] for epoch in epochs], color=colour, marker=".")
        bands = [[history.get((epoch, name + end)) for epoch in epochs] for end in ("_lower", "_upper")]
        if not any(bound is None for band in bands for bound in band):
            axis.fill_between(epochs, bands[0], bands[1], color=colour, alpha=0.15, linewidth=0)
        if name in CONTROLS:
            control, label = CONTROLS[name]
            axis.plot(
                epochs, [history[epoch, control] for epoch in epochs], color="0.35", linestyle="--", marker=".", label=label
            )
            axis.legend(fontsize="small", loc="upper left")
        axis.axhline(REFERENCES.get(name, 0.5), color="0.7", linewidth=0.8)
        onset = onsets[name]
        if onset is not None:
            axis.axvline(onset, color="0.2", linewidth=1.0, linestyle=":")
        found = "no onset" if onset is None else f"onset: {unit} {onset}"
        axis.set_title(f"{TITLES.get(name, f'AUROC, {_key(name)}')} ({found})", fontsize="medium", loc="left")
    axes[-1].set_xlabel(unit)
    return figure


def _key(series: str) -> str:
    return series.removeprefix("memorization/").removesuffix("/auroc")

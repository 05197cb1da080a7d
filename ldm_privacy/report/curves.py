"""What metrics.csv knows of a training, as figures and sentences."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.artist import Artist
from matplotlib.figure import Figure

from ldm_privacy.audit.row import GROUPS, OWN
from ldm_privacy.audit.scores import Derived, forms
from ldm_privacy.audit.views import ViewOf
from ldm_privacy.evidence.forecast import SeriesHistory, watched_keys
from ldm_privacy.pictures import HELDOUT_COLOUR, MEMBER_COLOUR, PALETTE
from ldm_privacy.report.figures.base import banded, panels
from ldm_privacy.report.figures.mask_curves import MaskCurves
from ldm_privacy.types import AuditKey, Estimate


class Sign(NamedTuple):
    """A sign of memorization: its curve, the series of its onset, its value where nothing is memorized, both in words."""

    series: str
    onset: str
    nothing: float
    title: str
    name: str


def signs(primary: AuditKey, history: SeriesHistory) -> tuple[Sign, ...]:
    """The loss gap, the AUROC of the primary attack and of whichever else a rise was counted of, copies, replication."""
    gap, copies = "denoiser/loss_gap", "generations/memorized"
    shares = "Share of generations that copy a member (dashed: a held-out image)"
    keys = dict.fromkeys([str(primary), *watched_keys(history)])
    areas = []
    for key in keys:
        area = f"memorization/{key}"
        areas.append(Sign(f"{area}/auroc", f"{area}/onset_epoch", 0.5, f"AUROC, {key}", f"Memorization onset ({key})"))
    return (
        Sign(gap, f"{gap}_onset_epoch", 0.0, "Denoising loss, held-out minus members", "Onset of the loss gap"),
        *areas,
        Sign(copies, "generations/onset_epoch", 0.0, shares, "Onset of memorized generations"),
        *(
            Sign(
                curve,
                f"{curve}_onset_epoch",
                0.0,
                f"Similarity of guided samples, {name} (dashed: held-out)",
                f"Onset of replication, {name}",
            )
            for curve, name in (("replication/repeated", "planted duplicates"), ("replication/members", "members"))
        ),
    )


def mask_curves(
    history: SeriesHistory,
    keys: Sequence[AuditKey],
    primary: AuditKey,
    derived: Mapping[AuditKey, Derived],
    unit: str = "epoch",
) -> list[MaskCurves]:
    """The curves of every attack that was audited, the primary one's first, with its calibrated scores among them."""
    onset = _onset(history, f"memorization/{primary}/onset_epoch")
    attacks = dict.fromkeys([primary.attack, *(key.attack for key in keys if key not in derived)])
    found = []
    for attack in attacks:
        series = {key.mask: f"memorization/{key}/auroc" for key in keys if key.attack == attack}
        if attack == primary.attack:
            series |= {key.attack: f"memorization/{key}/auroc" for key in forms(derived, primary)[1:]}
        if lines := _lines(history, series):
            found.append(MaskCurves(attack, lines, onset if attack == primary.attack else None, unit))
    return found


def view_curves(
    history: SeriesHistory, keys: Sequence[AuditKey], views: Mapping[str, ViewOf], unit: str = "epoch"
) -> list[MaskCurves]:
    """Of every attack that was repeated under other conditions, a line per condition, the own one first."""
    series: dict[str, dict[str, str]] = {}
    for key in keys:
        if (view := views.get(key.attack)) is not None:
            own = {OWN: f"memorization/{AuditKey(view.attack, key.mask)}/auroc"}
            series.setdefault(view.attack, own)[view.view] = f"memorization/{key}/auroc"
    known = {attack: _lines(history, each) for attack, each in series.items()}
    return [MaskCurves(attack, lines, unit=unit) for attack, lines in known.items() if lines]


def group_curves(history: SeriesHistory, keys: Sequence[AuditKey], unit: str = "epoch") -> list[MaskCurves]:
    """Of every unmasked attack whose members are told apart by how often they came: planted duplicates, and the others."""
    known = {key: _lines(history, {group: f"memorization/{key}/auroc_{group}" for group in GROUPS}) for key in keys}
    return [MaskCurves(key.attack, lines, unit=unit) for key, lines in known.items() if lines]


def training_figures(
    history: SeriesHistory,
    keys: Sequence[AuditKey],
    primary: AuditKey,
    derived: Mapping[AuditKey, Derived],
    views: Mapping[str, ViewOf],
    unit: str = "epoch",
) -> dict[str, Figure]:
    """AUROC over epochs, of the primary attack large, of all, under other conditions, of planted duplicates; the quantities
    with an onset on one time axis.

    None without audits.
    """
    curves = mask_curves(history, [key for key in keys if key.attack not in views], primary, derived, unit)
    if not curves:
        return {}
    figures = {
        curves[0].name: curves[0].figure(),
        "memorization": memorization_figure(curves),
        "onset": onset_figure(history, primary, unit),
    }
    if conditions := view_curves(history, keys, views, unit):
        figures["conditions"] = memorization_figure(conditions, "AUROC of each audit under several conditions", "condition")
    own = [key for key in keys if key.mask == primary.mask and key not in derived and key.attack not in views]
    if planted := group_curves(history, own, unit):
        figures["planted"] = memorization_figure(planted, "AUROC of planted duplicates and of the other members", "members")
    return figures | quality_figures(history, unit)


def quality_figures(history: SeriesHistory, unit: str = "epoch") -> dict[str, Figure]:
    """A panel of each distance: generations to held-out images and to members at each look; none where there was no look."""
    prefix, suffix = "quality/", "_heldout"
    names = sorted(
        {name[len(prefix) : -len(suffix)] for _, name in history if name.startswith(prefix) and name.endswith(suffix)}
    )
    if not names:
        return {}
    figure, axes = panels(names, "Distance of generations: lower is nearer")
    sides = {"heldout": ("held-out images", HELDOUT_COLOUR), "members": ("members", MEMBER_COLOUR)}
    for name, axis in axes.items():
        for side, (words, colour) in sides.items():
            banded(axis, *_curve(history, f"{prefix}{name}_{side}"), color=colour, label=words)
        ceiling = _curve(history, f"{prefix}{name}_reconstructions")[1]
        if ceiling:
            axis.axhline(ceiling[-1].value, color="0.35", linestyle="--", linewidth=0.9, label="reconstructions")
        axis.set(title=name, xlabel=unit)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return {"quality": figure}


def onset_lines(history: SeriesHistory, primary: AuditKey) -> list[str]:
    """A sentence for each quantity that was looked at: its onset, or that there was none."""
    lines = []
    for sign in signs(primary, history):
        if looks := _epochs(history, sign.series):
            onset = _onset(history, sign.onset)
            lines.append(f"{sign.name}: {f'none up to epoch {looks[-1]}' if onset is None else f'epoch {onset}'}.")
    return lines


def memorization_figure(
    curves: Sequence[MaskCurves], title: str = "Memorization: AUROC of each audit, with its interval", lines: str = "mask"
) -> Figure:
    """AUROC over epochs with its interval: a panel per attack, a line per mask, or whatever else the curves tell apart."""
    figure, axes = panels([each.attack for each in curves], title)
    labelled: dict[str, Artist] = {}
    for each in curves:
        axis = axes[each.attack]
        each.draw(axis)
        axis.set_title(each.attack)
        handles, masks = axis.get_legend_handles_labels()
        labelled |= dict(zip(masks, handles))
    figure.legend(labelled.values(), labelled, title=lines, loc="outside lower center", ncols=6, frameon=False)
    return figure


def onset_figure(history: SeriesHistory, primary: AuditKey, unit: str = "epoch") -> Figure:
    """A panel per sign that was looked at, stacked on one epoch axis: its curve, its interval if it has one, its onset."""
    shown = [sign for sign in signs(primary, history) if _epochs(history, sign.series)]
    figure = Figure(figsize=(7.0, 0.9 + 2.1 * len(shown)), layout="constrained")
    figure.suptitle("Onset of memorization")
    axes = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    for sign, axis, colour in zip(shown, axes, PALETTE):
        banded(axis, *_curve(history, sign.series), color=colour)
        if control := _epochs(history, f"{sign.series}_heldout"):
            values = [history[epoch, f"{sign.series}_heldout"] for epoch in control]
            axis.plot(control, values, color="0.35", linestyle="--", marker=".")
        axis.axhline(sign.nothing, color="0.7", linewidth=0.8)
        onset = _onset(history, sign.onset)
        if onset is not None:
            axis.axvline(onset, color="0.2", linewidth=1.0, linestyle=":")
        found = "no onset" if onset is None else f"onset: {unit} {onset}"
        axis.set_title(f"{sign.title} ({found})", fontsize="medium", loc="left")
    axes[-1].set_xlabel(unit)
    return figure


def _epochs(history: SeriesHistory, series: str) -> list[int]:
    return sorted(epoch for epoch, each in history if each == series)


def _curve(history: SeriesHistory, series: str) -> tuple[list[int], list[Estimate]]:
    """Epochs and values; where there is no interval the bounds are the value."""
    epochs, ends = _epochs(history, series), ("", "_lower", "_upper")
    return epochs, [Estimate(*(history.get((at, series + end), history[at, series]) for end in ends)) for at in epochs]


def _lines(history: SeriesHistory, series: Mapping[str, str]) -> dict[str, tuple[list[int], list[Estimate]]]:
    """The curves of those series that have values, by their labels."""
    return {label: _curve(history, name) for label, name in series.items() if _epochs(history, name)}


def _onset(history: SeriesHistory, series: str) -> int | None:
    """The onset that a series holds from the look on at which it became known; None where it never did."""
    epochs = _epochs(history, series)
    return int(history[epochs[-1], series]) if epochs else None

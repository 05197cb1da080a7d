"""The geometry of an audit as series and figures."""

from collections.abc import Callable, Mapping

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ldm_privacy.audit import AuditReport, MaskRule, SampleGeometry
from ldm_privacy.geometry import pixel_influence
from ldm_privacy.report.geometry_figures import (
    distortion_figure,
    influence_map_figure,
    mask_frequency_figure,
    pixel_influence_figure,
    quartile_figure,
)
from ldm_privacy.types import AuditBatch, AuditKey, Decoder, Image

NUM_PIXEL_MAPS = 6


def geometry_series(geometry: SampleGeometry, audited: AuditBatch) -> dict[str, float]:
    """Mask stability, mean influence per latent channel, mean local distortion of both sets."""
    influence = geometry.influence.value
    series = {f"geometry/influence/channel{place}": float(value) for place, value in enumerate(influence.mean((0, 2, 3)))}
    if geometry.mask_stability is not None:
        series["geometry/mask_stability"] = geometry.mask_stability
    if geometry.distortion is not None:
        is_member = _membership(geometry.distortion.sample_index, audited)
        for name, chosen in (("members", is_member), ("heldout", ~is_member)):
            series[f"geometry/distortion/{name}"] = float(geometry.distortion.value[chosen].mean())
    return series


def geometry_figures(
    geometry: SampleGeometry,
    audited: AuditBatch,
    masks: Mapping[str, MaskRule],
    decoder: Decoder,
    images: Callable[[Tensor], Image],
    *,
    seed: int = 0,
) -> dict[str, Figure]:
    """Influence maps, kept-mask frequencies, per-pixel influence, distortion violins: name -> figure.

    Cost beside drawing: one decode and 32 products with J for each of six samples.
    """
    influence, index = geometry.influence.value, geometry.influence.sample_index
    kept = {label: geometry.keep(rule, index) for label, rule in masks.items() if rule.keep_fraction < 1}
    first = audited.latent[:NUM_PIXEL_MAPS]
    with torch.no_grad():
        decoded = decoder(first).clamp(-1, 1).cpu()
    pixels = pixel_influence(decoder, first, audited.sample_index[:NUM_PIXEL_MAPS], seed=seed).cpu()
    figures = {"influence": influence_map_figure(influence), "pixel_influence": pixel_influence_figure(decoded, pixels)}
    if kept:
        figures["masks"] = mask_frequency_figure(kept)
    if (distortion := geometry.distortion) is not None:
        is_member = _membership(distortion.sample_index, audited)
        figures["distortion"] = distortion_figure(distortion.value, is_member, images(distortion.sample_index))
    return figures


def quartile_series(report: AuditReport, geometry: SampleGeometry) -> dict[str, float]:
    """AUROC of each unmasked attack in each quartile of local distortion, at its chosen timestep, with bounds."""
    series: dict[str, float] = {}
    for key in _unmasked(report, geometry):
        assert geometry.distortion is not None
        row, timesteps = report.row(key), report.data.timesteps[key.attack]
        place = 0 if row.timestep is None else timesteps.index(row.timestep)
        for quartile, estimate in enumerate(report.quartiles(key, geometry.distortion).auroc[place], start=1):
            prefix = f"memorization/{key}/quartile{quartile}/auroc"
            series |= {prefix: estimate.value, f"{prefix}_lower": estimate.lower, f"{prefix}_upper": estimate.upper}
    return series


def quartile_figures(report: AuditReport, geometry: SampleGeometry) -> dict[str, Figure]:
    """AUROC by timestep for each quartile of local distortion, a figure for each unmasked attack."""
    figures = {}
    for key in _unmasked(report, geometry):
        assert geometry.distortion is not None
        quartiles = report.quartiles(key, geometry.distortion)
        title = f"{key} by quartile of local distortion"
        figures[f"quartiles_{key.attack}"] = quartile_figure(quartiles, report.data.timesteps[key.attack], title=title)
    return figures


def _unmasked(report: AuditReport, geometry: SampleGeometry) -> list[AuditKey]:
    if geometry.distortion is None:
        return []
    keys = [report.data.unmasked(attack) for attack in dict.fromkeys(row.key.attack for row in report.rows)]
    return [key for key in keys if key is not None]


def _membership(sample_index: Tensor, audited: AuditBatch) -> Tensor:
    return torch.isin(sample_index, audited.sample_index[audited.is_member].cpu())

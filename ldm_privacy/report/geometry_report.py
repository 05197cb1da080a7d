"""The geometry of an audit as series and figures."""

from collections.abc import Mapping

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ldm_privacy.audit.passes import RANKING_BYTES
from ldm_privacy.audit.samples import AuditedSamples, MaskRule
from ldm_privacy.device import passes, rows_within
from ldm_privacy.geometry.deviation import latent_mean
from ldm_privacy.geometry.pixels import pixel_influence
from ldm_privacy.report.figures.distortion import distortion_figure
from ldm_privacy.report.figures.influence import influence_map_figure, mask_frequency_figure, pixel_influence_figure
from ldm_privacy.types import Decoder, Images

NUM_PIXEL_MAPS = 6
NUM_PIXEL_PROBES = 32


def geometry_series(samples: AuditedSamples) -> dict[str, float]:
    """Mask stability, mean influence per latent channel, mean local distortion of both sets: as far as they were measured."""
    series = {}
    if samples.influence is not None:
        channels = enumerate(samples.influence.mean((0, 2, 3)))
        series = {f"geometry/influence/channel{place}": float(value) for place, value in channels}
    if samples.mask_stability is not None:
        series["geometry/mask_stability"] = samples.mask_stability
    if samples.distortion is not None:
        for name, side in (("members", samples.is_member), ("heldout", ~samples.is_member)):
            series[f"geometry/distortion/{name}"] = float(samples.distortion[side].nanmean())
    return series


def geometry_figures(
    samples: AuditedSamples, masks: Mapping[str, MaskRule], decoder: Decoder | None, images: Images, *, seed: int = 0
) -> dict[str, Figure]:
    """Influence maps, kept-mask frequencies, per-pixel influence, distortion violins, as far as there are any: name -> figure.

    Cost beside drawing: one decode and 32 products with J for each of six samples.

    Args:
        samples: All audited samples.
        masks: By label; those that keep everything are not drawn.
        decoder: Takes latents where the samples lie; None in pixel space.
        images: Of the samples.
        seed: Of the probes.
    """
    figures = {}
    if samples.influence is not None:
        figures["influence"] = influence_map_figure(latent_mean(samples.influence), len(samples))
    if decoder is not None:
        first, index = samples.latent[:NUM_PIXEL_MAPS], samples.sample_index[:NUM_PIXEL_MAPS]
        pixels, decoded = pixel_influence(decoder, first, index, num_probes=NUM_PIXEL_PROBES, seed=seed)
        figures["pixel_influence"] = pixel_influence_figure(decoded.clamp(-1, 1).cpu(), pixels.cpu())
    if drawn := {label: rule for label, rule in masks.items() if rule.keep_fraction < 1}:
        figures["masks"] = mask_frequency_figure(_kept_shares(samples, drawn), len(samples))
    if samples.distortion is not None and (measured := samples.distortion.isfinite()).any():
        is_member, index = samples.is_member[measured], samples.sample_index[measured].cpu()
        figures["distortion"] = distortion_figure(samples.distortion[measured], is_member, lambda rows: images(index[rows]))
    return figures


def _kept_shares(samples: AuditedSamples, masks: Mapping[str, MaskRule]) -> dict[str, Tensor]:
    """Of each mask the share of samples that keep a dimension, (channels, height, width) float64."""
    shape = samples.latent.shape[1:]
    counts = {label: torch.zeros(shape, dtype=torch.float64) for label in masks}
    for rows in passes(len(samples), rows_within(RANKING_BYTES * shape.numel(), samples.latent.device)):
        some = samples.rows(rows)
        for label, rule in masks.items():
            counts[label] += some.keep(rule).sum(0).cpu()
    return {label: count / len(samples) for label, count in counts.items()}

"""The folder of an evaluation: metrics.json, scores.parquet, exposed.csv, report.html, figures."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from ldm_privacy.audit import AuditedSamples, MaskRule, write_scores
from ldm_privacy.evidence import Evidence
from ldm_privacy.report.evidence_figures import histogram_figure, keep_fraction_figure, p_value_figure
from ldm_privacy.report.evidence_page import Protocol, evidence_page
from ldm_privacy.report.figures import auroc_by_timestep_figure, roc_figure
from ldm_privacy.report.files import write_metrics
from ldm_privacy.report.geometry_report import geometry_figures, quartile_figures
from ldm_privacy.report.page import write_page
from ldm_privacy.types import Image

FILES = "report.html, metrics.json, scores.parquet, exposed.csv, figures/"


def evidence_figures(
    evidence: Evidence, samples: AuditedSamples, masks: Mapping[str, MaskRule], images: Callable[[Tensor], Image]
) -> dict[str, Figure]:
    """Every figure of an evaluation by name, without those that need the curves of a training."""
    report, geometry = evidence.report, samples.geometry
    unmasked = [report.data.unmasked(attack) for attack in dict.fromkeys(row.key.attack for row in report.rows)]
    figures = {
        "roc": roc_figure(report, title="ROC"),
        "auroc_by_timestep": auroc_by_timestep_figure(report, title="AUROC over timesteps"),
        "histogram": histogram_figure(report, [key for key in unmasked if key is not None] or [evidence.key]),
        **quartile_figures(report, geometry),
        **geometry_figures(geometry, samples.batch, masks, samples.decoder, images),
    }
    if evidence.dataset is not None:
        figures["p_value"] = p_value_figure(evidence.dataset, evidence.key, alpha=1 - report.confidence)
    if report.sweep:
        figures["keep_fraction"] = keep_fraction_figure(report)
    return figures


def write_evaluation(
    folder: Path,
    evidence: Evidence,
    protocol: Protocol,
    figures: Mapping[str, Figure],
    images: Callable[[Tensor], Image],
    *,
    facts: dict[str, Any],
    onsets: Sequence[str] = (),
) -> Path:
    """Write all files of an evaluation; returns the path of report.html.

    Args:
        folder: Made where it isn't there; files in it are replaced.
        evidence, protocol, figures, images, onsets: See `evidence_page`; the figures are also stored as PNG.
        facts: For metrics.json; must hold "split_hash".
    """
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    write_metrics(evidence, folder / "metrics.json", facts=facts)
    write_scores(evidence.report, folder / "scores.parquet", split_hash=facts["split_hash"])
    exposure = evidence.exposure
    table = {"sample_index": exposure.sample_index, "score": exposure.score, "fpr": exposure.fpr}
    table["is_calibration"] = exposure.is_calibration
    frame = pd.DataFrame({name: value.numpy() for name, value in table.items()})
    frame.insert(0, "rank", range(1, len(frame) + 1))
    frame.to_csv(folder / "exposed.csv", index=False)
    for name, figure in figures.items():
        figure.savefig(folder / "figures" / f"{name}.png", dpi=110)
    path = folder / "report.html"
    write_page(evidence_page(evidence, protocol, figures, images, onsets=onsets), path)
    return path

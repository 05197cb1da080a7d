"""The folder of an evaluation: metrics.json, scores.parquet, exposed.csv, report.html, figures."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ldm_privacy.audit.samples import AuditedSamples, MaskRule
from ldm_privacy.evidence.gather import Evidence
from ldm_privacy.report.context import Context, Protocol
from ldm_privacy.report.evidence_page import evidence_page
from ldm_privacy.report.figures.attacks import (
    auroc_by_timestep_figure,
    histogram_figure,
    keep_fraction_figure,
    roc_figure,
)
from ldm_privacy.report.figures.whole_set import p_value_figure
from ldm_privacy.report.files import write_metrics
from ldm_privacy.report.geometry_report import geometry_figures, quartile_figures
from ldm_privacy.report.page.page import write_page
from ldm_privacy.types import Decoder, Images

FILES = "report.html, metrics.json, scores.parquet, exposed.csv, figures/"


def evidence_figures(
    evidence: Evidence,
    samples: AuditedSamples,
    masks: Mapping[str, MaskRule],
    decoder: Decoder | None,
    images: Images,
    *,
    drawn: Mapping[str, Figure] | None = None,
) -> dict[str, Figure]:
    """Every figure of an evaluation by name, without those that need the curves of a training.

    Args:
        evidence, images: See `gather_evidence`.
        samples, masks, decoder: See `geometry_figures`.
        drawn: The figures of the geometry, where they are drawn already.
    """
    report = evidence.report
    figures = {
        "roc": roc_figure(report, title="ROC"),
        "auroc_by_timestep": auroc_by_timestep_figure(report, title="AUROC over timesteps"),
        "histogram": histogram_figure(report, report.unmasked or [evidence.key]),
        **quartile_figures(report, samples.distortion),
        **(geometry_figures(samples, masks, decoder, images) if drawn is None else drawn),
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
    images: Images,
    *,
    facts: dict[str, Any],
    onsets: Sequence[str] = (),
) -> Path:
    """Write all files of an evaluation; returns the path of report.html.

    Args:
        folder: Made where it isn't there; files in it are replaced.
        evidence: See `gather_evidence`.
        protocol, figures, images, onsets: See `Context`; the figures are also stored as PNG.
        facts: For metrics.json; must hold "split_hash".
    """
    from ldm_privacy.audit.score_file import write_scores

    (folder / "figures").mkdir(parents=True, exist_ok=True)
    write_metrics(evidence, folder / "metrics.json", facts=facts)
    write_scores(evidence.report, folder / "scores.parquet", split_hash=facts["split_hash"])
    exposure = evidence.exposure
    columns = exposure.sample_index, exposure.score, exposure.fpr, exposure.is_calibration
    with (folder / "exposed.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("rank", "sample_index", "score", "fpr", "is_calibration"))
        writer.writerows((rank, *row) for rank, row in enumerate(zip(*(each.tolist() for each in columns)), start=1))
    for name, figure in figures.items():
        figure.savefig(folder / "figures" / f"{name}.png", dpi=110)
    path = folder / "report.html"
    write_page(evidence_page(evidence, Context(protocol, figures, images, onsets)), path)
    return path

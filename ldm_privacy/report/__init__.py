"""Tables and files of an audit for people."""

from ldm_privacy.report.figures import auroc_by_timestep_figure, image_grid, memorization_figure, roc_figure
from ldm_privacy.report.files import write_metrics, write_scores
from ldm_privacy.report.geometry_report import (
    geometry_figures,
    geometry_series,
    quartile_figures,
    quartile_series,
    write_figures,
)
from ldm_privacy.report.tables import audit_legend, audit_line, audit_table, print_audit

__all__ = [
    "audit_legend",
    "audit_line",
    "audit_table",
    "auroc_by_timestep_figure",
    "geometry_figures",
    "geometry_series",
    "image_grid",
    "memorization_figure",
    "print_audit",
    "quartile_figures",
    "quartile_series",
    "roc_figure",
    "write_figures",
    "write_metrics",
    "write_scores",
]

"""Tables and files of an audit for people."""

from ldm_privacy.report.comparison import print_comparison, write_comparison
from ldm_privacy.report.figures import auroc_by_timestep_figure, image_grid, memorization_figure, roc_figure
from ldm_privacy.report.files import write_metrics
from ldm_privacy.report.geometry_report import geometry_figures, geometry_series, quartile_figures, quartile_series
from ldm_privacy.report.tables import audit_legend, audit_line, audit_table, print_audit, print_verdict

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
    "print_comparison",
    "print_verdict",
    "quartile_figures",
    "quartile_series",
    "roc_figure",
    "write_comparison",
    "write_metrics",
]

"""The audit of a denoiser: attacks with masks on members and held-out samples, and the numbers that come of it."""
# ruff: noqa: F401

from ldm_privacy.audit.audit import COMBINED, Audit, check_labels
from ldm_privacy.audit.report import AuditReport, report_of
from ldm_privacy.audit.row import AuditRow
from ldm_privacy.audit.samples import AuditedSamples, MaskRule, check_halves, is_calibration
from ldm_privacy.audit.scores import TUNED, AuditScores
from ldm_privacy.audit.sweep import RANKINGS, SweepPoint

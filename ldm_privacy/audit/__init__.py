"""The audit of a denoiser: attacks with masks on members and held-out samples, and the numbers that come of it."""

from ldm_privacy.audit.audit import COMBINED, Audit, check_labels
from ldm_privacy.audit.news import AuditNews
from ldm_privacy.audit.report import AuditReport, report_of
from ldm_privacy.audit.row import AuditRow
from ldm_privacy.audit.samples import AuditedSamples, MaskRule, SampleGeometry, SampleTable, check_halves
from ldm_privacy.audit.score_file import ScoreFile, read_scores, write_scores
from ldm_privacy.audit.scores import TUNED, AuditScores
from ldm_privacy.audit.sweep import RANKINGS, SweepPoint

__all__ = [
    "COMBINED",
    "RANKINGS",
    "TUNED",
    "Audit",
    "AuditNews",
    "AuditReport",
    "AuditRow",
    "AuditScores",
    "AuditedSamples",
    "MaskRule",
    "SampleGeometry",
    "SampleTable",
    "ScoreFile",
    "SweepPoint",
    "check_halves",
    "check_labels",
    "read_scores",
    "report_of",
    "write_scores",
]

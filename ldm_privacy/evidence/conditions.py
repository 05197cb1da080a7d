"""What gives a member away: the image, or its pairing with the condition."""

from ldm_privacy.audit.report import AuditReport
from ldm_privacy.audit.row import OWN
from ldm_privacy.types import AuditKey

IGNORED = 0.01
"""A denoiser whose predictions move by less than this share of their size with another condition hardly listens to it."""


def said_of_conditions(report: AuditReport, key: AuditKey) -> str | None:
    """In words: how the unmasked attack of that key does without the condition, and with somebody else's; whether the denoiser
    listens to it. None where the audit has no such views.

    By fixed rules: the image gives a member away where an interval under another condition lies above .5; the pairing with the
    condition where AUROC surely falls under it.
    """
    attack = report.data.derived[key].plain.attack if key in report.data.derived else key.attack
    rows = {report.data.views[row.key.attack].view: row for row in report.rows if _view_of(report, row.key) == attack}
    if not rows:
        return None
    names = {"null": "without its condition", "shuffled": "with somebody else's"}
    parts = [
        f"{names.get(view, f'under {view}')} {row.metrics.auroc} ({row.gains[OWN].value:+.3f})" for view, row in rows.items()
    ]
    by_image = [view for view, row in rows.items() if row.metrics.auroc.lower > 0.5]
    falls = [view for view, row in rows.items() if row.gains[OWN].upper < 0]
    own = report.data.unmasked(attack)
    assert own is not None
    if report.row(own).metrics.auroc.lower <= 0.5 and not by_image:
        meaning = "under none of them are members told apart for certain"
    elif by_image and falls:
        meaning = "the image gives a member away, and its own condition adds to it"
    elif by_image:
        meaning = "it is the image that gives a member away; its own condition adds nothing that is certain"
    elif falls:
        meaning = "it is the pairing of image and condition that gives a member away, not the image alone"
    else:
        meaning = "whether the image or its condition gives a member away can't be told"
    said = f"{attack} under other conditions: {', '.join(parts)}: {meaning}."
    use = report.condition_use
    if use is not None:
        hardly = (
            "The denoiser hardly listens to its condition" if use.upper < IGNORED else "The denoiser listens to its condition"
        )
        said += f" {hardly}: with somebody else's its predictions move by {use.value:.1%} of their size."
    return said


def _view_of(report: AuditReport, key: AuditKey) -> str | None:
    view = report.data.views.get(key.attack)
    return None if view is None else view.attack

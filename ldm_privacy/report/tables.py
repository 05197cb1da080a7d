"""An audit in the terminal."""

from rich.table import Table

from ldm_privacy.audit import AuditReport
from ldm_privacy.types import AuditKey, Estimate

INTERVAL_NOTE = (
    "Intervals are over the audited samples; they leave out the randomness of training. ASR picks its threshold on the "
    "reported samples and is optimistic. The timestep was chosen on the calibration half; 'oracle' is the best on the "
    "reported half."
)


def audit_table(report: AuditReport, *, title: str, confidence: float = 0.95) -> Table:
    """Attack x mask: AUROC, TPR@1%FPR and ASR with intervals, the chosen timestep, and the oracle's AUROC."""
    num_members = int(report.reported_membership.sum())
    num_heldout = len(report.reported_membership) - num_members
    table = Table(title=f"{title} ({num_members} members, {num_heldout} held-out reported)", title_justify="left")
    table.add_column("attack / mask", no_wrap=True)
    for column in (f"AUROC [{confidence:.0%}]", "TPR@1%FPR", "ASR"):
        table.add_column(column, no_wrap=True)
    table.add_column("t", justify="right")
    table.add_column("oracle AUROC", justify="right")
    attack = None
    for row in report.rows:
        if attack is not None and row.key.attack != attack:
            table.add_section()
        attack = row.key.attack
        table.add_row(
            str(row.key),
            str(row.metrics.auroc),
            str(row.metrics.tpr_at_1fpr),
            str(row.metrics.asr),
            "-" if row.timestep is None else str(row.timestep),
            f"{row.oracle_auroc:.3f}",
        )
    return table


def audit_line(report: AuditReport, epoch: int, *, width: int = 4) -> str:
    """One audit in one line: the AUROC of each attack with each mask."""
    attacks: dict[str, list[str]] = {}
    for row in report.rows:
        attacks.setdefault(row.key.attack, []).append(f"{row.key.mask} {row.metrics.auroc.value:.3f}")
    parts = [f"{attack}: {', '.join(values)}" for attack, values in attacks.items()]
    return f"epoch {epoch:>{width}}  AUROC  " + "  |  ".join(parts)


def onset_sentence(key: AuditKey, onset_epoch: int | None, rise: Estimate | None) -> str:
    """When memorization set in, in words."""
    if onset_epoch is None:
        return f"No memorization onset of {key}: its AUROC did not rise above the untrained denoiser's for certain."
    tail = "" if rise is None else f" (rise of the AUROC at the last audit: {rise})"
    return f"Memorization onset of {key}: epoch {onset_epoch}{tail}."

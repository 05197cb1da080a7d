"""An audit in the terminal."""

from collections.abc import Iterable

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ldm_privacy.audit import AuditReport
from ldm_privacy.metrics import resolvable
from ldm_privacy.onset import Rise
from ldm_privacy.types import AuditKey, Estimate

INTERVAL_NOTE = (
    "Intervals are over the audited samples; they leave out the randomness of training. ASR picks its threshold on the "
    "reported samples and is optimistic. The timestep was chosen on the calibration half; 'oracle' is the best on the "
    "reported half."
)


def print_audit(report: AuditReport, console: Console, *, title: str) -> None:
    """The table of an audit and what its numbers leave out."""
    console.print(audit_table(report, title=title))
    console.print(INTERVAL_NOTE, highlight=False)
    num_heldout = int((~report.reported_membership).sum())
    if not resolvable(0.01, num_heldout):
        console.print(f"{num_heldout} held-out samples can't resolve an FPR of 1 %: TPR@1%FPR allows none.", highlight=False)
    elif num_heldout < 368:  # (1 - 0.01)^n > 0.025: the lower bound is 0 whatever the scores
        console.print(
            f"TPR@1%FPR rests on {int(0.01 * num_heldout)} of {num_heldout} held-out samples; with fewer than 368 its lower "
            "bound is 0.",
            highlight=False,
        )


def audit_table(report: AuditReport, *, title: str) -> Table:
    """Attack x mask: AUROC and TPR@1%FPR with intervals, ASR, the chosen timestep, and the oracle's AUROC."""
    num_members = int(report.reported_membership.sum())
    num_heldout = len(report.reported_membership) - num_members
    table = Table(
        title=f"{title}: {num_members} members, {num_heldout} held-out reported, {report.confidence:.0%} intervals",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for column in ("attack/mask", "AUROC", "TPR@1%FPR"):
        table.add_column(column, no_wrap=True)
    for column in ("ASR", "t", "oracle"):
        table.add_column(column, no_wrap=True, justify="right")
    attack = None
    for row in report.rows:
        if attack is not None and row.key.attack != attack:
            table.add_section()
        attack = row.key.attack
        table.add_row(
            str(row.key),
            short(row.metrics.auroc),
            short(row.metrics.tpr_at_1fpr),
            _digits(row.metrics.asr.value),
            "-" if row.timestep is None else str(row.timestep),
            _digits(row.oracle_auroc),
        )
    return table


def short(estimate: Estimate) -> str:
    """An estimate with its bounds in few characters: .812 [.74,.87]."""
    return f"{_digits(estimate.value)} [{_digits(estimate.lower, 2)},{_digits(estimate.upper, 2)}]"


def _digits(value: float, places: int = 3) -> str:
    return f"{value:.{places}f}".removeprefix("0")


def audit_line(report: AuditReport, epoch: int, *, width: int = 4) -> str:
    """One audit in one line: the AUROC of each attack, a number per mask in the order of `audit_legend`."""
    attacks: dict[str, list[str]] = {}
    for row in report.rows:
        attacks.setdefault(row.key.attack, []).append(_digits(row.metrics.auroc.value))
    return f"epoch {epoch:>{width}}  " + "  ".join(f"{attack} {' '.join(values)}" for attack, values in attacks.items())


def audit_legend(masks: Iterable[str]) -> str:
    """What the numbers of `audit_line` are."""
    return f"AUROC with the masks {', '.join(masks)}:"


def onset_sentence(key: AuditKey, onset_epoch: int | None, rise: Rise | None) -> str:
    """When memorization set in, in words."""
    if onset_epoch is not None:
        return f"Memorization onset ({key}): epoch {onset_epoch}."
    if rise is None:
        return f"Memorization onset ({key}): there was no audit after the untrained denoiser's."
    return (
        f"Memorization onset ({key}): none. The AUROC's rise over the untrained denoiser was {rise.value:+.3f} at the "
        f"last audit, its lower bound {rise.lower:+.3f}."
    )

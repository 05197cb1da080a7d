"""An audit in the terminal."""

import re
from collections.abc import Mapping

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ldm_privacy.audit.report import AuditReport
from ldm_privacy.audit.row import AuditRow
from ldm_privacy.audit.scores import TUNED
from ldm_privacy.evidence.null import PermutedRow
from ldm_privacy.evidence.verdict import Verdict
from ldm_privacy.types import AuditKey, Estimate

INTERVAL_NOTE = (
    "Intervals are over the audited samples; they leave out the randomness of training. ASR picks its threshold on the "
    "reported samples and is optimistic. The timestep (of `tuned` also the share of dimensions kept) was chosen on the "
    "calibration half; 'oracle' is the best on the reported half."
)


def print_audit(
    report: AuditReport, console: Console, *, title: str, permuted: Mapping[AuditKey, PermutedRow] | None = None
) -> None:
    """The table of an audit, what masks gain, and what the numbers leave out.

    With `permuted` the table also has the band of the AUROC under permuted labels.
    """
    console.print(audit_table(report, title=title, permuted=permuted))
    if any(row.gains for row in report.rows if row.key.mask not in report.data.controls):
        console.print(gain_table(report))
    console.print(INTERVAL_NOTE, highlight=False)
    for row in report.rows:
        if report.is_constant(row.key):
            console.print(f"{row.key} gives every sample the same score: it ranks nobody.", highlight=False)
    num_heldout = int((~report.reported_membership).sum())
    coarse = [each.target_fpr for each in report.rows[0].metrics.tpr_at_fpr if not each.is_resolvable]
    for target in coarse:
        console.print(f"{num_heldout} held-out samples can't resolve an FPR of {target:.1%}: the TPR there allows none.")
    if 0.01 not in coarse and num_heldout < 368:  # (1 - 0.01)^n > 0.025: the lower bound is 0 whatever the scores
        console.print(
            f"TPR@1%FPR rests on {int(0.01 * num_heldout)} of {num_heldout} held-out samples; with fewer than 368 its lower "
            "bound is 0.",
            highlight=False,
        )


def audit_table(report: AuditReport, *, title: str, permuted: Mapping[AuditKey, PermutedRow] | None = None) -> Table:
    """Attack x mask: AUROC and TPR@1%FPR with intervals, ASR, the chosen timestep, and the oracle's AUROC."""
    num_members = int(report.reported_membership.sum())
    num_heldout = len(report.reported_membership) - num_members
    table = Table(
        title=f"{escape(title)}: {num_members} members, {num_heldout} held-out reported, {report.confidence:.0%} intervals",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    target = report.rows[0].metrics.tpr_at_1fpr.target_fpr
    for column in ("attack/mask", "AUROC", *(["permuted"] if permuted else []), f"TPR@{100 * target:g}%FPR"):
        table.add_column(column, no_wrap=True)
    for column in ("ASR", "t", "oracle"):
        table.add_column(column, no_wrap=True, justify="right")
    attack = None
    for row in report.rows:
        if attack is not None and row.key.attack != attack:
            table.add_section()
        attack = row.key.attack
        band = None if permuted is None else permuted[row.key].band
        table.add_row(
            label(row),
            short(row.metrics.auroc),
            *([] if band is None else [f"{digits(band.lower, 2)}-{digits(band.upper, 2)}"]),
            short(row.metrics.tpr_at_1fpr),
            digits(row.metrics.asr.value),
            "-" if row.timestep is None else str(row.timestep),
            digits(row.oracle_auroc),
        )
    return table


def gain_table(report: AuditReport) -> Table:
    """What masks of largest influence gain over the unmasked attack and over controls of the same size, paired."""
    title = f"AUROC gained by the mask, paired, with half its {report.confidence:.0%} interval"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    claims = [row for row in report.rows if row.gains and row.key.mask not in report.data.controls]
    # `tuned` is compared with "random", top60 with "random60": one column for both.
    columns = list(dict.fromkeys(_kind(other) for row in claims for other in row.gains))
    table.add_column("attack/mask", no_wrap=True)
    for column in columns:
        table.add_column(column if column != columns[0] else f"over {column}", no_wrap=True)
    for row in claims:
        gains = {_kind(other): gain for other, gain in row.gains.items()}
        table.add_row(label(row), *(_gain(gains[column]) if column in gains else "" for column in columns))
    return table


def label(row: AuditRow) -> str:
    """Attack and mask; of `tuned` also the share of dimensions kept."""
    return f"{row.key} {row.keep_fraction:.0%}" if row.key.mask == TUNED else str(row.key)


def _kind(mask: str) -> str:
    """One column for "random" (of `tuned`) and "random60" (of `top60`); other labels stand for themselves."""
    match = re.fullmatch(r"(random|std|deviation|low|lowest)\d*", mask)
    return {"std": "deviation", "low": "lowest"}.get(match[1], match[1]) if match else mask


def _gain(estimate: Estimate) -> str:
    return f"{estimate.value:+.3f}".replace("0.", ".", 1) + f" ±{digits((estimate.upper - estimate.lower) / 2)}"


def signed(estimate: Estimate) -> str:
    """A difference with its bounds: +.012 [-.01,+.03]."""
    value, lower, upper = (
        f"{number:+.{places}f}".replace("0.", ".", 1)
        for number, places in ((estimate.value, 3), (estimate.lower, 2), (estimate.upper, 2))
    )
    return f"{value} [{lower},{upper}]"


def print_verdict(verdict: Verdict, console: Console) -> None:
    """The three sentences."""
    for sentence in verdict.sentences:
        console.print(sentence, highlight=False, soft_wrap=False)


def short(estimate: Estimate) -> str:
    """An estimate with its bounds in few characters: .812 [.74,.87]."""
    return f"{digits(estimate.value)} [{digits(estimate.lower, 2)},{digits(estimate.upper, 2)}]"


def digits(value: float, places: int = 3) -> str:
    """A number from -1 to 1 without its leading zero."""
    return f"{value:.{places}f}".replace("-0.", "-.").removeprefix("0")

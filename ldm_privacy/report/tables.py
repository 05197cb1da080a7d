"""An audit in the terminal."""

import re
from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ldm_privacy.audit.report import AuditReport
from ldm_privacy.audit.row import GROUPS, OWN, PLAIN, AuditRow
from ldm_privacy.audit.scores import TUNED
from ldm_privacy.evidence.null import PermutedRow
from ldm_privacy.evidence.verdict import Verdict
from ldm_privacy.metrics.rounding import at_least
from ldm_privacy.types import AuditKey, Estimate

INTERVAL_NOTE = (
    "Intervals are over the audited samples; they leave out the randomness of training. ASR picks its threshold on the "
    "reported samples and is optimistic. Each half chose the timestep (of `tuned` also the share of dimensions kept) for the "
    "other; 'oracle' is the best on the reported samples."
)


def print_audit(
    report: AuditReport, console: Console, *, title: str, permuted: Mapping[AuditKey, PermutedRow] | None = None
) -> None:
    """The table of an audit, what masks gain, and what the numbers leave out.

    With `permuted` the table also has the band of the AUROC under permuted labels.
    """
    console.print(_audit_table(report, title, permuted))
    if any(row.key not in report.data.derived for row in claims(report)):
        console.print(_gain_table(report))
    if report.data.derived:
        console.print(_calibration_table(report))
    if report.data.views:
        console.print(_view_table(report))
    if any(row.by_repeats for row in report.rows):
        console.print(_repeats_table(report))
    if report.data.by_coins:
        console.print(_epsilon_table(report))
    constant = [row.key for row in report.rows if report.is_constant(row.key)]
    same = [f"{key} gives every sample the same score: it ranks nobody." for key in constant]
    for sentence in (INTERVAL_NOTE, *threats(report), *same, *unresolved(report)):
        console.print(sentence, highlight=False)


def print_verdict(verdict: Verdict, console: Console) -> None:
    """Its sentences."""
    for sentence in verdict.sentences:
        console.print(sentence, highlight=False)


def threats(report: AuditReport) -> list[str]:
    """Who can have calibrated scores, in words."""
    beyond = "beyond what the reference has of the same image under the same noise, for"
    meanings = {
        (False, ""): "beyond the image's complexity, for whoever has the model and held-out images",
        (False, "outsider"): f"{beyond} whoever has the model and its reference",
        (False, "insider"): f"{beyond} an insider who has the run's checkpoints",
        (True, ""): "with earlier audits, for an insider who has the run's checkpoints",
    }
    sorts: dict[tuple[bool, str], dict[str, None]] = {kind: {} for kind in meanings}
    for key, derived in report.data.derived.items():
        sorts[derived.needs_history, "" if derived.needs_history else derived.reference][key.attack] = None
    return [f"{_and(list(labels))}: {meanings[kind]}." for kind, labels in sorts.items() if labels]


def _and(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + " and " * (len(names) > 1) + names[-1]


def claims(report: AuditReport) -> list[AuditRow]:
    """Rows of masks of largest influence, and calibrated ones, that are compared with others."""
    others = report.data.controls, report.data.views
    return [row for row in report.rows if row.gains and row.key.mask not in others[0] and row.key.attack not in others[1]]


def unresolved(report: AuditReport) -> list[str]:
    """What of the TPRs the held-out samples are too few for, in words."""
    metrics = report.rows[0].metrics
    count, coarse = metrics.num_heldout, [each.target_fpr for each in metrics.tpr_at_fpr if not each.is_resolvable]
    found = []
    if coarse:
        targets = " or ".join(f"{target:.1%}" for target in coarse)
        found.append(f"{count} held-out samples can't resolve an FPR of {targets}: the TPR there allows none.")
    if 0.01 not in coarse and count < 368:  # (1 - 0.01)^n > 0.025: the lower bound is 0 whatever the scores
        few = "with fewer than 368 its lower bound is 0."
        found.append(f"TPR@1%FPR rests on {int(0.01 * count)} of {count} held-out samples; {few}")
    return found


def plain_table(title: str) -> Table:
    """As every table of the terminal looks."""
    return Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))


def _audit_table(report: AuditReport, title: str, permuted: Mapping[AuditKey, PermutedRow] | None) -> Table:
    """Attack x mask: AUROC and TPR@1%FPR with intervals, ASR, the chosen timestep (of a flow sigma), and the oracle's AUROC."""
    metrics = report.rows[0].metrics
    counts = f"{metrics.num_members} members, {metrics.num_heldout} held-out reported, {report.confidence:.0%} intervals"
    table = plain_table(f"{escape(title)}: {counts}")
    target = metrics.tpr_at_1fpr.target_fpr
    for column in ("attack/mask", "AUROC", *(["permuted"] if permuted else []), f"TPR@{100 * target:g}%FPR"):
        table.add_column(column, no_wrap=True)
    for column in ("ASR", "sigma" if report.data.sigmas else "t", "oracle"):
        table.add_column(column, no_wrap=True, justify="right")
    for place, row in enumerate(report.rows):
        if place and row.key.attack != report.rows[place - 1].key.attack:
            table.add_section()
        band = None if permuted is None else permuted[row.key].band
        table.add_row(
            _label(row),
            short(row.metrics.auroc),
            *([] if band is None else [f"{digits(band.lower, 2)}-{digits(band.upper, 2)}"]),
            short(row.metrics.tpr_at_1fpr),
            digits(row.metrics.asr.value),
            (row.sigma or row.timestep).replace(" and ", ","),
            digits(row.oracle_auroc),
        )
    return table


def _gain_table(report: AuditReport) -> Table:
    """What masks of largest influence gain over the unmasked attack and over controls of the same size, paired."""
    table = plain_table(f"AUROC gained by the mask, paired, with half its {report.confidence:.0%} interval")
    # `tuned` is compared with "random", top60 with "random60": one column for both.
    masked = [row for row in claims(report) if row.key not in report.data.derived]
    gains = {_label(row): {_kind(other): gain for other, gain in row.gains.items()} for row in masked}
    columns = list(dict.fromkeys(column for row in gains.values() for column in row))
    for column in ("attack/mask", f"over {columns[0]}", *columns[1:]):
        table.add_column(column, no_wrap=True)
    for label, row in gains.items():
        table.add_row(label, *(_gain(row[column]) if column in row else "" for column in columns))
    return table


def _calibration_table(report: AuditReport) -> Table:
    """What calibrated scores gain over the plain attack, paired."""
    table = plain_table(f"AUROC gained by calibration, paired, with its {report.confidence:.0%} interval")
    for column in ("calibrated", "over", "gain", "for"):
        table.add_column(column, no_wrap=True)
    for key, derived in report.data.derived.items():
        whom = "an insider" if derived.is_insiders else "with the reference" if derived.reference else "anybody"
        table.add_row(str(key), str(derived.plain), short(report.row(key).gains[PLAIN], "+"), whom)
    return table


def view_rows(report: AuditReport) -> list[tuple[str, str, str, str, str]]:
    """Attack, condition, AUROC under it, AUROC under the own one, gain: of every attack under another condition."""
    found = []
    for row in report.rows:
        if (view := report.data.views.get(row.key.attack)) is not None:
            own = report.row(AuditKey(view.attack, row.key.mask)).metrics.auroc
            found.append((*view, short(row.metrics.auroc), short(own), short(row.gains[OWN], "+")))
    return found


def _view_table(report: AuditReport) -> Table:
    """What attacks lose without the condition, or with somebody else's, paired."""
    table = plain_table(f"AUROC under other conditions, paired, with {report.confidence:.0%} intervals")
    for column in ("attack", "condition", "AUROC", "own condition", "difference"):
        table.add_column(column, no_wrap=True)
    for row in view_rows(report):
        table.add_row(*row)
    return table


def repeats_rows(report: AuditReport) -> list[tuple[str, ...]]:
    """Attack, AUROC of the members that come more often and of the others: of every unmasked attack and calibrated score."""
    wanted = {*report.unmasked, *report.data.derived}
    rows = [row for row in report.rows if row.key in wanted and row.by_repeats]
    return [(str(row.key), *(short(row.by_repeats[name]) if name in row.by_repeats else "" for name in GROUPS)) for row in rows]


def _repeats_table(report: AuditReport) -> Table:
    """Planted duplicates and the other members, each against all held-out images."""
    assert report.data.repeats is not None
    count = int((report.data.repeats > 1).sum())
    table = plain_table(f"AUROC of {count} planted duplicates and of the other members, each against all held-out images")
    for column in ("attack/mask", *GROUPS):
        table.add_column(column, no_wrap=True)
    for row in repeats_rows(report):
        table.add_row(*row)
    return table


EPSILON_COLUMNS = ("epsilon at least", "right", "guesses", "coins")


def epsilon_cells(row: AuditRow) -> tuple[str, ...]:
    """Those columns of a row that bounds epsilon; counts are of the half that gives the bound."""
    assert row.epsilon is not None
    half = row.epsilon.best
    return at_least(row.epsilon.value), str(half.num_correct), str(half.num_guesses), str(half.num_coins)


def _epsilon_table(report: AuditReport) -> Table:
    """The bound by every unmasked attack and calibrated score."""
    table = plain_table(f"Epsilon by the coins that decided who is a member, {report.confidence:.0%} confidence each")
    table.add_column("attack/mask", no_wrap=True)
    for column in EPSILON_COLUMNS:
        table.add_column(column, no_wrap=True, justify="right")
    for key in dict.fromkeys([*report.unmasked, *report.data.derived]):
        table.add_row(str(key), *epsilon_cells(report.row(key)))
    return table


def mask_of(row: AuditRow) -> str:
    """The mask's label; of `tuned` also the share of dimensions kept."""
    return f"{TUNED} {row.keep_fraction:.0%}" if row.key.mask == TUNED else row.key.mask


def _label(row: AuditRow) -> str:
    return f"{row.key.attack}/{mask_of(row)}"


def _kind(mask: str) -> str:
    """One column for "random" (of `tuned`) and "random60" (of `top60`); other labels stand for themselves."""
    match = re.fullmatch(r"(random|std|deviation|low|lowest)\d*", mask)
    return {"std": "deviation", "low": "lowest"}.get(match[1], match[1]) if match else mask


def _gain(estimate: Estimate) -> str:
    return f"{digits(estimate.value, sign='+')} ±{digits((estimate.upper - estimate.lower) / 2)}"


def short(estimate: Estimate, sign: str = "") -> str:
    """An estimate with its bounds in few characters: .812 [.74,.87]; with `sign` "+" as a difference: +.012 [-.01,+.03]."""
    return f"{digits(estimate.value, 3, sign)} [{digits(estimate.lower, 2, sign)},{digits(estimate.upper, 2, sign)}]"


def digits(value: float, places: int = 3, sign: str = "") -> str:
    """A number from -1 to 1 without its leading zero; with `sign` "+" also positive ones have theirs."""
    return f"{value:{sign}.{places}f}".replace("0.", ".", 1)

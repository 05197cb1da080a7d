"""Section: the attacks as tables."""

from ldm_privacy.audit.row import AuditRow
from ldm_privacy.audit.scores import TUNED
from ldm_privacy.evidence.gather import Evidence
from ldm_privacy.registry import SECTIONS
from ldm_privacy.report.context import Context
from ldm_privacy.report.page.blocks import Block, Cell, DataTable, Section
from ldm_privacy.report.tables import INTERVAL_NOTE, short, signed


@SECTIONS.register("attacks")
def attacks(evidence: Evidence, context: Context) -> Section:
    """How to read the tables; AUROC with its null band, rates at fixed false-positive rates, what masks gain."""
    return Section("attacks", "How well attacks tell members apart", _lead(evidence), _tables(evidence), place=10)


def _lead(evidence: Evidence) -> str:
    metrics = evidence.report.rows[0].metrics
    lead = "Members are the positive class; .5 is guessing."
    coarse = [f"{each.target_fpr:g}" for each in metrics.tpr_at_fpr if not each.is_resolvable]
    if not coarse:
        return lead
    return (
        f"{lead} {metrics.num_heldout} held-out samples can't resolve a false-positive rate of {' or '.join(coarse)}: the TPR "
        "there allows none."
    )


def _tables(evidence: Evidence) -> tuple[Block, ...]:
    report = evidence.report
    bold = [place for place, row in enumerate(report.rows) if row.key == evidence.key]
    areas = DataTable(
        ("attack", "mask", "kept", "t", "AUROC", "permuted labels", "p", "oracle"),
        tuple(_area_row(row, evidence) for row in report.rows),
        "AUROC of each attack and mask, on the reporting half at the timestep that the calibration half chose.",
        numeric=range(2, 8),
        emphasised=bold,
        note=f"{INTERVAL_NOTE} 'Permuted labels': where the AUROC lies when labels mean nothing, choices repeated; p says how "
        "often it then gets as high. In bold: the attack and mask that the verdict rests on.",
    )
    rates = [f"TPR@{100 * target:g}%FPR" for target in report.target_fprs]
    carried = [f"{rate} at {100 * target:g}% carried over" for target in report.target_fprs[:1] for rate in ("TPR", "FPR")]
    columns = ("attack", "mask", *rates, *carried, "ASR", f"TNR@{100 * report.target_fprs[0]:g}%FNR")
    fixed = DataTable(
        columns,
        tuple(_rate_row(row) for row in report.rows),
        "How many members are found while few held-out images are called members.",
        numeric=range(2, len(columns)),
        emphasised=bold,
        note="'Carried over': the threshold was set on the calibration half, so the false-positive rate is what it really came "
        "to. TNR@FNR is what published tables of these attacks call TPR@FPR, with the sides exchanged.",
    )
    gains = [
        (row.key.attack, _mask(row), other, signed(gain), Cell(f"{gain.p_value:.2g}", tone="" if gain.lower > 0 else "muted"))
        for row in report.rows
        if row.key.mask not in report.data.controls
        for other, gain in row.gains.items()
    ]
    if not gains:
        return areas, fixed
    paired = DataTable(
        ("attack", "mask", "against", "AUROC gained", "p"),
        tuple(gains),
        "What masks of largest influence gain, paired on the same samples.",
        numeric=(3, 4),
        note="A gain counts where its interval lies above 0 against the unmasked attack, a random mask and one ranked by "
        "standard deviation, of the same size. p-values are of single tests, not adjusted for their number.",
    )
    return areas, fixed, paired


def _area_row(row: AuditRow, evidence: Evidence) -> tuple[str | Cell, ...]:
    band, area = evidence.permuted[row.key].band, row.metrics.auroc
    told_apart = area.value > band.upper and area.lower > 0.5
    return (
        row.key.attack,
        _mask(row),
        f"{row.keep_fraction:.0%}",
        "-" if row.timestep is None else str(row.timestep),
        Cell(short(area), tone="exposed" if told_apart else ""),
        f"{band.lower:.3f} to {band.upper:.3f}",
        f"{band.p_value:.3f}",
        f"{row.oracle_auroc:.3f}",
    )


def _rate_row(row: AuditRow) -> tuple[str | Cell, ...]:
    carried = row.carried[0]
    return (
        row.key.attack,
        _mask(row),
        *(short(each) for each in row.metrics.tpr_at_fpr),
        short(carried.tpr),
        short(carried.fpr),
        f"{row.metrics.asr.value:.3f}",
        f"{row.metrics.tnr_at_fnr[0]:.3f}",
    )


def _mask(row: AuditRow) -> str:
    return f"{TUNED} ({row.keep_fraction:.0%})" if row.key.mask == TUNED else row.key.mask

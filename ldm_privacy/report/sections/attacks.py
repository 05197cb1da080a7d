"""Section: the attacks as tables."""

from ldm_privacy.audit.row import AuditRow
from ldm_privacy.evidence.gather import Evidence
from ldm_privacy.registry import SECTIONS
from ldm_privacy.report.evaluation import Evaluation
from ldm_privacy.report.page.blocks import Cell, DataTable, Section
from ldm_privacy.report.tables import INTERVAL_NOTE, claims, mask_of, short, threats, unresolved

MASK_GAIN = ", a mask's against the unmasked attack, a random mask and one ranked by standard deviation, of the same size"


@SECTIONS.register("attacks")
def attacks(evaluation: Evaluation) -> Section:
    """How to read the tables; AUROC with its null band, rates at fixed false-positive rates, what masks gain."""
    evidence = evaluation.evidence
    report = evidence.report
    lead = " ".join(["Members are the positive class; .5 is guessing.", *threats(report), *unresolved(report)])
    bold = [place for place, row in enumerate(report.rows) if row.key in (evidence.insider, evidence.outsider)]
    areas = DataTable(
        ("attack", "mask", "kept", "t", "AUROC", "permuted labels", "p", "oracle"),
        [_area_row(row, evidence) for row in report.rows],
        "AUROC of each attack and mask, at the timesteps that each half chose for the other.",
        num_texts=2,
        emphasised=bold,
        note=f"{INTERVAL_NOTE} 'Permuted labels': where the AUROC lies when labels mean nothing, choices repeated; p says how "
        "often it then gets as high. In bold: what the verdict rests on, with the run's checkpoints and with the model alone.",
    )
    percent = [f"{100 * target:g}%" for target in report.target_fprs]
    carried = [f"{rate} at {percent[0]} carried over" for rate in ("TPR", "FPR")]
    rates = DataTable(
        ("attack", "mask", *(f"TPR@{each}FPR" for each in percent), *carried, "ASR", f"TNR@{percent[0]}FNR"),
        [_rate_row(row) for row in report.rows],
        "How many members are found while few held-out images are called members.",
        num_texts=2,
        emphasised=bold,
        note="'Carried over': each half set the threshold for the other, so the false-positive rate is what it really came "
        "to. TNR@FNR is what published tables of these attacks call TPR@FPR, with the sides exchanged.",
    )
    gains = [
        (row.key.attack, mask_of(row), other, short(gain, "+"), Cell(f"{gain.p_value:.2g}", "" if gain.lower > 0 else "muted"))
        for row in claims(report)
        for other, gain in row.gains.items()
    ]
    of_masks = any(row.key not in report.data.derived for row in claims(report))
    paired = DataTable(
        ("attack", "mask", "against", "AUROC gained", "p"),
        gains,
        f"What {'masks of largest influence and ' if of_masks else ''}calibrations gain, paired on the same samples.",
        num_texts=3,
        note=f"A gain counts where its interval lies above 0{MASK_GAIN if of_masks else ''}. p-values are of single tests, not "
        "adjusted for their number.",
    )
    tables = [areas, rates, paired] if gains else [areas, rates]
    return Section("How well attacks tell members apart", lead, tables, place=10)


def _area_row(row: AuditRow, evidence: Evidence) -> tuple[str | Cell, ...]:
    band, area = evidence.permuted[row.key].band, row.metrics.auroc
    told_apart = area.value > band.upper and area.lower > 0.5
    return (
        row.key.attack,
        mask_of(row),
        f"{row.keep_fraction:.0%}",
        f"{row.timestep} (sigma {row.sigma})" if row.sigma.strip("-") else row.timestep,
        Cell(short(area), tone="exposed" if told_apart else ""),
        f"{band.lower:.3f} to {band.upper:.3f}",
        f"{band.p_value:.3f}",
        f"{row.oracle_auroc:.3f}",
    )


def _rate_row(row: AuditRow) -> tuple[str, ...]:
    rates = (*row.metrics.tpr_at_fpr, row.carried[0].tpr, row.carried[0].fpr)
    plain = (row.metrics.asr.value, row.metrics.tnr_at_fnr[0])
    return (row.key.attack, mask_of(row), *map(short, rates), *(f"{value:.3f}" for value in plain))

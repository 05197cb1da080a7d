"""Evidence on disk: metrics.json."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ldm_privacy.audit.row import AuditRow
from ldm_privacy.controls.finding import Finding
from ldm_privacy.evidence.gather import Evidence
from ldm_privacy.evidence.verdict import verdict_of


def write_metrics(evidence: Evidence, path: Path, *, facts: dict[str, Any]) -> None:
    """metrics.json: `facts` about the evaluation, the verdict, the controls by name, then a row per attack and mask.

    Each control has its AUROC, whether it is telling and leaks, the paired difference of the primary attack, its own numbers.
    Each row has attack, mask, keep_fraction, timestep, every metric as {value, lower, upper}, gains over other masks, the band
    under permuted labels, and the oracle's choice and AUROC. Infinite thresholds are null.
    """
    report, verdict = evidence.report, verdict_of(evidence)
    content = {
        **facts,
        "verdict": {"tone": verdict.tone, "sentences": verdict.sentences, "attack": str(evidence.key)},
        "controls": {name: _control(each, evidence) for name, each in evidence.findings.items()},
        "dataset": None
        if evidence.dataset is None
        else {
            **asdict(evidence.dataset.test),
            "by_size": [asdict(point) for point in evidence.dataset.by_size],
            "false_alarms": evidence.dataset.false_alarms,
            "holm": {str(key): p_value for key, p_value in evidence.dataset.adjusted.items()},
        },
        "sweep": {attack: [asdict(point) for point in points] for attack, points in report.sweep.items()},
        "series": report.series(),
        "rows": [_row(row, evidence) for row in report.rows],
    }
    path.write_text(json.dumps(_finite(content), indent=2, allow_nan=False) + "\n")


def _control(finding: Finding, evidence: Evidence) -> dict[str, Any]:
    over = evidence.over_controls.get(finding.name)
    return {
        "looks_at": finding.looks_at,
        "auroc": None if finding.estimate is None else asdict(finding.estimate),
        "is_telling": finding.is_telling,
        "leaks": finding.leaks,
        "sentence": finding.sentence,
        "attack_above_it": None if over is None else asdict(over),
        **finding.numbers,
    }


def _row(row: AuditRow, evidence: Evidence) -> dict[str, Any]:
    timesteps = [str(t) for t in evidence.report.data.timesteps[row.key.attack]] or ["all"]
    return {
        "attack": row.key.attack,
        "mask": row.key.mask,
        "keep_fraction": row.keep_fraction,
        "timestep": row.timestep,
        **asdict(row.metrics),
        "carried": [asdict(rates) for rates in row.carried],
        "gains": {other: asdict(gain) for other, gain in row.gains.items()},
        "permuted_labels": asdict(evidence.permuted[row.key]),
        "oracle": {"timestep": row.oracle_timestep, "keep_fraction": row.oracle_keep_fraction, "auroc": row.oracle_auroc},
        "auroc_by_timestep": dict(zip(timesteps, row.auroc_by_timestep.tolist())),
    }


def _finite(value: Any) -> Any:
    """The same with null for numbers that JSON doesn't have."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

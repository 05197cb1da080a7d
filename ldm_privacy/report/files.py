"""An audit on disk: metrics.json and scores.parquet."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ldm_privacy.audit import AuditReport


def write_metrics(report: AuditReport, path: Path, *, facts: dict[str, Any]) -> None:
    """metrics.json: `facts` about the evaluation, then a list of rows, one per attack and mask.

    Each row has attack, mask, timestep, every metric as {value, lower, upper}, and the oracle's timestep and AUROC.
    """
    rows = [
        {
            "attack": row.key.attack,
            "mask": row.key.mask,
            "timestep": row.timestep,
            **asdict(row.metrics),
            "oracle": {"timestep": row.oracle_timestep, "auroc": row.oracle_auroc},
            "auroc_by_timestep": dict(
                zip([str(t) for t in report.timesteps[row.key.attack]] or ["all"], row.auroc_by_timestep.tolist())
            ),
        }
        for row in report.rows
    ]
    path.write_text(json.dumps({**facts, "series": report.series(), "rows": rows}, indent=2) + "\n")


def write_scores(report: AuditReport, path: Path) -> None:
    """scores.parquet: a row per sample, attack and mask; `timesteps` and `membership_scores` are lists over timesteps.

    Columns: sample_index, is_member, is_calibration, attack, mask, timesteps, membership_scores (higher = member).
    """
    tables = []
    for key, score in report.scores.items():
        count = score.shape[1]
        tables.append(
            pa.table(
                {
                    "sample_index": report.sample_index.numpy(),
                    "is_member": report.is_member.numpy(),
                    "is_calibration": report.is_calibration.numpy(),
                    "attack": pa.array([key.attack] * count).dictionary_encode(),
                    "mask": pa.array([key.mask] * count).dictionary_encode(),
                    "timesteps": pa.array([report.timesteps[key.attack]] * count, pa.list_(pa.int64())),
                    "membership_scores": pa.array(list(score.T.numpy()), pa.list_(pa.float64())),
                }
            )
        )
    pq.write_table(pa.concat_tables(tables), path)

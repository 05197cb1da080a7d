"""scores.parquet: the membership scores of an audit on disk, with the hash of the split that they belong to."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from ldm_privacy.audit.report import AuditReport
from ldm_privacy.audit.scores import AuditScores
from ldm_privacy.errors import UserError
from ldm_privacy.types import AuditKey

SPLIT_HASH = b"ldm_privacy.split_hash"
COLUMNS = {
    "sample_index": pa.types.is_integer,
    "is_member": pa.types.is_boolean,
    "is_calibration": pa.types.is_boolean,
    "group": lambda kind: not pa.types.is_nested(kind),
    "attack": pa.types.is_dictionary,
    "mask": pa.types.is_dictionary,
    "keep_fraction": pa.types.is_floating,
    "is_control": pa.types.is_boolean,
    "timesteps": pa.types.is_list,
    "membership_scores": pa.types.is_list,
}
"""Name -> whether a type will do."""


@dataclass(frozen=True)
class ScoreFile:
    """Scores read back: enough for every reported number that is not of a sweep.

    Attributes:
        data: The scores; those of `tuned` at the keep fraction that was chosen.
        split_hash: Of the split that the samples come from.
    """

    data: AuditScores
    split_hash: str


def write_scores(report: AuditReport, path: Path, *, split_hash: str) -> None:
    """scores.parquet: a row per sample, attack and mask; `timesteps` and `membership_scores` are lists over timesteps.

    Columns: sample_index, is_member, is_calibration, group (null without groups), attack, mask, keep_fraction, is_control,
    timesteps, membership_scores (higher = member). The split's hash stands in the file's metadata.
    """
    data, tables = report.data, []
    for key, score in data.scores.items():
        count = score.shape[1]
        tables.append(
            pa.table(
                {
                    "sample_index": data.sample_index.numpy(),
                    "is_member": data.is_member.numpy(),
                    "is_calibration": data.is_calibration.numpy(),
                    "group": pa.array([None] * count if data.group is None else data.group.tolist(), pa.int64()),
                    "attack": pa.array([key.attack] * count).dictionary_encode(),
                    "mask": pa.array([key.mask] * count).dictionary_encode(),
                    "keep_fraction": np.full(count, data.keep_fraction[key]),
                    "is_control": np.full(count, key.mask in data.controls),
                    "timesteps": pa.array([data.timesteps[key.attack]] * count, pa.list_(pa.int64())),
                    "membership_scores": pa.array(list(score.double().T.numpy()), pa.list_(pa.float64())),
                }
            )
        )
    table = pa.concat_tables(tables, promote_options="permissive")
    pq.write_table(table.replace_schema_metadata({SPLIT_HASH: split_hash.encode()}), path)


def read_scores(path: Path) -> ScoreFile:
    """The scores of such a file.

    Raises:
        UserError: It can't be read, lacks a column or the split's hash, or holds something else in a column.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{path}: no scores.parquet ({str(error).splitlines()[0]}). Name one that evaluate.py wrote.") from None
    missing = [column for column in COLUMNS if column not in table.column_names]
    metadata = table.schema.metadata or {}
    if missing or SPLIT_HASH not in metadata:
        what = f"column '{missing[0]}'" if missing else "the hash of its split"
        raise UserError(f"{path}: {what} is missing; write the scores again with evaluate.py.")
    for column, is_right in COLUMNS.items():
        if not is_right(table.schema.field(column).type) or (column != "group" and table[column].null_count):
            raise UserError(f"{path}: column '{column}' holds something else; write the scores again with evaluate.py.")
    frame = table.to_pandas()
    scores: dict[AuditKey, Tensor] = {}
    timesteps: dict[str, list[int]] = {}
    keep_fraction: dict[AuditKey, float] = {}
    controls = set()
    first = None
    for (attack, mask), rows in frame.groupby(["attack", "mask"], sort=False, observed=True):
        rows = rows.sort_values("sample_index")
        key = AuditKey(str(attack), str(mask))
        if (twice := rows["sample_index"].duplicated()).any():
            sample = rows["sample_index"][twice].iloc[0]
            raise UserError(f"{path}: sample {sample} stands twice in {key}; write the scores again with evaluate.py.")
        scores[key] = torch.from_numpy(np.stack(rows["membership_scores"].to_list(), axis=1))
        timesteps[key.attack] = [int(t) for t in rows["timesteps"].iloc[0]]
        keep_fraction[key] = float(rows["keep_fraction"].iloc[0])
        controls |= {key.mask} if rows["is_control"].iloc[0] else set()
        if first is None:
            first = rows
        elif not np.array_equal(first["sample_index"], rows["sample_index"]):
            raise UserError(f"{path}: {key} has other samples than {next(iter(scores))}; write the scores again.")
    if first is None:
        raise UserError(f"{path}: there are no scores in it.")
    group = None if first["group"].isna().any() else torch.from_numpy(first["group"].to_numpy(np.int64, copy=True))
    data = AuditScores(
        torch.from_numpy(first["sample_index"].to_numpy(np.int64, copy=True)),
        torch.from_numpy(first["is_member"].to_numpy(bool, copy=True)),
        torch.from_numpy(first["is_calibration"].to_numpy(bool, copy=True)),
        group,
        timesteps,
        scores,
        keep_fraction,
        frozenset(controls),
    )
    return ScoreFile(data, metadata[SPLIT_HASH].decode())

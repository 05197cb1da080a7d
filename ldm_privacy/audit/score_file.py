"""scores.parquet: the membership scores of an audit on disk, with the hash of the split that they belong to."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
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
    "group": lambda kind: pa.types.is_integer(kind) or pa.types.is_null(kind),
    "attack": lambda kind: pa.types.is_dictionary(kind) and _is_text(kind.value_type),
    "mask": lambda kind: pa.types.is_dictionary(kind) and _is_text(kind.value_type),
    "keep_fraction": pa.types.is_floating,
    "is_control": pa.types.is_boolean,
    # Where every list is empty their elements may have no type.
    "timesteps": lambda kind: (
        pa.types.is_list(kind) and (pa.types.is_integer(kind.value_type) or pa.types.is_null(kind.value_type))
    ),
    "membership_scores": lambda kind: pa.types.is_list(kind) and pa.types.is_floating(kind.value_type),
}
"""Name -> whether a type will do."""
SAME_IN_A_KEY = ("keep_fraction", "is_control")
SAME_IN_ALL_KEYS = ("sample_index", "is_member", "is_calibration", "group")


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
        UserError: It can't be read, lacks a column or the split's hash, holds something else in a column, or rows that
            don't belong together: other samples, lists of another length, another half or group under another attack.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{path}: no scores.parquet ({str(error).splitlines()[0]}). Name one that evaluate.py wrote.") from None
    split_hash = _check_columns(table, path)
    frame = table.to_pandas()
    if table["group"].null_count:
        frame["group"] = np.nan  # all of them: a column without a type comes as objects
    scores: dict[AuditKey, Tensor] = {}
    timesteps: dict[str, list[int]] = {}
    keep_fraction: dict[AuditKey, float] = {}
    controls = set()
    first = None
    for (attack, mask), rows in frame.groupby(["attack", "mask"], sort=False, observed=True):
        rows = rows.sort_values("sample_index")
        key = AuditKey(str(attack), str(mask))
        scores[key], at = _scores_of(key, rows, path)
        if timesteps.setdefault(key.attack, at) != at:
            raise _wrong(path, f"{key} has other timesteps than another mask of {key.attack}")
        keep_fraction[key] = float(rows["keep_fraction"].iloc[0])
        controls |= {key.mask} if rows["is_control"].iloc[0] else set()
        first = rows if first is None else first
        for column in SAME_IN_ALL_KEYS:
            if not np.array_equal(first[column].to_numpy(), rows[column].to_numpy(), equal_nan=column == "group"):
                other = "samples" if column == "sample_index" else f"'{column}'"
                raise _wrong(path, f"{key} has other {other} than {next(iter(scores))}")
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
    return ScoreFile(data, split_hash)


def _check_columns(table: pa.Table, path: Path) -> str:
    """The hash of the split; raises UserError where a column is missing, or of another type, or has nulls."""
    missing = [column for column in COLUMNS if column not in table.column_names]
    metadata = table.schema.metadata or {}
    if missing or SPLIT_HASH not in metadata:
        raise _wrong(path, f"column '{missing[0]}' is missing" if missing else "the hash of its split is missing")
    for column, is_right in COLUMNS.items():
        if table.column_names.count(column) > 1:
            raise _wrong(path, f"column '{column}' stands twice")
        values = table[column]
        nulls = (0, len(table)) if column == "group" else (0,)
        is_all_null = column == "group" and values.null_count == len(table)
        if not (is_right(values.type) or is_all_null) or values.null_count not in nulls:
            raise _wrong(path, f"column '{column}' holds something else")
        if pa.types.is_list(values.type) and pc.list_flatten(values).null_count:
            raise _wrong(path, f"a list of column '{column}' has an empty place")
    return metadata[SPLIT_HASH].decode(errors="replace")


def _scores_of(key: AuditKey, rows: pd.DataFrame, path: Path) -> tuple[Tensor, list[int]]:
    """(timesteps, samples) scores of one key and its timesteps; raises UserError where its rows don't fit together."""
    twice = rows["sample_index"].duplicated()
    if twice.any():
        raise _wrong(path, f"sample {rows['sample_index'][twice].iloc[0]} stands twice in {key}")
    for column in SAME_IN_A_KEY:
        if rows[column].nunique() > 1:
            raise _wrong(path, f"'{column}' is not the same in all rows of {key}")
    if not 0 <= rows["keep_fraction"].iloc[0] <= 1:
        raise _wrong(path, f"'keep_fraction' of {key} is not in 0 to 1")
    timesteps = [int(t) for t in rows["timesteps"].iloc[0]]
    for sample, at, values in zip(rows["sample_index"], rows["timesteps"], rows["membership_scores"]):
        if list(at) != timesteps:
            raise _wrong(path, f"sample {sample} of {key} has other timesteps than the rest")
        if len(values) != (len(timesteps) or 1):
            raise _wrong(path, f"sample {sample} of {key} has {len(values)} scores for {len(timesteps)} timesteps")
    score = np.stack(rows["membership_scores"].to_list(), axis=1).astype(np.float64)
    wrong = ~np.isfinite(score).all(axis=0)
    if wrong.any():
        raise _wrong(path, f"sample {rows['sample_index'][wrong].iloc[0]} of {key} has a score that is not finite")
    return torch.from_numpy(score), timesteps


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _wrong(path: Path, what: str) -> UserError:
    return UserError(f"{path}: {what}; write the scores again with evaluate.py.")

"""scores.parquet: the membership scores of an audit on disk, with the hash of the split that they belong to."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from torch import Tensor

from ldm_privacy.audit.report import AuditReport
from ldm_privacy.audit.scores import AuditScores, Derived, by_fold, folds_of, is_alike
from ldm_privacy.audit.views import ViewOf
from ldm_privacy.errors import UserError, reason_of
from ldm_privacy.types import AuditKey, Whose

if TYPE_CHECKING:
    import pyarrow as pa

SPLIT_HASH = b"ldm_privacy.split_hash"
NUM_FOLDS = b"ldm_privacy.num_folds"
BY_COINS = b"ldm_privacy.by_coins"
OPTIONAL = ("group", "repeats")
"""Columns that may be empty."""
ONE_FOR_EACH = {
    **dict.fromkeys(("is_member", "is_calibration", "group", "repeats"), "sample_index"),
    **dict.fromkeys(("timesteps", "view_of", "view"), "attack"),
    **dict.fromkeys(("keep_fraction", "is_control", "plain", "needs_history", "reference", "num_fitted"), "key"),
}
"""Column -> what it is a property of; a key is an attack with a mask."""


@dataclass(frozen=True)
class ScoreFile:
    """Scores read back: enough for every reported number that is neither of a sweep nor of the reference alone.

    Attributes:
        data: The scores; those of `tuned` at the keep fraction that was chosen.
        split_hash: Of the split that the samples come from.
    """

    data: AuditScores
    split_hash: str


def schema() -> "pa.Schema":
    """A row per sample, attack and mask; lists run over timesteps. `group` and `repeats` (how often a sample comes in an epoch
    of the training) are empty where there are none, nothing else ever is.

    `membership_scores` are fitted without the sample (but with one fold those of the calibration half), `own_half_scores` by
    its own half, which chooses by them; they are [] where nothing is fitted and both are the same. `plain`: of a calibrated
    score, the attack and mask that it is made of; `reference`: whose reference it is compared with, where it is; `view_of`,
    `view`: of an attack under another condition, the attack and the condition; "" of others.
    """
    import pyarrow as pa

    return pa.schema(
        {
            "sample_index": pa.int64(),
            "is_member": pa.bool_(),
            "is_calibration": pa.bool_(),
            "group": pa.int64(),
            "repeats": pa.int64(),
            "attack": pa.string(),
            "mask": pa.string(),
            "keep_fraction": pa.float64(),
            "is_control": pa.bool_(),
            "plain": pa.string(),
            "needs_history": pa.bool_(),
            "reference": pa.string(),
            "view_of": pa.string(),
            "view": pa.string(),
            "num_fitted": pa.int64(),
            "timesteps": pa.list_(pa.int64()),
            "membership_scores": pa.list_(pa.float64()),  # higher = member
            "own_half_scores": pa.list_(pa.float64()),
        }
    )


def write_scores(report: AuditReport, path: Path, *, split_hash: str) -> None:
    """scores.parquet: the columns of `schema`; in its metadata the split's hash, whether coins drew it, the number of folds."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = report.data
    folds, size = data.folds, len(data.sample_index)
    whom = {name: getattr(data, name) for name in ("sample_index", "is_member", "is_calibration", *OPTIONAL)}
    known = {name: pa.nulls(size) if value is None else value.numpy() for name, value in whom.items()}

    def lists(values: Tensor) -> "pa.ListArray":
        """(numbers, samples) as a list a sample."""
        return pa.ListArray.from_arrays(np.arange(size + 1) * len(values), pa.array(values.T.numpy().ravel()))

    def constant(value: object) -> "pa.Array":
        return pa.repeat(pa.scalar(value), size)

    metadata = {
        SPLIT_HASH: split_hash.encode(),
        NUM_FOLDS: str(len(folds)).encode(),
        BY_COINS: str(int(data.by_coins)).encode(),
    }
    kinds = schema().with_metadata(metadata)
    # Scores hardly ever repeat, and nobody asks for their range: no dictionary of them, no statistics.
    repeated = [name for name in kinds.names if name not in ("membership_scores", "own_half_scores", "timesteps")]
    options = {"use_dictionary": [*repeated, "timesteps.list.element"], "write_statistics": repeated}
    with pq.ParquetWriter(path, kinds, **options) as file:
        for key, score in data.scores.items():
            reported = data.reported(key).double()
            own = reported[:0] if is_alike(score) else torch.where(folds[0].chooses, score[0], score[-1]).double()
            derived, view = data.derived.get(key), data.views.get(key.attack, ("", ""))
            timesteps = torch.tensor(data.timesteps[key.attack])[:, None].expand(-1, size)
            columns = known | {
                "attack": constant(key.attack),
                "mask": constant(key.mask),
                "keep_fraction": constant(data.keep_fraction[key]),
                "is_control": constant(key.mask in data.controls),
                "plain": constant("" if derived is None else str(derived.plain)),
                "needs_history": constant(derived is not None and derived.needs_history),
                "reference": constant("" if derived is None else derived.reference),
                "view_of": constant(view[0]),
                "view": constant(view[1]),
                "num_fitted": constant(data.num_fitted.get(key, 0)),
                "timesteps": lists(timesteps),
                "membership_scores": lists(reported),
                "own_half_scores": lists(own),
            }
            file.write_table(pa.table(columns, schema=kinds))


def read_scores(path: Path) -> ScoreFile:
    """The scores of such a file.

    Raises:
        UserError: It can't be read, lacks a column or the split's hash, holds something else in a column, or rows that
            don't belong together: other samples, lists of another length, another half or group under another attack.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{path}: no scores.parquet ({reason_of(error)}). Name one that evaluate.py wrote.") from None
    if problem := _misfit(table):
        raise UserError(f"{path}: {problem}; write the scores again with evaluate.py.")
    if not len(table):
        raise UserError(f"{path}: there are no scores in it.")
    frame = table.to_pandas()
    frame["timesteps"] = frame["timesteps"].map(tuple)
    frame["key"] = frame["attack"] + "/" + frame["mask"]
    if problem := _contradiction(frame):
        raise UserError(f"{path}: {problem}; write the scores again with evaluate.py.")
    parts = frame.groupby(["attack", "mask"], sort=False)
    keys = {AuditKey(*label): rows.sort_values("sample_index") for label, rows in parts}
    first = next(iter(keys.values()))

    def column(name: str) -> Tensor:
        return torch.tensor(first[name].to_numpy())

    folds = folds_of(column("is_calibration"), int(table.schema.metadata[NUM_FOLDS]))

    def scores(rows: Any) -> Tensor:
        """(folds, timesteps, samples)."""
        reported, own = (
            torch.from_numpy(np.stack(rows[name].to_list(), axis=1)) for name in ("membership_scores", "own_half_scores")
        )
        return by_fold(reported, own, folds) if len(own) else reported.expand(len(folds), *reported.shape)

    def optional(name: str) -> Tensor | None:
        return None if first[name].isna().any() else column(name)

    tops = {key: rows.iloc[0] for key, rows in keys.items()}
    data = AuditScores(
        column("sample_index"),
        column("is_member"),
        column("is_calibration"),
        optional("group"),
        {key.attack: list(top["timesteps"]) for key, top in tops.items()},
        {key: scores(rows) for key, rows in keys.items()},
        {key: float(top["keep_fraction"]) for key, top in tops.items()},
        frozenset(key.mask for key, top in tops.items() if top["is_control"]),
        derived={
            key: Derived(next(each for each in keys if str(each) == top["plain"]), bool(top["needs_history"]), top["reference"])
            for key, top in tops.items()
            if top["plain"]
        },
        num_fitted={key: int(top["num_fitted"]) for key, top in tops.items() if top["num_fitted"]},
        views={key.attack: ViewOf(top["view_of"], top["view"]) for key, top in tops.items() if top["view_of"]},
        repeats=optional("repeats"),
        by_coins=table.schema.metadata.get(BY_COINS) == b"1",
    )
    return ScoreFile(data, table.schema.metadata[SPLIT_HASH].decode(errors="replace"))


def _misfit(table: "pa.Table") -> str:
    """What of the table is not as in `schema`; "" where nothing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for name, kind in zip(schema().names, schema().types):
        if (times := table.column_names.count(name)) != 1:
            return f"column '{name}' " + ("stands twice" if times else "is missing")
        values = table[name]
        if name in OPTIONAL and values.null_count == len(table):
            continue
        if values.type != kind:
            return f"column '{name}' holds {values.type}, not {kind}"
        if values.null_count or (pa.types.is_list(kind) and pc.list_flatten(values).null_count):
            return f"column '{name}' has an empty place"
    metadata = table.schema.metadata or {}
    if SPLIT_HASH not in metadata:
        return "the hash of its split is missing"
    return "" if metadata.get(NUM_FOLDS) in (b"1", b"2") else "the number of its folds is missing"


def _contradiction(frame: Any) -> str:
    """What the rows of a file contradict each other in, and one of them; "" where nothing."""
    scores, num_timesteps = frame["membership_scores"], frame["timesteps"].map(len).clip(lower=1)
    own = frame["own_half_scores"].map(len)

    def finite(lists: Any) -> Any:
        return lists.map(lambda values: bool(np.isfinite(values).all()))

    num_keys = frame.groupby("sample_index")["key"].transform("size")
    rules = {
        "stands twice": frame.duplicated(["key", "sample_index"]),
        "is missing under another attack or mask": num_keys < frame["key"].nunique(),
        **{
            f"has another '{name}' than the rest of its {by}": frame.groupby(by)[name].transform("nunique") > 1
            for name, by in ONE_FOR_EACH.items()
        },
        "has a 'keep_fraction' that is not in 0 to 1": ~frame["keep_fraction"].between(0, 1),
        "has not as many 'membership_scores' as timesteps": scores.map(len) != num_timesteps,
        "has not as many 'own_half_scores' as timesteps": (own != num_timesteps) & (own != 0),
        "has 'own_half_scores', but the rest of its key has none": (own > 0)
        != (own.groupby(frame["key"]).transform("max") > 0),
        "has a score that is not finite": ~(finite(scores) & finite(frame["own_half_scores"])),
        "has a 'reference' that is nobody's": ~frame["reference"].isin(get_args(Whose)),
        "is made of 'plain' scores that are not there": ~frame["plain"].isin({"", *frame["key"]}),
        "is a view of an attack that is not there": ~frame["view_of"].isin({"", *frame["attack"]}),
    }
    for problem, where in rules.items():
        if where.any():
            row = frame[where].iloc[0]
            return f"sample {row['sample_index']} of {row['key']} {problem}"
    return ""

"""scores.parquet: what is written comes back, and what is something else is refused."""

from dataclasses import asdict, replace
from functools import cache

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ldm_privacy.audit.report import report_of
from ldm_privacy.audit.score_file import NUM_FOLDS, read_scores, schema, write_scores
from ldm_privacy.audit.scores import TUNED, Derived, is_alike
from ldm_privacy.errors import UserError
from ldm_privacy.types import AuditKey, Intervals
from tests.evidence.synthetic import make_scores

HASH = "ab" * 32
FEW = Intervals(num_bootstrap=20)


@cache
def report_with(**options):
    return report_of(make_scores(40, 60, fractions=(0.3, 1.0), strength=0.5, **options), intervals=FEW)


@cache
def with_all_kinds(**options):
    """The same audit with an attack that has no timesteps, one that is fitted on each half, and a calibrated score."""
    data, seed = report_with(**options).data, torch.Generator().manual_seed(5)
    one, fitted, calibrated = (AuditKey(attack, "all") for attack in ("pfami", "dime", "sima_history"))
    num_folds = len(data.folds)
    scores = {
        one: torch.linspace(0, 1, 100, dtype=torch.float64).expand(num_folds, 1, 100),
        fitted: torch.randn(num_folds, 3, 100, generator=seed, dtype=torch.float64),
        calibrated: torch.randn(num_folds, 1, 100, generator=seed, dtype=torch.float64),
    }
    data = replace(
        data,
        scores=data.scores | scores,
        keep_fraction=data.keep_fraction | dict.fromkeys(scores, 1.0),
        timesteps=data.timesteps | {"pfami": [], "dime": [0, 10, 20], "sima_history": []},
        derived={calibrated: Derived(AuditKey("sima", "all"), True, "insider")},
        num_fitted={fitted: 3, calibrated: 2},
    )
    return report_of(data, intervals=FEW)


@pytest.mark.parametrize(("num_folds", "group_size"), [(1, None), (2, None), (1, 4), (2, 4)])
def test_the_report_of_the_file_is_the_report(tmp_path, num_folds, group_size):
    report = with_all_kinds(num_folds=num_folds, group_size=group_size)
    write_scores(report, tmp_path / "scores.parquet", split_hash=HASH)
    file = read_scores(tmp_path / "scores.parquet")
    assert file.split_hash == HASH
    assert not file.data.by_coins
    for name in ("sample_index", "is_member", "is_calibration"):
        assert torch.equal(getattr(file.data, name), getattr(report.data, name)), name
    assert (file.data.group is None) == (group_size is None)
    assert group_size is None or torch.equal(file.data.group, report.data.group)
    assert file.data.controls == report.data.controls
    for name in ("timesteps", "derived", "num_fitted"):
        assert getattr(file.data, name) == getattr(report.data, name), name
    for key, score in report.data.scores.items():
        assert torch.equal(file.data.scores[key], score.double()), key
        assert is_alike(file.data.scores[key]) == is_alike(score), key
    again = report_of(file.data, intervals=FEW)
    assert [row.key for row in again.rows] == [row.key for row in report.rows]
    for row, other in zip(report.rows, again.rows):
        assert torch.equal(again.scores_at(row.key), report.scores_at(row.key))
        assert (other.timesteps, other.keep_fraction, other.carried) == (row.timesteps, row.keep_fraction, row.carried)
        assert torch.equal(other.auroc_by_timestep, row.auroc_by_timestep)
        if row.key.mask != TUNED:
            assert asdict(other.metrics) == asdict(row.metrics)
            assert other.gains == row.gains
            assert (other.oracle_timestep, other.oracle_auroc) == (row.oracle_timestep, row.oracle_auroc)
        else:
            # The controls of `tuned`, and what else could have been chosen, belong to the sweep, which is not stored.
            assert other.metrics.auroc.value == row.metrics.auroc.value
            assert other.gains.keys() == row.gains.keys() - {"random", "deviation"}
            assert all(gain.value == row.gains[label].value for label, gain in other.gains.items())


def test_the_file_is_a_table_that_others_can_read(tmp_path):
    report = report_with()
    write_scores(report, tmp_path / "scores.parquet", split_hash=HASH)
    frame = pd.read_parquet(tmp_path / "scores.parquet")
    assert len(frame) == 100 * len(report.rows)
    assert frame["group"].isna().all()
    row = frame[(frame["attack"] == "loss") & (frame["mask"] == "top60")].set_index("sample_index").sort_index()
    stored = torch.from_numpy(np.stack(row["membership_scores"], axis=1))
    assert torch.equal(stored, report.data.scores[AuditKey("loss", "top60")][0])
    assert row["own_half_scores"].map(len).eq(0).all()
    assert row["timesteps"].iloc[0].tolist() == [0, 10, 20]
    assert (frame[["plain", "reference", "view_of", "view"]] == "").all(axis=None)
    assert pq.read_schema(tmp_path / "scores.parquet").equals(schema())
    assert set(frame.loc[frame["is_control"], "mask"]) == {"random60"}


def test_the_order_of_rows_does_not_matter(tmp_path):
    report = report_with()
    write_scores(report, tmp_path / "scores.parquet", split_hash=HASH)
    table = pq.read_table(tmp_path / "scores.parquet")
    order = torch.randperm(len(table), generator=torch.Generator().manual_seed(0)).tolist()
    pq.write_table(table.take(order), tmp_path / "shuffled.parquet")
    file = read_scores(tmp_path / "shuffled.parquet")
    assert torch.equal(file.data.sample_index, report.data.sample_index)
    for key, score in report.data.scores.items():
        assert torch.equal(file.data.scores[key], score.double())


def test_a_splits_hash_that_is_no_text_is_read_as_one_that_equals_no_other(tmp_path):
    path = tmp_path / "scores.parquet"
    write_scores(report_with(), path, split_hash=HASH)
    table = pq.read_table(path)
    damaged = {name: b"\xff" if value == HASH.encode() else value for name, value in table.schema.metadata.items()}
    pq.write_table(table.replace_schema_metadata(damaged), path)
    assert read_scores(path).split_hash == "\ufffd"


def refused(path, message):
    with pytest.raises(UserError, match=message) as caught:
        read_scores(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_what_is_no_score_file_is_refused_in_one_line(tmp_path):
    path = tmp_path / "scores.parquet"
    refused(path, "no scores.parquet")
    path.write_text("attack,mask\nsima,all\n")
    refused(path, "no scores.parquet")
    path.unlink()
    path.mkdir()
    refused(path, r"no scores\.parquet|column 'sample_index'")


def test_damage_is_refused_in_one_line(tmp_path):
    path = tmp_path / "scores.parquet"
    write_scores(report_with(), path, split_hash=HASH)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(path, "no scores.parquet")
    path.write_bytes(whole[:200] + bytes(400) + whole[600:])
    refused(path, "no scores.parquet")


def changed(path, change, *, keep_hash=True):
    """The file with a change to its frame: columns keep their type where their values still have it."""
    table = pq.read_table(path)
    frame = change(table.to_pandas())
    columns = {}
    for name in frame:
        try:
            columns[name] = pa.array(frame[name].tolist(), schema().field(name).type, from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            columns[name] = pa.array(frame[name], from_pandas=True)
    pq.write_table(pa.table(columns).replace_schema_metadata(table.schema.metadata if keep_hash else None), path)


def lists(frame, column, change, *, at=None):
    """The frame with the lists of a column changed, in one row or in all."""
    values = [
        change(list(row)) if at is None or place == at % len(frame) else list(row) for place, row in enumerate(frame[column])
    ]
    return frame.assign(**{column: pd.Series(values, index=frame.index, dtype=object)})


def of_one_mask(frame, column, change, key=("loss", "top60")):
    """The frame with the values of a column changed under one mask of one attack."""
    chosen = (frame["attack"] == key[0]) & (frame["mask"] == key[1])
    assert chosen.any()
    values = [change(value) if is_it else value for value, is_it in zip(frame[column], chosen)]
    return frame.assign(**{column: pd.Series(values, index=frame.index, dtype=frame[column].dtype)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.drop(columns="membership_scores"), "column 'membership_scores' is missing"),
        (lambda frame: frame.iloc[1:], r"sample \d+ of .* is missing under another attack or mask"),
        (lambda frame: frame.assign(sample_index="x"), "column 'sample_index'"),
        (lambda frame: frame.assign(membership_scores=1.0), "column 'membership_scores'"),
        (lambda frame: pd.concat([frame, frame]), "sample .* stands twice"),
        (lambda frame: frame.assign(group="x"), "column 'group'"),
        (lambda frame: frame.assign(group=[0, *[None] * (len(frame) - 1)]), "column 'group' has an empty place"),
        (lambda frame: lists(frame, "membership_scores", lambda row: []), "'membership_scores'"),
        (lambda frame: frame.assign(is_member=[None, *frame["is_member"][1:]]), "column 'is_member' has an empty place"),
        (lambda frame: frame.assign(attack=1), "column 'attack'"),
        (lambda frame: frame.assign(attack=pd.Categorical([1] * len(frame))), "column 'attack'"),
        (lambda frame: lists(frame, "membership_scores", lambda row: [str(value) for value in row]), "'membership_scores'"),
        (lambda frame: lists(frame, "membership_scores", lambda row: [None, *row[1:]]), "'membership_scores' has an empty"),
        (lambda frame: lists(frame, "membership_scores", lambda row: row[:2], at=7), "has not as many 'membership_sc"),
        (lambda frame: lists(frame, "membership_scores", lambda row: row[:0], at=7), "has not as many 'membership_scores'"),
        (lambda frame: lists(frame, "timesteps", lambda row: [str(value) for value in row]), "column 'timesteps'"),
        (lambda frame: lists(frame, "timesteps", lambda row: [None, *row[1:]]), "'timesteps' has an empty place"),
        (lambda frame: lists(frame, "timesteps", lambda row: [*row, 30]), "has not as many 'membership_scores' as timesteps"),
        (lambda frame: lists(frame, "timesteps", lambda row: row[:0]), "has not as many 'membership_scores' as timesteps"),
        (lambda frame: lists(frame, "timesteps", lambda row: [*row[:2], 21], at=7), "'timesteps' than the rest of its attack"),
        (lambda frame: of_one_mask(frame, "timesteps", lambda value: [0, 10, 21]), "'timesteps' than the rest of its attack"),
        (lambda frame: of_one_mask(frame, "is_member", lambda value: not value), "another 'is_member' than"),
        (lambda frame: of_one_mask(frame, "is_calibration", lambda value: not value), "another 'is_calibration' than"),
        (lambda frame: of_one_mask(frame.assign(group=1), "group", lambda value: 2), "another 'group' than"),
        (lambda frame: frame.assign(keep_fraction=np.linspace(0, 1, len(frame))), "another 'keep_fraction' than"),
        (lambda frame: frame.assign(is_control=np.arange(len(frame)) == 5), "another 'is_control' than"),
        (lambda frame: frame.assign(keep_fraction=float("inf")), "'keep_fraction' that is not in 0 to 1"),
        (lambda frame: frame.assign(keep_fraction=1.5), "'keep_fraction' that is not in 0 to 1"),
        (lambda frame: frame.assign(keep_fraction=-0.5), "'keep_fraction' that is not in 0 to 1"),
        (lambda frame: lists(frame, "membership_scores", lambda row: [np.inf, *row[1:]], at=7), "score that is not finite"),
        (lambda frame: lists(frame, "membership_scores", lambda row: [np.nan, *row[1:]], at=7), "not finite|an empty place"),
    ],
)
def test_a_table_of_another_kind_is_refused_in_one_line(tmp_path, change, message):
    path = tmp_path / "scores.parquet"
    write_scores(report_with(), path, split_hash=HASH)
    changed(path, change)
    refused(path, message)


OF_ONE = {"key": ("sima_history", "all")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: of_one_mask(frame, "own_half_scores", lambda row: [0.5]), "as many 'own_half_scores' as timesteps"),
        (lambda frame: of_one_mask(frame, "own_half_scores", lambda row: [], **OF_ONE).iloc[::-1], None),
        (lambda frame: lists(frame, "own_half_scores", lambda row: row[:0], at=-1), "but the rest of its key has none"),
        (lambda frame: lists(frame, "own_half_scores", lambda row: [*row[1:], np.inf], at=-1), "score that is not finite"),
        (lambda frame: lists(frame, "own_half_scores", lambda row: [None, *row[1:]], at=-1), "'own_half_scores' has an empty"),
        (lambda frame: frame.assign(own_half_scores=1), "column 'own_half_scores' holds int64"),
        (lambda frame: frame.drop(columns="own_half_scores"), "column 'own_half_scores' is missing"),
        (lambda frame: of_one_mask(frame, "plain", lambda value: "sima/none", **OF_ONE), "is made of 'plain' scores that"),
        (lambda frame: of_one_mask(frame, "plain", lambda value: "sima", **OF_ONE), "is made of 'plain' scores that"),
        (lambda frame: frame.assign(plain=[*frame["plain"][:-1], ""]), "another 'plain' than the rest of its key"),
        (lambda frame: frame.assign(needs_history=np.arange(len(frame)) == 3), "another 'needs_history' than the rest of"),
        (lambda frame: frame.assign(reference=[*frame["reference"][:-1], ""]), "another 'reference' than the rest of its key"),
        (lambda frame: of_one_mask(frame, "reference", lambda value: "mine", **OF_ONE), "a 'reference' that is nobody's"),
        (
            lambda frame: of_one_mask(frame, "view_of", lambda value: "loss_null", **OF_ONE),
            "is a view of an attack that is not",
        ),
        (lambda frame: frame.assign(num_fitted=np.arange(len(frame)) % 2), "another 'num_fitted' than the rest of its key"),
        (lambda frame: frame.assign(num_fitted=None), "column 'num_fitted'"),
    ],
)
def test_scores_of_two_folds_that_do_not_belong_together_are_refused_in_one_line(tmp_path, change, message):
    """At the end of the file stands a calibrated score."""
    path = tmp_path / "scores.parquet"
    write_scores(with_all_kinds(num_folds=2), path, split_hash=HASH)
    changed(path, lambda frame: change(frame[frame["mask"] != TUNED]))
    if message:
        refused(path, message)
    else:
        assert is_alike(read_scores(path).data.scores[AuditKey(*OF_ONE["key"])])


@pytest.mark.parametrize("value", [None, b"3", b"0", b"two"])
def test_a_file_without_the_number_of_its_folds_is_refused(tmp_path, value):
    path = tmp_path / "scores.parquet"
    write_scores(report_with(), path, split_hash=HASH)
    table = pq.read_table(path)
    metadata = {name: each for name, each in table.schema.metadata.items() if name != NUM_FOLDS}
    pq.write_table(table.replace_schema_metadata(metadata | ({} if value is None else {NUM_FOLDS: value})), path)
    refused(path, "the number of its folds is missing")


def test_a_label_with_a_slash_is_read(tmp_path):
    path = tmp_path / "scores.parquet"
    write_scores(with_all_kinds(num_folds=2), path, split_hash=HASH)
    changed(path, lambda frame: frame.replace({"attack": {"sima": "si/ma"}, "plain": {"sima/all": "si/ma/all"}}))
    assert read_scores(path).data.derived == {
        AuditKey("sima_history", "all"): Derived(AuditKey("si/ma", "all"), True, "insider")
    }


def test_a_file_without_rows_is_refused(tmp_path):
    path = tmp_path / "scores.parquet"
    write_scores(report_with(), path, split_hash=HASH)
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    refused(path, "there are no scores in it")


def test_a_file_without_the_hash_of_its_split_is_refused(tmp_path):
    path = tmp_path / "scores.parquet"
    write_scores(report_with(), path, split_hash=HASH)
    changed(path, lambda frame: frame, keep_hash=False)
    refused(path, "the hash of its split is missing")


@pytest.mark.parametrize("rows", [slice(1), slice(None)])
def test_a_keep_fraction_that_is_no_number_is_refused(tmp_path, rows):
    path = tmp_path / "scores.parquet"
    write_scores(report_with(), path, split_hash=HASH)
    table = pq.read_table(path)
    place, values = table.column_names.index("keep_fraction"), np.array(table["keep_fraction"])
    values[rows] = np.nan
    pq.write_table(table.set_column(place, "keep_fraction", pa.array(values)), path)
    refused(path, "keep_fraction")


def test_groups_may_be_absent_without_a_type(tmp_path):
    path = tmp_path / "scores.parquet"
    write_scores(report_with(), path, split_hash=HASH)
    table = pq.read_table(path)
    place = table.column_names.index("group")
    pq.write_table(table.set_column(place, "group", pa.nulls(len(table))), path)
    assert read_scores(path).data.group is None


def test_that_coins_drew_the_split_comes_back_with_the_bounds(tmp_path):
    report = report_of(replace(report_with(num_folds=2).data, by_coins=True), intervals=FEW)
    write_scores(report, tmp_path / "scores.parquet", split_hash=HASH)
    again = report_of(read_scores(tmp_path / "scores.parquet").data, intervals=FEW)
    assert [row.epsilon for row in again.rows if row.key.mask != TUNED] == [
        row.epsilon for row in report.rows if row.key.mask != TUNED
    ]
    assert all(row.epsilon is not None for row in again.rows)

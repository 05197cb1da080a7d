"""Scores of the primary attack at every audit, stored by epoch."""

import torch

from ldm_privacy.runs.history import ScoreHistory
from ldm_privacy.types import AuditKey

KEY = AuditKey("sima", "all")


def test_a_history_gives_back_what_was_stored_up_to_an_epoch(tmp_path):
    history = ScoreHistory(tmp_path / "scores")
    assert history.read(KEY, until=100) == {}
    for epoch in (10, 2, 30):
        history.write(epoch, KEY, torch.tensor([5, 3]), torch.tensor([0.5, epoch]))
    history.write(2, KEY, torch.tensor([5, 3]), torch.tensor([0.25, 2.0]))
    found = history.read(KEY, until=10)
    assert list(found) == [2, 10]
    assert dict(zip(found[2][0].tolist(), found[2][1].tolist())) == {3: 2.0, 5: 0.25}
    assert history.read(AuditKey("loss", "all"), until=10) == {}, "scores of another attack are not compared"


def test_cut_back_leaves_the_audits_up_to_an_epoch_and_nothing_half_written(tmp_path):
    history = ScoreHistory(tmp_path / "scores")
    history.cut_back(-1)
    for epoch in (0, 9, 10):
        history.write(epoch, KEY, torch.tensor([5, 3]), torch.tensor([0.5, 1.0]))
    (tmp_path / "scores" / "11.tmp").write_bytes(b"PAR1")
    history.cut_back(9)
    assert sorted(path.name for path in (tmp_path / "scores").iterdir()) == ["epoch-0.parquet", "epoch-9.parquet"]
    history.cut_back(-1)
    assert not any((tmp_path / "scores").iterdir())


def test_a_damaged_file_is_named_and_the_others_are_read(tmp_path, caplog):
    history = ScoreHistory(tmp_path)
    history.write(2, KEY, torch.tensor([5, 3]), torch.tensor([0.25, 2.0]))
    (tmp_path / "epoch-4.parquet").write_bytes(b"PAR1 nothing")
    assert list(history.read(KEY, until=9)) == [2]
    assert "epoch-4.parquet can't be read" in caplog.text

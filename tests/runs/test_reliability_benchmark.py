"""The reliability benchmark: its moments, and that a run which differs is said to."""

import shutil
from collections import Counter

import pytest
import torch
from safetensors.torch import save_file

from benchmarks.reliability import PHASES, draw
from benchmarks.same_runs import difference
from benchmarks.wrong_files import RUN, in_training
from benchmarks.wrong_inputs import AT_ONCE, LOADED

KNOWN = {"stage 1": [9.0], "stage 2": [40.0], "audit": [1.0] * 5, "checkpoint write": [0.05] * 12, "evaluation": [8.0]}


@pytest.fixture
def whole(tmp_path):
    """The files of a run."""
    folder = tmp_path / "whole"
    for name in ("scores", "checkpoints", "store", "evaluation"):
        (folder / name).mkdir(parents=True)
    (folder / "metrics.csv").write_bytes(b"stage,epoch,series,value\r\ndenoiser,0,x,0.5\r\ndenoiser,1,x,0.25\r\n")
    (folder / "scores" / "epoch-1.parquet").write_bytes(b"PAR1")
    (folder / "evaluation" / "report.html").write_text("a page")
    torch.save({"state_dict": {"w": torch.zeros(2)}, "loops": {"x": 1}}, folder / "checkpoints" / "last.ckpt")
    save_file({"distortion": torch.tensor([0.5, torch.nan])}, folder / "store" / "a.safetensors")
    return folder


def weights(folder):
    torch.save({"state_dict": {"w": torch.tensor([0.0, 1e-45])}, "loops": {"x": 1}}, folder / "checkpoints" / "last.ckpt")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: None, ""),
        (lambda folder: (folder / "evaluation" / "report.html").write_text("another"), ""),
        (lambda folder: (folder / ".lock.json").write_text("{}"), ""),
        (lambda folder: (folder / "evaluation" / ".lock.json").write_text("{}"), ""),
        (weights, "checkpoints/last.ckpt differs in state_dict"),
        (lambda folder: (folder / "checkpoints" / "last.ckpt.tmp").touch(), "left checkpoints/last.ckpt.tmp"),
        (lambda folder: (folder / "scores" / "epoch-1.parquet").unlink(), "missing scores/epoch-1.parquet"),
        (lambda folder: (folder / "scores" / "epoch-1.parquet").write_bytes(b"PAR2"), "scores/epoch-1.parquet differs"),
        (
            lambda folder: (folder / "metrics.csv").open("a").write("denoiser,1,x,0.25\n"),
            "metrics.csv: 1 rows twice, 0 others: denoiser,1,x",
        ),
        (
            lambda folder: (folder / "metrics.csv").open("a").write("denoiser,2,x,0.1\n"),
            "metrics.csv: 0 rows twice, 1 others: denoiser,2,x,0.1",
        ),
        (
            lambda folder: save_file({"distortion": torch.tensor([0.25, torch.nan])}, folder / "store" / "a.safetensors"),
            "store/a.safetensors differs in distortion",
        ),
    ],
)
def test_what_differs_from_the_whole_run_is_named(whole, change, said):
    other = whole.with_name("other")
    shutil.copytree(whole, other)
    change(other)
    assert difference(other, whole) == said


def test_the_moments_hit_every_phase_and_come_from_the_seed():
    drawn = draw(20, 0, KNOWN)
    assert Counter(moments[0].phase for moments in drawn) == dict.fromkeys(PHASES, 4)
    assert sum(len(moments) == 2 for moments in drawn) == 5
    assert drawn == draw(20, 0, KNOWN) != draw(20, 1, KNOWN)
    order = list(PHASES)
    for moments in drawn:
        assert all(0 <= each.delay < KNOWN[each.phase][each.occurrence - 1] for each in moments)
        assert [order.index(each.phase) for each in moments] == sorted(order.index(each.phase) for each in moments)


def test_there_are_sixty_wrong_inputs_with_names_of_their_own():
    names = [each.name for each in (*AT_ONCE, *LOADED)]
    assert len(names) >= 60
    assert len(set(names)) == len(names)


def test_the_run_that_trains_meanwhile_is_ended_whatever_happens(tmp_path, monkeypatch):
    rows, program = tmp_path / RUN / "metrics.csv", tmp_path / "train.py"
    rows.parent.mkdir(parents=True)
    rows.touch()
    lines = (
        "from time import sleep",
        f"rows = open({str(rows)!r}, 'a', 1)",
        "print(1, file=rows)",
        "sleep(9)",
        "print(2, file=rows)",
    )
    program.write_text("\n".join(lines))
    monkeypatch.setattr("benchmarks.wrong_files.ROOT", tmp_path)
    with pytest.raises(OSError, match="full"), in_training(tmp_path):
        raise OSError("full")
    assert rows.read_text() == "1\n"  # it was still going on

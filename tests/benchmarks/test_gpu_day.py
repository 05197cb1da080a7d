"""The day with a GPU: every entry file is tried small, tables say what was measured alone, mistakes cost one line."""

import json
import re

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu_day import smoke
from benchmarks.gpu_day.items import Day, items
from benchmarks.gpu_day.standins import image_file
from benchmarks.gpu_day.tables import BEGIN, END, NOT, TOY, into_page, tables
from benchmarks.gpu_day.work import ROOT, Record
from ldm_privacy.config.compose import FOR_TARGETS, entry_files, read_entry, read_yaml
from ldm_privacy.data.sources import Parquet

ENTRIES = [pytest.param(path, id=path.stem) for path in entry_files() if path.name != FOR_TARGETS]
PAGE = ROOT / "docs" / "results" / "cifar10.md"


def test_the_small_try_of_a_head_is_read_to_its_end():
    head = "# What.\n# A small try on any machine: trainer.max_epochs=2 data.num_members=500\n# trainer.compile=none\n"
    expected = ["trainer.max_epochs=2", "data.num_members=500", "trainer.compile=none"]
    assert smoke.small_try(head + "# See docs/x.md, a=b is no override.\ndefaults: []") == expected
    assert smoke.small_try(head + "trainer:\n  compile: default") == expected
    assert smoke.small_try("# A small try on any machine:\n# python train.py --config x.yaml seed=1\n") == ["seed=1"]
    assert smoke.small_try("# What.\ndefaults: []") == []


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_entry_file_has_a_small_try_that_is_a_config(entry, tmp_path):
    tree = read_entry(str(entry), smoke.small_try(entry.read_text()))
    tree["defaults"] = read_yaml(entry).get("defaults", [])
    small = [*smoke.small_try(entry.read_text()), *smoke.less(tree, images=8), *smoke.narrow(tree)]
    small += smoke.given_networks(tree, tmp_path)
    if data := smoke.given_data(entry, tree | {"data": {**tree["data"], "resolution": 8}}, None, tmp_path, 4):
        small = [word for word in small if not word.startswith("data.source")] + data
    shrunk = read_entry(str(entry), small)
    assert (shrunk["data"]["num_members"], shrunk["trainer"]["max_epochs"]) == (8, 2)
    assert shrunk["data"]["source"]["class"] in ("digits", "parquet")


def test_a_stand_in_has_what_a_config_may_ask_for(tmp_path):
    file = image_file(tmp_path, resolution=8, rows=6, group_column="patient")
    source = Parquet(files=str(file))
    dataset = source.load()
    columns = source.columns(dataset)
    assert (len(dataset), columns.image, columns.label, columns.caption) == (6, "image", "label", "caption")
    assert len(dataset[0]["caption"]) == 2
    assert dataset["patient"][:] == ["group 0", "group 0", "group 1", "group 1", "group 2", "group 2"]
    assert image_file(tmp_path, resolution=8, rows=6, group_column="patient") == file


def test_tables_of_nothing_hold_no_measurement_and_stand_in_the_page(tmp_path):
    text = tables(tmp_path)
    assert text.count(NOT) > 50
    page = PAGE.read_text()
    there = page[page.index(BEGIN) : page.index(END)]
    assert re.findall(r"^### .*", there, re.MULTILINE) == re.findall(r"^### .*", text, re.MULTILINE)
    assert into_page(into_page(page, "one"), text) == into_page(page, text)
    assert into_page(page, text).replace(text, "") == into_page(page, "")


def test_what_was_measured_stands_in_the_tables_beside_its_goal(tmp_path):
    ways = ("ours", "published", "cached")
    measured = {
        "network": "paper",
        "parameters": 20_000_000,
        "settings": "bf16-mixed",
        "samples_per_second": dict.fromkeys(ways, 12345.6),
        "faster": {"published": [9.9, 9.0, 11.0], "cached": [1.5, 1.4, 1.6]},
        "mflop_per_sample": dict.fromkeys(ways, 2000.0),
        "share": {"ours": 0.31, "published": 0.01, "cached": 0.2},
    }
    Record("done", 1, 60.0, "", measured).write(tmp_path, "training")
    attack = {"seconds": 1.0, "faster": {"published": [12.0, 11.0, 13.0], "batched": [1.0, 0.9, 1.1]}, "difference": 1e-6}
    sizes = {"network": "paper", "num_latents": 1000, "num_timesteps": 10, "num_masks": 4}
    Record("stopped", 1, 60.0, "", {**sizes, "attacks": {"sima": attack}}).write(tmp_path, "attacks")
    text = tables(tmp_path)
    assert "| ours is faster by |  | 9.9 (9.0 to 11.0); goal 10: missed | 1.5 (1.4 to 1.6) |" in text
    assert "| 31.0%; goal 25%: reached | 1.0% | 20.0% |" in text
    assert "102 PFLOP" in text  # 2 GFLOP x 25,000 x 2,048
    assert "| sima | 1.00 | 12.0 (11.0 to 13.0); goal 10: reached | 1.0 (0.9 to 1.1) | 1e-06 |" in text
    assert TOY not in text
    assert tables(tmp_path, is_toy=True).count(TOY.strip()) == 7  # before each


def test_without_images_the_two_items_that_need_them_wait_and_say_so(tmp_path):
    waiting = {item.name: item.waits_for for item in items(Day(tmp_path / "out", tmp_path)) if item.waits_for}
    assert list(waiting) == ["cifar10_fast", "published"]
    assert set(waiting.values()) == {"waits for CIFAR-10: --data FOLDER with cifar10/train-*.parquet in it"}
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10" / "train-0.parquet").touch()
    assert not any(item.waits_for for item in items(Day(tmp_path / "out", tmp_path)))


MISTAKES = [
    (["--minutes", "1", "--data", "nowhere"], "--data: nowhere is no folder."),
    (["--minutes", "-1"], "--minutes: -1 is less than 0."),
    (["--minutes", "1", "--again", "smok"], "--again: no item smok. There are: machine, training, "),
    (["--minutes", "1", "--only", "trainig"], "--only: no item trainig. There are: machine, training, "),
    (["--minutes", "0", "--page", "README.md"], "--page: README.md has no line '<!-- from here on"),
    (["--minutes", "0", "--toy", "--page", "README.md"], "--page: a toy's numbers mean nothing"),
]


@pytest.mark.parametrize(("words", "line"), MISTAKES, ids=[line[:20] for _, line in MISTAKES])
def test_a_mistake_costs_one_line_and_leaves_nothing(words, line, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "refusal", lambda is_toy: "")
    assert gpu.main(["--out", str(tmp_path / "out"), *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {line}")
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_machine_without_a_gpu_is_told_so(tmp_path, capsys):
    assert gpu.main(["--out", str(tmp_path / "out"), "--minutes", "1"]) == 2
    assert re.fullmatch(r"error: torch \S+ sees no CUDA device here; --toy .*\n", capsys.readouterr().err)


def test_a_toy_and_a_full_day_have_folders_of_their_own(tmp_path, capsys):
    assert gpu.main(["--out", str(tmp_path), "--minutes", "0", "--toy"]) == 3
    assert TOY.strip() in (tmp_path / "cifar10.md").read_text()
    assert "7 of 7 items are open. Next:" in capsys.readouterr().out
    assert gpu.main(["--out", str(tmp_path), "--minutes", "0"]) == 2
    assert capsys.readouterr().err == f"error: --out: {tmp_path} holds a toy: name another folder, or add --toy.\n"


@pytest.mark.slow
def test_the_whole_list_runs_on_a_cpu_stopped_and_gone_on_with(tmp_path):
    words = ["--out", str(tmp_path), "--toy", "--entries", "digits,cifar10_fast"]
    assert gpu.main([*words, "--minutes", "1.2"]) == 3
    codes = []
    while 0 not in codes:
        assert len(codes) < 10
        codes.append(gpu.main([*words, "--minutes", "2.5"]))
    records = {item.name: Record.read(tmp_path, item.name) for item in items(Day(tmp_path, None, True))}
    assert {record.status for record in records.values()} == {"done"}, records
    assert any(record.calls > 1 for record in records.values())
    entries = records["smoke"].measured["entries"]
    assert {name: list(each["ways"].values()) for name, each in entries.items()} == {"digits": ["ok"], "cifar10_fast": ["ok"]}
    assert json.loads((tmp_path / "published" / "metrics.json").read_text())["epoch"] == 8
    text = (tmp_path / "cifar10.md").read_text()
    assert text.count(TOY.strip()) == 7
    assert "At epoch 8 of 2,048" in text

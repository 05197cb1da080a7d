"""The influence store: reuse, foreign and damaged files, kills, two processes."""

import logging
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from ldm_privacy.errors import UserError
from ldm_privacy.geometry import InfluenceEstimate, InfluenceStore, ProbeInfluence, fingerprint, stream_influence

INDEX = torch.tensor([5, 2, 9])


def estimate(value=1.0, stability=True):
    influence = torch.full((3, 2, 2, 2), value)
    return InfluenceEstimate(influence, influence / 2, torch.rand(3) if stability else None)


def refuse():
    raise AssertionError("computed although it is stored")


def decode(latent):
    return torch.tanh(latent)


def test_what_is_stored_comes_back_and_is_said(tmp_path, caplog):
    caplog.set_level(logging.INFO, "ldm_privacy")
    store = InfluenceStore(tmp_path / "influence")
    first = store.get_or_compute("a", INDEX, estimate)
    second = store.get_or_compute("a", INDEX, refuse)
    assert (first.from_store, second.from_store) == (False, True)
    for name in ("influence", "standard_error", "mask_stability"):
        assert torch.equal(getattr(first, name), getattr(second, name))
    assert "reused" in caplog.text
    without = store.get_or_compute("b", INDEX, lambda: estimate(stability=False))
    assert without.mask_stability is None
    assert store.get_or_compute("b", INDEX, refuse).mask_stability is None
    assert not list(store.folder.glob("*.tmp")) + list(store.folder.glob(".*.tmp"))


def test_streaming_through_the_store(tmp_path):
    latent, weights = torch.randn(3, 1, 2, 2), {"w": torch.ones(2)}
    store, done = InfluenceStore(tmp_path), []

    def run(settings, state=weights):
        of = (state, settings)
        return stream_influence(
            ProbeInfluence(4), decode, latent, INDEX, batch_size=2, store=store, fingerprint_of=of, progress=done.append
        )

    first, again = run({"num_probes": 4}), run({"num_probes": 4})
    assert torch.equal(first.influence, again.influence)
    assert (first.from_store, again.from_store) == (False, True)
    assert done == [2, 3, 3]
    assert not run({"num_probes": 5}).from_store
    assert not run({"num_probes": 4}, {"w": torch.tensor([1.0, 1.0000001])}).from_store
    assert len(list(tmp_path.glob("*.safetensors"))) == 3
    with pytest.raises(ValueError, match="fingerprint_of"):
        stream_influence(ProbeInfluence(4), decode, latent, INDEX, store=store)


def test_fingerprint_sees_everything_that_decides_the_numbers():
    weights = {"a": torch.arange(4.0), "b": torch.zeros(2, 2, dtype=torch.bfloat16), "c": torch.tensor(3)}
    settings = {"estimator": "probe", "arguments": {"num_probes": 16}, "split": "x"}
    known = fingerprint(weights, settings, INDEX)
    assert fingerprint(dict(reversed(weights.items())), dict(reversed(settings.items())), INDEX) == known
    others = [
        fingerprint(weights | {"a": torch.arange(4.0).reshape(2, 2)}, settings, INDEX),
        fingerprint(weights | {"a": torch.arange(4.0).double()}, settings, INDEX),
        fingerprint(weights | {"c": torch.tensor(4)}, settings, INDEX),
        fingerprint({"a2": weights["a"], "b": weights["b"], "c": weights["c"]}, settings, INDEX),
        fingerprint(weights, settings | {"split": "y"}, INDEX),
        fingerprint(weights, settings, INDEX.flip(0)),
    ]
    assert len({known, *others}) == 7


def test_a_file_of_other_weights_is_refused(tmp_path):
    store = InfluenceStore(tmp_path)
    store.save("theirs", INDEX, estimate())
    store.path("theirs").rename(store.path("ours"))
    with pytest.raises(UserError, match="another autoencoder"):
        store.get_or_compute("ours", INDEX, estimate)
    store.save("mine", INDEX, estimate())
    with pytest.raises(UserError, match="another autoencoder"):
        store.load("mine", INDEX + 1)


@pytest.mark.parametrize("size", [0, 4, 60, -1])
def test_a_damaged_file_is_computed_anew_and_said(tmp_path, caplog, size):
    store = InfluenceStore(tmp_path)
    content = store.save("a", INDEX, estimate()).read_bytes()
    store.path("a").write_bytes(content[:size])
    result = store.get_or_compute("a", INDEX, lambda: estimate(2.0))
    assert not result.from_store
    assert "damaged" in caplog.text
    assert float(store.get_or_compute("a", INDEX, refuse).influence.mean()) == 2.0


def test_a_folder_that_cannot_be_written_loses_nothing(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    result = InfluenceStore(tmp_path / "file").get_or_compute("a", INDEX, estimate)
    assert float(result.influence.mean()) == 1.0
    assert "not stored" in caplog.text
    with pytest.raises(UserError, match="can't be stored"):
        InfluenceStore(tmp_path / "file").save("a", INDEX, estimate())


def test_leftovers_of_a_kill_are_removed(tmp_path):
    left, other = tmp_path / ".a.1.tmp", tmp_path / ".b.1.tmp"
    for path in (left, other):
        path.write_bytes(b"half a file")
    InfluenceStore(tmp_path).get_or_compute("a", INDEX, estimate)
    assert not left.exists()
    assert other.exists()


WRITER = """
import sys, torch
from ldm_privacy.geometry import InfluenceEstimate, InfluenceStore
store, index, turn = InfluenceStore(sys.argv[1]), torch.arange(2000), 0
print("ready", flush=True)
while True:
    turn += 1
    value = torch.full((2000, 4, 8, 8), float(turn))
    store.save("a", index, InfluenceEstimate(value, value))
"""


def test_kill_while_writing_leaves_a_whole_file(tmp_path):
    store, index = InfluenceStore(tmp_path), torch.arange(2000)
    value = torch.zeros(2000, 4, 8, 8)
    store.save("a", index, InfluenceEstimate(value, value))
    for turn in range(4):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout.readline() == "ready\n"
        # Kill while a write is under way, each time a little later in it.
        deadline = time.monotonic() + 20
        while not list(tmp_path.glob(".a.*.tmp")):
            assert time.monotonic() < deadline
        for _ in range(turn * 20_000):
            pass
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        stored = store.load("a", index)
        assert stored is not None
        assert stored.influence.min() == stored.influence.max() == stored.standard_error.max()


COMPUTER = """
import os, sys, pathlib, torch
from ldm_privacy.geometry import InfluenceEstimate, InfluenceStore
folder, barrier = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
def compute():
    (folder / f"computed-{os.getpid()}").touch()
    while not barrier.exists():  # until both processes are there
        pass
    value = torch.full((10, 1, 2, 2), float(os.getpid()))
    return InfluenceEstimate(value, value)
print("ready", flush=True)
result = InfluenceStore(folder).get_or_compute("a", torch.arange(10), compute)
print(result.from_store, int(result.influence.mean()), flush=True)
"""


def test_two_processes_compute_once_and_agree(tmp_path):
    barrier = tmp_path / "barrier"
    command = [sys.executable, "-c", COMPUTER, str(tmp_path), str(barrier)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    barrier.touch()
    answers = [process.communicate(timeout=60)[0].split() for process in processes]
    assert sorted(answer[0] for answer in answers) == ["False", "True"]
    assert answers[0][1] == answers[1][1]
    assert len(list(tmp_path.glob("computed-*"))) == 1


def test_a_killed_process_leaves_no_lock(tmp_path):
    command = [sys.executable, "-c", COMPUTER, str(tmp_path), str(tmp_path / "never")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    deadline = time.monotonic() + 20
    while not list(tmp_path.glob("computed-*")) and time.monotonic() < deadline:
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    result = InfluenceStore(tmp_path).get_or_compute("a", torch.arange(10), estimate)
    assert not result.from_store

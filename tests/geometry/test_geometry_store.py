"""The store: reuse, foreign and damaged files, kills, two processes."""

import errno
import multiprocessing
import os
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ldm_privacy.errors import UserError
from ldm_privacy.geometry import store as store_module
from ldm_privacy.geometry.estimate import InfluenceEstimate
from ldm_privacy.geometry.probe import ProbeInfluence
from ldm_privacy.geometry.store import Store, fingerprint, in_file
from ldm_privacy.geometry.stream import influence_by_batch
from tests.mapped import file_of
from tests.two_processes import in_two_processes

INDEX = torch.tensor([5, 2, 9])
PROCESSES = multiprocessing.get_context("forkserver")  # a clean process imports torch once, the others are its copies
PROCESSES.set_forkserver_preload([__name__])


def store_in(folder):
    return Store(folder, "influence")


def tensors(value=1.0):
    return {"influence": torch.full((3, 2, 2, 2), value), "mask_stability": torch.rand(3)}


def batches(value=1.0):
    """The rows of `tensors`, two and one."""
    found = tensors(value)
    return [{name: each[rows] for name, each in found.items()} for rows in (slice(0, 2), slice(2, 3))]


def refuse():
    raise AssertionError("computed although it is stored")


def wait_for(folder, pattern):
    deadline = time.monotonic() + 20
    while not list(folder.glob(pattern)):
        assert time.monotonic() < deadline


def kill(process):
    process.kill()
    process.join()


def test_what_is_stored_comes_back(tmp_path):
    store = store_in(tmp_path / "influence")
    first, is_found = store.get_or_compute("a", INDEX, batches)
    assert not is_found
    second, is_found = store.get_or_compute("a", INDEX, refuse)
    assert is_found
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not list(store.folder.glob(".*.tmp"))


def test_an_estimate_goes_through_the_store(tmp_path):
    latent, weights, store = torch.randn(3, 1, 2, 2), {"w": torch.ones(2)}, store_in(tmp_path)

    def run(num_probes, state=weights):
        estimator = ProbeInfluence(num_probes)
        name = fingerprint(state, {"num_probes": num_probes}, INDEX)
        found = store.get_or_compute(
            name,
            INDEX,
            lambda: [part.tensors() for part in influence_by_batch(estimator, torch.tanh, latent, INDEX, batch_size=2)],
        )
        return InfluenceEstimate.from_tensors(found[0]), found[1]

    (first, _), (again, is_found) = run(4), run(4)
    assert is_found
    for name, value in first.tensors().items():
        assert torch.equal(value, again.tensors()[name])
    assert not run(1)[1]
    alone, is_found = run(1)
    assert is_found
    assert alone.mask_stability is None
    assert not run(4, {"w": torch.tensor([1.0, 1.0000001])})[1]
    assert len(list(tmp_path.glob("*.safetensors"))) == 3


def test_fingerprint_sees_everything_that_decides_the_numbers():
    weights = {"a": torch.arange(4.0), "b": torch.zeros(2, 2, dtype=torch.bfloat16), "c": torch.tensor(3)}
    settings = {"estimator": "probe", "arguments": {"num_probes": 16}, "split": "x"}
    known = fingerprint(weights, settings, INDEX)
    assert fingerprint(dict(reversed(weights.items())), dict(reversed(settings.items())), INDEX) == known
    assert fingerprint(weights, settings, INDEX.to(torch.int32)) == known
    assert fingerprint(weights | {"none": torch.zeros(0, 3)}, settings, INDEX) != known
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
    store = store_in(tmp_path)
    store.get_or_compute("theirs", INDEX, batches)
    store.path("theirs").rename(store.path("ours"))
    with pytest.raises(UserError, match="another codec"):
        store.get_or_compute("ours", INDEX, batches)
    store.get_or_compute("mine", INDEX, batches)
    with pytest.raises(UserError, match="another codec"):
        store.load("mine", INDEX + 1)


@pytest.mark.parametrize("size", [0, 4, 60, -1])
def test_a_damaged_file_is_computed_anew_and_said(tmp_path, caplog, size):
    store = store_in(tmp_path)
    store.get_or_compute("a", INDEX, batches)
    store.path("a").write_bytes(store.path("a").read_bytes()[:size])
    assert not store.get_or_compute("a", INDEX, lambda: batches(2.0))[1]
    assert "damaged" in caplog.text
    assert float(store.get_or_compute("a", INDEX, refuse)[0]["influence"].mean()) == 2.0


def test_a_folder_that_cannot_be_written_loses_nothing(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    result, _ = store_in(tmp_path / "file").get_or_compute("a", INDEX, batches)
    assert float(result["influence"].mean()) == 1.0
    assert "not stored" in caplog.text


def test_what_is_stored_is_mapped_from_its_file_and_stays_what_it_is(tmp_path):
    store = store_in(tmp_path)
    for found in (store.get_or_compute("a", INDEX, batches)[0], store.load("a", INDEX)):
        for value in found.values():
            assert file_of(value) == str(store.path("a"))
        found["influence"].fill_(7)
        assert float(store.load("a", INDEX)["influence"].max()) == 1.0, "what is written into it is nobody else's"
    assert set(load_file(store.path("a"))) == {"influence", "mask_stability", "sample_index"}


def test_rows_go_to_the_disk_as_they_come(tmp_path):
    store, sizes = store_in(tmp_path), []

    def rows():
        for number in range(4):
            yield {"small": torch.tensor([number], dtype=torch.bool), "large": torch.full((1, 3), float(number)).double()}
            (file,) = tmp_path.glob(".a.*.tmp")
            stored = load_file(file)
            sizes.append(int(stored["large"].any(1).sum()))

    found, _ = store.get_or_compute("a", torch.arange(4), rows)
    assert found["large"].tolist() == [[float(number)] * 3 for number in range(4)]
    assert found["small"].tolist() == [False, True, True, True]
    assert found["large"].dtype == torch.float64
    assert not list(tmp_path.glob(".a.*.tmp"))


def test_no_room_is_known_before_the_second_batch_and_loses_nothing(tmp_path, caplog, monkeypatch):
    computed = []

    def rows():
        for batch in batches():
            computed.append(len(batch["influence"]))
            yield batch

    def full(*arguments):
        assert computed == [2]
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    found, is_found = store_in(tmp_path).get_or_compute("a", INDEX, rows)
    assert not is_found
    assert "not stored" in caplog.text
    assert "No space left" in caplog.text
    assert computed == [2, 1]
    assert float(found["influence"].sum()) == 3 * 8
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]


def test_an_error_in_a_later_batch_leaves_no_file(tmp_path):
    def rows():
        yield batches()[0]
        raise ValueError("the second batch")

    with pytest.raises(ValueError, match="the second"):
        store_in(tmp_path).get_or_compute("a", INDEX, rows)
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]


def test_two_processes_fill_one_file(tmp_path, monkeypatch):
    index, values = torch.arange(5), torch.rand(5, 2, 3)

    def half(rank):
        share = store_module.share_of(5)
        found = store_in(tmp_path).get_or_compute("a", index, lambda: [{"v": row[None]} for row in values[share]])
        return found[0]["v"], share

    (first, mine), (second, other) = in_two_processes(monkeypatch, half, store_module)
    assert torch.equal(first, values)
    assert torch.equal(second, values)
    assert (mine, other) == (slice(0, 2), slice(2, 5))
    assert len(list(tmp_path.glob("*.safetensors"))) == 1


def test_a_file_without_a_name_holds_rows(tmp_path):
    for value in (torch.rand(7, 2, 3), torch.arange(7).to(torch.bfloat16)[:, None]):
        found = in_file(value.split(3), tmp_path)
        assert torch.equal(found, value)
        assert found.dtype == value.dtype
        assert file_of(found).endswith("(deleted)")
        assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't be kept in a file"):
        in_file([torch.ones(1)], tmp_path / "file")


def test_a_file_without_a_name_lies_in_its_folder_which_is_made(tmp_path):
    folder = tmp_path / "new" / "folder"
    assert file_of(in_file([torch.ones(3)], folder)).startswith(f"{folder}/")


def test_what_is_written_into_rows_of_a_file_stays_in_memory(tmp_path, monkeypatch):
    path = tmp_path / "rows"
    monkeypatch.setattr(store_module.tempfile, "TemporaryFile", lambda dir: path.open("w+b"))
    found = in_file(torch.arange(6.0).split(4), tmp_path)
    found.fill_(7)
    assert np.fromfile(path, np.float32).tolist() == [0, 1, 2, 3, 4, 5]


def test_leftovers_of_a_kill_are_removed(tmp_path):
    left, other = tmp_path / ".a.1.tmp", tmp_path / ".b.1.tmp"
    for path in (left, other):
        path.write_bytes(b"half a file")
    store_in(tmp_path).get_or_compute("a", INDEX, batches)
    assert not left.exists()
    assert other.exists()


def test_a_new_file_takes_the_old_ones_place_in_one_step(tmp_path):
    store = store_in(tmp_path)
    store.path("a").write_bytes(b"damaged")
    with store.path("a").open("rb") as reader:
        store.get_or_compute("a", INDEX, batches)
        assert reader.read() == b"damaged"
    assert store.load("a", INDEX) is not None


def write_for_ever(folder):
    store, index, turn = store_in(folder), torch.arange(2000), 0
    while True:
        turn += 1
        value = torch.full((2000, 4, 8, 8), float(turn))
        store.path("a").unlink(missing_ok=True)
        store.get_or_compute("a", index, lambda value=value: [{"influence": value, "standard_error": value}])


def test_kill_while_writing_leaves_a_whole_file_or_none(tmp_path, caplog):
    store, index = store_in(tmp_path), torch.arange(2000)
    value = torch.zeros(2000, 4, 8, 8)
    start = time.perf_counter()
    store.get_or_compute("a", index, lambda: [{"influence": value, "standard_error": value}])
    duration = time.perf_counter() - start
    for turn in range(10):
        writer = PROCESSES.Process(target=write_for_ever, args=(tmp_path,))
        writer.start()
        # Kill at another moment of a write each time: while it fills the other file, flushes it, or puts it in place.
        wait_for(tmp_path, f".a.{writer.pid}.tmp")
        moment = time.perf_counter() + turn / 5 * duration
        while time.perf_counter() < moment:
            pass
        kill(writer)
        stored = store.load("a", index)
        assert "damaged" not in caplog.text
        if stored is not None:
            assert stored["influence"].min() == stored["influence"].max() == stored["standard_error"].max()


def compute_once(folder, are_both_there, ready, answers):
    def compute():
        (folder / f"computed-{os.getpid()}").touch()
        are_both_there.wait()
        return [{"influence": torch.full((10, 1, 2, 2), float(os.getpid()))}]

    ready.put(None)
    result, is_found = store_in(folder).get_or_compute("a", torch.arange(10), compute)
    answers.put((is_found, float(result["influence"].mean())))


def computing(folder, num_processes):
    """Started processes that compute the same, the event that lets them end, and the queue of their answers."""
    are_both_there, ready, answers = PROCESSES.Event(), PROCESSES.SimpleQueue(), PROCESSES.SimpleQueue()
    arguments = folder, are_both_there, ready, answers
    processes = [PROCESSES.Process(target=compute_once, args=arguments) for _ in range(num_processes)]
    for process in processes:
        process.start()
    for _ in processes:
        ready.get()
    return processes, are_both_there, answers


def test_two_processes_compute_once_and_agree(tmp_path):
    processes, are_both_there, answers = computing(tmp_path, 2)
    are_both_there.set()
    first, second = sorted(answers.get() for _ in processes)
    for process in processes:
        process.join()
    assert (first[0], second[0]) == (False, True)
    assert first[1] == second[1]
    assert len(list(tmp_path.glob("computed-*"))) == 1


def test_a_killed_process_leaves_no_lock(tmp_path):
    (process,), _, _ = computing(tmp_path, 1)
    wait_for(tmp_path, "computed-*")
    kill(process)
    assert not store_in(tmp_path).get_or_compute("a", torch.arange(10), lambda: [{"influence": torch.ones(10, 1, 2, 2)}])[1]

"""What is measured of the audited samples, with a codec whose every number has a closed form; the store that finds it again."""

import logging
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from ldm_privacy.audit import encoding as encoding_module
from ldm_privacy.audit import measure as measure_module
from ldm_privacy.audit import samples as samples_module
from ldm_privacy.audit.measure import NUM_KEPT, Measuring
from ldm_privacy.data.complexity import image_complexity
from ldm_privacy.device import OutOfMemory
from ldm_privacy.geometry import store as store_module
from ldm_privacy.geometry.distortion import Distortion
from ldm_privacy.geometry.exact import ExactInfluence
from ldm_privacy.geometry.probe import ProbeInfluence
from ldm_privacy.geometry.shrunk import ShrunkInfluence
from ldm_privacy.models.channel_map import ChannelMap
from ldm_privacy.models.codec import Codec
from tests.mapped import file_of
from tests.two_processes import in_two_processes

INDEX = torch.arange(23) * 3 + 1
IMAGES = torch.rand(80, 2, 3, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
IS_MEMBER = INDEX % 2 == 0
OF_IMAGES = ("latent", "influence", "reconstruction_error", "complexity", "distortion")
COLUMNS = ("sample_index", "is_member", "group", "repeats", *OF_IMAGES)
SHARE = torch.tensor([[1.5, -0.25], [0.5, 0.75]])  # of the channels of a map that is no diagonal


class Linear(Codec):
    """mean = A x + 5, far from 0; image = B mean, both one matrix a position; passes are counted by image."""

    name = "linear"

    def __init__(self, channel_map):
        generator = torch.Generator().manual_seed(1)
        self.a, self.b = (torch.randn(2, 2, generator=generator) for _ in range(2))
        self.network = nn.ParameterDict({"a": nn.Parameter(self.a), "b": nn.Parameter(self.b)})
        self.channel_map = channel_map
        self.encoded, self.decoded = 0, 0

    def mean(self, image):
        self.encoded += len(image)
        return torch.einsum("ij,bjhw->bihw", self.a, image) + 5

    def decode(self, latent):
        self.decoded += latent.numel() // 18
        return torch.einsum("ij,...jhw->...ihw", self.b, self.channel_map.inverse(latent))

    def record(self):
        return {"class": self.name, "scale": 1.0}


MAPS = {
    "per channel": ChannelMap.diagonal("per_channel", torch.tensor([4.0, -3.0]), torch.tensor([0.25, 3.0])),
    "full": ChannelMap("full", torch.tensor([4.0, -3.0]), SHARE),
}


def measuring(codec, folder=None, said=None, **changes):
    @contextmanager
    def progress(words, total):
        yield lambda done: None if said is None else said.append((words, done, total))

    given = {"content": "these", "device": torch.device("cpu"), **changes}
    return Measuring(codec, lambda index: IMAGES[index], store_folder=folder, progress=progress, **given)


def everything(measure, *, influence, rank=3):
    """All that can be measured, the distortion of every second sample."""
    return measure.samples(
        INDEX,
        measure.means(INDEX),
        IS_MEMBER,
        group=INDEX // 10,
        condition={"class_labels": INDEX + 100},
        views={"shuffled": {"class_labels": INDEX + 200}},
        repeats=INDEX % 3,
        influence=influence,
        influence_settings={"estimator": type(influence).__name__},
        distortion=Distortion(rank, oversample=1, num_power_iterations=1),
        distortion_index=INDEX[::2],
    )


def test_what_is_found_in_the_store_is_told_in_one_line_that_counts(tmp_path, caplog):
    caplog.set_level(logging.INFO, "ldm_privacy")
    for _ in range(2):
        assert "reused" not in caplog.text
        everything(measuring(Linear(MAPS["full"]), tmp_path), influence=ExactInfluence())
    (said,) = (record.getMessage() for record in caplog.records)
    found = "Latents, image complexity, reconstruction, influence, distortion"
    assert said == f"{found} of {len(INDEX)} samples reused from {tmp_path}."


@pytest.mark.parametrize("name", MAPS)
def test_every_column_has_its_closed_form(name):
    codec = Linear(MAPS[name])
    shift, matrix = codec.channel_map.shift, codec.channel_map.matrix
    samples = everything(measuring(codec), influence=ExactInfluence())
    mean = torch.einsum("ij,bjhw->bihw", codec.a, IMAGES[INDEX]) + 5
    torch.testing.assert_close(samples.latent, torch.einsum("ij,bjhw->bihw", matrix, mean - shift[:, None, None]))
    assert torch.equal(samples.sample_index, INDEX)
    assert torch.equal(samples.is_member, IS_MEMBER)
    assert torch.equal(samples.group, INDEX // 10)
    assert torch.equal(samples.condition["class_labels"], INDEX + 100)
    assert samples.views.keys() == {"shuffled"}
    assert torch.equal(samples.views["shuffled"]["class_labels"], INDEX + 200)
    assert torch.equal(samples.repeats, INDEX % 3)
    # The decoder stands at the posterior mean: image = B mean, and J = B M^-1 at each of the nine positions.
    error = (torch.einsum("ij,bjhw->bihw", codec.b, mean) - IMAGES[INDEX]).abs().mean(dim=(1, 2, 3))
    torch.testing.assert_close(samples.reconstruction_error, error)
    assert torch.equal(samples.complexity, image_complexity(IMAGES[INDEX]))
    jacobian = codec.b @ torch.linalg.inv(matrix)
    columns = jacobian.square().sum(0)[:, None, None].expand(2, 3, 3)
    torch.testing.assert_close(samples.influence, columns.expand(23, 2, 3, 3))
    largest = float(torch.linalg.svdvals(jacobian.double())[0])
    expected = torch.full((23,), torch.nan, dtype=torch.float64)
    expected[::2] = 3 * torch.tensor(largest).double().log()  # one such value a position, the three largest of them
    torch.testing.assert_close(samples.distortion, expected, equal_nan=True, rtol=1e-5, atol=1e-6)
    assert samples.mask_stability is None
    assert not samples.is_share


def test_influence_and_mask_stability_are_the_estimators_over_all_samples():
    estimator, codec = ShrunkInfluence(num_probes=4, seed=3), Linear(MAPS["full"])
    samples = everything(measuring(codec), influence=estimator)
    expected = estimator(codec.decode, samples.latent, INDEX)
    torch.testing.assert_close(samples.influence, expected.influence)
    assert samples.mask_stability == pytest.approx(float(expected.mask_stability.double().mean()))


def test_mirrored_means_are_those_of_the_mirror_images():
    codec = Linear(MAPS["full"])
    mirrored = measuring(codec).means(INDEX, mirrored=True)
    torch.testing.assert_close(mirrored, torch.einsum("ij,bjhw->bihw", codec.a, IMAGES[INDEX].flip(-1)) + 5)


def test_batches_change_nothing(limit_memory):
    found, steps = [], []
    for num_bytes in (1, 2**28):
        limit_memory(num_bytes)
        measure = measuring(Linear(MAPS["full"]), said=(said := []))
        found.append(everything(measure, influence=ShrunkInfluence(num_probes=2)))
        steps.append(sum(words == "Reconstruction error" for words, *_ in said))
    (one, other), (of_one, of_many) = found, steps
    assert of_one > of_many
    for column in OF_IMAGES:
        torch.testing.assert_close(getattr(one, column), getattr(other, column), equal_nan=True, rtol=1e-5, atol=1e-6)
    assert one.mask_stability == pytest.approx(other.mask_stability)


def test_latents_beyond_their_budget_lie_in_a_file_and_are_the_same(tmp_path, limit_memory):
    measure, held = (
        measuring(Linear(MAPS["full"]), tmp_path / "a"),
        measuring(Linear(MAPS["full"]), tmp_path / "b", latents_gib=0),
    )
    inside, beyond = (everything(each, influence=ExactInfluence()) for each in (measure, held))
    for column in COLUMNS:
        assert torch.equal(getattr(inside, column).nan_to_num(7), getattr(beyond, column).nan_to_num(7))
    assert torch.equal(inside.deviation, beyond.deviation)
    assert file_of(inside.latent) in ("", "[heap]")
    assert file_of(beyond.latent).endswith("(deleted)")
    for samples in (inside, beyond):
        assert file_of(samples.influence).endswith(".safetensors")
    limit_memory(1)
    means, index = held.means(INDEX), INDEX[[3, 22, 0, 9]]
    parts = [(INDEX[10:], means[10:]), (INDEX[:10], means[:10])]
    assert torch.equal(held.joined(parts, index), means[[3, 22, 0, 9]])
    two = held.latents(means, means + 1)
    torch.testing.assert_close(two, torch.cat([held.codec.channel_map(means), held.codec.channel_map(means + 1)]))


def test_latents_are_in_memory_up_to_their_budget_or_where_there_is_no_folder(tmp_path):
    latent = torch.ones(16, 1, 4, 8)  # 2 KiB
    joined = [(torch.arange(16), latent)], torch.arange(16)
    in_memory = ("", "[heap]")
    for latents_gib, folder in ((2**-19, tmp_path), (2**-19 - 2**-30, None)):
        measure = measuring(Linear(MAPS["full"]), folder, latents_gib=latents_gib)
        assert file_of(measure.held([latent], latent.nbytes)) in in_memory
        assert file_of(measure.joined(*joined)) in in_memory
    beyond = measuring(Linear(MAPS["full"]), tmp_path, latents_gib=2**-19 - 2**-30)
    assert file_of(beyond.held([latent], latent.nbytes)).endswith("(deleted)")
    assert file_of(beyond.joined(*joined)).endswith("(deleted)")


def test_rows_of_any_number_of_tables_are_found_in_any_order(limit_memory):
    limit_memory(1)
    measure, rows = measuring(Linear(MAPS["full"])), torch.arange(80.0)[:, None]
    order = torch.randperm(23, generator=torch.Generator().manual_seed(2))
    for ends in ([23], [2, 11, 23], [9, 10, 15, 23]):
        known = [(some, rows[some]) for some in torch.tensor_split(INDEX[order], ends[:-1])]
        for index in (INDEX, INDEX.flip(0), INDEX[order[:5]]):
            assert torch.equal(measure.joined(known, index), rows[index])


def test_rows_are_put_together_by_parts_that_fit_the_memory_budget(limit_memory, monkeypatch):
    table, index = torch.ones(60, 16, 3, 3), torch.arange(60)
    limit_memory(10 * table[0].nbytes)
    measure = measuring(Linear(MAPS["full"]))
    monkeypatch.setattr(measure, "held", lambda batches, num_bytes: [len(batch) for batch in batches])
    counts = measure.joined([(index, table)], index)
    assert sum(counts) == 60
    assert 1 < max(counts) <= 10


def test_only_what_is_asked_for_is_measured():
    measure = measuring(Linear(MAPS["full"]))
    means = measure.means(INDEX)
    samples = measure.samples(INDEX, means, IS_MEMBER, distortion=Distortion(2))
    assert (samples.influence, samples.distortion, samples.group, samples.repeats) == (None, None, None, None)
    assert (samples.condition, samples.views) == ({}, {})
    assert measure.codec.decoded == len(INDEX)
    measure.codec.network = None
    samples = measure.samples(INDEX, means, IS_MEMBER, influence=ExactInfluence())
    assert samples.reconstruction_error is None
    assert torch.equal(samples.complexity, image_complexity(IMAGES[INDEX])), "pixels have one as well"


def test_nothing_is_computed_twice_and_everything_is_told_apart(tmp_path, limit_memory):
    first = Linear(MAPS["full"])
    one = everything(measuring(first, tmp_path), influence=ShrunkInfluence(num_probes=2))
    again = Linear(MAPS["full"])
    two = everything(measuring(again, tmp_path), influence=ShrunkInfluence(num_probes=2))
    assert (first.encoded, again.encoded, again.decoded) == (23, 0, 0)
    for column in OF_IMAGES:
        assert torch.equal(getattr(one, column).nan_to_num(7), getattr(two, column).nan_to_num(7))
    assert one.mask_stability == two.mask_stability

    def passes(codec, **changes):
        everything(measuring(codec, tmp_path, **changes), influence=ShrunkInfluence(num_probes=2))
        return codec.encoded, codec.decoded > 0

    other_map = passes(Linear(MAPS["per channel"]))
    assert other_map == (0, True), "posterior means are before the map, all else is after it"
    shifted = ChannelMap("full", MAPS["full"].shift + 1, MAPS["full"].matrix)
    assert passes(Linear(shifted)) == (0, True)
    assert passes(Linear(MAPS["full"]), content="others") == (23, True)
    limit_memory(1)
    assert passes(Linear(MAPS["full"])) == (0, False)
    trained = Linear(MAPS["full"])
    trained.network["a"].data += 1
    assert passes(trained) == (23, True)


def test_without_a_store_nothing_is_computed_twice_where_it_is_remembered():
    memory, estimator = {}, ShrunkInfluence(num_probes=2)
    for name, encoded in (("full", 23), ("full", 0), ("per channel", 0)):
        codec = Linear(MAPS[name])
        found = everything(measuring(codec, memory=memory), influence=estimator)
        assert (codec.encoded, codec.decoded > 0) == (encoded, encoded > 0 or name != "full")
        alone = everything(measuring(Linear(MAPS[name])), influence=estimator)
        for column in COLUMNS:
            assert torch.equal(getattr(found, column).nan_to_num(7), getattr(alone, column).nan_to_num(7))
        assert found.mask_stability == alone.mask_stability


def test_means_of_mirror_images_are_kept_beside_those_of_the_images(tmp_path):
    codec = Linear(MAPS["full"])
    for _ in range(2):
        for mirrored in (False, True):
            found = measuring(codec, tmp_path).means(INDEX, mirrored=mirrored)
            assert torch.equal(found, measuring(Linear(MAPS["full"])).means(INDEX, mirrored=mirrored))
    assert codec.encoded == 2 * len(INDEX)


def test_complexity_belongs_to_the_images_and_to_no_codec(tmp_path, monkeypatch):
    measured = []

    def counted(images):
        measured.append(len(images))
        return image_complexity(images)

    monkeypatch.setattr(measure_module, "image_complexity", counted)

    def found(codec, index=INDEX, **changes):
        """How many images were measured for it."""
        measured.clear()
        samples = measuring(codec, tmp_path, **changes).samples(index, codec.mean(IMAGES[index]), index % 2 == 0)
        assert torch.equal(samples.complexity, image_complexity(IMAGES[index]))
        return sum(measured)

    assert found(Linear(MAPS["full"])) == 23
    trained = Linear(MAPS["per channel"])
    trained.network["a"].data += 1
    assert found(trained) == 0, "a codec has no part in it"
    assert found(Linear(MAPS["full"]), content="others") == 23
    assert found(Linear(MAPS["full"]), INDEX[:9]) == 9


@pytest.mark.parametrize("change", [{"influence": ProbeInfluence(num_probes=2)}, {"rank": 2}])
def test_other_estimators_do_not_find_the_results_of_these(tmp_path, change):
    everything(measuring(Linear(MAPS["full"]), tmp_path), influence=ShrunkInfluence(num_probes=2))
    codec = Linear(MAPS["full"])
    given = {"influence": ShrunkInfluence(num_probes=2), **change}
    found = everything(measuring(codec, tmp_path), **given)
    alone = everything(measuring(Linear(MAPS["full"])), **given)
    assert (codec.encoded, codec.decoded > 0) == (0, True)
    torch.testing.assert_close(found.influence, alone.influence)
    torch.testing.assert_close(found.distortion, alone.distortion, equal_nan=True)


@pytest.mark.parametrize("at_once", [4, 23])
def test_the_first_images_are_not_decoded_again(limit_memory, at_once):
    limit_memory(at_once * 18 * Linear.bytes_per_number)
    measure = measuring(Linear(MAPS["full"]))
    samples = everything(measure, influence=ExactInfluence())
    before = measure.codec.decoded
    shown = measure.decoded(samples.latent[:NUM_KEPT])
    assert measure.codec.decoded == before
    torch.testing.assert_close(shown, measure.codec.decode(samples.latent[:NUM_KEPT]))
    more = measure.decoded(samples.latent[: NUM_KEPT + 1])
    assert measure.codec.decoded == before + 2 * NUM_KEPT + 1
    torch.testing.assert_close(more[:-1], shown)


def test_progress_ends_at_the_number_of_samples(limit_memory):
    said = []
    everything(measuring(Linear(MAPS["full"]), said=said), influence=ExactInfluence())
    ends = {words: (done, total) for words, done, total in said}
    assert ends == {
        "Encoding images": (23, 23),
        "Image complexity": (23, 23),
        "Reconstruction error": (23, 23),
        "Influence (pullback metric)": (23, 23),
        "Local distortion": (12, 12),
    }
    said.clear()
    limit_memory(5 * 18 * Linear.bytes_per_number)
    everything(measuring(Linear(MAPS["full"]), said=said), influence=ExactInfluence())
    assert [done for words, done, _ in said if words == "Encoding images"] == [4, 9, 13, 18, 23]


@pytest.mark.parametrize("kept", ["nowhere", "in a store", "in memory"])
def test_two_processes_measure_what_one_does(monkeypatch, tmp_path, kept):
    alone = everything(measuring(Linear(MAPS["full"])), influence=ShrunkInfluence(num_probes=2))

    folder = tmp_path if kept == "in a store" else None
    memories = ({}, {}) if kept == "in memory" else (None, None)

    def half(rank):
        codec = Linear(MAPS["full"])
        measure = measuring(codec, folder, memory=memories[rank])
        return everything(measure, influence=ShrunkInfluence(num_probes=2)), codec

    for found in (False, kept != "nowhere"):
        (first, one), (second, two) = in_two_processes(
            monkeypatch, half, samples_module, encoding_module, measure_module, store_module
        )
        assert first.is_share
        assert second.is_share
        for column in COLUMNS:
            both = torch.cat([getattr(first, column), getattr(second, column)])
            torch.testing.assert_close(both, getattr(alone, column), equal_nan=True, rtol=1e-5, atol=1e-6)
        assert torch.equal(torch.cat([first.condition["class_labels"], second.condition["class_labels"]]), INDEX + 100)
        shuffled = [each.views["shuffled"]["class_labels"] for each in (first, second)]
        assert torch.equal(torch.cat(shuffled), INDEX + 200)
        assert first.mask_stability == second.mask_stability == pytest.approx(alone.mask_stability)
        assert (one.encoded, two.encoded) == ((0, 0) if found else (11, 12))


def exhausted(*_):
    raise torch.OutOfMemoryError


@pytest.mark.parametrize("influence", [exhausted, None], ids=["influence", "distortion"])
def test_memory_that_runs_out_while_something_is_measured_ends_it_with_an_error_that_says_so(monkeypatch, influence):
    monkeypatch.setattr(Distortion, "__call__", exhausted)
    with pytest.raises(OutOfMemory):
        everything(measuring(Linear(MAPS["full"])), influence=influence)


@pytest.mark.parametrize("network", ["mean", "decode"])
def test_memory_that_runs_out_in_a_codec_ends_it_with_an_error_that_says_so(monkeypatch, network):
    monkeypatch.setattr(Linear, network, exhausted)
    with pytest.raises(OutOfMemory):
        everything(measuring(Linear(MAPS["full"])), influence=ExactInfluence())

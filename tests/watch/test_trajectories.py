"""Trajectories: what a look finds of a memoriser of its members' captions, its cost, its onset, and its share of the work."""

import pytest
import torch

from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.data.conditions import Unconditional
from ldm_privacy.errors import UserError
from ldm_privacy.models.ideal import CaptionMemoriser, IdealDenoiser, scaled_linear_alphas_cumprod
from ldm_privacy.models.identity import IdentityCodec
from ldm_privacy.randomness import normal
from ldm_privacy.sampling import leading_schedule
from ldm_privacy.targets.target import Target
from ldm_privacy.trajectories.captions import others_of
from ldm_privacy.watch.onset import OnsetDetector
from ldm_privacy.watch.trajectories import Trajectories
from ldm_privacy.watch.watcher import Every, Moment
from tests.two_processes import in_two_processes

NUM, SHAPE = 40, (1, 4, 4)
INDEX = torch.arange(NUM)
IMAGES = normal("images", (INDEX,), SHAPE)
IS_MEMBER = INDEX % 2 == 0
REPEATS = torch.where(INDEX % 8 == 0, 9, 1)
ABAR = scaled_linear_alphas_cumprod()
GROUPS = ("members", "repeated", "heldout")


class Counting:
    """A memoriser of the members; other captions mean a faint image that nobody has."""

    def __init__(self):
        elsewhere = 0.1 * normal("elsewhere", (INDEX,), SHAPE)
        known = torch.where(IS_MEMBER[:, None, None, None], IMAGES, elsewhere)
        self.predictor = CaptionMemoriser(known, IdealDenoiser(torch.zeros(1, *SHAPE), ABAR))
        self.alphas_cumprod, self.rows = ABAR, []

    def __call__(self, noisy_latent, timestep, condition):
        self.rows.append(len(noisy_latent))
        return self.predictor(noisy_latent, timestep, condition)


class CountingCodec(IdentityCodec):
    decoded = 0

    def decode(self, latent):
        self.decoded += len(latent)
        return super().decode(latent)


def samples(repeats=REPEATS, **columns):
    views = {"null": {"caption": torch.full((NUM,), NUM)}}
    columns = {"condition": {"caption": INDEX}, "views": views, **columns}
    return AuditedSamples(IMAGES, IS_MEMBER, INDEX, repeats=repeats, **columns)


def watcher(of=None, **options):
    options = {"num_captions": 5, "num_steps": 8, "num_early": 2, "guidance_scales": [7.5, 1], **options}
    return Trajectories(of or samples(), IMAGES.__getitem__, every=Every(epochs=1), **options)


def look(it, epoch=1, model=None):
    return it.look(Target(IdentityCodec(image_channels=1), model or Counting()), Moment(epoch, 10 * epoch))


@pytest.fixture(scope="module")
def found():
    it = watcher(words=lambda index: [f"a picture of {each}" for each in index.tolist()])
    return it, look(it)


def test_a_memoriser_of_its_members_captions(found):
    it, seen = found
    report, series = it.result, seen.series
    assert report.group.count("members") == report.group.count("heldout") == 5
    assert report.group.count("repeated") == 5, "of the five planted ones"
    assert [*report.guided] == [1.0, 7.5]
    for scale, guided in report.guided.items():
        ideal = report.ideal(scale)
        is_member = report.of_group("members", "repeated")
        torch.testing.assert_close(guided.d1[is_member], ideal.d1.expand(10), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(guided.d2[is_member], ideal.d2.expand(10), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(guided.similarity[is_member], torch.ones(10).double(), rtol=0, atol=0.12)
        assert guided.own_is_nearest[is_member].all()
        assert not guided.own_is_nearest[~is_member].any()
        assert torch.equal(guided.nearest[is_member], report.sample_index[is_member][:, None].expand(10, 2))
        assert series[f"trajectory/g{scale:g}/d1/members"] == pytest.approx(float(ideal.d1), abs=1e-4)
        assert series[f"trajectory/g{scale:g}/replicated/repeated"] == 1
        assert series[f"trajectory/g{scale:g}/replicated/heldout"] == 0
    names = {"d1", "d2", "k", "error", "gap", "gap_mean", "similarity", "replicated"}
    curves = {name for name in series if name.startswith("trajectory/")}
    assert curves == {f"trajectory/g{g}/{name}/{group}" for g in ("1", "7.5") for name in names for group in GROUPS}
    assert {*seen.charts.values()} <= {*series}
    assert len(seen.charts) <= 6
    assert seen.lines[0].startswith(
        "epoch 1: guided at 7.5, the nearest member is the caption's own image in 100 % for captions drawn several times, "
    )


def test_its_pictures_are_of_the_captions_memorized_most_and_least(found):
    it, seen = found
    similarity = it.result.guided[7.5].similarity
    members = it.result.of_group("members", "repeated").nonzero()[:, 0]
    assert it.result.most[0].row == members[similarity[members].argmax()]
    assert it.result.least[0].row == members[similarity[members].argmin()]
    for shown in (*it.result.most, *it.result.least):
        index = it.result.sample_index[shown.row]
        assert it.result.words[shown.row] == f"a picture of {index}"
        assert torch.equal(shown.own[0], IMAGES[index])
        assert torch.equal(shown.nearest[0], IMAGES[index])
        assert (shown.early.shape, shown.generated.shape) == ((2, *SHAPE), (2, *SHAPE))
        # The clean prediction of a memoriser is g times its image, cut to what can be shown.
        torch.testing.assert_close(shown.early[0], (7.5 * IMAGES[index]).clamp(-1, 1), rtol=1e-3, atol=1e-3)
    assert seen.pictures["replicated"].shape == (2 * 5 - 1, 6 * 5 - 1, 3)


def test_passes_are_those_that_are_made():
    for options, factor in (({}, 2), ({"clean": "generated"}, 4), ({"batch_size": 7, "num_seeds": 3}, 2)):
        it, model, codec = watcher(**options), Counting(), CountingCodec(image_channels=1)
        it.look(Target(codec, model), Moment(1, 10))
        assert it.passes()["denoiser"] == sum(model.rows) == 15 * it.num_seeds * 2 * 8 * factor
        assert max(model.rows) <= 2 * it.batch_size
        assert it.passes()["decoder"] == codec.decoded == 6 * (2 + it.num_seeds)


def test_the_generated_latent_may_stand_for_x():
    it = watcher(clean="generated", num_seeds=1)
    look(it)
    assert it.result.x_is == "generated"
    for guided in it.result.guided.values():
        torch.testing.assert_close(guided.clean[:, -1], torch.ones(15).double(), msg="the last state is x itself")
        torch.testing.assert_close(guided.r_squared[:, -1], torch.ones(15).double())


def test_batches_and_other_guidance_scales_change_nothing():
    one, other = watcher(), watcher(batch_size=4, guidance_scales=[1, 3, 7.5])
    look(one), look(other)
    for name in ("d1", "d1_wrong", "gain", "gap", "similarity", "nearest"):
        torch.testing.assert_close(getattr(one.result.guided[7.5], name), getattr(other.result.guided[7.5], name))
    again = watcher(seed=1)
    look(again)
    assert not torch.equal(one.result.cosine, again.result.cosine)


def test_the_mean_is_a_third_column_where_it_is_asked_for():
    it = watcher(mean_column=True)
    look(it)
    assert it.result.guided[1.0].mean.shape == (15, 8)


def test_the_wrong_latent_is_another_members():
    captions = samples().rows(torch.arange(1, NUM))
    row = torch.arange(NUM - 1)
    found = torch.stack([others_of(captions, seed) for seed in range(300)])
    assert captions.is_member[found].all()
    assert (found != row).all()
    for each in (0, 1, 2, NUM - 2):
        others = {*captions.is_member.nonzero()[:, 0].tolist()} - {each}
        assert {*found[:, each].tolist()} == others, "each of them comes"


def test_without_planted_duplicates_there_are_two_groups():
    it = watcher(samples(repeats=None), onset=OnsetDetector(2))
    names = {*look(it).series}
    assert not any("repeated" in name for name in names)
    assert "replication/members_rise_lower" in names
    look(it, 2)
    assert it.summary() == {"onset_epoch_replication_members": 1, "onset_epoch_replication_repeated": None}
    assert it.sentences() == ["Onset of replication, captions of other members: epoch 1."]


def test_the_onset_of_replication_goes_on_after_a_stop():
    straight, stopped = watcher(num_seeds=1), watcher(num_seeds=1)
    for epoch in (1, 2, 3):
        expected = look(straight, epoch).series
        again = watcher(num_seeds=1)
        again.load_full_state(stopped.full_state())
        assert look(again, epoch).series == expected
        stopped = again
    assert straight.summary() == {"onset_epoch_replication_members": 1, "onset_epoch_replication_repeated": 1}
    assert stopped.full_state() == straight.full_state()
    assert watcher().sentences() == ["Onset of replication: there was no look."]


def test_a_model_that_knows_nothing_of_captions_has_no_onset():
    it = watcher(num_captions=20, num_seeds=1)

    def unmoved(noisy_latent, timestep, condition):
        return noisy_latent

    unmoved.alphas_cumprod = ABAR
    for epoch in (1, 2, 3):
        look(it, epoch, unmoved)
    assert {*it.summary().values()} == {None}
    assert "none (the rise over held-out captions was" in it.sentences()[0]


def test_the_untrained_denoiser_is_not_looked_at():
    it = watcher()
    assert not it.due(Moment(0, 0))
    assert it.due(Moment(1, 10))
    assert it.num_looks(5, 10) == 5


def test_two_processes_are_one(monkeypatch):
    alone = watcher(num_seeds=1)
    expected = look(alone).series

    def share(rank):
        half = samples().rows(slice(0, 23) if rank == 0 else slice(23, NUM)).with_columns(is_share=True)
        it = watcher(half, num_seeds=1)
        seen = look(it)
        return seen.series, it.result, it.passes()

    modules = ("ldm_privacy.watch.trajectories", "ldm_privacy.trajectories.captions", "ldm_privacy.audit.samples")
    from importlib import import_module

    main, other = in_two_processes(monkeypatch, share, *map(import_module, modules))
    assert main[0] == pytest.approx(expected, abs=1e-6)
    assert not other[0]
    assert other[1] is None
    assert main[1].group == alone.result.group
    for name in ("nearest", "similarity", "d1_wrong", "clean"):
        torch.testing.assert_close(getattr(main[1].guided[7.5], name), getattr(alone.result.guided[7.5], name))


def test_mistakes_cost_one_line(monkeypatch):
    with pytest.raises(UserError, match="trajectories need a condition"):
        watcher(samples(condition=Unconditional()(INDEX), views={}))
    with pytest.raises(UserError, match=r"guidance_scales: .*lacks 1"):
        watcher(guidance_scales=[3, 7.5])

    def broken(noisy_latent, timestep, condition):
        return noisy_latent * torch.inf

    broken.alphas_cumprod = ABAR
    with pytest.raises(UserError, match="guided at 1 end in latents that are not finite"):
        look(watcher(), model=broken)


def test_the_schedule_is_that_of_the_states():
    it = watcher()
    look(it)
    torch.testing.assert_close(it.result.abar, leading_schedule(ABAR, 8).abar)

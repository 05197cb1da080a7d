"""Trajectories: what a look finds of a memoriser of its members' captions, its cost, its onset, and its share of the work."""

from functools import partial

import pytest
import torch

from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.config.check import check_component
from ldm_privacy.data.conditions import Unconditional
from ldm_privacy.errors import UserError
from ldm_privacy.models.ideal import CaptionMemoriser, IdealDenoiser, MembershipBlindPredictor, scaled_linear_alphas_cumprod
from ldm_privacy.models.identity import IdentityCodec
from ldm_privacy.models.predictor import bytes_per_number
from ldm_privacy.randomness import normal
from ldm_privacy.registry import WATCHERS
from ldm_privacy.sampling import guided_steps, leading_schedule
from ldm_privacy.targets.target import Target
from ldm_privacy.trajectories.captions import CAPTION_GROUPS, chosen_captions, others_of
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
    names = {"d1", "d2", "k", "error", "gap", "gap_mean", "similarity", "replicated", "nearest", "other_duplicate"}
    curves = {name for name in series if name.startswith("trajectory/")}
    assert curves == {f"trajectory/g{g}/{name}/{group}" for g in ("1", "7.5") for name in names for group in CAPTION_GROUPS}
    assert {*seen.charts.values()} <= {*series}
    assert len(seen.charts) <= 6
    assert seen.lines[0].startswith(
        "epoch 1: guided at 7.5, the nearest audited member is an image of that caption in 100% for captions drawn several "
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


def test_passes_are_those_that_are_made(limit_memory):
    for options, factor, rows in (({}, 2, 60), ({"clean": "generated"}, 4, 60), ({"num_seeds": 3}, 2, 14)):
        limit_memory(2 * rows * torch.Size(SHAPE).numel() * bytes_per_number(None))
        it, model, codec = watcher(**options), Counting(), CountingCodec(image_channels=1)
        it.look(Target(codec, model), Moment(1, 10))
        assert it.passes()["denoiser"] == sum(model.rows) == 15 * it.num_seeds * 2 * 8 * factor
        assert rows // 2 <= max(model.rows) <= rows
        assert it.passes()["decoder"] == codec.decoded == 6 * (2 + it.num_seeds)


def test_the_generated_latent_may_stand_for_x():
    it = watcher(clean="generated", num_seeds=1)
    look(it)
    assert it.result.x_is == "generated"
    for guided in it.result.guided.values():
        torch.testing.assert_close(guided.clean[:, -1], torch.ones(15).double(), msg="the last state is x itself")
        torch.testing.assert_close(guided.r_squared[:, -1], torch.ones(15).double())
    one, other = it.result.guided.values()
    assert not torch.equal(one.cosine, other.cosine), "each scale ends elsewhere"
    assert not torch.equal(one.condition_number, other.condition_number)


def test_batches_and_other_guidance_scales_change_nothing(limit_memory):
    one, other = watcher(), watcher(guidance_scales=[1, 3, 7.5])
    look(one)
    limit_memory(1)
    look(other)
    for name in ("d1", "d1_wrong", "gain", "gap", "similarity", "nearest"):
        torch.testing.assert_close(getattr(one.result.guided[7.5], name), getattr(other.result.guided[7.5], name))
    again = watcher(seed=1)
    look(again)
    assert not torch.equal(one.result.guided[7.5].cosine, again.result.guided[7.5].cosine)


def test_the_mean_is_a_third_column_where_it_is_asked_for():
    it = watcher(mean_column=True)
    look(it)
    assert it.result.guided[1.0].mean.shape == (15, 8)


def test_the_wrong_latent_is_another_members():
    # Pairs of a member and a held-out sample in the same words, so that there are enough of both.
    captions = chosen_captions(samples(condition={"caption": INDEX // 2}), 20, 0)
    assert len(captions) == NUM
    told = captions.samples.condition["caption"]
    found = torch.stack([others_of(captions, seed) for seed in range(300)])
    assert captions.samples.is_member[found].all()
    assert (told[found] != told).all()
    for each in (0, 1, 2, NUM - 1):
        others = {*captions.samples.is_member.nonzero()[:, 0].tolist()} - {each // 2 * 2}
        assert {*found[:, each].tolist()} == others, "each of them comes"


CLASSES = torch.where(IS_MEMBER, INDEX % 20, INDEX % 10 + 100)
"""Of members and held-out samples, in shares: 10 each, members' of two or four samples, held-out ones' of four."""


def test_a_caption_is_followed_once_and_a_heldout_one_is_no_members():
    it = samples(condition={"caption": CLASSES})
    chosen = chosen_captions(it, 20, 0)
    told, group = CLASSES[chosen.sample_index], chosen.group_of(chosen.sample_index)
    assert len(told.unique()) == len(told) == 10 + 5
    assert torch.equal(told.sort().values, CLASSES.unique()), "each of them once"
    repeated = {*CLASSES[IS_MEMBER & (REPEATS > 1)].tolist()}
    assert {*told[group == 1].tolist()} == repeated, "the repeated member stands for a caption that it shares"
    assert not {*told[group == 0].tolist()} & repeated
    assert torch.equal(chosen.num_members, torch.tensor([int((CLASSES[IS_MEMBER] == each).sum()) for each in told]))
    assert torch.equal(chosen_captions(it, 20, 0).sample_index, chosen.sample_index)
    few = chosen_captions(it, 3, 0)
    assert torch.isin(few.sample_index, chosen.sample_index).all(), "fewer are some of them"
    assert not torch.equal(chosen_captions(it, 20, 1).sample_index, chosen.sample_index)


def test_heldout_captions_that_members_have_too_are_followed_where_there_are_no_others_and_it_is_said():
    found = watcher(samples(repeats=None, condition={"caption": INDEX // 2 % 5}), num_captions=4)
    seen = look(found)
    report = found.result
    assert report.group.count("members") == report.group.count("heldout") == 4
    assert report.shared == "4 of 4 held-out captions are a member's too"
    assert seen.lines[0].endswith("; 4 of 4 held-out captions are a member's too)")
    assert report.numbers()["num_heldout_shared"] == 4
    # One held-out caption that no member has is not enough, two are.
    for num_alone, num_heldout, num_shared in ((1, 6, 5), (2, 2, 0)):
        told = torch.where(~IS_MEMBER & (num_alone > INDEX // 2), 100 + INDEX, INDEX // 2 % 5)
        chosen = chosen_captions(samples(condition={"caption": told}), 9, 0)
        heldout = chosen.num_members[chosen.group_of(chosen.sample_index) == 2]
        assert (len(heldout), int((heldout > 0).sum())) == (num_heldout, num_shared)


def test_an_image_of_the_caption_is_its_own_though_another_sample_has_it():
    """The denoiser gives image 0 under the caption of members 0, 8, 16, ...; another duplicate's under all others."""
    told = torch.where(INDEX % 8 == 0, 0, INDEX)

    class First(Counting):
        def __init__(self):
            super().__init__()
            known = torch.where((INDEX % 4 == 2)[:, None, None, None], IMAGES[8], self.predictor.latent.float())
            self.predictor = CaptionMemoriser(known, self.predictor.unconditional)

    it = watcher(samples(condition={"caption": told}), num_captions=20)
    look(it, model=First())
    report = it.result
    guided, repeated = report.guided[1.0], report.of_group("repeated")
    assert repeated.sum() == 1, "one caption of five planted duplicates"
    assert (guided.nearest[repeated] == 0).all()
    assert guided.own_is_nearest[repeated].all()
    assert not guided.other_is_nearest[repeated].any()
    other = torch.isin(report.sample_index, INDEX[INDEX % 4 == 2])
    assert (guided.nearest[other] == 8).all()
    assert guided.other_is_nearest[other].all()
    assert not guided.own_is_nearest[other].any()
    assert report.means["members"][1.0]["other_duplicate"] == pytest.approx(
        float(other.sum()) / int(report.of_group("members").sum())
    )


def test_intervals_resample_those_with_the_same_words_or_patient_together():
    chosen = chosen_captions(samples(condition={"caption": INDEX // 2}, group=INDEX % 20 // 4 * 2 + INDEX % 2), 20, 0)
    unit, told, patient = chosen.unit, INDEX // 2, INDEX % 20 // 4 * 2 + INDEX % 2
    assert torch.equal(chosen.sample_index, INDEX)
    parent = list(range(NUM))
    for one in range(NUM):  # a slow separate version
        for two in range(NUM):
            if told[one] == told[two] or patient[one] == patient[two]:
                old, new = parent[one], parent[two]
                parent = [new if each == old else each for each in parent]
    for one in range(NUM):
        assert (unit == unit[one]).tolist() == [each == parent[one] for each in parent]
    assert len(unit.unique()) == 5


@pytest.mark.parametrize(
    ("unconditional", "scale", "d1", "d2"),
    [
        ("point", 1, -2.743, -0.104),
        ("point", 3, 47.378, -0.104),
        ("point", 7.5, 160.151, -0.104),
        ("normal", 3, 17.406, 9.515),
        ("normal", 7.5, 36.215, 16.963),
    ],
)
def test_oracles_by_condition_give_the_papers_constants_through_the_watcher(monkeypatch, unconditional, scale, d1, d2):
    """On Stable Diffusion's 50 leading steps: a point mass under each caption, against clean predictions of 0 or N(0, I)."""
    schedule = leading_schedule(ABAR, 50, steps_offset=1, abar_last=ABAR[0])
    monkeypatch.setattr("ldm_privacy.trajectories.follow.guided_steps", partial(guided_steps, schedule=schedule))
    both = torch.stack([torch.ones(SHAPE), -torch.ones(SHAPE)])
    point = unconditional == "point"
    model = CaptionMemoriser(
        IMAGES, IdealDenoiser(torch.zeros(1, *SHAPE), ABAR) if point else MembershipBlindPredictor(both, ABAR)
    )
    it = watcher(num_steps=50, num_captions=2, num_seeds=1, guidance_scales=[1, scale])
    look(it, model=model)
    for group in CAPTION_GROUPS:
        means = it.result.means[group][scale]
        assert (means["d1"], means["d2"]) == pytest.approx((d1, d2), abs=2e-3), group
        if point:
            assert means["k"] == pytest.approx(scale, rel=0.5), "about the latents' mean, which is not quite 0"


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


def unmoved(noisy_latent, timestep, condition):
    return noisy_latent


unmoved.alphas_cumprod = ABAR


@pytest.mark.parametrize("model", [unmoved, MembershipBlindPredictor(IMAGES, ABAR)], ids=["unmoved", "exact"])
def test_a_denoiser_that_ignores_its_condition_has_no_onset(model):
    it = watcher(num_captions=20, num_seeds=1)
    for epoch in (1, 2, 3):
        look(it, epoch, model)
    for by_scale in it.result.means.values():
        assert all(means["gap"] == means["gap_mean"] == 0 for means in by_scale.values())
    assert {*it.summary().values()} == {None}
    assert "none (the rise over held-out captions was" in it.sentences()[0]


def test_the_untrained_denoiser_is_not_looked_at():
    it = watcher()
    assert not it.due(Moment(0, 0))
    assert it.due(Moment(1, 10))
    assert it.num_looks(5, 10) == 5


def test_by_itself_it_looks_at_the_end_alone():
    it = Trajectories(samples(), IMAGES.__getitem__)
    assert not any(it.due(Moment(epoch, 10 * epoch)) for epoch in range(500))
    assert it.due(Moment(500, 5000, is_last=True))
    assert it.num_looks(500, 10) == 1
    provided = {"samples": samples(), "images": IMAGES.__getitem__, "every": Every(epochs=3)}
    for node, expected in (({}, it.every), ({"every": {"epochs": 7}}, Every(epochs=7))):
        made = check_component(
            {"class": "trajectories", **node}, "watch.trajectories", WATCHERS, provided=["samples", "images"]
        )
        assert made.build(**provided).every == expected


@pytest.mark.parametrize("told", [INDEX, CLASSES, INDEX // 2 % 5], ids=["alone", "shared", "of both sides"])
def test_two_processes_are_one(monkeypatch, told):
    alone = watcher(samples(condition={"caption": told}), num_seeds=1)
    expected = look(alone).series

    def share(rank):
        half = (
            samples(condition={"caption": told}).rows(slice(0, 23) if rank == 0 else slice(23, NUM)).with_columns(is_share=True)
        )
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
    for name in ("sample_index", "num_members", "unit"):
        assert torch.equal(getattr(main[1], name), getattr(alone.result, name))
    for name in ("nearest", "similarity", "d1_wrong", "clean"):
        torch.testing.assert_close(getattr(main[1].guided[7.5], name), getattr(alone.result.guided[7.5], name))


def test_mistakes_cost_one_line(monkeypatch):
    with pytest.raises(UserError, match="trajectories need a condition"):
        watcher(samples(condition=Unconditional()(INDEX), views={}))
    with pytest.raises(UserError, match=r"^guidance_scales: the list has no 1; add 1, no guidance, .* with: \[1,3,7.5\]\.$"):
        watcher(guidance_scales=[3.0, 7.5])
    with pytest.raises(UserError, match=r"^guidance_scales: the list is empty; add 1, no guidance, .* with: \[1\]\.$"):
        watcher(guidance_scales=[])
    with pytest.raises(
        UserError, match=r"^trajectories: the audited members have 1 different captions, and 2 are needed; audit"
    ):
        watcher(samples(condition={"caption": torch.where(IS_MEMBER, 0, INDEX)}))

    def broken(noisy_latent, timestep, condition):
        return noisy_latent * torch.inf

    broken.alphas_cumprod = ABAR
    with pytest.raises(UserError, match="guided at 1 end in latents that are not finite"):
        look(watcher(), model=broken)


def test_the_schedule_is_that_of_the_states():
    it = watcher()
    look(it)
    torch.testing.assert_close(it.result.abar, leading_schedule(ABAR, 8).abar)

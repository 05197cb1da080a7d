"""Quality of generations: the copycat trap, the ceiling, images that are made once, what is refused."""

import gc
import weakref
from functools import partial

import pytest
import torch
from sklearn.datasets import load_digits

from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.errors import UserError
from ldm_privacy.models.ideal import CaptionMemoriser, IdealDenoiser
from ldm_privacy.models.identity import IdentityCodec
from ldm_privacy.registry import SECTIONS
from ldm_privacy.report.curves import quality_figures
from ldm_privacy.report.evaluation import Evaluation
from ldm_privacy.targets.target import Target
from ldm_privacy.watch.generated import Generated
from ldm_privacy.watch.generations import Generations
from ldm_privacy.watch.quality import Quality
from ldm_privacy.watch.quality_report import QualityReport
from ldm_privacy.watch.samples import Samples
from ldm_privacy.watch.watcher import Moment, look_with

SIDE = 120
DIGITS = torch.tensor(load_digits().images, dtype=torch.float32)[:, None] / 8 - 1
IMAGES = DIGITS[torch.randperm(len(DIGITS), generator=torch.Generator().manual_seed(0))]
MEMBERS, HELDOUT, FRESH = torch.arange(3 * SIDE).split(SIDE)
SAMPLES = AuditedSamples(IMAGES[: 2 * SIDE], torch.arange(2 * SIDE) < SIDE)


def watcher(samples=SAMPLES, kind=Quality, **options):
    options = {"num_images": SIDE, "num_steps": 8, **options}
    return kind(samples, IMAGES.__getitem__, MEMBERS, HELDOUT, **options)


def model(index):
    """Its generations are those images."""
    return Target(IdentityCodec(image_channels=1), IdealDenoiser(IMAGES[index]))


def looked(target, **options):
    it = watcher(**options)
    return it, it.look(target, Moment(1, 1))


@pytest.fixture(scope="module")
def looks():
    models = {"copycat": MEMBERS, "honest": FRESH, "reverse": HELDOUT}
    return {name: looked(model(index)) for name, index in models.items()}


def test_a_copycat_is_nearest_to_the_members_no_better_than_honest_and_the_gap_gives_it_away(looks):
    found = {name: it.result.estimates for name, (it, _) in looks.items()}
    for distance in ("kid_random", "swd"):
        copycat, honest, reverse = (
            {side: found[name][f"{distance}_{side}"] for side in ("heldout", "members", "gap")}
            for name in ("copycat", "honest", "reverse")
        )
        assert copycat["members"].value < min(honest["members"].value, reverse["members"].value)
        assert copycat["heldout"].upper > honest["heldout"].value > reverse["heldout"].value
        assert copycat["gap"].upper < 0
        assert not honest["gap"].leaves_out(0)
        assert reverse["gap"].value > 0
    assert found["reverse"]["kid_random_gap"].lower > 0


def test_what_a_look_logs(looks):
    it, look = looks["copycat"]
    names = {f"quality/{distance}_{side}" for distance in ("kid_random", "swd") for side in ("heldout", "members", "gap")}
    names |= {f"quality/{distance}_reconstructions" for distance in ("kid_random", "swd")}
    assert {*look.series} == {name + end for name in names for end in ("", "_lower", "_upper")}
    assert look.shown() == {"quality/kid_random": "quality/kid_random_heldout"}
    value = it.result.estimates["kid_random_heldout"]
    assert look.series["quality/kid_random_heldout_upper"] == value.upper
    assert look.lines[0].startswith(f"epoch 1: quality kid_random {value} to held-out images, to members -")
    assert it.sentences()[0].startswith(f"Quality of generations: kid_random {value} to held-out images (reconstructions: ")
    assert not watcher().due(Moment(0, 0)), "the untrained denoiser makes noise"
    numbers = it.result.numbers()
    assert numbers["kid_random_heldout"] == [value.value, value.lower, value.upper]
    assert (numbers["num_generated"], numbers["num_reference"], numbers["num_reconstructed"]) == (SIDE, SIDE, SIDE // 2)
    assert it.result.facts()["features of kid_random"] == "random convolutions, seed 0"


def test_the_ceiling_is_what_the_codec_makes_of_heldout_images(looks):
    """Pixel space loses nothing: its reconstructions are other held-out images. A codec that blurs has a higher ceiling."""

    class Blurring(IdentityCodec):
        def decode(self, latent):
            return torch.nn.functional.avg_pool2d(latent, 3, 1, 1)

    plain = looks["honest"][0].result.estimates
    assert not plain["kid_random_reconstructions"].leaves_out(0)
    it, _ = looked(Target(Blurring(image_channels=1), IdealDenoiser(IMAGES[FRESH])))
    assert it.result.estimates["kid_random_reconstructions"].lower > 0
    assert it.result.num_reconstructed == SIDE // 2
    assert it.first_passes() == {"decoder": SIDE // 2}
    few = AuditedSamples(IMAGES[SIDE - 20 : SIDE + 5], torch.arange(25) < 20, torch.arange(SIDE - 20, SIDE + 5))
    it, look = looked(model(FRESH), samples=few)
    assert "quality/kid_random_reconstructions" not in look.series
    assert it.result.num_reconstructed == 0
    assert "codec" not in section(it.result).lead


def test_members_and_public_images_are_no_reference():
    asked = []

    def images(index):
        asked.append(index)
        return IMAGES[index]

    it = Quality(SAMPLES, images, MEMBERS, HELDOUT, num_images=40, num_steps=2)
    it.look(model(FRESH), Moment(1, 1))
    index = torch.cat(asked).unique()
    sides = [index[(index >= first) & (index < first + SIDE)] for first in (0, SIDE, 2 * SIDE)]
    assert [len(each) for each in sides] == [40, 40, 0]


def test_images_that_several_watchers_look_at_are_made_once():
    class Counting(IdealDenoiser):
        rows = 0

        def __call__(self, noisy_latent, timestep, condition):
            self.rows += len(noisy_latent)
            return super().__call__(noisy_latent, timestep, condition)

    alone = looked(model(FRESH), num_images=40, num_steps=3)[0].result
    for first in ("quality", "generations"):
        shared, predictor = Generated(), Counting(IMAGES[FRESH])
        both = {
            "quality": watcher(generated=shared, num_images=40, num_steps=3),
            "generations": watcher(kind=Generations, generated=shared, num_images=1000, num_steps=3),
            "samples": Samples(SAMPLES, generated=shared, num_images=16, num_steps=3),
        }
        order = {first: both[first], **both}
        target = Target(IdentityCodec(image_channels=1), predictor)
        look_with(order, target, Moment(1, 1))
        assert predictor.rows == 3 * 1000
        for name, value in alone.estimates.items():
            assert both["quality"].result.estimates[name].value == pytest.approx(value.value, rel=1e-4, abs=1e-6)
        look_with(order, target, Moment(2, 2))  # the same object, whose network was trained on
        assert predictor.rows == 2 * 3 * 1000
        images = weakref.ref(shared._made[target][1][3, None, 0])
        del target, predictor
        gc.collect()
        assert images() is None, "they go with the target"


def test_other_settings_make_other_images():
    shared, target = Generated(), model(FRESH)
    ask = partial(shared, target, Moment(1, 1), SAMPLES, {}, num_images=4, progress=watcher().progress)
    first = ask(num_steps=3, guidance_scale=None, seed=0)
    assert not torch.equal(first, ask(num_steps=3, guidance_scale=None, seed=1))
    assert not torch.equal(first, ask(num_steps=4, guidance_scale=None, seed=0))
    assert torch.equal(first, ask(num_steps=3, guidance_scale=None, seed=0))


def test_generations_may_be_guided():
    index = torch.arange(2 * SIDE)
    views = {"null": {"caption": torch.full((2 * SIDE,), 2 * SIDE)}}
    samples = AuditedSamples(IMAGES[: 2 * SIDE], index < SIDE, condition={"caption": index}, views=views)
    guided = CaptionMemoriser(IMAGES[: 2 * SIDE], IdealDenoiser(torch.zeros(1, 1, 8, 8)))
    options = {"samples": samples, "num_images": 20, "num_steps": 2, "guidance_scale": 1.5}
    it, _ = looked(Target(IdentityCodec(image_channels=1), guided), **options)
    torch.testing.assert_close(it.result.generated, (1.5 * IMAGES[:8]).clamp(-1, 1))
    assert it.result.how == "by 2 DDIM steps, guided at 1.5"
    assert it.passes() == {"denoiser": 2 * 2 * 20, "decoder": 20}
    with pytest.raises(UserError, match="there is no 'null' condition"):
        watcher(guidance_scale=3.0)


def test_intervals_take_whole_groups(looks):
    of_four = looked(model(FRESH), groups=lambda index: index // 4)[0].result.estimates
    single = looks["honest"][0].result.estimates
    assert of_four["swd_heldout"].value == single["swd_heldout"].value
    assert of_four["swd_heldout"] != single["swd_heldout"]
    assert of_four["kid_random_heldout"].value != single["kid_random_heldout"].value, "images of one group are no pair"


def test_quality_is_one_distance_whatever_the_seed_of_the_run():
    target = model(FRESH)
    first, again = (looked(target, seed=seed, num_steps=2)[0] for seed in (0, 1))
    assert not torch.equal(first.result.generated, again.result.generated)
    image = IMAGES[:20]
    torch.testing.assert_close(first._random(image), again._random(image), rtol=0, atol=0)
    assert first.result.features == again.result.features


@pytest.mark.parametrize("size", [7, 20])
def test_reconstructions_are_of_other_groups_than_what_they_are_compared_with(size):
    asked, described = [], []

    def images(index):
        asked.append(index)
        return IMAGES[index]

    class Remembering(IdentityCodec):
        def decode(self, latent):
            described.append(latent)
            return super().decode(latent)

    def groups(index):
        return index // size

    it = Quality(SAMPLES, images, MEMBERS, HELDOUT, num_images=SIDE, groups=groups)
    target = Target(Remembering(image_channels=1), IdealDenoiser(IMAGES[FRESH]))
    count, found = it._reconstruction_row(target, *it._to_reconstruct())
    mine = torch.cat(described)
    own = torch.tensor([int((each == IMAGES).flatten(1).all(1).nonzero()[0]) for each in mine])
    others = torch.cat(asked)
    assert len(own) == len(others) == count == it.first_passes()["decoder"] > SIDE // 3
    assert not {*groups(own).tolist()} & {*groups(others).tolist()}
    assert found["kid_random"].upper > found["kid_random"].value > found["kid_random"].lower


def test_a_side_of_two_groups_is_refused_and_so_few_groups_have_no_ceiling():
    def looked_with(heldout_groups):
        groups = partial(grouped, heldout_groups)
        return watcher(groups=groups)

    def grouped(number, index):
        return torch.where(index < SIDE, index, 1000 + index % number)

    for number, words in ((1, "1 group, "), (2, "2 groups, ")):
        with pytest.raises(UserError, match=f"^held-out images of {words}and an interval of quality takes 3 or more: "):
            looked_with(number)
    it = looked_with(3)
    it.look(model(FRESH), Moment(1, 1))
    assert it.result.num_reconstructed == 0
    assert all(each.lower < each.value < each.upper for each in it.result.estimates.values())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"heldout_index": HELDOUT[:19]}, "19 held-out images, and quality is told against 20 or more"),
        ({"member_index": MEMBERS[:2]}, "2 members, and quality is told against 20 or more"),
        ({"feature_network": "nowhere"}, "feature_network: there is no folder 'nowhere'"),
        ({"sha256": "abc"}, "sha256: it is that of a feature network, and none is given"),
    ],
)
def test_what_can_not_be_is_told_when_it_is_built(options, words):
    sides = {"member_index": MEMBERS, "heldout_index": HELDOUT, **options}
    with pytest.raises(UserError, match=f"^{words}"):
        Quality(SAMPLES, IMAGES.__getitem__, **sides)


def test_generations_that_are_not_finite_are_told():
    broken = Target(IdentityCodec(image_channels=1), IdealDenoiser(torch.full((2, 1, 8, 8), torch.nan)))
    with pytest.raises(UserError, match="a generated image is not finite"):
        looked(broken, num_images=20, num_steps=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A CLIP of a few thousand random weights."""
    import transformers

    path = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.CLIPVisionConfig(image_size=16, patch_size=8, **sizes)
    transformers.CLIPVisionModel(config).save_pretrained(path)
    size = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    transformers.CLIPImageProcessorPil(**size).save_pretrained(path)
    return path


def test_with_a_feature_network_there_are_kid_fid_and_cmmd_of_its_pooled_features(folder):
    it, look = looked(model(MEMBERS), feature_network=str(folder), num_steps=4)
    report = it.result
    assert report.primary == "kid"
    assert look.shown() == {"quality/kid": "quality/kid_heldout"}
    for name in ("kid", "fid", "cmmd"):
        assert {f"quality/{name}_{side}" for side in ("heldout", "members", "reconstructions")} <= look.series.keys()
    words = report.facts()["features of kid"]
    assert str(folder) in words
    assert it.state_dict()["sha256"] in words
    assert report.numbers()["features"]["fid"] == words


def test_a_feature_network_that_changed_is_refused_by_hash_and_in_a_resumed_run(folder):
    it = watcher(feature_network=str(folder))
    state = it.full_state()
    watcher(feature_network=str(folder), sha256=state["sha256"]).load_full_state(state)
    watcher().load_full_state(state)
    with pytest.raises(UserError, match=r"^sha256: '.*' has .*, not 00: its files changed"):
        watcher(feature_network=str(folder), sha256="00")
    with pytest.raises(UserError, match=r"^watch\.quality\.feature_network: .* this run began with 00"):
        it.load_full_state({**state, "sha256": "00"})


def test_other_processes_than_the_main_one_generate_nothing(monkeypatch):
    monkeypatch.setattr("ldm_privacy.watch.generated.is_main", lambda: False)
    it, look = looked("a target that nobody asks")
    assert not look.series
    assert it.result is None
    assert it.sentences() == []


def test_every_process_gathers_what_is_reconstructed_at_the_first_look_alone(monkeypatch):
    """One that gathered again would wait for the main one for ever."""
    calls = []
    monkeypatch.setattr("ldm_privacy.watch.quality.gather_on_main", lambda value: calls.append(value) or [value])
    for is_main in (True, False):
        monkeypatch.setattr("ldm_privacy.watch.generated.is_main", lambda is_main=is_main: is_main)
        it = watcher()
        for epoch in (1, 2):
            it.look(model(FRESH), Moment(epoch, epoch))
    assert len(calls) == 2


def section(report):
    evaluation = Evaluation(None, {}, IMAGES.__getitem__, "run", 1, {}, results={} if report is None else {"quality": report})
    return SECTIONS.get("quality")(evaluation)


def test_the_section_says_how_good_they_are_and_whether_members_are_nearer(looks):
    assert section(None) is None
    report: QualityReport = looks["copycat"][0].result
    found = section(report)
    value, ceiling = (report.estimates[f"kid_random_{side}"] for side in ("heldout", "reconstructions"))
    assert found.lead.startswith(
        f"Generations lie {value} from held-out images by kid_random, the codec's reconstructions {ceiling}."
    )
    assert " They lie nearer to the members than to held-out images (gap -" in found.lead
    (table,) = (block for block in found.blocks if hasattr(block, "rows"))
    assert [row[0] for row in table.rows] == ["kid_random", "swd"]
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert table.rows[0][3].tone == "exposed"
    assert " swd grows as the number falls, " in table.note
    honest = section(looks["honest"][0].result)
    assert "is not shown (gap" in honest.lead
    assert all(row[3].tone == "" for row in next(block for block in honest.blocks if hasattr(block, "rows")).rows)


def test_the_strip_holds_generations_and_their_nearest_and_the_curves_every_distance(looks):
    report = looks["copycat"][0].result
    torch.testing.assert_close(report.members, report.generated, atol=1e-3, rtol=0)
    assert not torch.allclose(report.heldout, report.generated, atol=0.1)
    (axis,) = report.figures()["generations"].axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["generated", "nearest held-out", "nearest member"]
    history = {(epoch, name): value for _, look in looks.values() for name, value in look.series.items() for epoch in (1, 2)}
    figure = quality_figures(history)["quality"]
    assert [each.get_title() for each in figure.axes] == ["kid_random", "swd"]
    assert {line.get_label() for line in figure.axes[0].lines} == {"held-out images", "members", "reconstructions"}
    assert quality_figures({(1, "denoiser/loss_gap"): 0.1}) == {}

"""Memorized generations: when a look is due, what a known generator gives, and going on after a stop."""

from functools import partial

import pytest
import torch

from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.errors import UserError
from ldm_privacy.models.ideal import CaptionMemoriser, IdealDenoiser
from ldm_privacy.models.identity import IdentityCodec
from ldm_privacy.pictures import image_grid
from ldm_privacy.targets.target import Target
from ldm_privacy.watch.generations import Generations
from ldm_privacy.watch.onset import OnsetDetector
from ldm_privacy.watch.samples import Samples
from ldm_privacy.watch.watcher import Every, Moment

IMAGES = torch.rand(80, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
MEMBERS, HELDOUT = torch.arange(40), torch.arange(40, 80)


class Copier(Generations):
    """Its generations are those images with a little noise, 20 times each."""

    def __init__(self, of=MEMBERS, **options):
        samples = AuditedSamples(IMAGES, torch.arange(80) < 40)
        options = {"every": Every(epochs=10), "onset": OnsetDetector(2), **options}
        super().__init__(samples, IMAGES.__getitem__, MEMBERS, HELDOUT, **options)
        self.of, self.generated = of, self.copies

    def copies(self, target, *asked, **options):
        assert target == "averaged weights"
        noise = torch.randn(20 * len(self.of), 1, 4, 4, generator=torch.Generator().manual_seed(1))
        return IMAGES[self.of].repeat(20, 1, 1, 1) + 0.01 * noise

    def at(self, epoch):
        return self.look("averaged weights", Moment(epoch, 3 * epoch))


def test_the_untrained_denoiser_is_not_looked_at():
    it = Copier()
    assert not it.due(Moment(0, 0))
    due = [epoch for epoch in range(1, 38) if it.due(Moment(epoch, 3 * epoch, is_last=epoch == 37))]
    assert due == [10, 20, 30, 37]
    assert it.num_looks(37, 3) == len(due)


def test_a_memoriser_has_an_onset_and_a_generator_of_heldout_images_has_none():
    it = Copier()
    looks = {epoch: it.at(epoch) for epoch in (10, 20, 30)}
    assert it.onset.onset_epoch == it.summary()["onset_epoch_generations"] == 10
    row = looks[20].series
    assert row["generations/memorized"] == 1.0
    assert row["generations/memorized_heldout"] == 0.0
    assert row["generations/num_members_copied"] == 40
    assert row["generations/rise"] == 0.5
    assert 0 < row["generations/rise_lower"] < 0.5
    assert row["generations/onset_epoch"] == 10.0
    assert "generations/onset_epoch" not in looks[10].series
    assert looks[10].lines == (
        "epoch 10: 100.0 % of 800 generations copy a member, 0.0 % a held-out image (nearest-neighbour ratio below 1/3)",
    )
    # 18 pairs of 4x4 pictures, six pictures a row, a pixel between them.
    assert {name: picture.shape for name, picture in looks[10].pictures.items()} == {"most_copied": (6 * 5 - 1, 6 * 5 - 1, 3)}
    assert it.sentences() == ["Onset of memorized generations: epoch 10 (100.0 % of 1,000 at the last look)."]

    control = Copier(of=HELDOUT)
    rows = [control.at(epoch).series for epoch in (10, 20, 30, 40)]
    assert control.onset.onset_epoch is None
    assert rows[-1]["generations/memorized"] == 0.0
    assert rows[-1]["generations/rise"] == -0.5
    assert control.sentences() == ["Onset of memorized generations: none (0.0 % of 1,000 at the last look)."]


def test_a_cadence_of_steps_counts_steps():
    it = Copier(every=Every(steps=30))
    for epoch in (10, 20):
        look = it.at(epoch)
    assert it.onset.onset_epoch == 30
    assert look.lines[0].startswith("step 60: ")
    assert "step 30" in it.sentences()[0]


def test_a_restored_watcher_goes_on_as_if_it_had_not_stopped():
    straight, stopped = Copier(), Copier()
    for epoch in (12, 24, 36, 40):
        expected = straight.at(epoch)
        again = Copier()
        again.load_full_state(stopped.full_state())
        assert again.at(epoch).series == expected.series
        stopped = again
    assert stopped.full_state() == straight.full_state()
    assert Copier().sentences() == ["Onset of memorized generations: there was no look."]


def test_other_processes_than_the_main_one_generate_nothing(monkeypatch):
    monkeypatch.setattr("ldm_privacy.watch.generated.is_main", lambda: False)
    it = Copier()
    assert not it.at(10).series
    assert it.memorized is None


@pytest.fixture
def memoriser():
    return Target(IdentityCodec(image_channels=1), IdealDenoiser(IMAGES[MEMBERS]))


def test_generations_of_a_perfect_memoriser_are_copies(memoriser):
    samples = AuditedSamples(IMAGES, torch.arange(80) < 40)
    it = Generations(samples, IMAGES.__getitem__, MEMBERS, HELDOUT, num_images=1000, num_steps=10, seed=3)
    series = it.look(memoriser, Moment(5, 5)).series
    assert series["generations/memorized"] > 0.95
    assert series["generations/memorized_heldout"] < 0.05
    assert it.passes() == {"denoiser": 10_000, "decoder": 1000}


def test_samples_grow_up_from_the_same_noise(memoriser):
    """Whatever the batch: the picture at a later look differs by the denoiser alone."""
    samples = AuditedSamples(IMAGES, torch.arange(80) < 40)
    one, other = Samples(samples, num_images=4, num_steps=5), Samples(samples, num_images=4, num_steps=5, seed=1)
    first, second, third = (
        each.look(memoriser, moment).pictures["samples"]
        for each, moment in ((one, Moment(0, 0)), (one, Moment(7, 21)), (other, Moment(0, 0)))
    )
    assert first.shape == (2 * 5 - 1, 2 * 5 - 1, 3)
    assert (first == second).all()
    assert (first != third).any()
    assert one.passes() == {"denoiser": 20, "decoder": 4}


def test_pictures_and_copies_are_guided_where_that_is_asked_for():
    """The clean prediction of a memoriser of captions is its image times the scale."""
    index = torch.arange(80)
    views = {"null": {"caption": torch.full((80,), 80)}}
    samples = AuditedSamples(IMAGES, index < 40, condition={"caption": index}, views=views)
    model = CaptionMemoriser(IMAGES, IdealDenoiser(torch.zeros(1, 1, 4, 4)))
    target = Target(IdentityCodec(image_channels=1), model)
    plain, guided = (Samples(samples, num_images=4, num_steps=5, guidance_scale=scale) for scale in (None, 1.5))
    for it, scale in ((plain, 1.0), (guided, 1.5)):
        expected = image_grid((scale * IMAGES[:4]).clamp(-1, 1)).astype(int)
        assert abs(it.look(target, Moment(0, 0)).pictures["samples"] - expected).max() <= 1, "rounding to grey levels"
    assert (plain.passes()["denoiser"], guided.passes()["denoiser"]) == (20, 40)
    options = {"num_images": 1000, "num_steps": 5, "guidance_scale": 1.5}
    it = Generations(samples, IMAGES.__getitem__, MEMBERS, HELDOUT, **options)
    it.look_at = lambda images, *when: images
    torch.testing.assert_close(it.look(target, Moment(0, 0))[:80], (1.5 * IMAGES).clamp(-1, 1))
    assert it.passes()["denoiser"] == 10_000
    for make in (Samples, partial(Generations, images=None, member_index=MEMBERS, heldout_index=HELDOUT)):
        with pytest.raises(UserError, match="there is no 'null' condition"):
            make(AuditedSamples(IMAGES, index < 40), guidance_scale=3.0)

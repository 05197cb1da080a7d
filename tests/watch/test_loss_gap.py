"""The denoising loss of members and held-out samples, and the onset of the gap between them."""

import pytest
import torch
from scipy import stats

from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.metrics import loss_gap_rise
from ldm_privacy.models.ideal import IdealDenoiser
from ldm_privacy.models.identity import IdentityCodec
from ldm_privacy.models.predictor import bytes_per_number
from ldm_privacy.randomness import normal, uniform
from ldm_privacy.targets.target import Target
from ldm_privacy.watch.loss_gap import LossGap
from ldm_privacy.watch.onset import OnsetDetector
from ldm_privacy.watch.watcher import Moment

NUM = 60
NOBODY = Target(IdentityCodec(image_channels=1), None)


def samples(count=NUM, **columns):
    """Members are the even ones."""
    index = torch.arange(count)
    latent = normal("latents", (index,), (1, 4, 4))
    return AuditedSamples(latent, index % 2 == 0, index, **columns)


def given(epoch, gap=0.05):
    """Losses by sample index; the members' fall by `gap` an epoch more than those of the held-out."""
    generator = torch.Generator().manual_seed(epoch)
    difficulty = torch.rand(NUM, generator=torch.Generator().manual_seed(99))
    fall = gap * epoch * (torch.arange(NUM) % 2 == 0)
    return difficulty + 0.1 * torch.randn(NUM, generator=generator) - fall


class Given(LossGap):
    """A denoiser with those losses stands behind it."""

    def __init__(self, *, count=NUM, onset=None):
        super().__init__(samples(count), onset=onset or OnsetDetector(2, 0.9))
        self.epoch = 0

    def losses(self, predictor, batch):
        return given(self.epoch)[batch.sample_index]

    def at(self, epoch):
        self.epoch = epoch
        return self.look(NOBODY, Moment(epoch, 10 * epoch)).series


def test_the_rise_is_paired_with_the_untrained_denoiser_by_sample_whatever_the_batches(limit_memory):
    one, two = Given(), Given()
    rows = {epoch: one.at(epoch) for epoch in (0, 2, 4, 6)}
    limit_memory(2 * 7 * 4 * 16 * bytes_per_number(None))
    assert {epoch: two.at(epoch) for epoch in (0, 2, 4, 6)} == rows
    assert {epoch for epoch, row in rows.items() if "denoiser/loss_gap_rise" in row} == {2, 4, 6}
    change = (given(4).double() - given(0).double()).numpy()
    welch = stats.ttest_ind(change[1::2], change[::2], equal_var=False, alternative="greater")
    assert rows[4]["denoiser/loss_gap_rise"] == pytest.approx(change[1::2].mean() - change[::2].mean())
    # The second look.
    confidence = OnsetDetector(2, 0.9).confidence_at(2)
    assert rows[4]["denoiser/loss_gap_rise_lower"] == pytest.approx(welch.confidence_interval(confidence).low)
    assert one.heldout_loss == pytest.approx(float(given(6)[1::2].mean()))
    last = {name: rows[6][f"denoiser/loss_{name}"] for name in ("members", "heldout", "gap")}
    assert last["members"] == pytest.approx(float(given(6)[::2].mean()))
    assert last["heldout"] == one.heldout_loss
    assert last["gap"] == pytest.approx(last["heldout"] - last["members"])


def test_the_onset_is_told_from_when_it_is_known_and_survives_a_stop():
    straight, stopped = Given(), Given()
    rows = {}
    for epoch in range(6):
        rows[epoch] = straight.at(epoch)
        assert stopped.at(epoch) == rows[epoch]
        again = Given()
        again.load_full_state(stopped.full_state())
        stopped = again
    onset = straight.onset.onset_epoch
    assert onset is not None
    assert straight.summary() == stopped.summary() == {"onset_epoch_loss_gap": onset}
    assert straight.sentences() == stopped.sentences() == [f"Onset of the loss gap: epoch {onset}."]
    assert {epoch for epoch, row in rows.items() if "denoiser/loss_gap_onset_epoch" in row} == set(range(onset + 1, 6))


def test_a_resumed_run_that_audits_fewer_samples_pairs_those_that_both_have():
    all_of_them, few = Given(), Given(count=30)
    all_of_them.at(0)
    few.load_full_state(all_of_them.full_state())
    change = given(2).double() - given(0).double()
    expected = change[:30][1::2].mean() - change[:30][::2].mean()
    assert few.at(2)["denoiser/loss_gap_rise"] == pytest.approx(float(expected))


def test_groups_stay_together():
    watcher, plain = Given(), Given()
    index = torch.arange(NUM)
    group = index // 4 * 2 + index % 2  # two members or two held-out samples each
    watcher.samples = samples(group=group)
    for each in (watcher, plain):
        each.at(0)
    lower, without = (each.at(1)["denoiser/loss_gap_rise_lower"] for each in (watcher, plain))
    level = OnsetDetector(2, 0.9).confidence_at(1)
    expected = loss_gap_rise(given(1).double(), given(0).double(), index % 2 == 0, confidence=level, group=group)
    assert lower == pytest.approx(expected.lower)
    assert lower != without


def test_without_the_untrained_denoiser_there_is_no_onset():
    late = Given()
    assert set(late.at(4)) == {f"denoiser/loss_{name}" for name in ("members", "heldout", "gap")}
    assert late.onset.num_looks == 0
    assert late.sentences() == ["Onset of the loss gap: there was no look after the untrained denoiser's."]


class Asking:
    """A predictor that says what it was asked, and answers half of the noise that it sees."""

    def __init__(self):
        self.alphas_cumprod = torch.linspace(0.99, 0.01, 100)
        self.rows = []

    def __call__(self, noisy_latent, timestep, condition):
        self.rows += list(zip(noisy_latent, timestep.tolist(), condition["class_labels"].tolist()))
        return 0.5 * noisy_latent


def test_a_loss_is_the_mean_over_stratified_timesteps_with_noise_of_the_sample():
    batch, predictor = samples(6, condition={"class_labels": torch.arange(6) + 100}), Asking()
    loss = LossGap(batch, num_timesteps=4, seed=5).losses(predictor, batch)
    assert sorted(label for _, _, label in predictor.rows) == sorted(4 * [100, 101, 102, 103, 104, 105])
    for place, index in enumerate(batch.sample_index):
        errors = []
        for stratum in range(4):
            key = (5, index[None], torch.tensor([stratum]))
            timestep = int((stratum + float(uniform("loss-timestep", key, ()))) / 4 * 100)
            assert 25 * stratum <= timestep < 25 * (stratum + 1)
            noise = normal("loss-noise", key, (1, 4, 4))[0]
            abar = predictor.alphas_cumprod[timestep]
            noisy = abar.sqrt() * batch.latent[place] + (1 - abar).sqrt() * noise
            errors.append((0.5 * noisy - noise).square().mean())
            asked = [row for row, at, label in predictor.rows if (at, label) == (timestep, 100 + int(index))]
            assert any(torch.allclose(row, noisy, atol=1e-6) for row in asked)
        torch.testing.assert_close(loss[place], torch.stack(errors).mean())


def test_a_perfect_memoriser_has_a_gap_and_the_same_numbers_at_every_look():
    audited = samples(40)
    target = Target(IdentityCodec(image_channels=1), IdealDenoiser(audited.latent[audited.is_member]))
    watcher = LossGap(audited)
    first = watcher.look(target, Moment(0, 0)).series
    assert first["denoiser/loss_members"] < 0.5 * first["denoiser/loss_heldout"]
    second = LossGap(audited).look(target, Moment(1, 10)).series
    assert second == pytest.approx(first, rel=1e-6)
    assert watcher.look(target, Moment(1, 10)).series["denoiser/loss_gap_rise"] == 0.0
    assert watcher.passes() == {"denoiser": 4 * 40}

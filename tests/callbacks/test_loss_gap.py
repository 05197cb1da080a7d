"""The loss gap's onset, from the per-sample losses that the validation loop hands out."""

from types import SimpleNamespace

import pytest
import torch
from scipy import stats

from callbacks.loss_gap import LossGap
from ldm_privacy.onset import OnsetDetector
from ldm_privacy.types import AuditBatch

NUM = 60


class Recorder:
    def __init__(self):
        self.rows = {}

    def log_metrics(self, metrics):
        self.rows[metrics.pop("epoch")] = metrics


def losses(epoch, gap=0.05):
    """Losses by sample index: members are the even ones and fall by `gap` an epoch more than the held-out."""
    generator = torch.Generator().manual_seed(epoch)
    difficulty = torch.rand(NUM, generator=torch.Generator().manual_seed(99))
    fall = gap * epoch * (torch.arange(NUM) % 2 == 0)
    return difficulty + 0.1 * torch.randn(NUM, generator=generator) - fall


def audit(callback, epoch, recorder, *, index=None, batch_size=17):
    trainer = SimpleNamespace(loggers=[recorder], sanity_checking=epoch == 0)
    module = SimpleNamespace(trainer=trainer, current_epoch=max(0, epoch - 1))
    index = torch.arange(NUM) if index is None else index
    callback.on_validation_epoch_start(trainer, module)
    for place, chunk in enumerate(index.split(batch_size)):
        batch = AuditBatch(torch.zeros(len(chunk), 1, 1, 1), chunk % 2 == 0, chunk)
        callback.on_validation_batch_end(trainer, module, losses(epoch)[chunk], batch, place)
    callback.on_validation_epoch_end(trainer, module)


def test_the_rise_is_paired_with_the_untrained_denoiser_by_sample_whatever_the_batches():
    recorder, shuffled = Recorder(), Recorder()
    one, two = LossGap(OnsetDetector(2, 0.9)), LossGap(OnsetDetector(2, 0.9))
    for epoch in (0, 2, 4, 6):
        audit(one, epoch, recorder)
        order = torch.randperm(NUM, generator=torch.Generator().manual_seed(epoch))
        audit(two, epoch, shuffled, index=order, batch_size=7)
    assert shuffled.rows == recorder.rows
    assert {epoch for epoch, row in recorder.rows.items() if "denoiser/loss_gap_rise" in row} == {2, 4, 6}
    change = (losses(4).double() - losses(0).double()).numpy()
    welch = stats.ttest_ind(change[1::2], change[::2], equal_var=False, alternative="greater")
    row = recorder.rows[4]
    assert row["denoiser/loss_gap_rise"] == pytest.approx(change[1::2].mean() - change[::2].mean())
    # The second look.
    assert row["denoiser/loss_gap_rise_lower"] == pytest.approx(
        welch.confidence_interval(OnsetDetector(2, 0.9).confidence_at(2)).low
    )
    assert one.heldout_loss == pytest.approx(float(losses(6)[1::2].mean()))
    last = {name: recorder.rows[6][f"denoiser/loss_{name}"] for name in ("members", "heldout", "gap")}
    assert last["members"] == pytest.approx(float(losses(6)[::2].mean()))
    assert last["heldout"] == one.heldout_loss
    assert last["gap"] == pytest.approx(last["heldout"] - last["members"])


def test_the_onset_is_logged_from_when_it_is_known_and_survives_a_stop():
    recorder, stopped = Recorder(), Recorder()
    straight, it = LossGap(OnsetDetector(2)), LossGap(OnsetDetector(2))
    for epoch in range(6):
        audit(straight, epoch, recorder)
        audit(it, epoch, stopped)
        again = LossGap(OnsetDetector(2))
        again.load_state_dict(it.state_dict())
        it = again
    assert stopped.rows == recorder.rows
    onset = straight.onset.onset_epoch
    assert onset is not None
    assert straight.summary() == it.summary() == {"onset_epoch_loss_gap": onset}
    known = {epoch for epoch, row in recorder.rows.items() if "denoiser/loss_gap_onset_epoch" in row}
    assert known == set(range(onset + 1, 6))


def test_a_resumed_run_that_audits_fewer_samples_pairs_those_that_both_have():
    recorder, few = Recorder(), LossGap(OnsetDetector())
    audit(few, 0, recorder)
    audit(few, 2, recorder, index=torch.arange(30))
    change = losses(2).double() - losses(0).double()
    expected = change[:30][1::2].mean() - change[:30][::2].mean()
    assert recorder.rows[2]["denoiser/loss_gap_rise"] == pytest.approx(float(expected))


def test_without_the_untrained_denoiser_there_is_no_onset():
    recorder, late = Recorder(), LossGap(OnsetDetector())
    audit(late, 4, recorder)
    assert set(recorder.rows[4]) == {f"denoiser/loss_{name}" for name in ("members", "heldout", "gap")}
    assert late.rise is None

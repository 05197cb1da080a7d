"""A limit on memorization: what counts as above it, the checkpoint that is kept, stopping, going on."""

from types import SimpleNamespace

import pytest
import torch

from ldm_privacy.callbacks.stop import SMALLEST_RATE, StopOnMemorization
from ldm_privacy.errors import UserError
from ldm_privacy.types import AuditKey, Estimate
from ldm_privacy.watch.memorization import News
from ldm_privacy.watch.watcher import Moment


class Training:
    """Audits with given AUROCs and held-out losses."""

    def __init__(self, limit=0.7, bound="upper", action="stop", state=None):
        self.loss, self.lines = 1.0, []
        self.audits = SimpleNamespace(news=None, last=None, judged=AuditKey("sima", "all"))
        self.callback = StopOnMemorization(
            limit,
            bound=bound,
            action=action,
            factor=0.1,
            audits=self.audits,
            heldout_loss=lambda: self.loss,
            say=self.lines.append,
        )
        if state is not None:
            self.callback.load_state_dict(state)
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-2)
        self.trainer = SimpleNamespace(should_stop=False, optimizers=[optimizer], loggers=[], current_epoch=0, global_step=0)
        self.module = SimpleNamespace(learning_rate=1e-2)
        self.callback.on_fit_start(self.trainer, self.module)

    def audit(self, epoch, auroc, loss=1.0):
        self.audits.news, self.loss = News(Estimate(auroc, auroc - 0.1, auroc + 0.1), 40, ()), loss
        self.audits.last = Moment(epoch, 10 * epoch)
        return self.end_of(epoch)

    def end_of(self, epoch):
        """The end of an epoch, audited or not."""
        if epoch == 0:
            self.callback.on_train_start(self.trainer, self.module)
        else:
            self.trainer.current_epoch = epoch - 1
            self.callback.on_train_epoch_end(self.trainer, self.module)
        return self.callback.is_best_under_limit()

    @property
    def rate(self):
        return self.trainer.optimizers[0].param_groups[0]["lr"]


@pytest.mark.parametrize(("bound", "under", "above"), [("upper", 0.6, 0.601), ("value", 0.7, 0.701), ("lower", 0.8, 0.801)])
def test_the_chosen_number_is_held_against_the_limit(bound, under, above):
    training = Training(bound=bound)
    training.audit(1, under - 1e-9)
    assert not training.trainer.should_stop
    assert training.callback.sentence() is None
    training.audit(2, above)
    assert training.trainer.should_stop
    assert "Stopped after epoch 2" in training.callback.sentence()
    assert "(epoch 1)" in training.callback.sentence()


def test_the_checkpoint_kept_is_the_best_under_the_limit():
    training = Training(action="lower_learning_rate")
    audits = [(0, 0.5, 3.0), (1, 0.55, 2.0), (2, 0.58, 2.5), (3, 0.65, 1.0), (4, 0.59, 2.0), (5, 0.5, 1.9)]
    assert [training.audit(*audit) for audit in audits] == [True, True, False, False, False, True]
    assert training.callback.best["epoch"] == 5


def test_the_best_survives_a_stop_and_is_forgotten_under_a_lower_limit():
    training = Training()
    training.audit(0, 0.45, 3.0)
    training.audit(1, 0.58, 2.0)
    state = training.callback.state_dict()
    assert not Training(state=state).audit(2, 0.5, 2.1)
    assert Training(state=state).audit(2, 0.5, 1.9)
    # What was kept lies above this limit, so anything under it is better.
    assert Training(limit=0.65, state=state).audit(2, 0.5, 2.1)


def test_the_rate_falls_by_the_factor_at_every_audit_above_and_not_without_end():
    training = Training(action="lower_learning_rate")
    rates = []
    for epoch, auroc in enumerate((0.5, 0.8, 0.5, 0.8, 0.8, 0.8, 0.8)):
        training.audit(epoch, auroc)
        rates.append(training.rate)
    assert rates == pytest.approx([1e-2, 1e-3, 1e-3, 1e-4, 1e-5, 1e-6, 1e-6])
    assert rates[-1] == pytest.approx(SMALLEST_RATE * 1e-2)
    assert not training.trainer.should_stop
    assert training.callback.sentence() is None
    assert training.lines[0] == (
        "epoch 1: the upper bound of the AUROC (sima/all) 0.900 is above audit.stop.limit 0.7; learning rate 0.01 -> 0.001"
    )


def test_a_limit_below_what_the_samples_can_show_is_an_error_before_the_training():
    with pytest.raises(UserError, match=r"audit.stop.limit: 0.55 is below what 40 reported samples can show: .* is 0.600"):
        Training(limit=0.55).audit(0, 0.5)
    with pytest.raises(UserError, match=r"0.55 is exceeded before the training: .* the lower bound .* is 0.600"):
        Training(limit=0.55, bound="lower").audit(0, 0.7)


def test_a_stopped_run_stays_stopped_until_its_limit_is_changed():
    training = Training()
    training.audit(0, 0.5)
    training.audit(3, 0.79)
    state = training.callback.state_dict()
    assert Training(state=state).trainer.should_stop
    assert Training(limit=0.88, state=state).trainer.should_stop
    for changed in (Training(limit=0.9, state=state), Training(bound="lower", state=state)):
        assert not changed.trainer.should_stop
        assert changed.callback.sentence() is None
    assert not Training(action="lower_learning_rate", state=state).trainer.should_stop


def test_an_epoch_without_an_audit_is_not_judged():
    training = Training(action="lower_learning_rate")
    assert not training.end_of(1)
    training.audit(2, 0.8)
    for epoch in (3, 4):
        training.end_of(epoch)
    assert training.rate == pytest.approx(1e-3)

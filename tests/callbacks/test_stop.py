"""The gate in training: what it acts upon, the checkpoint that is kept, stopping, going on."""

from types import SimpleNamespace

import pytest
import torch

import ldm_privacy.callbacks.stop
from ldm_privacy.callbacks.stop import SMALLEST_RATE, StopOnMemorization
from ldm_privacy.errors import UserError
from ldm_privacy.evidence.gate import Gate
from ldm_privacy.evidence.limits.copies import CopiesLimit
from ldm_privacy.evidence.limits.limit import Limit, Reading
from ldm_privacy.types import Estimate
from ldm_privacy.watch.watcher import Moment


class Given(Limit):
    """A limit on the estimate that stands in the report's place."""

    name, quantity = "gate.auroc", "AUROC"

    def __init__(self, most):
        self.most = most

    def readings(self, found):
        return [Reading("sima/all", found.report)]

    def counts(self, found):
        return {"members": 20, "held-out images": 20}


class Training:
    """Audits with given AUROCs and held-out losses."""

    def __init__(self, limit=0.7, at="undecided", action="stop", state=None, more=(), beside=None):
        self.loss, self.lines = 1.0, []
        self.audits = SimpleNamespace(report=None, last=None, key=None, in_evaluation=False)
        self.callback = StopOnMemorization(
            Gate([Given(limit), *more]),
            at=at,
            action=action,
            factor=0.1,
            watched={"memorization": self.audits, **(beside or {})},
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
        self.audits.report, self.loss = Estimate(auroc, auroc - 0.1, auroc + 0.1), loss
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


@pytest.mark.parametrize(("at", "under", "above"), [("undecided", 0.6, 0.601), ("fail", 0.7, 0.7)])
def test_it_acts_at_the_decision_or_a_worse_one(at, under, above):
    training = Training(at=at)
    training.audit(1, under - 1e-9)
    assert not training.trainer.should_stop
    assert training.callback.sentence() is None
    training.audit(2, above)
    assert training.trainer.should_stop
    assert "Stopped after epoch 2, by the gate: " in training.callback.sentence()
    assert "(epoch 1)" in training.callback.sentence()


def test_a_limit_of_which_nothing_was_measured_yet_is_not_acted_upon():
    training = Training(more=[CopiesLimit(0.01)])
    assert training.audit(1, 0.5)
    assert not training.trainer.should_stop


class Counted(Limit):
    """A limit on what a watcher found."""

    name, quantity, most = "gate.copies", "share of copies", 0.01

    def readings(self, found):
        return [Reading(label, each) for label, each in found.results.items()]

    def counts(self, found):
        return {"generations": 1000}


@pytest.mark.parametrize("is_resumed", [False, True])
def test_what_was_counted_at_an_earlier_moment_is_acted_upon_once(is_resumed):
    generations = SimpleNamespace(in_evaluation=True, result=Estimate(0.5, 0.4, 0.6), last=Moment(1, 10))
    training = Training(action="lower_learning_rate", more=[Counted()], beside={"generations": generations})
    assert not training.audit(1, 0.5)
    if is_resumed:  # a checkpoint has no results
        generations.result = None
    assert training.audit(2, 0.5)
    assert training.rate == pytest.approx(1e-3)


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
    assert training.lines[0].startswith(
        "epoch 1: gate fail: AUROC 0.800 [0.700, 0.900] of sima/all, not below 0.7 (gate.auroc), "
    )
    assert training.lines[0].endswith(". Learning rate 0.01 -> 0.001.")


def test_a_limit_below_what_the_samples_can_show_is_an_error_before_the_training():
    with pytest.raises(UserError, match=r"^gate.auroc: 0.55 is below what so few samples can show: .* 0.500 \[0.400, 0.600\]"):
        Training(limit=0.55).audit(0, 0.5)
    for at in ("undecided", "fail"):
        with pytest.raises(UserError, match=r"^gate.auroc: 0.55 is reached before the training: .* is 0.700 \[0.600, 0.800\]"):
            Training(limit=0.55, at=at).audit(0, 0.7)


def test_a_stopped_run_stays_stopped_until_its_gate_lets_it_pass():
    training = Training()
    training.audit(0, 0.5)
    training.audit(3, 0.79)
    state = training.callback.state_dict()
    assert Training(state=state).trainer.should_stop
    assert Training(limit=0.88, state=state).trainer.should_stop
    for changed in (Training(limit=0.9, state=state), Training(limit=0.8, at="fail", state=state)):
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


def test_another_process_does_what_the_main_one_finds(monkeypatch):
    training = Training()
    training.audit(1, 0.5)
    ruling = Gate([Given(0.7)]).rule(SimpleNamespace(report=Estimate(0.8, 0.7, 0.9)))
    monkeypatch.setattr(ldm_privacy.callbacks.stop, "on_main", lambda function: ruling)
    training.audits.report, training.audits.last = None, Moment(2, 20)
    training.end_of(2)
    assert training.trainer.should_stop

"""A limit on memorization: what counts as above it, the checkpoint that is kept, stopping, going on."""

from types import SimpleNamespace

import pytest
import torch
from ldm_privacy.training.checkpoint import epochs_in, load_checkpoint

import train
from callbacks.stop import SMALLEST_RATE, StopOnMemorization
from ldm_privacy.audit import AuditNews
from ldm_privacy.errors import UserError
from ldm_privacy.types import AuditKey, Estimate
from tests.tiny import arguments, series

KEY = AuditKey("sima", "all")
SMALL = [
    "audit.attacks=[sima]",
    "audit.masks={top60: null, random60: null, low60: null, std60: null}",
    "audit.keep_fractions=[]",
    "autoencoder.max_epochs=1",
    "geometry.distortion_rank=0",
]


class Training:
    """Audits with given AUROCs and held-out losses."""

    def __init__(self, limit=0.7, bound="upper", action="stop", state=None):
        self.auroc, self.loss, self.lines = Estimate(0.5, 0.4, 0.6), 1.0, []
        self.callback = StopOnMemorization(
            limit,
            bound=bound,
            action=action,
            factor=0.1,
            key=KEY,
            newest=lambda: AuditNews(self.auroc, 40, None),
            heldout_loss=lambda: self.loss,
            say=self.lines.append,
        )
        if state is not None:
            self.callback.load_state_dict(state)
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-2)
        self.trainer = SimpleNamespace(should_stop=False, optimizers=[optimizer], loggers=[], sanity_checking=False)
        self.module = SimpleNamespace(trainer=self.trainer, current_epoch=0, learning_rate=1e-2)
        self.callback.on_fit_start(self.trainer, self.module)

    def audit(self, epoch, auroc, loss=1.0):
        self.auroc, self.loss = Estimate(auroc, auroc - 0.1, auroc + 0.1), loss
        self.trainer.sanity_checking = epoch == 0
        self.module.current_epoch = max(0, epoch - 1)
        self.callback.on_validation_epoch_end(self.trainer, self.module)
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


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run that nothing stops."""
    folder = tmp_path_factory.mktemp("straight")
    assert train.main(arguments(folder, *SMALL, "trainer.max_epochs=3", "audit.every_n_epochs=1")) == 0
    return folder / "digits"


def test_a_whole_run_stops_keeps_its_best_and_goes_on_when_it_may(straight, tmp_path, capsys):
    auroc = {epoch: value for (_, epoch, name), value in series(straight).items() if name == "memorization/sima/all/auroc"}
    first_above = next(epoch for epoch in (1, 2) if auroc[epoch] > max(0.5, auroc[0]))
    limit = (auroc[first_above] + max([0.5, *(auroc[epoch] for epoch in range(first_above))])) / 2
    stop = [f"audit.stop.limit={limit}", "audit.stop.bound=value"]
    options = ["trainer.max_epochs=3", "audit.every_n_epochs=1"]
    assert train.main(arguments(tmp_path, *SMALL, *options, *stop)) == 0
    run = tmp_path / "digits"
    printed = " ".join(capsys.readouterr().out.split())
    assert f"Stopped after epoch {first_above}: the AUROC (sima/all)" in printed
    assert f"digits, epoch {first_above}:" in printed
    assert {epoch for _, epoch, name in series(run) if name == "denoiser/train_loss"} == set(range(1, first_above + 1))
    losses = {epoch: series(run)["denoiser", epoch, "denoiser/loss_heldout"] for epoch in range(first_above)}
    kept = load_checkpoint(run / "checkpoints" / "under-limit.ckpt")
    assert epochs_in(kept) == min(losses, key=losses.get)

    before = series(run)
    assert train.main([f"resume={run}"]) == 0
    assert series(run) == before
    printed = " ".join(capsys.readouterr().out.split())
    assert f"Stopped after epoch {first_above}" in printed
    assert "sima/all" in printed

    assert train.main([f"resume={run}", "audit.stop.limit=null"]) == 0
    assert series(run) == series(straight)
    assert "Stopped after" not in capsys.readouterr().out


def test_a_lowered_rate_survives_a_resume(tmp_path, straight):
    auroc = {epoch: value for (_, epoch, name), value in series(straight).items() if name == "memorization/sima/all/auroc"}
    limit = max(0.501, auroc[0] + 0.001)
    stop = [f"audit.stop.limit={limit}", "audit.stop.bound=value", "audit.stop.action=lower_learning_rate"]
    options = [*SMALL, "audit.every_n_epochs=1", *stop]
    train.main(arguments(tmp_path, *options, "trainer.max_epochs=3"))
    train.main(arguments(tmp_path, *options, "trainer.max_epochs=2", "name=resumed"))
    assert train.main([f"resume={tmp_path}/resumed", "trainer.max_epochs=3"]) == 0
    values = series(tmp_path / "digits")
    assert series(tmp_path / "resumed") == values
    rates = [values["denoiser", epoch, "denoiser/learning_rate"] for epoch in range(4)]
    assert rates[0] == 1e-3
    assert rates[-1] < 1e-3
    assert rates == sorted(rates, reverse=True)


def test_a_whole_run_under_too_low_a_limit_ends_before_its_first_step(tmp_path):
    with pytest.raises(UserError, match=r"audit\.stop\.limit: 0\.51 is below what 42 reported samples can show"):
        train.main(arguments(tmp_path, *SMALL, "audit.stop.limit=0.51"))
    assert not (tmp_path / "digits" / "checkpoints" / "last.ckpt").exists()

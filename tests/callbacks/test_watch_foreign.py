"""Watching a training that knows nothing of this program: it is the same to the last bit, and the curves are there."""

import csv
import random
from functools import cache

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ldm_privacy.attacks.base import get_attack
from ldm_privacy.audit.audit import Audit
from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.callbacks import Watch
from ldm_privacy.errors import UserError
from ldm_privacy.models.identity import IdentityCodec
from ldm_privacy.models.predictor import NetworkPredictor
from ldm_privacy.registry import MASK_RULES
from ldm_privacy.targets.target import Target
from ldm_privacy.types import Intervals
from ldm_privacy.watch.loss_gap import LossGap
from ldm_privacy.watch.memorization import Memorization
from ldm_privacy.watch.watcher import Every, Look, Watcher

NUM, EPOCHS, STEPS = 22, 3, 3  # a side; 6 batches of 4 an epoch, two of them a step
IMAGES = torch.rand(2 * NUM, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
ABAR = (1 - torch.linspace(1e-3, 0.2, 20)).cumprod(0)


class Network(nn.Module):
    """Dropout, a batch normalisation, and a part that is frozen in evaluation mode."""

    def __init__(self, channels=1):
        super().__init__()
        self.frozen = nn.Sequential(nn.Conv2d(channels, 4, 3, padding=1), nn.BatchNorm2d(4)).eval().requires_grad_(False)
        self.body = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), nn.SiLU(), nn.Dropout(0.2))
        self.head = nn.Conv2d(8, channels, 3, padding=1)
        self.time = nn.Linear(1, 8)

    def forward(self, noisy, timestep):
        hidden = self.body(self.frozen(noisy)) + self.time(timestep[:, None] / len(ABAR))[..., None, None]
        return self.head(hidden)


class Foreign(LightningModule):
    """A diffusion model as someone else writes it: own loaders, own validation, draws from every generator there is."""

    def __init__(self, *, manual=False, seeded=False):
        super().__init__()
        torch.manual_seed(1)
        self.network = Network()
        self.automatic_optimization = not manual
        self.seeded = seeded

    def train_dataloader(self):
        return DataLoader(TensorDataset(IMAGES[:NUM]), batch_size=4, shuffle=not self.seeded)

    def val_dataloader(self):
        return DataLoader(TensorDataset(IMAGES[NUM:]), batch_size=8)

    def loss(self, image):
        scale = 1 + 0.1 * random.random() + 0.1 * np.random.rand()
        timestep = torch.randint(len(ABAR), (len(image),))
        noise = torch.randn_like(image)
        abar = ABAR[timestep][:, None, None, None]
        return scale * (self.network(abar.sqrt() * image + (1 - abar).sqrt() * noise, timestep) - noise).square().mean()

    def training_step(self, batch, place):
        if self.seeded:
            for seed in (random.seed, np.random.seed, torch.manual_seed):
                seed(100 * self.current_epoch + place)
        loss = self.loss(batch[0])
        self.log("loss", loss)
        if self.automatic_optimization:
            return loss
        self.manual_backward(loss / 2)
        if place % 2:  # the gradients stay until they are needed no more
            for optimizer in self.optimizers():
                optimizer.step()
                optimizer.zero_grad()
            for scheduler in self.lr_schedulers():
                scheduler.step()
        return None

    def validation_step(self, batch, place):
        self.log("validation_loss", self.loss(batch[0]))

    def configure_optimizers(self):
        if self.automatic_optimization:
            optimizer = torch.optim.AdamW([each for each in self.parameters() if each.requires_grad], lr=1e-2)
            scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.7)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
        parts = (self.network.body, nn.ModuleList([self.network.head, self.network.time]))
        optimizers = [
            torch.optim.SGD(parts[0].parameters(), lr=0.1, momentum=0.9),
            torch.optim.Adam(parts[1].parameters(), 1e-2),
        ]
        return optimizers, [torch.optim.lr_scheduler.StepLR(each, 2, 0.7) for each in optimizers]


class Trace(Callback):
    """Modes, gradients and the states of all generators after every batch and epoch."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, module, *_):
        gradients = [None if each.grad is None else each.grad.clone() for each in module.parameters()]
        self.seen.append((modes(module), gradients, generators()))

    def on_train_epoch_end(self, trainer, module):
        self.on_train_batch_end(trainer, module)


def modes(module):
    return [each.training for each in module.modules()]


def generators():
    return [random.getstate(), *(torch.as_tensor(each) for each in np.random.get_state()[1:3]), torch.get_rng_state()]


class Nasty(Watcher):
    """Draws from every generator, and leaves the network in training mode, all of it trained, with gradients."""

    def look(self, target, moment):
        random.random(), np.random.rand(), torch.randn(3)
        target.predictor.network.requires_grad_()
        with torch.enable_grad():
            target.predictor(IMAGES[:2], torch.tensor([1, 2]), {}).sum().backward()
        target.predictor.network.train()
        return Look({"nasty": float(moment.step)})


def watchers(every=Every(epochs=1), seed=0):  # noqa: B008
    samples = AuditedSamples(IMAGES, torch.arange(2 * NUM) < NUM)
    attacks, masks = {"sima": get_attack("sima"), "loss": get_attack("loss")}, {"all": MASK_RULES.get("all")()}
    audit = Audit(samples, attacks, masks, [3, 8], intervals=Intervals(num_bootstrap=5), seed=seed)
    return [Memorization(audit, every=every), LossGap(samples, every=every), Nasty(every)]


def target(module):
    return Target(IdentityCodec(image_channels=1), NetworkPredictor(module.network, ABAR))


def fit(module, *callbacks, epochs=EPOCHS, resume=None, logger=False, **options):
    """A whole training; everything that is left of it."""
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(7)
    trace = Trace()
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[*callbacks, trace],
        logger=logger,
        accumulate_grad_batches=2 if module.automatic_optimization else 1,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(each, ModelCheckpoint) for each in callbacks),
        **options,
    )
    trainer.fit(module, ckpt_path=resume)
    averages = [each._average_model for each in callbacks if isinstance(each, EMAWeightAveraging)]
    return {
        "weights and buffers": module.state_dict(),
        "optimizers": [each.state_dict() for each in trainer.optimizers],
        "schedulers": [each.scheduler.state_dict() for each in trainer.lr_scheduler_configs],
        "averages": [each.state_dict() for each in averages],
        "modes": modes(module),
        "generators": generators(),
        "trace": trace.seen,
        "logged": {name: value for name, value in trainer.logged_metrics.items() if "loss" in name and "/" not in name},
        "steps": trainer.global_step,
    }


def assert_equal(mine, theirs, where=""):
    """To the last bit, whatever it is."""
    assert type(mine) is type(theirs), where
    if isinstance(mine, torch.Tensor):
        assert mine.dtype == theirs.dtype, where
        assert torch.equal(mine, theirs), where
    elif isinstance(mine, dict):
        assert mine.keys() == theirs.keys(), where
        for key, value in mine.items():
            assert_equal(value, theirs[key], f"{where}.{key}")
    elif isinstance(mine, list | tuple):
        assert len(mine) == len(theirs), where
        for place, (one, other) in enumerate(zip(mine, theirs)):
            assert_equal(one, other, f"{where}[{place}]")
    else:
        assert mine == theirs, where


def averaging(is_on):
    return [EMAWeightAveraging(decay=0.8)] if is_on else []


@cache
def without(manual, averaged, precision):
    return fit(Foreign(manual=manual), *averaging(averaged), precision=precision)


@pytest.mark.parametrize("watch_first", [False, True], ids=["", "watch first"])
@pytest.mark.parametrize("every", [Every(epochs=2), Every(steps=2)], ids=["epochs", "steps"])
@pytest.mark.parametrize(
    ("manual", "averaged", "precision"),
    [
        (False, False, "32-true"),
        (False, True, "32-true"),
        (True, False, "32-true"),
        (True, True, "32-true"),
        (False, True, "bf16-mixed"),
    ],
    ids=["automatic", "automatic, averaged", "manual", "manual, averaged", "bfloat16"],
)
def test_the_training_is_the_same_to_the_last_bit(manual, averaged, precision, every, watch_first):
    if watch_first and not averaged:
        return
    watch = Watch(watchers(every), target)
    callbacks = [watch, *averaging(averaged)] if watch_first else [*averaging(averaged), watch]
    watched = fit(Foreign(manual=manual), *callbacks, precision=precision)
    memorization = watch.watchers["0_Memorization"]
    assert memorization.last.step == watched["steps"] > 0
    assert memorization.onset.num_looks == memorization.num_looks(EPOCHS, watched["steps"] // EPOCHS) - 1
    assert_equal(watched, without(manual, averaged, precision))


@pytest.mark.parametrize("averaged", [False, True])
def test_what_is_looked_at_are_the_weights_that_the_training_ends_with(averaged):
    watch, module = Watch(watchers(), target), Foreign()
    fit(module, *averaging(averaged), watch)
    again = watchers()[0]
    module.eval()
    with torch.no_grad():
        report = again.audit(target(module).predictor)
    assert report.series() == watch.watchers["0_Memorization"].report.series()


def test_averages_are_up_to_date_wherever_the_callback_stands():
    class Weights(Watcher):
        def look(self, target, moment):
            seen.append((moment.step, float(target.predictor.network.head.weight.double().sum())))
            return Look()

    found = []
    for first in (False, True):
        seen = []
        callbacks = [Watch([Weights(Every(steps=1))], target), *averaging(True)]
        fit(Foreign(), *(callbacks if first else callbacks[::-1]))
        found.append(seen)
    assert found[0] == found[1]
    assert len(set(found[0])) == 1 + EPOCHS * STEPS


def curves(folder):
    """(step, series) -> value, of what the watchers saw."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        (int(row["step"]), name): float(value)
        for row in rows
        for name, value in row.items()
        if value and name.startswith(("memorization/", "denoiser/"))
    }


def test_curves_reach_the_users_logger_and_go_on_after_a_resume(tmp_path):
    def logger(name):
        return CSVLogger(tmp_path, name=name, version="")

    said, shown = [], []
    watch = Watch(dict(zip(("mine", "gap"), watchers())), target, say=said.append, show=lambda *each: shown.append(each))
    fit(Foreign(seeded=True), watch, epochs=4, logger=logger("whole"))
    whole = curves(tmp_path / "whole")
    assert {step for step, _ in whole} == {0, *(STEPS * epoch for epoch in range(1, 5))}
    assert {name for step, name in whole if step} >= {
        "memorization/sima/all/auroc",
        "memorization/sima/all/auroc_lower",
        "memorization/sima/all/rise",
        "denoiser/loss_gap_rise",
    }
    assert len(said) == 6  # a line a look, and the legend
    assert shown == []

    stored = ModelCheckpoint(tmp_path / "stored", save_last=True)
    fit(Foreign(seeded=True), Watch(dict(zip(("mine", "gap"), watchers())), target), stored, epochs=2, logger=logger("cut"))
    resumed = Watch(dict(zip(("mine", "gap"), watchers())), target)
    fit(Foreign(seeded=True), resumed, epochs=4, resume=stored.last_model_path, logger=logger("rest"))
    assert curves(tmp_path / "cut") | curves(tmp_path / "rest") == whole
    assert {step for step, _ in curves(tmp_path / "rest")} == {STEPS * 3, STEPS * 4}
    for label in ("mine", "gap"):
        assert_equal(resumed.watchers[label].full_state(), watch.watchers[label].full_state())


def test_looks_in_mid_epoch_have_an_x_of_their_own_where_a_logger_asks_for_it(tmp_path):
    class Charts(CSVLogger):
        looks = []  # noqa: RUF012

        def log_look(self, series, charts, *, epoch, step):
            self.looks.append((epoch, step, charts.get("loss/gap")))

    watch = Watch(watchers(Every(steps=2))[1:], target)
    plain = CSVLogger(tmp_path, name="plain", version="")
    fit(Foreign(seeded=True), watch, epochs=2, logger=[Charts(tmp_path, name="charts", version=""), plain])
    epochs, steps, named = zip(*Charts.looks)
    assert list(epochs) == sorted(set(epochs))
    assert all(abs(epoch - step / STEPS) < 1 / STEPS for epoch, step in zip(epochs, steps))
    assert set(named) == {"denoiser/loss_gap"}
    assert {step for step, _ in curves(tmp_path / "plain")} == set(steps)


def test_a_checkpoint_without_a_watcher_of_that_name_is_no_hindrance():
    watch = Watch(watchers()[:1], target)
    before = watch.state_dict()
    watch.load_state_dict({"another": {"last": None}})
    assert_equal(watch.state_dict(), before)


class Other(nn.Module):
    """Returns whatever `answer` makes of what it gets."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, noisy, timestep):
        return self.answer(noisy)


class Predictor(Other):
    """A noise predictor of one's own."""

    alphas_cumprod = ABAR

    def forward(self, noisy, timestep, condition):
        return self.answer(noisy)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda module: module.network, r"^target=: it must return a Target\(codec, predictor\), not Network"),
        (lambda module: None, r"^target=: .* not NoneType"),
        (lambda module: looked_at(Network(channels=3)), r"^target: the network can't take a latent of shape \(1, 4, 4\) \("),
        (
            lambda module: looked_at(Other(lambda noisy: noisy[:, :, :2])),
            r"^target: the network returns \(1, 2, 4\) for a latent of",
        ),
        (
            lambda module: looked_at(Other(lambda noisy: noisy.flatten(1))),
            r"^target: the network returns \(16,\) for a latent of shape \(1, 4, 4\)\.$",
        ),
        (
            lambda module: Target(IdentityCodec(image_channels=1), Predictor(lambda noisy: noisy[:, :, :2])),
            r"^target: the network returns \(1, 2, 4\) for a latent of shape \(1, 4, 4\)\.$",
        ),
    ],
)
@pytest.mark.parametrize("place", [0, 1], ids=["memorization", "loss gap"])
def test_a_target_that_cannot_be_looked_at_costs_one_line(make, message, place):
    module = Foreign()
    with pytest.raises(UserError, match=message) as caught:
        fit(module, Watch(watchers()[place : place + 1], make))
    assert len(str(caught.value).splitlines()) == 1
    assert modes(module) == modes(Foreign()), "the modes are restored after an error too"


def looked_at(network):
    return Target(IdentityCodec(image_channels=1), NetworkPredictor(network, ABAR))


def test_another_error_of_a_look_is_told_as_it_is():
    class Broken(LossGap):
        def look(self, target, moment):
            raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        fit(Foreign(), Watch([Broken(AuditedSamples(IMAGES, torch.arange(2 * NUM) < NUM))], target))

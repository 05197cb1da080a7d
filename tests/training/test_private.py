"""DP-SGD: each sample's gradient clipped, noise of the stated size, batches as the accountant counts on, epsilon as it says."""

import math
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import nn

from ldm_privacy.callbacks import AveragedWeights
from ldm_privacy.device import allow_tf32, full_float32, limit_memory
from ldm_privacy.errors import UserError
from ldm_privacy.models.ideal import linear_alphas_cumprod
from ldm_privacy.models.unet import unet
from ldm_privacy.targets.privacy import NEVER_COVERED, Privacy
from ldm_privacy.training.per_sample import check_per_sample_gradients, epsilon
from ldm_privacy.training.private import PrivateDenoiserModule
from tests.training.test_conditions_and_networks import CONDITIONS, MEMBERS, NETWORKS, PAIRS

pytest.importorskip("opacus", reason="pip install -e .[privacy]")


def privacy(noise=1.0, norm=1.0, rate=0.4):
    return Privacy(noise_multiplier=noise, max_gradient_norm=norm, sample_rate=rate, delta=1e-3)


def private(*, noise=1.0, norm=1.0, rate=0.4, **options):
    torch.manual_seed(0)
    network = unet(latent_channels=4, latent_size=4, block_out_channels=(8,), norm_num_groups=4, layers_per_block=1)
    latents = torch.randn(2, 40, 4, 4, 4)
    options = {"batch_size": 16, "learning_rate": 1e-3, "privacy": privacy(noise, norm, rate), **options}
    return PrivateDenoiserModule(network, linear_alphas_cumprod().float(), latents, **options)


class Seen(Callback):
    """What each step gave the optimizer."""

    def __init__(self):
        self.gradients, self.samples, self.batches = [], [], []

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.samples.append([each.grad_sample for each in module.network.parameters()])

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.gradients.append([each.grad.clone() for each in module.network.parameters()])
        self.batches.append(module.batch_indices(trainer.current_epoch, batch_idx))


def fit(module, *callbacks, max_epochs=2, ckpt_path=None, **options):
    trainer = Trainer(
        max_epochs=max_epochs,
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        gradient_clip_val=1e-9,  # of the other stage
        **options,
    )
    trainer.fit(module, ckpt_path=ckpt_path, weights_only=True)
    return module


def flat(tensors):
    return torch.cat([each.flatten() for each in tensors])


def plain_gradients(module, batch, epoch, step):
    """Of the mean loss of that batch, by autograd alone."""
    from ldm_privacy.randomness import derive_seed

    module._share = slice(None)
    torch.manual_seed(derive_seed("denoiser-step", 0, epoch, step))
    return torch.autograd.grad(module.loss(batch)["loss"], list(module.network.parameters()))


def test_without_noise_and_with_a_huge_norm_a_step_is_the_plain_one():
    seen = Seen()
    fit(private(noise=0.0, norm=1e9, learning_rate=1e-12, weight_decay=0.0), seen, max_epochs=1)
    untrained = private()
    assert len(seen.gradients) == 3
    for step, (found, batch) in enumerate(zip(seen.gradients, seen.batches)):
        expected = flat(plain_gradients(untrained, batch, 0, step)) * len(batch) / 16
        torch.testing.assert_close(flat(found), expected, rtol=1e-4, atol=1e-6)


def test_each_samples_gradient_is_clipped_and_divided_by_the_expected_batch():
    norm, seen = 0.02, Seen()
    fit(private(noise=0.0, norm=norm, learning_rate=1e-12), seen, max_epochs=1)
    for found, samples in zip(seen.gradients, seen.samples):
        each = torch.cat([value.flatten(1) for value in samples], 1)
        norms = each.norm(dim=1, keepdim=True)
        assert float(norms.min()) > norm
        torch.testing.assert_close(flat(found), (each * norm / norms).sum(0) / 16, rtol=1e-3, atol=1e-7)
        assert float(flat(found).norm()) <= len(each) * norm / 16 * 1.001


def test_the_noise_has_the_stated_deviation_and_belongs_to_the_step():
    noise, norm = 3.0, 0.02
    seen = [Seen() for _ in range(3)]
    fit(private(noise=noise, norm=norm, learning_rate=1e-12), seen[0])
    fit(private(noise=0.0, norm=norm, learning_rate=1e-12), seen[1])
    fit(private(noise=noise, norm=norm, learning_rate=1e-12, seed=1), seen[2])
    drawn = [flat(with_noise) - flat(without) for with_noise, without in zip(seen[0].gradients, seen[1].gradients)]
    count = drawn[0].numel()
    for each in drawn:
        unit = each * 16 / (noise * norm)
        assert float(unit.square().mean()) == pytest.approx(1, abs=5 * (2 / count) ** 0.5)
        assert abs(float(unit.mean())) < 5 / count**0.5
    first, second = drawn[0], drawn[1]
    correlation = float((first * second).sum() / (first.norm() * second.norm()))
    assert abs(correlation) < 5 / count**0.5, "each step has noise of its own"
    assert not torch.equal(flat(seen[2].gradients[0]), flat(seen[0].gradients[0]))


def test_each_member_is_in_a_step_with_the_stated_probability_whoever_else_is():
    module = private(rate=0.3)
    drawn = torch.zeros(2000, 40)
    for step in range(2000):
        drawn[step, module.batch_indices(step // 3, step % 3)] = 1
    sizes, spread = drawn.sum(1), (40 * 0.3 * 0.7) ** 0.5
    assert abs(float(sizes.mean()) - 12) < 5 * spread / 2000**0.5
    assert float(sizes.var()) == pytest.approx(spread**2, rel=5 * (2 / 2000) ** 0.5), "binomial: nobody depends on others"
    assert bool(((drawn.mean(0) - 0.3).abs() < 5 * (0.21 / 2000) ** 0.5).all())


def test_a_step_in_which_nobody_is_drawn_is_noise_alone():
    seen = Seen()
    module = fit(private(rate=1e-9, noise=2.0), seen, max_epochs=1)
    assert [len(each) for each in seen.batches] == [0, 0, 0]
    unit = flat(seen.gradients[0]) * (1e-9 * 40) / 2.0
    assert float(unit.square().mean()) == pytest.approx(1, abs=5 * (2 / unit.numel()) ** 0.5)
    assert module.epoch_means == {}


def test_a_batch_that_does_not_fit_goes_through_in_parts(request):
    request.addfinalizer(lambda: limit_memory(None))
    whole = fit(private(noise=0.5, norm=0.1))
    weights = sum(each.numel() for each in whole.network.parameters())
    limit_memory(8 * weights * 3.5 / 2**30)
    seen = Seen()
    parts = fit(private(noise=0.5, norm=0.1), seen)
    assert max(len(samples[0]) for samples in seen.samples) == 3
    for mine, other in zip(parts.network.parameters(), whole.network.parameters()):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-5)
    assert parts.epoch_means == pytest.approx(whole.epoch_means, rel=1e-4)


def test_epsilon_is_that_of_opacus_accountant_and_grows_with_every_step(tmp_path):
    from opacus.accountants import RDPAccountant

    module = fit(private(noise=1.5))
    accountant = RDPAccountant()
    for _ in range(6):
        accountant.step(noise_multiplier=1.5, sample_rate=0.4)
    assert module.reached.num_steps == 6
    assert module.reached.epsilon == pytest.approx(accountant.get_epsilon(1e-3), rel=1e-12)
    values = [epsilon(privacy(), steps) for steps in (0, 1, 10, 100)]
    assert values[0] == 0
    assert values == sorted(values)
    assert epsilon(privacy(noise=4.0), 100) < values[-1]
    assert math.isinf(epsilon(privacy(noise=0.0), 1))


class Stored(Callback):
    def __init__(self, path):
        self.path = path

    def on_train_epoch_end(self, trainer, module):
        if trainer.current_epoch == 0:
            trainer.save_checkpoint(self.path)


def test_a_training_that_stops_goes_on_exactly_with_averaged_weights_and_its_epsilon(tmp_path):
    whole = fit(private(), AveragedWeights(0.9), Stored(tmp_path / "begun.ckpt"))
    stored = torch.load(tmp_path / "begun.ckpt", weights_only=True)
    assert set(stored["current_model_state"]) == {f"network.{name}" for name, _ in whole.network.named_parameters()}
    assert Privacy.from_record(stored["privacy"]) == privacy().after(3, epsilon(privacy(), 3))
    resumed = fit(private(), AveragedWeights(0.9), ckpt_path=tmp_path / "begun.ckpt")
    for mine, other in zip(resumed.parameters(), whole.parameters()):
        assert torch.equal(mine, other)
    assert resumed.reached == whole.reached
    assert not any(hasattr(each, "grad_sample") for each in resumed.parameters()), "nothing of Opacus stays"


@pytest.mark.parametrize(("network", "condition"), PAIRS)
def test_every_denoiser_of_ours_has_gradients_by_sample(network, condition):
    source = CONDITIONS[condition]()
    built = NETWORKS[network](latent_channels=4, latent_size=4, dropout=0.1, **source.network_arguments())
    before = {name: value.clone() for name, value in built.state_dict().items()}
    latent, timestep = torch.randn(2, 4, 4, 4), torch.tensor([3, 900])
    state = torch.get_rng_state()
    check_per_sample_gradients(built, latent, timestep, source.given(source(MEMBERS[:2])))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in built.state_dict().items())


class Own(nn.Module):
    """A user's network: a convolution, and something that isn't a sample's own."""

    def __init__(self, then, **parts):
        super().__init__()
        self.begin, self.then = nn.Conv2d(4, 4, 1), then
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, noisy_latent, timestep):
        return self.then(self.begin(noisy_latent))


class Mixing(nn.Module):
    def forward(self, value):
        return value - value.mean(0)


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Own(nn.BatchNorm2d(4)), r"^denoiser\.privacy: BatchNorm2d \('then'\) mixes the images of a batch\."),
        (Own(nn.BatchNorm2d(4, affine=False)), r"^denoiser\.privacy: BatchNorm2d \('then'\) mixes the images of a batch\."),
        (Own(Mixing()), r"of the weight 'begin.weight' Opacus finds other gradients than images alone"),
        (Own(nn.Identity(), idle=nn.Linear(2, 2)), r"the weight 'idle.weight' has no part in the output"),
        (Own(nn.InstanceNorm2d(4, affine=True, track_running_stats=True)), r"Opacus can't take this network \(.*buffer"),
    ],
    ids=["batch norm", "batch norm without weights", "mixing", "idle", "running means"],
)
def test_what_has_no_gradient_of_its_own_by_sample_is_refused(network, words):
    with pytest.raises(UserError, match=words) as caught:
        check_per_sample_gradients(network, torch.randn(2, 4, 4, 4), torch.tensor([3, 900]), {})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("tf32", [True, False])
def test_gradients_are_compared_in_full_float32_whatever_audits_use(tf32):
    def rounding():
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32

    class Noting(nn.Identity):
        def forward(self, value):
            seen.add(rounding())
            return value

    seen = set()
    with full_float32():  # leaves this process as it was
        allow_tf32(tf32)
        check_per_sample_gradients(Own(Noting()), torch.randn(2, 4, 4, 4), torch.tensor([3, 900]), {})
        assert seen == {("highest", False)}
        assert rounding() == (("high", True) if tf32 else ("highest", False))


def test_an_opacus_that_can_not_be_imported_is_no_networks_fault(monkeypatch):
    monkeypatch.setitem(sys.modules, "opacus.grad_sample.grad_sample_module", None)
    told = r'^denoiser\.privacy: Opacus can\'t be imported \(.*\); pip install -U "ldm-privacy\[privacy\]"\.$'
    with pytest.raises(UserError, match=told):
        check_per_sample_gradients(private().network, torch.randn(2, 4, 4, 4), torch.tensor([3, 900]), {})
    monkeypatch.setitem(sys.modules, "opacus.accountants", None)
    with pytest.raises(UserError, match=told):
        epsilon(privacy(), 1)


def test_a_training_leaves_the_filters_of_warnings_as_they_were():
    before = list(warnings.filters)
    fit(private(), max_epochs=1)
    assert warnings.filters == before


def test_what_the_guarantee_leaves_out_is_one_list_that_the_page_says_too():
    stated = privacy()
    assert all(each in str(stated) for each in NEVER_COVERED)
    given = replace(stated, given=("what the tokenizer has of the members' captions",))
    assert f"(not covered: {'; '.join((*given.given, *NEVER_COVERED))})" in given.covered
    page = " ".join((Path(__file__).parents[2] / "docs" / "reference" / "defences.md").read_text().split())
    assert all(each in page for each in NEVER_COVERED)


def test_a_record_is_read_back_whole_or_not_at_all():
    reached = privacy().after(7, 2.5)
    assert Privacy.from_record(reached.record()) == reached
    assert str(reached).startswith("epsilon at most 2.5 at delta 0.001 (DP-SGD, 7 steps, ")
    for damage in ({"epsilon": "0.1"}, {"num_steps": 7.0}, {"given": None}, {"given": (1,)}, {"more": 1}):
        with pytest.raises(UserError, match="privacy"):
            Privacy.from_record({**reached.record(), **damage})
    with pytest.raises(UserError, match="privacy"):
        Privacy.from_record(None)

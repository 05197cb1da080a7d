"""Steps never wait for the device, attacks read one number a pass, influence one a batch; all that they use lies on it.

The meta device stands for a GPU: a number on it can't be read, nothing can be copied off it, and most operations with a tensor
of another device fail, so a step that gets through has asked for none of that.
"""

import contextlib
from types import SimpleNamespace

import pytest
import torch

from ldm_privacy.attacks.base import get_attack
from ldm_privacy.attacks.runner import masked_sums
from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.callbacks import AveragedWeights
from ldm_privacy.geometry.exact import ExactInfluence
from ldm_privacy.geometry.probe import ProbeInfluence
from ldm_privacy.losses.kl import KL
from ldm_privacy.losses.reconstruction import L1
from ldm_privacy.models.ideal import linear_alphas_cumprod
from ldm_privacy.models.kl import KLCodec
from ldm_privacy.models.predictor import NetworkPredictor
from ldm_privacy.models.unet import unet
from ldm_privacy.registry import ATTACKS
from ldm_privacy.training.autoencoder import AutoencoderModule
from ldm_privacy.training.denoiser import DenoiserModule
from ldm_privacy.training.stepwise import LOOK_EVERY_N_STEPS
from ldm_privacy.watch.loss_gap import LossGap

DEVICE = torch.device("meta")


def small_autoencoder():
    options = {"block_out_channels": [16, 16, 16], "layers_per_block": 1, "norm_num_groups": 8}
    return KLCodec.build(image_channels=3, resolution=32, **options).network


def small_unet(**options):
    blocks = {"block_out_channels": [16, 32], "layers_per_block": 1, "dropout": 0.1, "norm_num_groups": 8}
    return unet(latent_channels=4, latent_size=8, **blocks, **options)


def audited():
    samples = AuditedSamples(torch.randn(12, 4, 8, 8), torch.arange(12) < 6, torch.arange(12), deviation=torch.ones(4, 8, 8))
    return samples.to(DEVICE)


def autoencoder_stage():
    losses = {"reconstruction": L1(), "kl": KL(weight=0.01)}
    return AutoencoderModule(small_autoencoder(), torch.zeros(40, 3, 32, 32, dtype=torch.uint8), losses, batch_size=16)


def denoiser_stage():
    abar = linear_alphas_cumprod().float()
    return DenoiserModule(small_unet(), abar, torch.randn(2, 40, 4, 8, 8), batch_size=16, warmup_steps=2)


def conditional_stage():
    return DenoiserModule(
        small_unet(num_class_embeds=4),
        linear_alphas_cumprod().float(),
        torch.randn(1, 40, 4, 8, 8),
        choices={"class_labels": torch.arange(40)[:, None] % 3},
        null={"class_labels": torch.tensor([3])},
        condition_dropout=0.5,
        batch_size=16,
    )


@pytest.mark.parametrize("stage", [autoencoder_stage, denoiser_stage, conditional_stage])
def test_a_step_waits_only_for_its_look_at_the_loss(stage):
    module, averages = stage(), AveragedWeights(0.99)
    module.to(DEVICE)
    # As the trainer builds it: fused AdamW is a kernel of real devices, the plain one stands for it with its steps on the host.
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, foreach=True)
    trainer = SimpleNamespace(optimizers=[optimizer], current_epoch=0, global_step=0, precision="32-true")
    module._trainer = trainer
    averages.setup(trainer, module, "fit")
    averages._average_model.to(DEVICE)
    module.on_fit_start()
    module.on_train_epoch_start()
    places = [step for step in range(5) if step % LOOK_EVERY_N_STEPS]
    for step in places:
        trainer.global_step = step
        module.on_train_batch_start(step, step)
        loss = module.training_step(step, step % 3)
        loss.backward()
        module.configure_gradient_clipping(optimizer, 1.0)
        optimizer.step()
        module.on_train_batch_end({"loss": loss.detach()}, step, step)
        averages.on_train_batch_end(trainer, module, None, step, step)
    assert loss.device == DEVICE
    assert all(value.device == DEVICE for value in module._sums.values())
    with pytest.raises(RuntimeError, match="meta"):  # the stand-in notices a look
        module.on_train_batch_end({"loss": loss.detach()}, 0, 0)


@pytest.fixture
def no_autocast(monkeypatch):
    """The meta device has no autocast that could be switched off."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())


def test_the_loss_of_an_audited_batch_stays_on_the_device():
    module = denoiser_stage().to(DEVICE)
    module.on_fit_start()
    samples = audited()
    assert LossGap(samples).losses(module.predictor, samples).device == DEVICE


@pytest.fixture
def one_look_a_pass(monkeypatch):
    """The check that predictions are finite reads one number a network pass; here it finds what it wants."""
    looks = []

    def is_finite(prediction):
        looks.append(prediction.device)
        return torch.ones(prediction.shape, dtype=torch.bool)

    monkeypatch.setattr(torch, "isfinite", is_finite)
    monkeypatch.setattr(torch.Tensor, "isfinite", is_finite)
    return looks


@pytest.mark.parametrize("name", list(ATTACKS))
def test_an_attack_reads_one_number_a_pass(name, one_look_a_pass):
    attack, batch = get_attack(name), audited()
    network, passes = small_unet().to(DEVICE), []
    network.register_forward_hook(lambda *_: passes.append(1))
    predictor = NetworkPredictor(network, linear_alphas_cumprod().float().to(DEVICE), "epsilon")
    masks = torch.ones(2, *batch.latent.shape, dtype=torch.bool, device=DEVICE)
    views = {view: {} for view in attack.views}
    sums = masked_sums(attack, predictor, batch.latent, [10, 100], masks, sample_index=batch.sample_index, views=views)
    assert all(term.device == DEVICE for term in sums)
    assert len(one_look_a_pass) == len(passes) > 0


@pytest.mark.parametrize("estimator", [ProbeInfluence(2), ExactInfluence()], ids=lambda each: type(each).__name__)
def test_influence_reads_one_number_a_pass(estimator, no_autocast, one_look_a_pass):
    autoencoder = small_autoencoder().to(DEVICE).requires_grad_(False)
    latent, index = torch.randn(3, 4, 8, 8, device=DEVICE), torch.arange(3, device=DEVICE)
    estimate = estimator(lambda z: autoencoder.decode(z).sample, latent, index)
    assert estimate.influence.device == DEVICE
    assert len(one_look_a_pass) == 2, "the first sample tells how many of the rest share a pass"

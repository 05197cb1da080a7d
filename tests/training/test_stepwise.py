"""Steps: compiled or not, laid out either way, on any device's optimizer, without waiting, and with a warm-up."""

from functools import partial

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch.utils._python_dispatch import TorchDispatchMode

from ldm_privacy.callbacks import AveragedWeights, StopOnNonFiniteLoss
from ldm_privacy.device import allow_tf32, explain_out_of_memory, full_float32
from ldm_privacy.errors import UserError
from ldm_privacy.losses.kl import KL
from ldm_privacy.losses.reconstruction import L1
from ldm_privacy.models.ideal import linear_alphas_cumprod
from ldm_privacy.models.kl import KLCodec
from ldm_privacy.models.unet import unet
from ldm_privacy.training import stepwise
from ldm_privacy.training.autoencoder import AutoencoderModule
from ldm_privacy.training.denoiser import DenoiserModule


def denoiser(*, num_classes=None, **options):
    torch.manual_seed(0)
    blocks = {"block_out_channels": (8,), "norm_num_groups": 4, "layers_per_block": 1}
    network = unet(latent_channels=4, latent_size=4, **blocks, num_class_embeds=num_classes)
    latents = torch.randn(2, 40, 4, 4, 4)
    options = {"batch_size": 16, "learning_rate": 1e-3, **options}
    return DenoiserModule(network, linear_alphas_cumprod().float(), latents, **options)


def autoencoder(*, losses=None, **options):
    torch.manual_seed(0)
    network = KLCodec.build(image_channels=1, resolution=8, block_out_channels=(8, 8), norm_num_groups=4).network
    images = torch.randint(0, 256, (40, 1, 8, 8), dtype=torch.uint8)
    losses = losses or {"reconstruction": L1(), "kl": KL(weight=1e-2)}
    return AutoencoderModule(network, images, losses, **{"batch_size": 16, "learning_rate": 1e-3, **options})


def fit(module, *callbacks, max_epochs=2, **options):
    trainer = Trainer(
        max_epochs=max_epochs,
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        gradient_clip_val=1.0,
        **options,
    )
    trainer.fit(module)
    return module


@pytest.mark.parametrize(
    ("build", "mode"),
    [
        *((denoiser, "none"), (autoencoder, "none")),
        *(pytest.param(build, "reduce-overhead", marks=pytest.mark.slow) for build in (denoiser, autoencoder)),
    ],
)
def test_a_step_is_the_same_arithmetic_and_its_weights_keep_their_names(build, mode, traced):
    plain, fast = fit(build()), fit(build(compile_mode=mode, channels_last=True))
    modes, graphs = traced
    assert modes == ([] if mode == "none" else [mode])
    assert len(graphs) == (0 if mode == "none" else 2), "one for batches of 16, one for the last of 8, in every epoch"
    assert list(fast.state_dict()) == list(plain.state_dict())
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(fast.state_dict()[name], value, rtol=1e-3, atol=1e-4)
    assert fast.epoch_means == pytest.approx(plain.epoch_means, rel=1e-4)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("build", [denoiser, autoencoder])
def test_the_fused_optimizer_of_a_gpu_takes_clipped_gradients_in_any_precision(build, precision, monkeypatch):
    plain = fit(build(), precision=precision)
    monkeypatch.setattr(stepwise.StepwiseModule, "_is_fused", True)
    fused = fit(build(), precision=precision)
    assert fused.trainer.optimizers[0].defaults["fused"]
    for mine, theirs in zip(fused.parameters(), plain.parameters()):
        torch.testing.assert_close(mine, theirs, rtol=1e-2, atol=1e-3)


def test_the_gradient_that_the_optimizer_sees_is_clipped_by_its_norm():
    seen = []

    class Seen(Callback):
        def on_train_batch_end(self, trainer, module, *_):
            seen.append(float(torch.stack([each.grad.norm() for each in module.parameters()]).norm()))

    module = autoencoder(losses={"reconstruction": L1(), "kl": KL(weight=1e3)})  # gradients far above the limit of 1
    fit(module, Seen())
    assert seen == pytest.approx([1.0] * len(seen), rel=1e-4)
    assert seen


def test_channels_last_is_for_training_and_the_stored_autoencoder_is_plain():
    module = autoencoder(channels_last=True)
    weight = module.autoencoder.encoder.conv_in.weight
    assert module.autoencoder.decoder.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    fit(module)
    assert weight is module.autoencoder.encoder.conv_in.weight
    assert all(value.is_contiguous() for value in module.autoencoder.state_dict().values())


def test_a_machine_that_cannot_compile_is_told_how_to_go_on(monkeypatch):
    def broken(graph, inputs):
        raise FileNotFoundError("no C++ compiler")

    torch._dynamo.reset()
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, mode, dynamic: compile_(function, backend=broken))
    with pytest.raises(UserError, match=r"trainer\.compile: .*no C\+\+ compiler.* Use trainer\.compile=none"):
        fit(denoiser(compile_mode="default"))
    torch._dynamo.reset()


class Moments(Callback):
    """Memory formats and flags of the optimizer as the first step finds them."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        optimizer = trainer.optimizers[0]
        self.fused = [group["fused"] for group in optimizer.param_groups]
        self.same_format = [
            state["exp_avg"].stride() == parameter.stride() for parameter, state in optimizer.state.items() if state
        ]


def test_moments_follow_the_weights_memory_format(tmp_path):
    module = fit(denoiser())
    module.trainer.save_checkpoint(tmp_path / "plain.ckpt")
    stored = torch.load(tmp_path / "plain.ckpt", weights_only=True)
    for group in stored["optimizer_states"][0]["param_groups"]:
        group["fused"] = True  # as a run on CUDA stores it
    torch.save(stored, tmp_path / "plain.ckpt")
    resumed, moments = denoiser(channels_last=True), Moments()
    trainer = Trainer(
        max_epochs=3,
        accelerator="cpu",
        callbacks=[moments],
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        gradient_clip_val=1.0,
    )
    trainer.fit(resumed, ckpt_path=tmp_path / "plain.ckpt", weights_only=True)
    assert len(moments.same_format) == len(list(resumed.parameters()))
    assert all(moments.same_format)
    assert moments.fused == [None]
    whole = fit(denoiser(), max_epochs=3)
    for mine, other in zip(resumed.parameters(), whole.parameters()):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4)


class Reads(TorchDispatchMode):
    """Counts the numbers that are read from the device, which wait for it, and the copies to another one."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._local_scalar_dense.default:
            self.count += 1
        return function(*args, **(kwargs or {}))


class CountReads(Callback):
    """Reads per step, from its start to the start of the next."""

    def __init__(self, reads):
        self.reads, self.starts = reads, []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.starts.append(self.reads.count)


@pytest.mark.parametrize("build", [denoiser, partial(denoiser, warmup_steps=30), autoencoder])
def test_a_step_reads_nothing_from_the_device_but_every_20th_loss(build, tmp_path, monkeypatch):
    # As on CUDA; the plain AdamW counts its steps on the CPU and reads them there.
    monkeypatch.setattr(stepwise.StepwiseModule, "_is_fused", True)
    module = build(batch_size=1)
    with Reads() as reads:
        counter = CountReads(reads)
        fit(module, counter, StopOnNonFiniteLoss(tmp_path, "x"), AveragedWeights(0.99), max_epochs=1)
    per_step = torch.tensor(counter.starts).diff().tolist()
    assert len(per_step) == 39
    assert [step for step, count in enumerate(per_step) if count] == [0, 20]


class Rates(Callback):
    """The learning rate of every step."""

    def __init__(self):
        self.rates = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def test_the_learning_rate_rises_linearly_and_stays():
    rates = Rates()
    fit(denoiser(warmup_steps=4), rates)
    assert rates.rates == pytest.approx([0.00025, 0.0005, 0.00075, 0.001, 0.001, 0.001], rel=1e-12)


def test_a_rate_that_was_lowered_in_the_warm_up_stays_lowered():
    class Lower(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            for group in trainer.optimizers[0].param_groups:
                group["lr"] *= 0.1

    rates = Rates()
    fit(denoiser(warmup_steps=4), Lower(), rates)
    assert rates.rates == pytest.approx([0.00025, 0.0005, 0.00075, 0.0001, 0.0001, 0.0001], rel=1e-12)


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="shapes"), explain_out_of_memory(lambda: "here"):
        raise RuntimeError("shapes don't fit")


def test_tf32_is_switched_for_products_and_convolutions():
    with full_float32():  # leaves this process as it was
        for allowed in (True, False):
            allow_tf32(allowed)
            assert torch.get_float32_matmul_precision() == ("high" if allowed else "highest")
            assert torch.backends.cudnn.allow_tf32 is allowed

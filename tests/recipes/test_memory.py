"""Memory that runs out: one line that says where and what to lower."""

import pytest
import torch

from ldm_privacy.errors import UserError
from ldm_privacy.recipes import cli
from ldm_privacy.training.autoencoder import AutoencoderModule
from ldm_privacy.training.denoiser import DenoiserModule
from tests.tiny import DISTORTION, arguments

SHORT = [
    *("autoencoder.max_epochs=1", "trainer.max_epochs=1", "audit.every_n_epochs=1", "audit.attacks=[sima]"),
    "audit.keep_fractions=[]",
]
CPU_MESSAGE = "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory. Tried"), RuntimeError(CPU_MESSAGE)])
def test_out_of_memory_in_a_step_names_the_batch_size(tmp_path, monkeypatch, error):
    for stage, module, checkpoint in (
        ("autoencoder", AutoencoderModule, r"autoencoder-last\.ckpt"),
        ("denoiser", DenoiserModule, r"last\.ckpt"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, "backward", raises(error))
            size = {"autoencoder": 32, "denoiser": 16}[stage]
            more = r", or raise denoiser\.accumulate \(now 1\)" if stage == "denoiser" else ""
            message = (
                rf"^out of memory in a step of the {stage}: lower {stage}\.batch_size \(now {size}\){more}\. .*{checkpoint}\.$"
            )
            with pytest.raises(UserError, match=message):
                cli.train(arguments(tmp_path / stage, *SHORT))


def test_out_of_memory_in_an_audit_names_its_budget(tmp_path, monkeypatch):
    from ldm_privacy.audit import passes

    options = [*SHORT, "audit.memory_gib=0.125"]
    cli.train(arguments(tmp_path, *options))
    attacked = passes._attacked

    def crowded(audit, predictor, batch, *arguments, **options):  # the few samples of a rehearsal fit
        if len(batch) > 16:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return attacked(audit, predictor, batch, *arguments, **options)

    monkeypatch.setattr(passes, "_attacked", crowded)
    message = r"^out of memory in an audit: lower audit\.memory_gib \(now 0\.125; "
    with pytest.raises(UserError, match=message):
        cli.evaluate([f"ckpt={tmp_path}/digits/checkpoints/last.ckpt", f"out={tmp_path}/out"])
    with pytest.raises(UserError, match=message + r".* The last checkpoint is .*last\.ckpt\.$"):
        cli.train([f"resume={tmp_path}/digits", "trainer.max_epochs=2"])


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (
            "ldm_privacy.audit.measure.influence_by_batch",
            r"^out of memory while influence .*audit\.memory_gib \(now 0\.25; ",
        ),
        (
            "ldm_privacy.audit.measure.stream_distortion",
            r"^out of memory while distortion .*audit\.memory_gib .*geometry\.distortion_rank \(now 2; 0: none",
        ),
        (
            "ldm_privacy.watch.generated.generate_images",
            r"^out of memory while images are generated: lower audit\.memory_gib .*\. The last checkpoint is",
        ),
    ],
)
def test_out_of_memory_in_measurements_names_what_to_lower(tmp_path, monkeypatch, what, message):
    monkeypatch.setattr(what, raises(torch.OutOfMemoryError("CUDA out of memory.")))
    generations = ["watch={generations: {class: generations}}"]
    with pytest.raises(UserError, match=message):
        cli.train(arguments(tmp_path, *SHORT, DISTORTION, *generations))


def raises(error):
    def raise_it(*args, **kwargs):
        raise error

    return raise_it

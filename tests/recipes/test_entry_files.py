"""Every config that is shipped runs, both stages and the audits, on a few images."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import evaluate
import train
from ldm_privacy.config.compose import entry_files
from tests.tiny import series

GEOMETRY = ("distortion", "influence", "masks", "pixel_influence")
PICTURES = ("samples", "reconstructions", "memorization", "onset", *GEOMETRY)
OF_THE_EVALUATION = ("memorization", "onset", "roc", "auroc_by_timestep", "keep_fraction", "histogram", "p_value", *GEOMETRY)
SMALL = [
    "data.num_members=24",
    "data.num_heldout=24",
    "autoencoder.network.norm_num_groups=4",
    "autoencoder.max_epochs=1",
    "denoiser.network.block_out_channels=[8,8]",
    "denoiser.network.norm_num_groups=4",
    "audit.timesteps=[100]",
    "audit.attacks=[sima]",
    "audit.num_bootstrap=20",
    "audit.generations.num_steps=2",
    "geometry.distortion_rank=2",
    "trainer.accelerator=cpu",
    "trainer.compile=none",
    "trainer.max_epochs=1",
    "trainer.num_sample_images=2",
    "trainer.num_sampling_steps=2",
    "wandb.mode=disabled",
]


@pytest.fixture
def images(tmp_path):
    """80 colour images as CIFAR-10's parquet files hold them."""
    generator = np.random.default_rng(0)
    cells = []
    for _ in range(80):
        buffer = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(buffer, "PNG")
        cells.append({"bytes": buffer.getvalue(), "path": None})
    path = tmp_path / "images.parquet"
    pq.write_table(pa.table({"img": cells, "label": [0] * 80}), path)
    return path


@pytest.mark.parametrize("entry", entry_files(), ids=lambda path: path.stem)
def test_it_trains_audits_and_evaluates(entry, images, tmp_path, monkeypatch):
    overrides = [*SMALL, f"output_dir={tmp_path}/runs"]
    if entry.stem == "digits":
        overrides += ["data.num_public=16", "autoencoder.network.block_out_channels=[8,8]"]
    else:
        overrides += ["autoencoder.network.block_out_channels=[8,8,8]"]
        overrides += ["data.source.class=parquet", f"data.source.files={images}"]
    if entry.stem == "cifar10_small":
        overrides += ["data.num_public=16"]
    # Drawing takes longer than all the rest, and the configs differ in nothing that is drawn.
    draws = entry.stem in ("digits", "cifar10")
    overrides.append(f"trainer.figures={str(draws).lower()}")
    assert train.main(["--config", str(entry), *overrides]) == 0
    run = tmp_path / "runs" / entry.stem
    assert ("denoiser", 1, "memorization/sima/top60/auroc") in series(run)
    for name in PICTURES if draws else ():
        assert (run / "figures" / f"{name}.png").stat().st_size > 1000, name
    for name in OF_THE_EVALUATION if draws else ():
        assert (run / "evaluation" / "figures" / f"{name}.png").stat().st_size > 1000, name
    assert not draws or (run / "evaluation" / "report.html").stat().st_size < 5e6
    monkeypatch.setattr("ldm_privacy.publish.evidence_figures", lambda *arguments: {})
    assert evaluate.main([f"ckpt={run}/checkpoints/last.ckpt"]) == 0
    assert (run / "evaluation" / "report.html").exists()


@pytest.mark.parametrize(
    "override",
    [
        "denoiser.normalisation=per_channel",
        "denoiser.normalisation=none",
        "denoiser.prediction_type=v_prediction",
        "denoiser.prediction_type=sample",
        "denoiser.ema_decay=null",
        "autoencoder.reconstruction=l2",
        "autoencoder.train_on=all",
        "autoencoder.network.mid_block_attention=true",
        "denoiser.network.mid_block_attention=true",
        "geometry.influence.class=exact",
        "geometry.influence.class=shrunk",
        "data.flip=true",
        "audit.combine=true",
        "trainer.precision=bf16-mixed",
    ],
)
def test_every_choice_trains_and_audits(override, tmp_path):
    public = ["data.num_public=16", "autoencoder.network.block_out_channels=[8,8]"]
    quick = ["trainer.figures=false", "trainer.num_sample_images=0", f"output_dir={tmp_path}"]
    assert train.main(["--config", "digits.yaml", *SMALL, *public, *quick, override]) == 0
    assert ("denoiser", 1, "memorization/sima/top60/auroc") in series(tmp_path / "digits")


def test_a_pretrained_autoencoder_is_taken_as_it_is(tmp_path):
    public = ["data.num_public=16", "autoencoder.network.block_out_channels=[8,8]"]
    train.main(["--config", "digits.yaml", *SMALL, *public, f"output_dir={tmp_path}", "trainer.figures=false"])
    pretrained = [
        "autoencoder.network.class=pretrained",
        f"autoencoder.network.path={tmp_path}/digits/autoencoder",
        "autoencoder.max_epochs=0",
    ]
    overrides = [item for item in SMALL if "autoencoder.network" not in item and "autoencoder.max" not in item]
    train.main(
        ["--config", "digits.yaml", *overrides, *pretrained, f"output_dir={tmp_path}", "name=second", "trainer.figures=false"]
    )
    first, second = ((tmp_path / run / "autoencoder" / "diffusion_pytorch_model.safetensors") for run in ("digits", "second"))
    assert first.read_bytes() == second.read_bytes()

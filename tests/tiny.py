"""A run of seconds: real digits, networks of a few thousand numbers."""

import csv
from pathlib import Path

TINY = [
    "data.num_members=40",
    "data.num_heldout=40",
    "data.num_public=64",
    "autoencoder.network.block_out_channels=[8,8]",
    "autoencoder.network.norm_num_groups=4",
    "autoencoder.max_epochs=2",
    "autoencoder.batch_size=32",
    "denoiser.network.block_out_channels=[8,8]",
    "denoiser.network.norm_num_groups=4",
    "denoiser.network.dropout=0.1",
    "denoiser.batch_size=16",
    "audit.timesteps=[10,100]",
    "audit.every_n_epochs=2",
    "geometry.influence.num_probes=2",
    "geometry.distortion_rank=0",
    "geometry.distortion_oversample=1",
    "geometry.distortion_power_iterations=0",
    "geometry.distortion_max_samples=20",
    "audit.num_bootstrap=50",
    "watch={samples: null, generations: null, quality: null}",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=4",
    "trainer.figures=false",
    "wandb.mode=disabled",
]

DISTORTION = "geometry.distortion_rank=2"
"""A fifth of a tiny run's time, so only where it is looked at."""

PIXELS = [
    "autoencoder.network.class=identity",
    "autoencoder.max_epochs=null",
    "autoencoder.losses.reconstruction=null",
    "autoencoder.losses.kl=null",
    "denoiser.channel_map=none",
    "geometry.distortion_rank=0",
]
"""Of a tiny run without an autoencoder; its masks can't be by influence."""


def settings(*overrides: str) -> list[str]:
    """Those of a tiny run; where an override names another class, without the old one's arguments."""
    replaced = tuple(item.partition("class=")[0] for item in overrides if ".class=" in item)
    return [*(item for item in TINY if not item.startswith(replaced)), *overrides]


def arguments(folder: Path, *overrides: str) -> list[str]:
    """The command line of a tiny run below `folder`."""
    return ["--config", "digits.yaml", *settings(f"output_dir={folder}", *overrides)]


def series(run: Path) -> dict[tuple[str, int, str], float]:
    """metrics.csv as (stage, epoch, series) -> value."""
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    values = {(row["stage"], int(row["epoch"]), row["series"]): float(row["value"]) for row in rows}
    assert len(values) == len(rows), "a row stands twice"
    return values

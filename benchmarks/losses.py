"""What the losses of stage 1 cost beside a plain step of the autoencoder.

    OMP_NUM_THREADS=1 python -m benchmarks.losses [--network small|published] [--batch-size 64] [--steps 4] [--rounds 3]

A plain step has L1 and KL; every other has one loss more, computed in each step: the critic with all that it learns, the
flatness penalties on a quarter of the batch and on all of it. `small` is the autoencoder of configs/cifar10_small.yaml,
`published` that of configs/cifar10.yaml; weights and images are random, which the time of a step doesn't depend on. All are
timed in turn, through Lightning's Trainer, without their first step; ratios are medians of each round's ratio, with the least
and the largest.
"""

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from rich.console import Console
from rich.table import Table

from benchmarks.in_turn import clock, turns
from ldm_privacy.losses.adversarial import Adversarial
from ldm_privacy.losses.base import CodecLoss
from ldm_privacy.losses.influence_variance import InfluenceVariance
from ldm_privacy.losses.kl import KL
from ldm_privacy.losses.reconstruction import L1
from ldm_privacy.losses.relaxed_distortion import RelaxedDistortion
from ldm_privacy.models.kl import KLCodec
from ldm_privacy.recipes.terminal import quiet_libraries
from ldm_privacy.training.autoencoder import AutoencoderModule

WIDTHS = {"small": ((32, 64, 64), 16), "published": ((128, 128, 256), 32)}
"""Channels per resolution, and groups of the normalisation."""
PLAIN = "l1, kl"
LOSSES: dict[str, Callable[[int], CodecLoss]] = {
    "adversarial": lambda steps: Adversarial(image_channels=3, resolution=32, seed=0, num_steps=steps, first_step=0),
    "relaxed_distortion, share .25": lambda steps: RelaxedDistortion(share=0.25),
    "relaxed_distortion": lambda steps: RelaxedDistortion(),
    "influence_variance, share .25": lambda steps: InfluenceVariance(share=0.25),
    "influence_variance": lambda steps: InfluenceVariance(),
}


class Clock(Callback):
    """Seconds per step after the first."""

    seconds = 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 1:
            self.seconds = -clock()

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.seconds = (self.seconds + clock()) / (trainer.global_step - 1)


def seconds_of(name: str, options: argparse.Namespace) -> float:
    """Of a step with that loss."""
    torch.manual_seed(0)
    widths, groups = WIDTHS[options.network]
    network = KLCodec.build(image_channels=3, resolution=32, block_out_channels=widths, norm_num_groups=groups).network
    images = torch.randint(0, 256, (options.batch_size * (options.steps + 1), 3, 32, 32), dtype=torch.uint8)
    losses: dict[str, CodecLoss] = {"reconstruction": L1(), "kl": KL(weight=1e-3)}
    if name != PLAIN:
        losses["more"] = LOSSES[name](options.steps + 1)
    module, timer = AutoencoderModule(network, images, losses, batch_size=options.batch_size), Clock()
    Trainer(
        max_epochs=1,
        accelerator="auto",
        devices=1,
        gradient_clip_val=1.0,
        callbacks=[timer],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(module)
    return timer.seconds


def main() -> None:
    """Times all in turn and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=WIDTHS, default="small")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    quiet_libraries()
    names = [PLAIN, *LOSSES]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for name in turns(names, range(options.rounds)):
        seconds[name].append(seconds_of(name, options))
    widths = WIDTHS[options.network][0]
    table = Table("loss", "seconds per step", "times a plain step", title=f"autoencoder {widths}, batch {options.batch_size}")
    for name in names:
        ratios = [each / plain for each, plain in zip(seconds[name], seconds[PLAIN], strict=True)]
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        table.add_row(name, f"{statistics.median(seconds[name]):.2f}", ratio)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()

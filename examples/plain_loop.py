"""Watch a plain PyTorch loop, in the manner of diffusers' training scripts: two calls, and a report at the end.

    python examples/plain_loop.py [--folder FOLDER] [--max-steps 600]

Trains on 64 real scans of digits, 64 others are held out. The averaged weights are looked at, as they would be shipped.
What to expect, in half a minute on one thread: SimA's AUROC starts near .5 and ends at .95, Loss follows; the report says that
members are exposed. Without --folder nothing is kept.
"""

import argparse
import tempfile
from itertools import chain, repeat
from pathlib import Path

import torch
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.training_utils import EMAModel
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader

from ldm_privacy.recipes.loop.watch import MemorizationWatch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--max-steps", type=int, default=600)
    options = parser.parse_args()
    torch.manual_seed(0)
    scans = torch.tensor(load_digits().images, dtype=torch.float32)[:, None] / 8 - 1
    # A split at random: sides that differ by themselves would look like a leak.
    images = scans[torch.randperm(len(scans))[:128]]
    members, heldout = images.split(64)
    unet = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(32, 32),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=8,
        add_attention=False,
        dropout=0.1,
    )
    scheduler = DDPMScheduler()
    optimizer = torch.optim.AdamW(unet.parameters(), lr=2e-3)
    warm_up = get_cosine_schedule_with_warmup(optimizer, 50, 2 * options.max_steps)
    ema = EMAModel(unet.parameters(), decay=0.99, use_ema_warmup=True)
    loader = DataLoader(members, batch_size=32, shuffle=True)

    watch = MemorizationWatch(members, heldout, scheduler, ema=ema, every_n_steps=100)

    def look(step: int) -> None:
        """Audit the averaged weights, where a look is due."""
        curves = watch(unet, step=step, is_last=step == options.max_steps)  # name -> number, for any logger
        if curves:
            auroc = [curves[f"memorization/{attack}/all/auroc"] for attack in ("sima", "loss")]
            print("step {:>4}  AUROC of SimA {:.3f}, of Loss {:.3f}".format(step, *auroc), flush=True)

    for step, image in zip(range(options.max_steps), chain.from_iterable(repeat(loader))):
        look(step)
        noise = torch.randn_like(image)
        timestep = torch.randint(1000, (len(image),))
        loss = nn.functional.mse_loss(unet(scheduler.add_noise(image, noise, timestep), timestep).sample, noise)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        warm_up.step()
        ema.step(unet.parameters())
    look(options.max_steps)
    with tempfile.TemporaryDirectory() as temporary:
        report = watch.report(options.folder or temporary)
        print(f"{report}: the verdict, every number and picture" if options.folder else "--folder FOLDER keeps the report.")


if __name__ == "__main__":
    main()

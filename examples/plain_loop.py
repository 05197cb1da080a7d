"""Watch a plain PyTorch loop, in the manner of diffusers' training scripts: two calls, and a report at the end.

    python examples/plain_loop.py [--folder FOLDER] [--max-steps 600]

Trains on 64 real scans of digits, 64 others are held out; the averaged weights are looked at, as they would be shipped.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.training_utils import EMAModel
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader

from ldm_privacy.recipes.loop import MemorizationWatch


def look(watch: MemorizationWatch, unet: UNet2DModel, ema: EMAModel, step: int, is_last: bool = False) -> None:
    """Swap the averaged weights in, look, swap them out; print what is seen where a look was due."""
    ema.store(unet.parameters())
    ema.copy_to(unet.parameters())
    curves = watch(unet, step=step, is_last=is_last)
    ema.restore(unet.parameters())
    if curves:  # name -> number: wandb.log(curves, step=step), accelerator.log(curves, step=step)
        shown = [curves[f"memorization/{attack}/all/auroc"] for attack in ("sima", "loss")]
        print("step {:>4}  AUROC of SimA {:.3f}, of Loss {:.3f}".format(step, *shown), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--max-steps", type=int, default=600)
    options = parser.parse_args()
    torch.manual_seed(0)
    images = torch.tensor(load_digits().images[:128], dtype=torch.float32)[:, None] / 8 - 1
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

    watch = MemorizationWatch(members, heldout, scheduler, every_n_steps=100)
    step = 0
    look(watch, unet, ema, step)
    while step < options.max_steps:
        for image in loader:
            noise = torch.randn_like(image)
            timestep = torch.randint(1000, (len(image),))
            loss = nn.functional.mse_loss(unet(scheduler.add_noise(image, noise, timestep), timestep).sample, noise)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
            optimizer.step()
            warm_up.step()
            ema.step(unet.parameters())
            step += 1
            look(watch, unet, ema, step)
    look(watch, unet, ema, step, is_last=True)
    with tempfile.TemporaryDirectory() as temporary:
        report = watch.report(options.folder or temporary)
        print(f"{report}: the verdict, every number and picture" if options.folder else "--folder FOLDER keeps the report.")


if __name__ == "__main__":
    main()

"""What a look from a script costs, against what `MemorizationWatch.cost` says of it; 200 + 200 images, one draw, ten timesteps.

    OMP_NUM_THREADS=1 python -m benchmarks.watch [--looks 3]

Told and actual are measured in one run, in turn, so that what slows one slows the other.
"""

import argparse
import statistics
from time import perf_counter

import torch
from diffusers import DDPMScheduler, UNet2DModel

from ldm_privacy.recipes.loop.watch import MemorizationWatch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--looks", type=int, default=3)
    options = parser.parse_args()
    torch.manual_seed(0)
    images = torch.rand(400, 4, 8, 8) * 2 - 1
    blocks = {"down_block_types": ["DownBlock2D"] * 2, "up_block_types": ["UpBlock2D"] * 2, "block_out_channels": [32, 64]}
    unet = UNet2DModel(**blocks, in_channels=4, out_channels=4, layers_per_block=1, norm_num_groups=8, add_attention=False)
    scheduler, optimizer = DDPMScheduler(), torch.optim.AdamW(unet.parameters())
    watch = MemorizationWatch(
        images[:200], images[200:], scheduler, attacks=["loss"], timesteps=range(50, 1000, 100), every_n_steps=1
    )

    def step() -> float:
        start = perf_counter()
        noise, timestep = torch.randn(64, 4, 8, 8), torch.randint(1000, (64,))
        optimizer.zero_grad()
        (unet(scheduler.add_noise(images[:64], noise, timestep), timestep).sample - noise).square().mean().backward()
        optimizer.step()
        return perf_counter() - start

    watch(unet, step=0)
    ratios = []
    for number in range(1, options.looks + 1):
        seconds = statistics.median(step() for _ in range(5))
        told = watch.cost(unet, step_seconds=seconds)
        start = perf_counter()
        watch(unet, step=number)
        took = perf_counter() - start
        ratios.append(took / told.seconds)
        at_500 = took / (took + 500 * seconds)
        print(f"{told} It took {took:.2f} s: {ratios[-1]:.2f} of what was told; {at_500:.1%} with a look every 500 steps.")
    print(f"took / told: {statistics.median(ratios):.2f}, median of {options.looks}")


if __name__ == "__main__":
    main()

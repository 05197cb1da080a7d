"""The loops that people run without this library: over images through the frozen encoder, or over cached latents."""

import argparse

import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.in_turn import clock
from ldm_privacy.diffusion import add_noise
from ldm_privacy.models.kl import KLCodec

WARM_UP = 3
"""Steps before the clock starts: allocation, and compilation where it is asked for."""


def loop(
    network: nn.Module, codec: KLCodec | None, samples: Tensor, options: argparse.Namespace, device: torch.device
) -> float:
    """Seconds per step of a loop without this library, an epoch over `samples`: images for the codec, or cached latents."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True
    network.to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-4, weight_decay=1e-4)
    alphas_cumprod = DDPMScheduler().alphas_cumprod.to(device)
    loader = DataLoader(TensorDataset(samples), batch_size=options.batch_size, shuffle=True, num_workers=options.workers)
    batches, start = iter(loader), 0.0
    for step in range(WARM_UP + options.steps):  # its workers start before the clock does and end after it
        (batch,) = next(batches)
        if step == WARM_UP:
            start = clock()
        latent = batch.to(device)
        mirrored = torch.rand(len(latent), 1, 1, 1, device=device) < 0.5
        if codec is not None:
            image = latent.float() / 127.5 - 1
            with torch.no_grad():
                latent = codec.mean(torch.where(mirrored, image.flip(-1), image))
        else:
            latent = torch.where(mirrored, latent[:, 0], latent[:, 1])
        noise = torch.randn_like(latent)
        timestep = torch.randint(len(alphas_cumprod), (len(latent),), device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=codec is None and options.precision == "bf16-mixed"):
            output = network(add_noise(latent, noise, alphas_cumprod, timestep), timestep).sample
        optimizer.zero_grad()
        (output.float() - noise).square().mean().backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    return (clock() - start) / options.steps

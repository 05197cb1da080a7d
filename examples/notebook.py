"""From a decoder and a denoiser to a masked memorization curve: cells of a notebook, or a script of half a minute.

    python examples/notebook.py

What to expect: SimA's AUROC starts near .5 and ends above .9, with every mask alike. Nothing is written.
"""

# %% A decoder: of a small autoencoder, trained on scans that are neither members nor held-out
import pandas as pd
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DModel
from sklearn.datasets import load_digits

from ldm_privacy.attacks.sima import SimA
from ldm_privacy.audit.audit import Audit
from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.geometry.masks import KeepAll, KeepRandom, KeepTopInfluence
from ldm_privacy.geometry.probe import ProbeInfluence
from ldm_privacy.models.predictor import NetworkPredictor

torch.manual_seed(0)
scans = torch.tensor(load_digits().images, dtype=torch.float32)[torch.randperm(1797), None] / 8 - 1
images, public = scans[:256], scans[256:]
shapes = {"in_channels": 1, "out_channels": 1, "latent_channels": 4, "norm_num_groups": 8, "mid_block_add_attention": False}
blocks = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
autoencoder = AutoencoderKL(**shapes, **blocks, block_out_channels=[16, 32])
optimizer = torch.optim.AdamW(autoencoder.parameters(), lr=2e-3)
for _ in range(300):
    batch = public[torch.randint(len(public), (64,))]
    optimizer.zero_grad()
    (autoencoder(batch).sample - batch).abs().mean().backward()
    optimizer.step()
mean = autoencoder.requires_grad_(False).encode(images).latent_dist.mean
scale = mean.std()
latent = mean / scale


def decode(latent: torch.Tensor) -> torch.Tensor:
    return autoencoder.decode(scale * latent).sample


# %% Who is audited, how, and which dimensions the decoder stretches most
is_member = torch.arange(256) < 128
influence = ProbeInfluence(num_probes=16)(decode, latent, torch.arange(256)).influence
samples = AuditedSamples(latent, is_member, influence=influence)
masks = {"all": KeepAll(), "top60": KeepTopInfluence(0.6), "random60": KeepRandom(0.6)}
audit = Audit(samples, {"sima": SimA()}, masks, timesteps=[30, 60, 100, 150])

# %% A denoiser, audited every 100 steps
scheduler, curve = DDPMScheduler(), {}
blocks = {"down_block_types": ["DownBlock2D"] * 2, "up_block_types": ["UpBlock2D"] * 2, "block_out_channels": [32, 64]}
unet = UNet2DModel(in_channels=4, out_channels=4, **blocks, layers_per_block=1, norm_num_groups=8, add_attention=False)
optimizer = torch.optim.AdamW(unet.parameters(), lr=2e-3)
for step in range(601):
    if step % 100 == 0:
        report = audit(NetworkPredictor(unet, scheduler.alphas_cumprod))
        curve[step] = {row.key.mask: row.metrics.auroc.value for row in report.rows}
    batch = latent[is_member][torch.randint(128, (64,))]
    noise, timestep = torch.randn_like(batch), torch.randint(1000, (64,))
    optimizer.zero_grad()
    (unet(scheduler.add_noise(batch, noise, timestep), timestep).sample - noise).square().mean().backward()
    optimizer.step()

# %% The curve: AUROC of SimA by step and mask
print(pd.DataFrame(curve).T.round(3))

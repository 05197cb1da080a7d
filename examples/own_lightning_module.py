"""Watch a LightningModule of your own: it knows nothing of this package, and one callback looks at it.

    python examples/own_lightning_module.py [--folder FOLDER] [--max-epochs 300]

Trains on 64 real scans of digits, 64 others are held out. What to expect, in half a minute on one thread: SimA's AUROC starts
near .5 and ends above .9, Loss follows, the loss gap doubles. Without --folder nothing is kept.
"""

import argparse
import tempfile
from pathlib import Path

import pandas as pd
import torch
from diffusers import DDPMScheduler, UNet2DModel
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

from ldm_privacy.attacks.loss import Loss
from ldm_privacy.attacks.sima import SimA
from ldm_privacy.audit.audit import Audit
from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.callbacks import Watch
from ldm_privacy.geometry.masks import KeepAll
from ldm_privacy.models.identity import IdentityCodec
from ldm_privacy.models.predictor import NetworkPredictor
from ldm_privacy.targets.target import Target
from ldm_privacy.watch.loss_gap import LossGap
from ldm_privacy.watch.memorization import Memorization
from ldm_privacy.watch.watcher import Every


class DigitsModule(LightningModule):
    """An ordinary diffusion model of 8x8 images."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = DDPMScheduler()
        self.unet = UNet2DModel(
            sample_size=8,
            in_channels=1,
            out_channels=1,
            block_out_channels=(32, 32),
            down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            norm_num_groups=8,
            add_attention=False,
        )

    def loss(self, image: torch.Tensor) -> torch.Tensor:
        noise = torch.randn_like(image)
        timestep = torch.randint(1000, (len(image),), device=image.device)
        noisy = self.scheduler.add_noise(image, noise, timestep)
        return (self.unet(noisy, timestep).sample - noise).square().mean()

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        return self.loss(batch[0])

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        self.log("validation_loss", self.loss(batch[0]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.unet.parameters(), lr=2e-3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--max-epochs", type=int, default=300)
    options = parser.parse_args()
    torch.manual_seed(0)
    scans = torch.tensor(load_digits().images, dtype=torch.float32)[:, None] / 8 - 1
    # A split at random: sides that differ by themselves would look like a leak.
    images = scans[torch.randperm(len(scans))[:128]]
    members, heldout = images.split(64)

    # All that is asked of the user: who is a member, which attacks, and how the module becomes a target.
    samples = AuditedSamples(images, is_member=torch.arange(128) < 64)
    audit = Audit(samples, {"sima": SimA(), "loss": Loss()}, {"all": KeepAll()}, timesteps=[30, 60, 100, 150])
    every = Every(epochs=50)
    watch = Watch(
        [Memorization(audit, every=every), LossGap(samples, every=every)],
        target=lambda module: Target(
            IdentityCodec(image_channels=1), NetworkPredictor(module.unet, module.scheduler.alphas_cumprod)
        ),
    )

    with tempfile.TemporaryDirectory() as temporary:
        logger = CSVLogger(options.folder or temporary, name=None, version="")
        trainer = Trainer(
            max_epochs=options.max_epochs,
            callbacks=[watch],
            logger=logger,
            check_val_every_n_epoch=50,
            default_root_dir=logger.log_dir,
            enable_checkpointing=False,
            enable_progress_bar=False,
            log_every_n_steps=100,
        )
        trainer.fit(
            DigitsModule(),
            DataLoader(TensorDataset(members), batch_size=32, shuffle=True),
            DataLoader(TensorDataset(heldout), batch_size=32),
        )
        if trainer.is_global_zero:
            curves = pd.read_csv(Path(logger.log_dir) / "metrics.csv")
            shown = ["epoch", "memorization/sima/all/auroc", "memorization/loss/all/auroc", "denoiser/loss_gap"]
            print(curves[shown].dropna().round(3).to_string(index=False))


if __name__ == "__main__":
    main()

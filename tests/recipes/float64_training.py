"""Trains a small network in float64 in one or more processes and prints what came out; a script of test_two_processes.py."""

import json
import sys
from pathlib import Path

import torch
from lightning.pytorch import Trainer

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ldm_privacy.processes import is_main
from ldm_privacy.recipes.launch import cluster_plugins, together
from ldm_privacy.training.stepwise import StepwiseModule


class Regression(StepwiseModule):
    """Fits noise, which is drawn for the whole batch."""

    def __init__(self, batch_size):
        super().__init__(stage="denoiser", num_samples=23, batch_size=batch_size, learning_rate=0.01, weight_decay=0.0, seed=3)
        torch.manual_seed(0)
        self.network = torch.nn.Sequential(torch.nn.Linear(5, 16), torch.nn.SiLU(), torch.nn.Linear(16, 1)).double()
        self.inputs = torch.randn(23, 5).double()

    def loss(self, indices):
        noise = self.share(torch.randn(len(indices), 1).double())
        return {"loss": (self.network(self.inputs[self.share(indices)]) - noise).square().mean()}


def train(devices):
    """Mean loss of the last epoch and all weights: batches of 7 and a last one of 2, of 11 and a last one of 1, of 1."""
    results = {}
    for batch_size in (7, 11, 1):
        module = Regression(batch_size)
        trainer = Trainer(
            max_epochs=3,
            accelerator="cpu",
            devices=devices,
            strategy="ddp" if devices > 1 else "auto",
            plugins=cluster_plugins(),
            precision="64-true",
            gradient_clip_val=0.5,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )
        trainer.fit(module)
        weights = torch.cat([parameter.detach().flatten() for parameter in module.parameters()])
        results[str(batch_size)] = [module.epoch_means["denoiser/train_loss"], *weights.tolist()]
    return results


if __name__ == "__main__":
    with together("cpu", int(sys.argv[1]), 1):
        found = train(int(sys.argv[1]))
        if is_main():
            print(json.dumps(found))

"""Averaged weights."""

import torch
from lightning.pytorch import Callback

from ldm_privacy.callbacks import AveragedWeights
from tests.training.test_stepwise import denoiser, fit


def test_averaged_weights_follow_the_formula():
    class Seen(Callback):
        def __init__(self):
            self.weights = []

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.weights.append([value.detach().clone() for value in pl_module.parameters()])

    averaged, seen = AveragedWeights(0.5), Seen()
    module = fit(denoiser(), averaged, seen)
    means = seen.weights[0]
    for count, weights in enumerate(seen.weights[1:], start=1):
        decay = min(0.5, (1 + count) / (10 + count))
        means = [decay * mean + (1 - decay) * weight for mean, weight in zip(means, weights)]
    assert int(averaged._average_model.n_averaged) == len(seen.weights) == 6
    for mean, parameter in zip(means, module.parameters()):  # swapped in at the end
        torch.testing.assert_close(parameter.detach(), mean, rtol=1e-5, atol=1e-6)

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

    averaged, seen = AveragedWeights(0.2), Seen()
    module = fit(denoiser(), averaged, seen)
    means = seen.weights[0]
    for count, weights in enumerate(seen.weights[1:], start=1):
        decay = min(0.2, (1 + count) / (10 + count))
        means = [decay * mean + (1 - decay) * weight for mean, weight in zip(means, weights)]
    assert int(averaged._average_model.n_averaged) == len(seen.weights) == 6
    for mean, parameter in zip(means, module.parameters()):  # swapped in at the end
        torch.testing.assert_close(parameter.detach(), mean, rtol=1e-5, atol=1e-6)


def test_there_is_one_update_a_step_of_the_optimizer_and_buffers_are_the_newest():
    class Counted(AveragedWeights):
        means = ()

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            pl_module.seen.fill_(batch_idx + 1)
            before, count = [value.clone() for value in self._average_model.parameters()], trainer.global_step
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
            after = list(self._average_model.parameters())
            changed = not all(torch.equal(*each) for each in zip(before, after))
            self.means += ((count, changed, int(self._average_model.n_averaged), int(self._average_model.module.seen)),)

    module = denoiser()
    module.register_buffer("seen", torch.zeros((), dtype=torch.int64))
    averaged = Counted(0.5)
    fit(module, averaged, max_epochs=2, accumulate_grad_batches=2)
    # Three batches an epoch: the optimizer steps after the second and after the last.
    first = [(0, False, 0, 0), (1, True, 1, 2), (2, True, 2, 3)]
    assert averaged.means == (*first, (2, False, 2, 3), (3, True, 3, 2), (4, True, 4, 3))
    assert averaged._pairs is None, "weights are not kept alive after the training"

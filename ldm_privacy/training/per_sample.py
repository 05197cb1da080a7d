"""What DP-SGD takes from Opacus: gradients of each sample alone, and epsilon; no trainer is imported for it."""

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ldm_privacy.device import full_float32
from ldm_privacy.errors import UserError, reason_of
from ldm_privacy.models.predictor import output_of
from ldm_privacy.targets.privacy import Privacy
from ldm_privacy.types import Condition, Latent, Timestep


def epsilon(privacy: Privacy, num_steps: int) -> float:
    """Epsilon after so many steps, by Opacus' RDP accountant (Mironov, Talwar, Zhang 2019, 1908.10530).

    An upper bound that is there at once for any noise. Its PRV accountant finds about a tenth less
    (docs/reference/defences.md).
    """
    with importing_opacus():
        from opacus.accountants import RDPAccountant

    if not num_steps:
        return 0.0
    accountant = RDPAccountant()
    accountant.history = [(privacy.noise_multiplier, privacy.sample_rate, num_steps)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "the smallest alpha is optimal": an upper bound all the same
        return float(accountant.get_epsilon(privacy.delta))


@contextmanager
def importing_opacus() -> Iterator[None]:
    """Around its imports: without the handler that it gives to the log of all libraries; UserError where one fails."""
    before = logging.root.handlers[:]
    try:
        yield
    except ImportError as error:
        mend = 'pip install -U "ldm-privacy[privacy]"'
        raise UserError(f"denoiser.privacy: Opacus can't be imported ({reason_of(error)}); {mend}.") from error
    finally:
        logging.root.handlers[:] = before


def per_sample_hooks(network: nn.Module) -> Any:
    """Opacus' hooks in a network in training mode: a backward pass of a mean over samples leaves `grad_sample` in parameters.

    Parameters keep their names, and the network its class. Torch warns of the first layers, which are asked with what needs no
    gradient: they are given what they need all the same. Raises UserError where Opacus can't be imported.
    """
    with importing_opacus():
        from opacus.grad_sample.grad_sample_module import GradSampleHooks
    return GradSampleHooks(network, loss_reduction="mean")


def check_per_sample_gradients(network: nn.Module, latent: Latent, timestep: Timestep, told: Condition) -> None:
    """Raise UserError unless the hooks find of each sample the gradient that it has alone.

    Of a copy of the network, as if trained (no weight is 0), without dropout. So layers that Opacus doesn't know, and those
    that mix the samples of a batch, are found before anything is trained, and an Opacus that can't be imported. A pass of the
    batch and one of each sample, forward and back.
    """
    advice = "DP-SGD needs the gradient of each image alone; use another denoiser.network."
    for name, layer in network.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            raise UserError(f"denoiser.privacy: {type(layer).__name__} ('{name}') mixes the images of a batch. {advice}")
    network = copy.deepcopy(network).to(latent.device).train()
    # TensorFloat-32 rounds a batch's gradients otherwise than one sample's, by more than what is told apart here.
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), full_float32():
        torch.manual_seed(0)
        for parameter in network.parameters():
            parameter.data += 0.02 * torch.randn(parameter.shape).to(parameter)
        for layer in network.modules():
            if isinstance(layer, nn.modules.dropout._DropoutNd):
                layer.eval()

        def loss(rows: slice) -> Tensor:
            given = {name: value[rows] for name, value in told.items()}
            return output_of(network, latent[rows], timestep[rows], given).square().flatten(1).mean(1).mean()

        parameters = dict(network.named_parameters())
        try:
            alone = [
                torch.autograd.grad(loss(slice(row, row + 1)), list(parameters.values()), allow_unused=True)
                for row in range(len(latent))
            ]
            per_sample_hooks(network)
            loss(slice(None)).backward()
        except UserError:
            raise
        except Exception as error:  # libraries raise whatever they stumble over in layers that they don't know
            raise UserError(f"denoiser.privacy: Opacus can't take this network ({reason_of(error)}). {advice}") from error
    for place, (name, parameter) in enumerate(parameters.items()):
        found = parameter.grad_sample  # type: ignore[attr-defined]
        if found is None or any(each[place] is None for each in alone):
            raise UserError(f"denoiser.privacy: the weight '{name}' has no part in the output. {advice}")
        expected = torch.stack([each[place] for each in alone])
        if not torch.allclose(found, expected, rtol=1e-2, atol=1e-4 * float(expected.abs().max()) + 1e-8):
            raise UserError(
                f"denoiser.privacy: of the weight '{name}' Opacus finds other gradients than images alone. {advice}"
            )

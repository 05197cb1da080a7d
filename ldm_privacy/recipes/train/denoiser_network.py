"""The network that stage 2 trains."""

import inspect
from typing import Any

import torch
from torch import nn

from ldm_privacy.errors import UserError
from ldm_privacy.models.folder import absolute
from ldm_privacy.recipes.audit import condition_record
from ldm_privacy.recipes.run_setup import RunSetup
from ldm_privacy.registry import DENOISERS
from ldm_privacy.targets.adapters.trained import Lora
from ldm_privacy.targets.denoiser import Denoiser


def build_denoiser(setup: RunSetup, latent_shape: torch.Size) -> tuple[nn.Module, Denoiser]:
    """The configured denoiser with random weights, or the base's with an adapter or none, and what a checkpoint says of it.

    Raises:
        UserError: Its config gives what the condition or the latents give, or it can't take the condition; the base isn't there
            or is of another architecture; an adapter without a base.
    """
    component, condition, base = setup.config.denoiser.network, setup.condition, setup.config.base
    given = {"latent_channels": latent_shape[0], "latent_size": latent_shape[-1], **condition.network_arguments()}
    if twice := sorted(given.keys() & component.arguments.keys()):
        raise UserError(f"denoiser.network.{twice[0]}: it comes from the condition or the latents; take it out.")
    torch.manual_seed(setup.config.seed)
    network = component.build_a(nn.Module, **given, base=base)
    arguments = {
        "class": component.name,
        **component.arguments,
        **component.taken({**given, "base": None if base is None else absolute(base)}),
    }
    arguments |= getattr(network, "origin", {})
    if missing := [name for name in condition.network_arguments() if name not in arguments]:
        takers = [name for name in DENOISERS if missing[0] in inspect.signature(DENOISERS.maker(name)).parameters]
        hint = f" Those that have it: {', '.join(takers)}." if takers else ""
        raise UserError(
            f"denoiser.network: '{component.name}' takes no such condition: it has no argument '{missing[0]}'.{hint}"
        )
    settings = setup.config.denoiser.adapter
    adapter: dict[str, Any] = {}
    if settings.rank is not None:
        alpha = float(settings.rank if settings.alpha is None else settings.alpha)
        adapter = {"rank": settings.rank, "alpha": alpha, "targets": settings.targets}
        torch.manual_seed(setup.config.seed)
        network = Lora(network, **adapter)
        arguments.pop("config", None)  # the base is looked up in any case
    return network, Denoiser(arguments, *setup.schedule, condition_record(setup), adapter)

"""The noise schedule of diffusers' schedulers: alphas_cumprod, and what the network outputs."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ldm_privacy.diffusion import PREDICTION_TYPES, PredictionType, flow_alphas_cumprod
from ldm_privacy.errors import UserError, reason_of

LEAST_ABAR = 2.0**-24
"""In place of 0, where a schedule ends in pure noise: epsilon tells no clean latent there. As in diffusers' Euler."""
MOST_TIMESTEPS = 100_000
DEFAULTS = {"_class_name": "DDPMScheduler", "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 2e-2}
"""Of a training from random weights (Ho et al. 2020, 2006.11239)."""


def schedule_of(scheduler: Any) -> tuple[Tensor, PredictionType]:
    """alphas_cumprod and the prediction type that a diffusers scheduler, or its config, stands for.

    A flow is told by its class (FlowMatch...) or by `prediction_type: flow_prediction`; its schedule is `flow_alphas_cumprod`,
    whatever shift or table of sigmas it samples with. All others have betas of their own class: `trained_betas` and
    `rescale_betas_zero_snr` are heeded, missing keys are the class's defaults.

    Args:
        scheduler: A scheduler, the mapping of its `scheduler_config.json`, or alphas_cumprod itself (of an epsilon network).

    Returns:
        alphas_cumprod, (num_train_timesteps,), and the prediction type.

    Raises:
        UserError: No scheduler of diffusers that is known, one of another kind of diffusion, a flow that runs from data to
            noise or counts its time otherwise, an unknown prediction type, betas that can't be.
    """
    if isinstance(scheduler, Tensor):
        return scheduler, "epsilon"
    settings = dict(scheduler if isinstance(scheduler, Mapping) else getattr(scheduler, "config", {}))
    name = settings.get("_class_name") if isinstance(scheduler, Mapping) else type(scheduler).__name__
    kind, count = settings.get("prediction_type", "epsilon"), settings.get("num_train_timesteps", 1000)
    if str(name).startswith("FlowMatch") or kind == "flow_prediction":
        if count != 1000 or settings.get("invert_sigmas"):
            what = "invert_sigmas" if count == 1000 else f"num_train_timesteps {count}"
            raise UserError(
                f"scheduler: {name} with {what} isn't understood; flows of 1000 timesteps with sigma 1 = noise are."
            )
        return flow_alphas_cumprod(), "flow"
    if kind not in PREDICTION_TYPES or kind == "flow" or settings.get("use_flow_sigmas"):
        what = "use_flow_sigmas" if settings.get("use_flow_sigmas") else f"prediction_type {kind!r}"
        raise UserError(f"scheduler: {name} with {what} is not understood; epsilon, v_prediction, sample and flows are.")
    if type(count) is not int or not 1 <= count <= MOST_TIMESTEPS:
        raise UserError(f"scheduler: {name} with num_train_timesteps {count!r}; it is to be 1 to {MOST_TIMESTEPS}.")
    if isinstance(scheduler, Mapping):
        scheduler = _built(name, settings)
    abar = getattr(scheduler, "alphas_cumprod", None)
    if not isinstance(abar, Tensor) or abar.ndim != 1:
        raise UserError(f"scheduler: {name} has no alphas_cumprod and is no flow: its kind of diffusion can't be audited.")
    if not len(abar) or not bool(((abar >= 0) & (abar <= 1)).all()):  # which NaN isn't either
        raise UserError(f"scheduler: the betas of {name} make alphas_cumprod that are not from 0 to 1; its config is damaged.")
    return torch.where(abar > 0, abar, LEAST_ABAR), kind


def training_schedule(base: Mapping[str, Any] | None = None, **given: Any) -> tuple[Tensor, PredictionType]:
    """alphas_cumprod and prediction type of a training; see `schedule_of`.

    Args:
        base: `scheduler_config.json` of the pipeline that is fine-tuned; None: linear betas from 1e-4 to 2e-2, epsilon.
        given: What goes before that, where it isn't None: schedule, prediction_type, num_train_timesteps, beta_start, beta_end.

    Raises:
        UserError: One of schedule and prediction type is a flow's alone; as `schedule_of`.
    """
    settings: dict[str, Any] = dict(DEFAULTS if base is None else base)
    stated = {"beta_schedule" if name == "schedule" else name: value for name, value in given.items() if value is not None}
    if not stated.keys() <= {"prediction_type"}:
        settings.pop("trained_betas", None)  # which would go before them
    settings |= stated
    schedule, kind = settings.get("beta_schedule", "linear"), settings.get("prediction_type", "epsilon")
    if (schedule == "flow") != (kind == "flow"):
        raise UserError(
            f"denoiser.schedule: {schedule} with denoiser.prediction_type={kind}: a flow has both as flow, and nothing "
            "else has either."
        )
    return (flow_alphas_cumprod(settings.get("num_train_timesteps", 1000)), "flow") if kind == "flow" else schedule_of(settings)


def _built(name: Any, settings: dict[str, Any]) -> Any:
    """The scheduler of a config; its class must be one of diffusers' own."""
    import diffusers

    build = getattr(diffusers, name, None) if isinstance(name, str) and name.endswith("Scheduler") else None
    if build is None:
        raise UserError(f"scheduler: its class {name!r} (_class_name) is no scheduler of diffusers {diffusers.__version__}.")
    try:
        return build.from_config(settings)
    except Exception as error:  # whatever a scheduler raises on settings that aren't its own
        raise UserError(f"scheduler: {name} can't be built from its config ({reason_of(error)}).") from None

"""Every mistake that can be found without training, found before a run folder is made."""

import torch

from ldm_privacy.assemble import Experiment
from ldm_privacy.audit import check_halves, check_labels
from ldm_privacy.errors import UserError
from ldm_privacy.training.processes import check_processes
from ldm_privacy.training.run_folder import check_name


def check_training(experiment: Experiment) -> None:
    """Build every object of a training once.

    Raises:
        UserError: Whatever the config gets wrong that its types don't show.
    """
    config = experiment.config
    check_name(config.name)
    check_audit(experiment)
    shape = experiment.latent_shape(experiment.build_autoencoder())
    experiment.network(shape)
    if config.geometry.distortion_rank > shape.numel():
        raise UserError(
            f"geometry.distortion_rank: {config.geometry.distortion_rank} singular values, but a latent has {shape.numel()} "
            "dimensions. Use at most so many, or 0 for no distortion."
        )
    # Several processes cut a step into graphs between which gradients travel; replaying them has known faults.
    if config.trainer.compile == "reduce-overhead" and config.trainer.devices * config.trainer.num_nodes > 1:
        raise UserError("trainer.compile: reduce-overhead is for one device; use default with several.")
    most = min(len(experiment.audited_index), len(experiment.data.split.member_index))
    check_processes(experiment.device.type, config.trainer.devices, config.trainer.num_nodes, most=most)


def check_audit(experiment: Experiment) -> None:
    """The part that an evaluation needs as well: attacks, masks, timesteps, halves.

    Raises:
        UserError: Whatever the audit's sections get wrong that their types don't show.
    """
    config = experiment.config
    check_labels(config.audit.attacks, config.audit.masks)
    _ = experiment.device, experiment.onset_key, experiment.data
    if config.audit.precision == "bfloat16" and experiment.device.type == "cpu":
        raise UserError("audit.precision: bfloat16 is for GPUs; on a CPU use float32.")
    num_timesteps = len(experiment.scheduler().alphas_cumprod)
    for attack in experiment.attacks().values():
        attack.grid(config.audit.timesteps, num_timesteps)
    experiment.masks()
    config.geometry.influence.build(seed=config.seed)
    index = experiment.audited_index
    check_halves(experiment.data.is_calibration(index), torch.isin(index, experiment.data.split.member_index))

"""The plan of a run: config, data, networks and cost, before anything is trained."""

from rich.console import Console
from rich.table import Table

from ldm_privacy.assemble import Experiment
from ldm_privacy.check import check_training
from ldm_privacy.models.denoiser import num_parameters


def print_plan(experiment: Experiment, config_yaml: str, console: Console) -> int:
    """Print the resolved config, the split's sizes, parameter counts and the cost in network passes.

    Returns 0, the exit code. A training step counts as three passes per sample: one forward, two for the gradient.
    """
    check_training(experiment)
    console.print(config_yaml, markup=False, highlight=False)
    console.print(experiment.describe(), highlight=False)
    config = experiment.config
    autoencoder = experiment.build_autoencoder()
    shape = experiment.latent_shape(autoencoder)
    network = experiment.network(shape)
    split, audited = experiment.data.split, len(experiment.audited_index)
    sizes = {"members": len(split.member_index), "public": len(split.public_index)}
    stage_1 = sum(sizes.values()) if config.autoencoder.train_on == "all" else sizes[config.autoencoder.train_on]
    attacks = experiment.attacks()
    per_sample = sum(attack.num_queries(config.audit.timesteps) for attack in attacks.values())
    num_audits = 1 + -(-config.trainer.max_epochs // config.audit.every_n_epochs)
    variants = 2 if config.data.flip else 1
    probes = config.geometry.influence.arguments.get("num_probes")

    table = Table("what", "network", "passes", title="Cost in network passes (one sample each)", title_justify="left")
    table.add_row("stage 1", "autoencoder", f"{3 * stage_1 * config.autoencoder.max_epochs:,}")
    table.add_row("encoding", "encoder", f"{variants * sizes['members'] + audited:,}")
    if probes is not None:
        table.add_row(f"influence, {probes} probes", "decoder, backward", f"{audited * probes:,}")
    if (geometry := config.geometry).distortion_rank:
        chosen = experiment.distortion_index
        directions = geometry.distortion_rank + geometry.distortion_oversample
        image_size = config.data.channels * config.data.resolution**2
        products = min(directions * (2 * geometry.distortion_power_iterations + 1), image_size)
        or_more = "" if products == image_size else " or more"
        passes = f"{len(chosen) * products:,}{or_more}"
        table.add_row(f"distortion of {len(chosen)} samples", "decoder, J v and J^T u", passes)
    table.add_row("stage 2", "denoiser", f"{3 * sizes['members'] * config.trainer.max_epochs:,}")
    table.add_row(f"{num_audits} audits of {audited} samples", "denoiser", f"{num_audits * audited * per_sample:,}")
    if (cadence := config.audit.generations.every_n_epochs) is not None:
        last, count, steps = config.trainer.max_epochs, config.audit.generations.num_images, config.audit.generations.num_steps
        epochs = [*range(config.audit.every_n_epochs, last, config.audit.every_n_epochs), last]
        looks = {last, *(next(epoch for epoch in epochs if epoch >= due) for due in range(cadence, last + 1, cadence))}
        table.add_row(f"{len(looks)} looks at {count:,} generations", "denoiser", f"{len(looks) * count * steps:,}")
    console.print(table)
    console.print(
        f"Autoencoder {num_parameters(autoencoder):,} parameters; denoiser {num_parameters(network):,} parameters; "
        f"latents {tuple(shape)}, D = {shape.numel()}.",
        highlight=False,
    )
    return 0

"""What is there before the first denoiser step: the autoencoder's leak, its reconstructions, the geometry."""

import torch

from callbacks.runner import Runner
from ldm_privacy.audit import AuditedSamples
from ldm_privacy.measure import gather_samples, reconstruction_error
from ldm_privacy.metrics import auroc_interval
from ldm_privacy.models.latent_space import LatentSpace
from ldm_privacy.report import geometry_figures, geometry_series, image_grid
from ldm_privacy.report.terminal import console
from ldm_privacy.training.processes import is_main


def log_baselines(runner: Runner, space: LatentSpace, samples: AuditedSamples) -> None:
    """Log how far reconstruction error alone tells members from held-out, and the geometry. Every process calls it."""
    experiment = runner.experiment
    score = -reconstruction_error(experiment, space)
    whole = gather_samples(samples)
    if not is_main():
        return
    config, images = experiment.config, experiment.data.images
    is_member = torch.isin(experiment.audited_index, experiment.data.split.member_index)
    group = experiment.data.groups(experiment.audited_index)
    leak = auroc_interval(score, is_member, confidence=config.audit.confidence, group=group)
    series = {
        "baseline/reconstruction/members": float(-score[is_member].mean()),
        "baseline/reconstruction/heldout": float(-score[~is_member].mean()),
        "baseline/reconstruction/auroc": leak.value,
        "baseline/reconstruction/auroc_lower": leak.lower,
        "baseline/reconstruction/auroc_upper": leak.upper,
    }
    runner.log({**series, **geometry_series(whole.geometry, whole.batch)}, 0)
    console.print(f"Autoencoder alone (reconstruction error): AUROC {leak}.", highlight=False)
    if count := config.trainer.num_sample_images:
        with torch.no_grad():
            image = images(experiment.audited_index[:count]).to(space.device)
            both = torch.stack([image, space.decode(space.encode(image))], 1).flatten(0, 1)
        runner.show("reconstructions", image_grid(both, columns=8))
    if config.trainer.figures:
        figures = geometry_figures(whole.geometry, whole.batch, experiment.masks(), space.decode, images, seed=config.seed)
        for name, figure in figures.items():
            runner.show(name, figure)

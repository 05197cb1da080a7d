"""Measurements of an experiment's objects: latents, influence, distortion, reconstruction, the audit of a checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldm_privacy.assemble import Experiment
from ldm_privacy.audit import AuditedSamples, AuditReport, SampleGeometry, SampleTable
from ldm_privacy.errors import UserError
from ldm_privacy.geometry import InfluenceStore, latent_deviation, stream_distortion, stream_influence
from ldm_privacy.models.autoencoder import autoencoder_from_state
from ldm_privacy.models.latent_space import LatentNormalisation, LatentSpace
from ldm_privacy.training.checkpoint import RECORD
from ldm_privacy.training.device import explain_out_of_memory
from ldm_privacy.types import AuditBatch


@dataclass(frozen=True)
class Evaluation:
    """The audit of a checkpoint, with the samples that it was made on.

    Attributes:
        report: What the audit found.
        samples: Latents and geometry.
        reconstruction: (samples,) mean absolute error of the autoencoder, ascending by sample index.
        normalisation: What was done to the latents that the denoiser sees, in words.
    """

    report: AuditReport
    samples: AuditedSamples
    reconstruction: Tensor
    normalisation: str


def measure_samples(experiment: Experiment, space: LatentSpace, store_folder: Path | None) -> AuditedSamples:
    """Latents, influence and distortion of all audited samples, on the trainer's device.

    Influence is found in the store where it was before. One encoder pass per sample, and the estimator's products.
    """
    index = experiment.audited_index
    latent = experiment.encode(space.encode, index, "Encoding audited images")
    batch = AuditBatch(latent, torch.isin(index, experiment.data.split.member_index), index).to(experiment.device)
    with experiment.progress("Influence (pullback metric)", len(index)) as done:
        estimate = stream_influence(
            experiment.config.geometry.influence.build(seed=experiment.config.seed),
            space.decode,
            batch.latent,
            batch.sample_index,
            store=InfluenceStore(store_folder) if store_folder is not None else None,
            fingerprint_of=(space.autoencoder.state_dict(), _influence_settings(experiment, space)),
            progress=done,
        )
    stability = None if estimate.mask_stability is None else float(estimate.mask_stability.mean())
    influence = SampleTable(index, estimate.influence.cpu())
    geometry = SampleGeometry(influence, latent_deviation(latent), stability, _distortion(experiment, space, batch))
    return AuditedSamples(batch, geometry, space.decode)


@torch.no_grad()
def reconstruction_error(experiment: Experiment, space: LatentSpace) -> Tensor:
    """Mean absolute error of each audited image, ascending by sample index. One encoder and one decoder pass each."""

    def error(image: Tensor) -> Tensor:
        image = image.to(experiment.device)
        return (space.decode(space.encode(image)) - image).abs().flatten(1).mean(1)

    return experiment.encode(error, experiment.audited_index, "Reconstruction error")


def evaluate_checkpoint(experiment: Experiment, checkpoint: Mapping[str, Any], *, store_folder: Path | None) -> Evaluation:
    """The audit of a checkpoint: both networks, normalisation and split come from it alone.

    Raises:
        UserError: The images are others than those that the checkpoint was trained and audited on.
    """
    record = checkpoint[RECORD]
    if record.get("content_hash") not in (None, experiment.data.duplicates.content_hash):
        raise UserError(
            "data.source: these are not the images that the checkpoint was trained and audited on (their pixels differ, "
            "though there are as many). Name the same data."
        )
    autoencoder = autoencoder_from_state(record["autoencoder_config"], record["autoencoder"])
    space = experiment.latent_space(autoencoder, LatentNormalisation.from_state_dict(record["normalisation"]))
    samples = measure_samples(experiment, space, store_folder)
    audit = experiment.audit(samples.geometry)
    module = experiment.denoiser_module(space, samples.batch, train=False)
    module.load_state_dict(checkpoint["state_dict"])
    module.eval().to(experiment.device)
    with explain_out_of_memory(module.memory_advice), experiment.progress("Audit", len(samples.batch.sample_index)) as done:
        num_done = 0
        for batch in module.val_dataloader():
            audit.update(module.predictor, batch)
            done(num_done := num_done + len(batch.sample_index))
    return Evaluation(audit.compute(), samples, reconstruction_error(experiment, space), str(space.normalisation))


def _distortion(experiment: Experiment, space: LatentSpace, batch: AuditBatch) -> SampleTable | None:
    config = experiment.config.geometry
    if not config.distortion_rank:
        return None
    chosen = torch.isin(batch.sample_index.cpu(), experiment.first_by_hash(config.distortion_max_samples))
    index = batch.sample_index[chosen].cpu()
    with experiment.progress("Local distortion", len(index)) as done:
        distortion = stream_distortion(
            space.decode,
            batch.latent[chosen],
            config.distortion_rank,
            config.distortion_oversample,
            config.distortion_power_iterations,
            experiment.config.seed,
            progress=done,
        )
    return SampleTable(index, distortion.cpu())


def _influence_settings(experiment: Experiment, space: LatentSpace) -> dict[str, Any]:
    component = experiment.config.geometry.influence
    return {
        "estimator": component.name,
        "arguments": component.arguments,
        "seed": experiment.config.seed,
        "split": experiment.data.split.hash,
        "normalisation": {
            "shift": space.normalisation.shift.flatten().tolist(),
            "scale": space.normalisation.scale.flatten().tolist(),
        },
    }

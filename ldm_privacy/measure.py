"""Measurements of an experiment's objects: latents, influence, distortion, reconstruction, the audit of a checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldm_privacy.assemble import Experiment
from ldm_privacy.audit import AuditedSamples, AuditReport, SampleGeometry, SampleTable
from ldm_privacy.audit.collected import join
from ldm_privacy.errors import UserError
from ldm_privacy.geometry import (
    Distortion,
    GeometryStore,
    InfluenceEstimate,
    InfluenceEstimator,
    InfluenceStore,
    SetInfluenceEstimator,
    latent_deviation,
    stream_distortion,
    stream_influence,
)
from ldm_privacy.geometry.estimate import concatenate
from ldm_privacy.geometry.store import fingerprint
from ldm_privacy.models.autoencoder import autoencoder_from_state
from ldm_privacy.models.latent_space import LatentNormalisation, LatentSpace
from ldm_privacy.training.checkpoint import RECORD, load_weights
from ldm_privacy.training.device import explain_out_of_memory
from ldm_privacy.training.processes import gather, gather_on_main, is_main, on_main, share_of, total, world_size
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
    """Latents, influence and distortion of this process's share of the audited samples, on the trainer's device.

    Influence and distortion are found in the store where they were before. One encoder pass per sample, and the estimator's
    products. Masks don't depend on the number of processes: the deviation is over all samples, and so is what a
    `SetInfluenceEstimator` shrinks toward. The distortion, a number a sample, is that of all samples in every process.
    """
    index = experiment.audited_index[share_of(len(experiment.audited_index))]
    latent = experiment.encode(space.encode, index, "Encoding audited images")
    batch = AuditBatch(latent, torch.isin(index, experiment.data.split.member_index), index).to(experiment.device)
    estimate = _influence(experiment, space, batch, None if store_folder is None else InfluenceStore(store_folder))
    stability = None
    if estimate.mask_stability is not None:
        stability = float(torch.cat(gather(estimate.mask_stability.cpu())).mean())
    influence = SampleTable(index, estimate.influence.cpu())
    deviation = latent_deviation(latent, total=total)
    distortion = _distortion(experiment, space, batch, store_folder)
    return AuditedSamples(batch, SampleGeometry(influence, deviation, stability, distortion), space.decode)


def gather_samples(samples: AuditedSamples) -> AuditedSamples:
    """All audited samples in the main process; in the others what they have."""
    if world_size() == 1:
        return samples
    batch, geometry = samples.batch, samples.geometry
    latent, is_member, index = (
        torch.cat(gather_on_main(each.cpu())).to(each.device) for each in (batch.latent, batch.is_member, batch.sample_index)
    )
    influence = torch.cat(gather_on_main(geometry.influence.value))
    whole = replace(geometry, influence=SampleTable(index.cpu(), influence))
    return AuditedSamples(AuditBatch(latent, is_member, index), whole, samples.decoder)


@torch.no_grad()
def reconstruction_error(experiment: Experiment, space: LatentSpace) -> Tensor:
    """Mean absolute error of each audited image, ascending by sample index. One encoder and one decoder pass each.

    Every process computes its share and gets all.
    """

    def error(image: Tensor) -> Tensor:
        image = image.to(experiment.device)
        return (space.decode(space.encode(image)) - image).abs().flatten(1).mean(1)

    index = experiment.audited_index
    return torch.cat(gather(experiment.encode(error, index[share_of(len(index))], "Reconstruction error")))


def evaluate_checkpoint(
    experiment: Experiment, checkpoint: Mapping[str, Any], *, store_folder: Path | None
) -> Evaluation | None:
    """The audit of a checkpoint: both networks, normalisation and split come from it alone.

    Every process audits its share; the main one gets the result, the others None.

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
    load_weights(module, checkpoint)
    module.eval().to(experiment.device)
    with explain_out_of_memory(module.memory_advice), experiment.progress("Audit", len(samples.batch.sample_index)) as done:
        num_done = 0
        for batch in module.val_dataloader():
            audit.update(module.predictor, batch)
            done(num_done := num_done + len(batch.sample_index))
    shards = gather_on_main(audit.collected())
    error, samples = reconstruction_error(experiment, space), gather_samples(samples)
    if world_size() > 1 and not is_main():
        return None
    return Evaluation(audit.compute(join(shards)), samples, error, str(space.normalisation))


def _influence(
    experiment: Experiment, space: LatentSpace, batch: AuditBatch, store: InfluenceStore | None
) -> InfluenceEstimate:
    """Influence of the samples of `batch`, this process's share. The store holds that of all samples in one file."""
    estimator = experiment.config.geometry.influence.build(seed=experiment.config.seed)
    weights_and_settings = (space.autoencoder.state_dict(), _influence_settings(experiment, space))

    def compute(estimator: InfluenceEstimator, store: InfluenceStore | None = None) -> InfluenceEstimate:
        advice = (
            "while influence is estimated: lower geometry.influence.decode_batch_size and probe_batch_size of the estimators "
            "with probes, memory_mib of the exact one."
        )
        progress = experiment.progress("Influence (pullback metric)", len(batch.sample_index))
        with explain_out_of_memory(lambda: advice), progress as done:
            return stream_influence(
                estimator,
                space.decode,
                batch.latent,
                batch.sample_index,
                store=store,
                fingerprint_of=weights_and_settings,
                progress=done,
            )

    if world_size() == 1:
        return compute(estimator, store)
    index = experiment.audited_index
    mine = share_of(len(index))
    name = fingerprint(*weights_and_settings, index)
    stored = None if store is None else on_main(lambda: store.load(name, index))
    if stored is not None:
        return stored.rows(mine)
    over_set = estimator if isinstance(estimator, SetInfluenceEstimator) else None
    estimate = compute(estimator if over_set is None else over_set.per_sample).to("cpu")
    if over_set is not None:
        estimate = over_set.over_set(concatenate(gather(estimate))).rows(mine)
    shards = gather_on_main(estimate)
    if store is not None and is_main():
        store.get_or_compute(name, index, lambda: concatenate(shards))
    return estimate


def _distortion(experiment: Experiment, space: LatentSpace, batch: AuditBatch, store_folder: Path | None) -> SampleTable | None:
    """Distortion of all chosen samples, in every process; each computes that of its share."""
    config = experiment.config.geometry
    if not config.distortion_rank:
        return None
    settings = config.distortion_rank, config.distortion_oversample, config.distortion_power_iterations
    distortion = Distortion(*settings, seed=experiment.config.seed)
    chosen = torch.isin(batch.sample_index.cpu(), experiment.distortion_index)
    index = batch.sample_index[chosen].cpu()

    def compute() -> Tensor:
        advice = f"while distortion is measured: lower geometry.distortion_rank (now {config.distortion_rank}; 0: none)."
        with explain_out_of_memory(lambda: advice), experiment.progress("Local distortion", len(index)) as done:
            return stream_distortion(distortion, space.decode, batch.latent[chosen], progress=done).cpu()

    everything = experiment.distortion_index
    weights_and_settings = space.autoencoder.state_dict(), {"distortion": settings, **_space_settings(experiment, space)}
    store = None if store_folder is None else GeometryStore(store_folder, "distortion")
    name = "" if store is None else fingerprint(*weights_and_settings, everything)
    if world_size() == 1:
        if store is None:
            return SampleTable(everything, compute())
        found, _ = store.get_or_compute(name, everything, lambda: {"distortion": compute()})
        return SampleTable(everything, found["distortion"])
    stored = None if store is None else on_main(lambda: store.load(name, everything))
    if stored is not None:
        return SampleTable(everything, stored["distortion"])
    value = torch.cat(gather(compute() if len(index) else torch.empty(0)))  # a share may have none of the chosen
    if store is not None and is_main():
        store.get_or_compute(name, everything, lambda: {"distortion": value})
    return SampleTable(everything, value)


def _influence_settings(experiment: Experiment, space: LatentSpace) -> dict[str, Any]:
    component = experiment.config.geometry.influence
    return {"estimator": component.name, "arguments": component.arguments, **_space_settings(experiment, space)}


def _space_settings(experiment: Experiment, space: LatentSpace) -> dict[str, Any]:
    return {
        "seed": experiment.config.seed,
        "split": experiment.data.split.hash,
        "normalisation": {
            "shift": space.normalisation.shift.flatten().tolist(),
            "scale": space.normalisation.scale.flatten().tolist(),
        },
    }

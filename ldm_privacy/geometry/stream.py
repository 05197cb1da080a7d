"""Influence and distortion of many samples, batch by batch; influence from the store where it is known."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ldm_privacy.geometry.distortion import Distortion
from ldm_privacy.geometry.estimate import (
    InfluenceEstimate,
    InfluenceEstimator,
    SetInfluenceEstimator,
    check_sample_index,
    concatenate,
)
from ldm_privacy.geometry.influence_store import InfluenceStore
from ldm_privacy.geometry.store import fingerprint
from ldm_privacy.types import Decoder, Latent


def stream_influence(
    estimator: InfluenceEstimator,
    decoder: Decoder,
    latent: Latent,
    sample_index: Tensor,
    *,
    batch_size: int = 64,
    store: InfluenceStore | None = None,
    fingerprint_of: tuple[Mapping[str, Tensor], Mapping[str, Any]] | None = None,
    progress: Callable[[int], Any] | None = None,
) -> InfluenceEstimate:
    """Influence of all samples, the same as of one call, with memory for one batch beside latents and results.

    Args:
        estimator: Any; one that needs the whole set (`ShrunkInfluence`) gets its per-sample part in batches first.
        decoder: Latent -> image.
        latent: (samples, channels, height, width), on any device that the decoder takes.
        sample_index: (samples,) int, unique.
        batch_size: Samples per call of the estimator.
        store: Where to look first and to keep the result.
        fingerprint_of: (autoencoder weights, settings); see `fingerprint`. Needed with a store.
        progress: Called with the number of samples done so far, also when they come from the store.

    Returns:
        The estimate on the latent's device; `from_store` says whether it was found in the store.

    Raises:
        UserError: As the estimator and the store.
    """
    check_sample_index(latent, sample_index)
    if batch_size < 1:
        raise ValueError(f"batch_size {batch_size} is below 1")
    per_sample = estimator.per_sample if isinstance(estimator, SetInfluenceEstimator) else estimator

    def compute() -> InfluenceEstimate:
        estimates = []
        for start in range(0, max(len(latent), 1), batch_size):
            part = slice(start, start + batch_size)
            estimates.append(per_sample(decoder, latent[part], sample_index[part]))
            if progress is not None:
                progress(min(start + batch_size, len(latent)))
        estimate = concatenate(estimates)
        return estimator.over_set(estimate) if isinstance(estimator, SetInfluenceEstimator) else estimate

    if store is None:
        return compute()
    if fingerprint_of is None:
        raise ValueError("a store needs fingerprint_of")
    estimate = store.get_or_compute(fingerprint(*fingerprint_of, sample_index), sample_index, compute)
    if estimate.from_store and progress is not None:
        progress(len(latent))
    return estimate.to(latent.device)


def stream_distortion(
    distortion: Distortion, decoder: Decoder, latent: Latent, *, progress: Callable[[int], Any] | None = None
) -> Tensor:
    """Local distortion of all samples, (samples,), on the latent's device.

    `progress` is called with the number of samples done so far. Errors as of `Distortion`.
    """
    values = []
    for start in range(0, len(latent), distortion.batch_size):
        values.append(distortion(decoder, latent[start : start + distortion.batch_size]))
        if progress is not None:
            progress(min(start + distortion.batch_size, len(latent)))
    return torch.cat(values)

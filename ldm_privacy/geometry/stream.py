"""Influence and distortion of many samples, batch by batch."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ldm_privacy.device import give_back
from ldm_privacy.geometry.distortion import Distortion
from ldm_privacy.geometry.estimate import (
    InfluenceEstimate,
    InfluenceEstimator,
    SetInfluenceEstimator,
    check_counts,
    check_sample_index,
    concatenate,
)
from ldm_privacy.types import Decoder, Latent

SAMPLES_AT_ONCE = 64
"""How often progress is told of."""


def stream_influence(
    estimator: InfluenceEstimator,
    decoder: Decoder,
    latent: Latent,
    sample_index: Tensor,
    *,
    batch_size: int = SAMPLES_AT_ONCE,
    progress: Callable[[int], Any] = lambda done: None,
) -> InfluenceEstimate:
    """Influence of all samples, the same as of one call, with memory for one batch beside latents and results.

    Args:
        estimator: Any; one that needs the whole set (`ShrunkInfluence`) gets its per-sample part in batches first.
        decoder, latent, sample_index: As in `ldm_privacy.geometry`; so are errors.
        batch_size: Samples per call of the estimator, which makes parts of them that fit in memory.
        progress: Called with the number of samples done so far.
    """
    over_set = estimator if isinstance(estimator, SetInfluenceEstimator) else None
    per_sample = estimator if over_set is None else over_set.per_sample
    options: dict[str, Any] = {"batch_size": batch_size, "progress": progress}
    estimate = concatenate(list(influence_by_batch(per_sample, decoder, latent, sample_index, **options)))
    return estimate if over_set is None else concatenate(list(over_set.over_set(estimate)))


def influence_by_batch(
    per_sample: InfluenceEstimator,
    decoder: Decoder,
    latent: Latent,
    sample_index: Tensor,
    *,
    batch_size: int = SAMPLES_AT_ONCE,
    progress: Callable[[int], Any] = lambda done: None,
) -> Iterator[InfluenceEstimate]:
    """As `stream_influence` of an estimator that needs no whole set, a batch at a time: memory for one batch beside latents."""
    check_sample_index(latent, sample_index)
    check_counts(1, batch_size=batch_size)
    for rows in _batches(len(latent), batch_size, progress):
        yield per_sample(decoder, latent[rows], sample_index[rows])


def stream_distortion(
    distortion: Distortion, decoder: Decoder, latent: Latent, *, progress: Callable[[int], Any] = lambda done: None
) -> Tensor:
    """Local distortion of all samples, (samples,), on the latent's device; of none, where a process has no share, nothing.

    `progress` is called with the number of samples done so far. Errors as of `Distortion`.
    """
    if not len(latent):
        return torch.empty(0, device=latent.device)
    at_once = 8 if latent.device.type == "cpu" else SAMPLES_AT_ONCE  # some seconds a sample on a core
    return torch.cat([distortion(decoder, latent[rows]) for rows in _batches(len(latent), at_once, progress)])


def _batches(total: int, batch_size: int, progress: Callable[[int], Any]) -> Iterator[slice]:
    """The rows of each batch; says after it how many are done."""
    for start in range(0, max(total, 1), batch_size):
        yield slice(start, start + batch_size)
        progress(min(start + batch_size, total))
        give_back()

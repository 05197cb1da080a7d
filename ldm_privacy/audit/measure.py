"""Measuring the audited samples: complexity, influence, distortion, reconstruction; once, then found in a store."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ldm_privacy.audit.encoding import Encoding
from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.data.complexity import image_complexity
from ldm_privacy.device import explain_out_of_memory, lower_memory
from ldm_privacy.geometry.distortion import Distortion
from ldm_privacy.geometry.estimate import InfluenceEstimate, InfluenceEstimator, SetInfluenceEstimator
from ldm_privacy.geometry.stream import influence_by_batch, stream_distortion
from ldm_privacy.processes import gather, share_of, world_size
from ldm_privacy.types import Condition, Image, Latent

NUM_KEPT = 16
"""Decoded images that are kept to be shown."""


@dataclass
class Measuring(Encoding):
    """What a frozen codec makes of the audited samples, beside their latents. Attributes as of `Encoding`."""

    _first_decoded: Tensor | None = None

    def decoded(self, latent: Latent) -> Image:
        """The decoded images of the first few audited latents, on the CPU; not decoded again where they just were."""
        found = self._first_decoded
        if found is not None and len(found) >= len(latent):
            return found[: len(latent)]
        with torch.no_grad():
            return self.codec.decode(latent).cpu()

    def samples(
        self,
        index: Tensor,
        means: Tensor,
        is_member: Tensor,
        *,
        group: Tensor | None = None,
        condition: Condition | None = None,
        views: Mapping[str, Condition] | None = None,
        repeats: Tensor | None = None,
        influence: InfluenceEstimator | None = None,
        influence_settings: Mapping[str, Any] | None = None,
        distortion: Distortion | None = None,
        distortion_index: Tensor | None = None,
    ) -> AuditedSamples:
        """This process's share of the audited samples, on the device, with all that is measured of them.

        Where the codec has a network, one decoder pass a sample for the reconstruction, and the passes of the estimators. Masks
        don't depend on the number of processes: deviation and what `SetInfluenceEstimator`s shrink toward are over all samples.

        Args:
            index: All audited samples, ascending.
            means: Their posterior means.
            is_member: (samples,) bool.
            group, condition, views, repeats: Of all of them.
            influence, influence_settings: The estimator, and what decides its numbers.
            distortion, distortion_index: The measure, and the samples that get one.
        """
        share = share_of(len(index))
        mine = index[share]
        latent = self.latents(means[share]).to(self.device)

        def told(condition: Condition) -> dict[str, Tensor]:
            return {name: value[share].to(self.device) for name, value in condition.items()}

        samples = AuditedSamples(
            latent,
            is_member[share].to(self.device),
            mine.to(self.device),
            group=None if group is None else group[share].to(self.device),
            condition=told(condition or {}),
            views={view: told(each) for view, each in (views or {}).items()},
            repeats=None if repeats is None else repeats[share].to(self.device),
            is_share=world_size() > 1,
        )
        columns: dict[str, Any] = {}
        found = self.stored("image complexity", index, {}, self._complexity, of_codec=False)
        columns["complexity"] = found["complexity"]
        if self.codec.network is None:
            self.tell_reused()
            return samples.with_columns(**columns)
        found = self.stored("reconstruction", index, self._map, lambda mine: self._reconstruction(mine, samples.latent))
        columns["reconstruction_error"] = found["error"]
        if influence is not None:
            settings = {**self._map, **(influence_settings or {})}
            found = self.stored("influence", index, settings, lambda _: self._influence(influence, samples, index, settings))
            columns["influence"] = found["influence"].to(self.device)
            if "mask_stability" in found:
                columns["mask_stability"] = float(torch.cat(gather(found["mask_stability"])).mean())
        if distortion is not None and distortion_index is not None:
            chosen = torch.isin(mine, distortion_index)
            numbers = distortion.rank, distortion.oversample, distortion.num_power_iterations, distortion.seed
            settings = {**self._map, "distortion": numbers, "of": distortion_index.tolist()}
            found = self.stored("distortion", index, settings, lambda _: self._distortion(distortion, samples, chosen))
            columns["distortion"] = found["distortion"]
        self.tell_reused()
        return samples.with_columns(**columns)

    @property
    def _map(self) -> dict[str, Any]:
        channel_map = self.codec.channel_map
        return {"shift": channel_map.shift.tolist(), "matrix": channel_map.matrix.tolist()}

    def _complexity(self, index: Tensor) -> Iterator[dict[str, Tensor]]:
        def complexity(image: Image) -> dict[str, Tensor]:
            return {"complexity": image_complexity(image)}

        return self.batches("Image complexity", "image complexity is measured", complexity, index)

    def _reconstruction(self, index: Tensor, latent: Latent) -> Iterator[dict[str, Tensor]]:
        """Mean absolute error of each image."""
        self._first_decoded = None

        def error(image: Image, latent: Latent) -> dict[str, Tensor]:
            decoded, first = self.codec.decode(latent), self._first_decoded
            if first is None or len(first) < NUM_KEPT:
                self._first_decoded = torch.cat([*([] if first is None else [first]), decoded.cpu()])[:NUM_KEPT]
            return {"error": (decoded - image.to(self.device)).abs().flatten(1).mean(1)}

        return self.batches("Reconstruction error", "images are decoded", error, index, latent)

    def _influence(
        self, estimator: InfluenceEstimator, samples: AuditedSamples, index: Tensor, settings: Mapping[str, Any]
    ) -> Iterator[dict[str, Tensor]]:
        """Influence and mask stability of this process's samples; an estimator of the whole set shrinks over all processes."""
        over_set = estimator if isinstance(estimator, SetInfluenceEstimator) else None
        per_sample = estimator if over_set is None else over_set.per_sample

        def alone(mine: Tensor) -> Iterator[dict[str, Tensor]]:
            return (estimate.to("cpu").tensors() for estimate in self._by_sample(per_sample, samples))

        if over_set is None:
            estimates = self._by_sample(per_sample, samples)
        else:
            of_all = self.stored("influence of each sample alone", index, settings, alone, of_all=True)
            estimates = over_set.over_set(InfluenceEstimate.from_tensors(of_all), share_of(len(index)))
        for estimate in estimates:
            columns = {"influence": estimate.influence, "mask_stability": estimate.mask_stability}
            yield {name: value.cpu() for name, value in columns.items() if value is not None}

    def _by_sample(self, estimator: InfluenceEstimator, samples: AuditedSamples) -> Iterator[InfluenceEstimate]:
        advice = f"while influence is estimated: {lower_memory(self.device)}."
        progress = self.progress("Influence (pullback metric)", len(samples))
        with explain_out_of_memory(lambda: advice), progress as done:
            yield from influence_by_batch(estimator, self.codec.decode, samples.latent, samples.sample_index, progress=done)

    def _distortion(self, distortion: Distortion, samples: AuditedSamples, chosen: Tensor) -> Iterator[dict[str, Tensor]]:
        value = torch.full((len(samples),), torch.nan, dtype=torch.float64)
        rank = f"geometry.distortion_rank (now {distortion.rank}; 0: none)"
        advice = f"while distortion is measured: {lower_memory(self.device)} or {rank}."
        if chosen.any():
            latent = samples.latent[chosen.to(self.device)]
            progress = self.progress("Local distortion", len(latent))
            with explain_out_of_memory(lambda: advice), progress as done:
                value[chosen] = stream_distortion(distortion, self.codec.decode, latent, progress=done).cpu().double()
        yield {"distortion": value}

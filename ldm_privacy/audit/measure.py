"""Measuring the audited samples: latents, complexity, influence, distortion, reconstruction; once, then found in a store."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.data.complexity import image_complexity
from ldm_privacy.device import explain_out_of_memory, lower_memory, passes
from ldm_privacy.geometry.distortion import Distortion
from ldm_privacy.geometry.estimate import InfluenceEstimator, SetInfluenceEstimator, concatenate
from ldm_privacy.geometry.store import Store, fingerprint
from ldm_privacy.geometry.stream import stream_distortion, stream_influence
from ldm_privacy.models.codec import Codec
from ldm_privacy.processes import gather, share_of, world_size
from ldm_privacy.types import Condition, Image, Images, Latent, Progress

NUM_KEPT = 16
"""Decoded images that are kept to be shown."""


@dataclass
class Measuring:
    """What images are, and what a frozen codec makes of them.

    Of several processes each computes its share, and all find the same in the store.

    Attributes:
        codec: On `device`.
        images: Sample indices -> images.
        content: Identifies the images (a hash of pixels and size): part of every fingerprint.
        store_folder: Where results are kept; None: nowhere.
        device: Where passes run.
        progress: Shows how far it is.
        memory: What was found or computed before, by fingerprint: with another target of the same codec it is not read again.
    """

    codec: Codec
    images: Images
    content: str
    store_folder: Path | None
    device: torch.device
    progress: Progress
    memory: dict[str, Any] | None = None
    _first_decoded: Tensor | None = None

    def decoded(self, latent: Latent) -> Image:
        """The decoded images of the first few audited latents, on the CPU; not decoded again where they just were."""
        found = self._first_decoded
        if found is not None and len(found) >= len(latent):
            return found[: len(latent)]
        with torch.no_grad():
            return self.codec.decode(latent).cpu()

    def means(self, index: Tensor, *, mirrored: bool = False) -> Tensor:
        """Posterior means of those samples, (samples, channels, height, width), on the CPU, in every process.

        One encoder pass a sample, for the images or for their mirror images.
        """

        def mean(index: Tensor) -> Tensor:
            image = self.images(index)
            return self.codec.mean(image.flip(-1) if mirrored else image)

        def compute(mine: Tensor) -> dict[str, Tensor]:
            return {"mean": self._batched(f"Encoding {which}images", "encoding images", mean, mine)}

        which = "mirrored " if mirrored else ""
        found = self._stored(f"{which}latents", index, {}, compute)["mean"]
        return torch.cat(gather(found)) if world_size() > 1 else found

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
        latent = self.codec.channel_map(means[share]).to(self.device)

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
        found = self._stored("image complexity", index, {}, self._complexity, of_codec=False)
        columns["complexity"] = found["complexity"]
        if self.codec.network is None:
            return samples.with_columns(**columns)
        found = self._stored("reconstruction", index, self._map, lambda mine: self._reconstruction(mine, samples.latent))
        columns["reconstruction_error"] = found["error"]
        if influence is not None:
            settings = {**self._map, **(influence_settings or {})}
            found = self._stored("influence", index, settings, lambda _: self._influence(influence, samples))
            columns["influence"] = found["influence"].to(self.device)
            if "mask_stability" in found:
                columns["mask_stability"] = float(torch.cat(gather(found["mask_stability"])).mean())
        if distortion is not None and distortion_index is not None:
            chosen = torch.isin(mine, distortion_index)
            numbers = distortion.rank, distortion.oversample, distortion.num_power_iterations, distortion.seed
            settings = {**self._map, "distortion": numbers, "of": distortion_index.tolist()}
            found = self._stored("distortion", index, settings, lambda _: self._distortion(distortion, samples, chosen))
            columns["distortion"] = found["distortion"]
        return samples.with_columns(**columns)

    def _stored(
        self,
        noun: str,
        index: Tensor,
        settings: Mapping[str, Any],
        compute: Callable[[Tensor], Mapping[str, Tensor]],
        *,
        of_codec: bool = True,
    ) -> Mapping[str, Tensor]:
        """This process's rows of a quantity: found in the store, or computed and stored as one file for all processes.

        `compute` gets this process's sample indices and returns its rows, on the CPU. `of_codec`: the codec has a part in it.
        """
        share = share_of(len(index))
        if self.store_folder is None and self.memory is None:
            return compute(index[share])
        codec, weights = (self.codec.settings(), self.codec.weights()) if of_codec else (None, {})
        name = fingerprint(weights, {"quantity": noun, "codec": codec, "images": self.content, **settings}, index)
        memory = {} if self.memory is None else self.memory
        if name not in memory:
            if self.store_folder is None:
                memory[name] = compute(index[share])
            else:
                memory[name] = Store(self.store_folder, noun).shared(name, index, lambda: compute(index[share]))
        return memory[name]

    @property
    def _map(self) -> dict[str, Any]:
        channel_map = self.codec.channel_map
        return {"shift": channel_map.shift.tolist(), "matrix": channel_map.matrix.tolist()}

    @torch.no_grad()
    def _batched(self, words: str, step: str, function: Callable[..., Tensor], *columns: Tensor) -> Tensor:
        """`function` of the columns, sample indices first, as many images at a time as the codec takes, on the CPU."""
        index, results = columns[0], []
        advice = f"while {step}: {lower_memory(self.device)}."
        with explain_out_of_memory(lambda: advice), self.progress(words, len(index)) as done:
            for rows in passes(len(index), self.codec.images_per_pass(self.images(index[:1]).shape[1:])):
                results.append(function(*(column[rows] for column in columns)).cpu())
                done(rows.stop)
        return torch.cat(results)

    def _complexity(self, index: Tensor) -> dict[str, Tensor]:
        def complexity(index: Tensor) -> Tensor:
            return image_complexity(self.images(index))

        return {"complexity": self._batched("Image complexity", "image complexity is measured", complexity, index)}

    def _reconstruction(self, index: Tensor, latent: Latent) -> dict[str, Tensor]:
        """Mean absolute error of each image."""
        self._first_decoded = None

        def error(index: Tensor, latent: Latent) -> Tensor:
            image, first = self.codec.decode(latent), self._first_decoded
            if first is None or len(first) < NUM_KEPT:
                self._first_decoded = torch.cat([*([] if first is None else [first]), image.cpu()])[:NUM_KEPT]
            return (image - self.images(index).to(self.device)).abs().flatten(1).mean(1)

        return {"error": self._batched("Reconstruction error", "images are decoded", error, index, latent)}

    def _influence(self, estimator: InfluenceEstimator, samples: AuditedSamples) -> dict[str, Tensor]:
        """Influence and mask stability of this process's samples; an estimator of the whole set shrinks over all processes."""
        advice = f"while influence is estimated: {lower_memory(self.device)}."
        over_set = estimator if isinstance(estimator, SetInfluenceEstimator) else None
        per_sample = estimator if over_set is None else over_set.per_sample
        progress = self.progress("Influence (pullback metric)", len(samples))
        with explain_out_of_memory(lambda: advice), progress as done:
            estimate = stream_influence(per_sample, self.codec.decode, samples.latent, samples.sample_index, progress=done)
        if over_set is not None:
            mine = share_of(sum(gather(len(samples))))
            estimate = over_set.over_set(concatenate(gather(estimate.to("cpu")))).rows(mine)
        columns = {"influence": estimate.influence, "mask_stability": estimate.mask_stability}
        return {name: value.cpu() for name, value in columns.items() if value is not None}

    def _distortion(self, distortion: Distortion, samples: AuditedSamples, chosen: Tensor) -> dict[str, Tensor]:
        value = torch.full((len(samples),), torch.nan, dtype=torch.float64)
        rank = f"geometry.distortion_rank (now {distortion.rank}; 0: none)"
        advice = f"while distortion is measured: {lower_memory(self.device)} or {rank}."
        if chosen.any():
            latent = samples.latent[chosen.to(self.device)]
            progress = self.progress("Local distortion", len(latent))
            with explain_out_of_memory(lambda: advice), progress as done:
                value[chosen] = stream_distortion(distortion, self.codec.decode, latent, progress=done).cpu().double()
        return {"distortion": value}

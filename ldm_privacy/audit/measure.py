"""Measuring the audited samples: latents, complexity, influence, distortion, reconstruction; once, then found in a store."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.data.complexity import image_complexity
from ldm_privacy.device import ahead, explain_out_of_memory, lower_memory, passes, rows_within
from ldm_privacy.geometry.distortion import Distortion
from ldm_privacy.geometry.estimate import InfluenceEstimate, InfluenceEstimator, SetInfluenceEstimator
from ldm_privacy.geometry.store import Store, fingerprint, in_file
from ldm_privacy.geometry.stream import influence_by_batch, stream_distortion
from ldm_privacy.models.codec import Codec
from ldm_privacy.processes import gather, share_of, world_size
from ldm_privacy.types import Condition, Image, Images, Latent, Progress

NUM_KEPT = 16
"""Decoded images that are kept to be shown."""


@dataclass
class Measuring:
    """What images are, and what a frozen codec makes of them.

    Of several processes each computes its share, and all find the same in the store. Whatever has a row for each sample goes
    there as it is computed and is mapped from there; images are fetched by a thread, a batch ahead of the codec.

    Attributes:
        codec: On `device`.
        images: Sample indices -> images.
        content: Identifies the images (a hash of pixels and size): part of every fingerprint.
        store_folder: Where results are kept; None: nowhere.
        device: Where passes run.
        progress: Shows how far it is.
        memory: What was found or computed before, by fingerprint: with another target of the same codec it is not read again.
        latents_gib: For latents that are computed from what is stored; beyond it they lie in a file of the store's folder.
            None: no bound, as where there is no store.
    """

    codec: Codec
    images: Images
    content: str
    store_folder: Path | None
    device: torch.device
    progress: Progress
    memory: dict[str, Any] | None = None
    latents_gib: float | None = None
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

        def mean(image: Image) -> Tensor:
            return self.codec.mean(image.flip(-1) if mirrored else image)

        def compute(mine: Tensor) -> Iterator[dict[str, Tensor]]:
            return self._batches(f"Encoding {which}images", "encoding images", lambda image: {"mean": mean(image)}, mine)

        which = "mirrored " if mirrored else ""
        return self._stored(f"{which}latents", index, {}, compute, of_all=True)["mean"]

    def held(self, batches: Iterable[Tensor], num_bytes: int) -> Tensor:
        """Batches of latents as one tensor on the CPU: in memory, or where they are beyond `latents_gib` mapped from a file.

        Of several processes each has a file of its own.
        """
        if self.latents_gib is None or self.store_folder is None or num_bytes <= self.latents_gib * 2**30:
            return torch.cat(list(batches))
        return in_file(batches, self.store_folder)

    def latents(self, *means: Tensor) -> Latent:
        """`codec.channel_map` of posterior means, one after the other, on the CPU; see `held`."""
        rows = _chunks(means[0])
        return self.held(
            (self.codec.channel_map(each[some]) for each in means for some in rows), sum(each.nbytes for each in means)
        )

    def joined(self, known: Sequence[tuple[Tensor, Tensor]], index: Tensor) -> Tensor:
        """The rows of those samples, on the CPU, see `held`. `known`: sample indices and their rows, no sample twice."""
        everyone, order = torch.cat([each for each, _ in known]).sort()
        place, tables = order[torch.searchsorted(everyone, index)], [table for _, table in known]

        def rows(chunk: slice) -> Tensor:
            found, first = tables[0].new_empty(len(place[chunk]), *tables[0].shape[1:]), 0
            for table in tables:
                here = (place[chunk] >= first) & (place[chunk] < first + len(table))
                found[here] = table[place[chunk][here] - first]
                first += len(table)
            return found

        num_bytes = len(index) * tables[0][:1].nbytes
        return self.held((rows(chunk) for chunk in _chunks(tables[0], len(index))), num_bytes)

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
        found = self._stored("image complexity", index, {}, self._complexity, of_codec=False)
        columns["complexity"] = found["complexity"]
        if self.codec.network is None:
            return samples.with_columns(**columns)
        found = self._stored("reconstruction", index, self._map, lambda mine: self._reconstruction(mine, samples.latent))
        columns["reconstruction_error"] = found["error"]
        if influence is not None:
            settings = {**self._map, **(influence_settings or {})}
            found = self._stored("influence", index, settings, lambda _: self._influence(influence, samples, index, settings))
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
        compute: Callable[[Tensor], Iterable[Mapping[str, Tensor]]],
        *,
        of_codec: bool = True,
        of_all: bool = False,
    ) -> Mapping[str, Tensor]:
        """This process's rows of a quantity: found in the store, or computed and stored as one file for all processes.

        `compute` gets this process's sample indices and returns its rows by batches, on the CPU. `of_codec`: the codec has a
        part in it. `of_all`: The rows of all processes.
        """
        share = share_of(len(index))
        if self.store_folder is None and self.memory is None:
            return _joined(gather(list(compute(index[share]))) if of_all else [list(compute(index[share]))])
        codec, weights = (self.codec.settings(), self.codec.weights()) if of_codec else (None, {})
        name = fingerprint(weights, {"quantity": noun, "codec": codec, "images": self.content, **settings}, index)
        memory = {} if self.memory is None else self.memory
        if name not in memory:
            if self.store_folder is None:
                memory[name] = _joined(gather(list(compute(index[share]))))
            else:
                memory[name] = Store(self.store_folder, noun).get_or_compute(name, index, lambda: compute(index[share]))[0]
        return memory[name] if of_all else {column: value[share] for column, value in memory[name].items()}

    @property
    def _map(self) -> dict[str, Any]:
        channel_map = self.codec.channel_map
        return {"shift": channel_map.shift.tolist(), "matrix": channel_map.matrix.tolist()}

    @torch.no_grad()
    def _batches(
        self, words: str, step: str, function: Callable[..., dict[str, Tensor]], index: Tensor, *columns: Tensor
    ) -> Iterator[dict[str, Tensor]]:
        """`function` of the images of those samples, and of the columns, as many at a time as the codec takes, on the CPU."""
        advice = f"while {step}: {lower_memory(self.device)}."
        with explain_out_of_memory(lambda: advice), self.progress(words, len(index)) as done:
            batches = passes(len(index), self.codec.images_per_pass(self.images(index[:1]).shape[1:]))
            for rows, image in zip(batches, ahead(self.images, [index[rows] for rows in batches])):
                found = function(image, *(column[rows] for column in columns))
                yield {name: value.cpu() for name, value in found.items()}
                done(rows.stop)

    def _complexity(self, index: Tensor) -> Iterator[dict[str, Tensor]]:
        def complexity(image: Image) -> dict[str, Tensor]:
            return {"complexity": image_complexity(image)}

        return self._batches("Image complexity", "image complexity is measured", complexity, index)

    def _reconstruction(self, index: Tensor, latent: Latent) -> Iterator[dict[str, Tensor]]:
        """Mean absolute error of each image."""
        self._first_decoded = None

        def error(image: Image, latent: Latent) -> dict[str, Tensor]:
            decoded, first = self.codec.decode(latent), self._first_decoded
            if first is None or len(first) < NUM_KEPT:
                self._first_decoded = torch.cat([*([] if first is None else [first]), decoded.cpu()])[:NUM_KEPT]
            return {"error": (decoded - image.to(self.device)).abs().flatten(1).mean(1)}

        return self._batches("Reconstruction error", "images are decoded", error, index, latent)

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
            of_all = self._stored("influence of each sample alone", index, settings, alone, of_all=True)
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


def _chunks(rows: Tensor, count: int | None = None) -> list[slice]:
    """So many such rows, all of them by default, in parts that fit the memory budget with a few copies of them."""
    most = rows_within(4 * rows.element_size() * rows.shape[1:].numel(), torch.device("cpu"))
    return passes(len(rows) if count is None else count, most)


def _joined(shares: Iterable[Iterable[Mapping[str, Tensor]]]) -> dict[str, Tensor]:
    """The rows of all batches of all of them."""
    batches = [batch for share in shares for batch in share]
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}

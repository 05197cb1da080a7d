"""What the reference of a target has of the audited samples: asked once, then found in a store."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ldm_privacy.audit.audit import Audit
from ldm_privacy.audit.collected import Collected
from ldm_privacy.audit.passes import RANKING_BYTES
from ldm_privacy.audit.samples import AuditedSamples, MaskRule
from ldm_privacy.device import passes, rows_within
from ldm_privacy.errors import UserError
from ldm_privacy.geometry.store import Store, as_bytes, fingerprint
from ldm_privacy.processes import gather, on_main, share_of
from ldm_privacy.types import NoisePredictor, Progress

NOUN = "what the reference scores"


class AskedOnce:
    """What a reference has of the samples of an audit that is repeated.

    It doesn't move, so it is asked at the first look alone, and again where samples, latents, influence or conditions change.
    """

    def __init__(self) -> None:
        self._known: tuple[AuditedSamples, Collected] | None = None

    def __call__(self, audit: Audit, predictor: NoisePredictor | None, progress: Progress) -> Collected | None:
        """This process's samples' sums; None where nothing is compared with a reference.

        Cost: `audit.num_reference_passes` denoiser passes, or none. Raises UserError where something is, and there is none.
        """
        if not audit.compared:
            return None
        if predictor is None:
            needing = [label for label, each in audit.calibrations.items() if each.needs_reference]
            raise UserError(
                f"audit.calibrations.{needing[0]}: it compares with a reference, and this target has none: give it one, as in "
                "Target(codec, predictor, reference=...), or take the calibration out."
            )
        if self._known is None or not _asked_alike(self._known[0], audit.samples):
            with progress("Audit of the reference", len(audit.samples)) as done:
                self._known = (audit.samples, audit.collect_reference(predictor, done))
        return self._known[1]


def referenced(
    audit: Audit,
    predictor: NoisePredictor,
    store: Store | None,
    key: Mapping[str, Any],
    progress: Callable[[int], None] = lambda done: None,
) -> Collected:
    """`audit.collect_reference(predictor)` of this process's samples, to the last bit, with no pass where it is stored.

    Several targets of one base, and later audits of one, find it again: a file of masked sums, float64, under a fingerprint of
    `key` and of what the passes see: latents, keep masks and conditions of the samples, attacks, timesteps, seed.

    Args:
        audit: Of all samples, or of this process's share (`share_of`).
        predictor: The reference, on the samples' device.
        store: None: nothing is stored.
        key: What the reference is, and what its conditions mean, in plain values: hashes of its parts and of the captions.
        progress: Called with the number of samples done.

    All processes call it. Cost: `audit.num_reference_passes` denoiser passes, or none.
    """
    if store is None:
        return audit.collect_reference(predictor, progress)
    everyone = audit.samples.gathered()
    index = torch.cat(gather(audit.samples.sample_index.cpu()))
    name = on_main(lambda: fingerprint(*_seen(audit, everyone, predictor, key), index))

    def rows() -> Iterator[dict[str, Tensor]]:
        sums = audit.collect_reference(predictor, progress).sums
        yield {f"{label}/{place}": term.movedim(-1, 0) for label, terms in sums.items() for place, term in enumerate(terms)}

    share = share_of(len(index))
    found = {column: value[share] for column, value in store.get_or_compute(name, index, rows)[0].items()}
    sums = {
        label: [found[f"{label}/{place}"].movedim(0, -1) for place in range(_num_terms(found, label))]
        for label in audit.compared
    }
    return Collected.of(audit.samples, sums)


def _asked_alike(one: AuditedSamples, other: AuditedSamples) -> bool:
    """Whether the same is asked of both: the same samples, latents, influence and conditions, on one device."""
    if one is other:
        return True

    def asked(samples: AuditedSamples) -> dict[str, Tensor]:
        told = {f"{view} {name}": each for view in ("own", *samples.views) for name, each in samples.told(view).items()}
        columns = {"index": samples.sample_index, "latent": samples.latent, "deviation": samples.deviation, **told}
        return columns if samples.influence is None else {**columns, "influence": samples.influence}

    first, second = asked(one), asked(other)
    is_here = one.latent.device == other.latent.device
    return is_here and first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def _kept(samples: AuditedSamples, masks: Mapping[str, MaskRule]) -> dict[str, str]:
    """SHA-256 of every mask of those samples, by label."""
    digests = {label: hashlib.sha256() for label in masks}
    for rows in passes(len(samples), rows_within(RANKING_BYTES * samples.latent.shape[1:].numel(), samples.latent.device)):
        some = samples.rows(rows)
        for label, rule in masks.items():
            digests[label].update(as_bytes(some.keep(rule)))
    return {label: digest.hexdigest() for label, digest in digests.items()}


def _num_terms(found: Mapping[str, Tensor], label: str) -> int:
    return sum(name.rpartition("/")[0] == label for name in found)


def _seen(
    audit: Audit, samples: AuditedSamples, predictor: NoisePredictor, key: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and settings that decide the sums of those samples, all of them; masks by batches."""
    attacks = {label: audit.asked[label] for label in audit.compared}
    views = {"own", *(each.view for each in attacks.values()), *(view for each in attacks.values() for view in each.views)}
    tensors = {
        "latent": samples.latent,
        "alphas_cumprod": predictor.alphas_cumprod,
        **{f"{view}/{name}": value for view in views for name, value in samples.told(view).items()},
    }
    settings = {
        "quantity": NOUN,
        "reference": key,
        "attacks": {label: repr(attack) for label, attack in attacks.items()},
        "masks": {label: audit.masks_of(label) for label in attacks},
        "kept": _kept(samples, audit.masks),
        "timesteps": audit.timesteps,
        "seed": audit.seed,
        "autocast": str(audit.autocast),
    }
    return tensors, settings

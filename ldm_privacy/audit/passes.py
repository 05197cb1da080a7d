"""The denoiser passes of an audit: what they cost, and the masked sums that they give."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ldm_privacy.attacks.base import Attack
from ldm_privacy.attacks.runner import RunOptions, masked_sums
from ldm_privacy.audit.collected import Collected, Sums
from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.audit.sweep import RANKINGS, ladder_masks
from ldm_privacy.audit.views import condition_use, differs
from ldm_privacy.device import explain_out_of_memory, give_back, lower_memory, passes, rows_within
from ldm_privacy.plugins import blamed_on
from ldm_privacy.types import KeepMask, NoisePredictor

if TYPE_CHECKING:
    from ldm_privacy.audit.audit import Audit


SAMPLES_AT_ONCE = 512
"""At most: how often progress is told of."""

RANKING_BYTES = 64
"""Per number of a latent, to rank its dimensions; beside the masks, that are copied a few times."""


def num_passes(audit: "Audit", labels: Sequence[str]) -> int:
    """Denoiser passes of those attacks on all samples of the audit.

    Where an attack is asked under another condition too, samples whose condition is the same under it are not asked again.
    """
    everyone = len(audit.samples)
    others = {view: int(differs(audit.samples, view).sum()) for view in audit.views}
    asked = {label: others[of.view] for label, of in audit.view_of.items() if of.attack in labels}
    return sum(asked.get(label, everyone) * audit.asked[label].num_queries(audit.timesteps) for label in labels)


def collect(
    audit: "Audit",
    predictor: NoisePredictor,
    labels: Sequence[str],
    progress: Callable[[int], None],
    *,
    is_reference: bool = False,
) -> Collected:
    """The masked sums of those attacks on all samples, batch by batch, on the CPU; `progress`: the number of samples done.

    The masks of a batch fit in the memory budget.

    Those of a reference are made in the same way, masks of a sweep and all, so that one that equals the target has the same
    sums to the last bit; nobody looks at its sweep, nor at whether it listens to its condition.
    """
    latent = audit.samples.latent
    sums: Sums = {}
    sweeps: Sums = {}
    uses = []
    num_masks = len(audit.masks) + len(RANKINGS) * len(audit.keep_fractions)
    fitting = rows_within((4 * num_masks + RANKING_BYTES) * latent.shape[1:].numel(), latent.device)
    with explain_out_of_memory(lambda: f"in an audit: {lower_memory(latent.device)}."):
        for rows in passes(len(latent), min(SAMPLES_AT_ONCE, fitting)):
            batch = audit.samples.rows(rows)
            for name, terms in _attacked(audit, predictor, batch, labels).items():
                num_masks = len(audit.masks_of(name))
                _write(sums, name, rows, [term[:num_masks] for term in terms], len(latent))
                if not is_reference:
                    # Half the memory: a sweep has many masks, and its scores are only ranked.
                    _write(sweeps, name, rows, [term[num_masks:] for term in terms], len(latent), torch.float32)
            if "shuffled" in audit.views and len(batch) and not is_reference:
                uses.append(condition_use(predictor, batch, seed=audit.seed, autocast=audit.autocast))
            progress(rows.stop)
            give_back()
    return Collected.of(audit.samples, sums, sweeps, condition_use=torch.cat(uses) if uses else None)


def _write(
    whole: Sums, name: str, rows: slice, terms: Sequence[Tensor], num_samples: int, dtype: torch.dtype | None = None
) -> None:
    """Put what an attack has of some rows in its place among all samples': nothing is kept twice."""
    if name not in whole:
        whole[name] = [term.new_empty((*term.shape[:-1], num_samples), dtype=dtype) for term in terms]
    for mine, term in zip(whole[name], terms):
        mine[..., rows] = term


def _attacked(audit: "Audit", predictor: NoisePredictor, batch: AuditedSamples, labels: Sequence[str]) -> Sums:
    """The masked sums of a batch, of the masks of the sweep after the others."""
    keep = {label: batch.keep(rule) for label, rule in audit.masks.items()}
    ladder = [ladder_masks(batch, audit.keep_fractions, seed=audit.seed)] if audit.keep_fractions else []
    others = {view: differs(batch, view) for view in audit.views if len(batch)}
    sums: Sums = {}
    # Of several processes one may have no sample.
    for name in labels if len(batch) else ():
        attack, view = audit.asked[name], audit.view_of.get(name)
        masks = torch.stack([keep[label] for label in audit.masks_of(name)])
        every = torch.cat([masks, *ladder]) if audit.sweeps(name) else masks
        with blamed_on(attack):
            if view is None or view.attack not in sums:
                terms = _sums(audit, attack, predictor, batch, every)
            else:
                base = [audit.masks_of(view.attack).index(label) for label in audit.masks_of(name)]
                terms = [term[base] for term in sums[view.attack]]  # a copy
                if (other := others[view.view]).any():
                    for term, found in zip(terms, _sums(audit, attack, predictor, batch.rows(other), every[:, other])):
                        term[..., other.cpu()] = found
        sums[name] = terms
    return sums


def _sums(audit: "Audit", attack: Attack, predictor: NoisePredictor, batch: AuditedSamples, masks: KeepMask) -> list[Tensor]:
    """The masked sums of one attack, on the CPU."""
    options: RunOptions = {
        "condition": batch.condition,
        "views": batch.views,
        "sample_index": batch.sample_index,
        "seed": audit.seed,
        "autocast": audit.autocast,
    }
    return [each.cpu() for each in masked_sums(attack, predictor, batch.latent, audit.timesteps, masks, **options)]

"""The audit: every attack with every mask on the same samples, the timestep chosen on one half and reported on the other."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ldm_privacy.attacks import Attack, CombinedAttack, attack_statistics, masked_sums, membership_scores
from ldm_privacy.audit.collected import Collected, join
from ldm_privacy.audit.report import AuditReport, report_of
from ldm_privacy.audit.samples import MaskRule, SampleGeometry, check_halves
from ldm_privacy.audit.scores import TUNED, AuditScores
from ldm_privacy.audit.sweep import ladder_masks, split_ladder
from ldm_privacy.errors import UserError
from ldm_privacy.types import AuditBatch, AuditKey, NoisePredictor

COMBINED = "combined"


def check_labels(attacks: Collection[str], masks: Collection[str]) -> None:
    """Raise UserError for a label that is taken (`combined`, `tuned`) or can't be part of a series' or a file's name."""
    if COMBINED in attacks:
        raise UserError(f"audit.attacks: the label '{COMBINED}' is taken by the combined attack (audit.combine).")
    if TUNED in masks:
        raise UserError(f"audit.masks: the label '{TUNED}' is taken by the keep fraction of audit.keep_fractions.")
    for section, labels in (("attacks", attacks), ("masks", masks)):
        if wrong := next((label for label in labels if not re.fullmatch(r"[\w.+-]+", label)), None):
            raise UserError(
                f"audit.{section}: the label '{wrong}' names files and curves: use letters, digits, '_', '.', '+' and '-'."
            )


class Audit:
    """Accumulates statistics batch by batch, then computes the report. Pure tensors: usable from a notebook.

    One denoiser pass per (sample, timestep, input) serves every mask and every keep fraction. Cost of an audit:
    `num_passes` per sample; masks of a sweep cost a sort per ranking and a matrix product.

    Args:
        attacks: By label.
        masks: By label; see `MaskRule`.
        geometry: Of the audited samples.
        timesteps: That every attack queries.
        is_calibration: (samples,) sample indices -> bool: who chooses timestep and keep fraction. Stable over audits.
        keep_fractions: Of the sweep over masks of largest influence, with random masks and masks of largest deviation beside
            them; empty = no sweep. Every maskable attack then gets a row `tuned`, whose keep fraction and timestep the
            calibration half chose.
        combine: Add the attack "combined" for each mask: logistic regression over all statistics, fitted on the calibration
            half.
        autocast: Denoiser passes in this precision (GPU only); see `attack_statistics` for the error that it makes.
        groups: (samples,) sample indices -> group numbers, or None; intervals then resample whole groups.
        seed: Of the attacks' noise, the random masks of the sweep and the bootstrap.
        confidence, num_bootstrap: Of the intervals.
        target_fprs: Of TPR@FPR.

    Raises:
        UserError: See `check_labels`.
    """

    def __init__(
        self,
        attacks: Mapping[str, Attack],
        masks: Mapping[str, MaskRule],
        geometry: SampleGeometry,
        timesteps: Sequence[int],
        is_calibration: Callable[[Tensor], Tensor],
        *,
        keep_fractions: Sequence[float] = (),
        combine: bool = False,
        autocast: torch.dtype | None = None,
        groups: Callable[[Tensor], Tensor | None] = lambda sample_index: None,
        seed: int = 0,
        confidence: float = 0.95,
        num_bootstrap: int = 1000,
        target_fprs: Sequence[float] = (0.01, 0.001),
    ):
        check_labels(attacks, masks)
        self.attacks = dict(attacks)
        self.masks = dict(masks)
        self.geometry = geometry
        self.timesteps = list(timesteps)
        self.is_calibration = is_calibration
        self.keep_fractions = list(keep_fractions)
        self.combine = combine
        self.autocast = autocast
        self.groups = groups
        self.seed = seed
        self.confidence = confidence
        self.num_bootstrap = num_bootstrap
        self.target_fprs = tuple(target_fprs)
        self.reset()

    @property
    def keys(self) -> list[AuditKey]:
        """Attack x mask, in the order of the report; an attack that has no mask appears with keep-all masks only."""
        keys = []
        for attack in self.attacks:
            keys += [AuditKey(attack, mask) for mask in self._masks_of(attack)]
            keys += [AuditKey(attack, TUNED)] if self._sweeps(attack) else []
        return keys + [AuditKey(COMBINED, mask) for mask in self.masks] if self.combine else keys

    @property
    def num_passes(self) -> int:
        """Denoiser passes per sample and audit."""
        return sum(attack.num_queries(self.timesteps) for attack in self.attacks.values())

    def reset(self) -> None:
        """Forget all samples."""
        self._collected: list[Collected] = []

    @torch.no_grad()
    def update(self, predictor: NoisePredictor, batch: AuditBatch) -> None:
        """Attack one batch. The noise belongs to the sample, so batches and their order don't matter."""
        keep = {label: self.geometry.keep(rule, batch.sample_index) for label, rule in self.masks.items()}
        ladder = None
        if self.keep_fractions:
            ladder = ladder_masks(self.geometry, batch.sample_index, self.keep_fractions, seed=self.seed)
        sums, sweeps = {}, {}
        for name, attack in self.attacks.items():
            masks = torch.stack([keep[label] for label in self._masks_of(name)])
            num_masks = len(masks)
            if ladder is not None and attack.maskable:
                masks = torch.cat([masks, ladder])
            options: dict[str, Any] = {
                "condition": batch.condition,
                "sample_index": batch.sample_index,
                "seed": self.seed,
                "autocast": self.autocast,
            }
            # What is no sum over dimensions comes finished, for the one mask that keeps everything.
            run = masked_sums if attack.maskable else attack_statistics
            result = run(attack, predictor, batch.latent, self.timesteps, masks, **options)
            terms = [each.cpu() for each in (result if isinstance(result, tuple) else (result,))]
            sums[name] = [term[:num_masks] for term in terms]
            # Half the memory: a sweep has many masks, and its scores are only ranked.
            sweeps[name] = [term[num_masks:].float() for term in terms]
        self._collected.append(Collected(batch.sample_index.cpu(), batch.is_member.cpu(), sums, sweeps))

    def collected(self) -> Collected:
        """What was gathered since the last reset, as one record; shards of several processes join by `join`."""
        return join(self._collected)

    def compute(self, collected: Collected | None = None) -> AuditReport:
        """The report over all batches since the last reset, or over what was collected elsewhere.

        Raises:
            UserError: Members or held-out samples are missing from one of the halves, or a score is not finite.
        """
        return report_of(
            self.scores(self.collected() if collected is None else collected),
            confidence=self.confidence,
            target_fprs=self.target_fprs,
            num_bootstrap=self.num_bootstrap,
            seed=self.seed,
        )

    def scores(self, collected: Collected) -> AuditScores:
        """Membership scores from the masked sums; free settings of attacks are fitted on the calibration half."""
        sample_index, is_member = collected.sample_index, collected.is_member
        is_calibration = self.is_calibration(sample_index)
        check_halves(is_calibration, is_member)

        def oriented(attack: Attack, sums: list[Tensor]) -> Tensor:
            return self._oriented(attack, sums, is_member, is_calibration)

        scores, sweeps = {}, {}
        for name, attack in self.attacks.items():
            for place, label in enumerate(self._masks_of(name)):
                scores[AuditKey(name, label)] = oriented(attack, [term[place] for term in collected.sums[name]])
            if self._sweeps(name):
                rungs = [[term.double() for term in terms] for terms in zip(*collected.sweeps[name])]
                sweeps[name] = split_ladder([oriented(attack, rung).float() for rung in rungs], self.keep_fractions)
        timesteps = {name: self.timesteps if attack.per_timestep else [] for name, attack in self.attacks.items()}
        coefficients = self._combine(scores, timesteps, is_member, is_calibration) if self.combine else {}
        return AuditScores(
            sample_index,
            is_member,
            is_calibration,
            self.groups(sample_index),
            timesteps,
            scores,
            {key: self.masks[key.mask].keep_fraction for key in scores},
            frozenset(label for label, rule in self.masks.items() if getattr(rule, "is_control", False)),
            sweeps,
            coefficients,
        )

    def _oriented(self, attack: Attack, sums: list[Tensor], is_member: Tensor, is_calibration: Tensor) -> Tensor:
        """Membership scores (timesteps, samples) from the masked sums; free settings are fitted on the calibration half."""
        if not attack.maskable:
            return membership_scores(attack, sums[0])
        attack = attack.calibrated(tuple(each[:, is_calibration] for each in sums), is_member[is_calibration])
        return membership_scores(attack, attack.combine(*(each[None] for each in sums))[0])

    def _combine(
        self, scores: dict[AuditKey, Tensor], timesteps: dict[str, list[int]], is_member: Tensor, is_calibration: Tensor
    ) -> dict[str, float]:
        """Adds the combined attack of each mask to `scores`; returns its coefficients as series."""
        series: dict[str, float] = {}
        for mask in self.masks:
            statistics = {key: score for key, score in scores.items() if key.mask == mask}
            combined = CombinedAttack[AuditKey]().fit(statistics, is_member, is_calibration)
            scores[AuditKey(COMBINED, mask)] = combined.membership_scores(statistics)[None]
            for key, values in combined.coefficients.items():
                for timestep, value in zip([f"t{t}" for t in timesteps[key.attack]] or ["all"], values.tolist()):
                    series[f"combined/{mask}/{key.attack}/{timestep}"] = value
        timesteps[COMBINED] = []
        return series

    def _sweeps(self, attack: str) -> bool:
        return bool(self.keep_fractions) and self.attacks[attack].maskable

    def _masks_of(self, attack: str) -> list[str]:
        if self.attacks[attack].maskable:
            return list(self.masks)
        return [label for label, rule in self.masks.items() if rule.keep_fraction == 1.0]

"""The audit: every attack with every mask on the same samples, the timestep chosen on one half and reported on the other."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from ldm_privacy.attacks import Attack, CombinedAttack, attack_statistics, masked_sums, membership_scores
from ldm_privacy.errors import UserError
from ldm_privacy.metrics import MembershipMetrics, QuartileAuroc, auroc, auroc_by_quartile, membership_metrics
from ldm_privacy.types import AuditBatch, AuditKey, Decoder, Influence, KeepMask, NoisePredictor

COMBINED = "combined"


class MaskRule(Protocol):
    """(influence, sample_index) -> keep mask."""

    keep_fraction: float

    def __call__(self, influence: Influence, sample_index: Tensor) -> KeepMask: ...


class SampleTable:
    """Rows matched by sample index.

    Args:
        sample_index: (samples,) unique.
        value: (samples, ...).
    """

    def __init__(self, sample_index: Tensor, value: Tensor):
        order = sample_index.argsort()
        self.sample_index = sample_index[order]
        self.value = value[order]

    def __getitem__(self, sample_index: Tensor) -> Tensor:
        """Rows of those samples, on the device of `sample_index`. Raises UserError for a sample that is not there."""
        wanted = sample_index.to(self.sample_index.device)
        place = torch.searchsorted(self.sample_index, wanted).clamp_max(len(self.sample_index) - 1)
        missing = self.sample_index[place] != wanted
        if missing.any():
            sample = int(wanted[missing][0])
            raise UserError(f"sample {sample} is not in the table: compute its influence (or distortion) first.")
        return self.value[place].to(sample_index.device)


@dataclass(frozen=True)
class SampleGeometry:
    """What the decoder does at each audited latent.

    Attributes:
        influence: (channels, height, width) for every audited sample.
        mask_stability: Mean overlap of the masks of two halves of the probes; None where the estimator has no probes.
        distortion: Local distortion, for some or all of the audited samples; None where it isn't computed.
    """

    influence: SampleTable
    mask_stability: float | None
    distortion: SampleTable | None


@dataclass(frozen=True)
class AuditRow:
    """One attack with one mask.

    Attributes:
        key: Attack and mask.
        timestep: Chosen by AUROC on the calibration half; None for attacks with one number for all timesteps.
        metrics: On the reporting half at that timestep.
        oracle_timestep, oracle_auroc: The best timestep on the reporting half itself: optimistic, for comparison only.
        auroc_by_timestep: (timesteps,) on the reporting half.
    """

    key: AuditKey
    timestep: int | None
    metrics: MembershipMetrics
    oracle_timestep: int | None
    oracle_auroc: float
    auroc_by_timestep: Tensor

    def series(self) -> dict[str, float]:
        """The curves of this row, as logged at every audit."""
        prefix = f"memorization/{self.key}"
        values: dict[str, float] = {f"{prefix}/oracle_auroc": self.oracle_auroc}
        if self.timestep is not None:
            values[f"{prefix}/timestep"] = float(self.timestep)
        for name in ("auroc", "asr", "tpr_at_1fpr"):
            estimate = getattr(self.metrics, name)
            values[f"{prefix}/{name}"] = estimate.value
            values[f"{prefix}/{name}_lower"] = estimate.lower
            values[f"{prefix}/{name}_upper"] = estimate.upper
        return values


@dataclass(frozen=True)
class AuditReport:
    """What an audit found. All samples are in ascending order of sample index.

    Attributes:
        sample_index, is_member, is_calibration: (samples,).
        timesteps: Per attack, the timesteps of its scores; empty for attacks with one number for all.
        group: (samples,) group numbers, or None.
        scores: (timesteps, samples) membership scores per attack and mask, higher = member.
        rows: One per attack and mask, in the order of the config.
        confidence: Of all intervals.
        coefficients: Of the combined attack, as series; log-odds per standard deviation of a statistic.
        unmasked: Labels of the masks that keep everything.
    """

    sample_index: Tensor
    is_member: Tensor
    is_calibration: Tensor
    group: Tensor | None
    timesteps: dict[str, list[int]]
    scores: dict[AuditKey, Tensor]
    rows: list[AuditRow]
    confidence: float = 0.95
    coefficients: dict[str, float] = field(default_factory=dict)
    unmasked: tuple[str, ...] = ()

    def row(self, key: AuditKey) -> AuditRow:
        """The row of that attack and mask."""
        return next(row for row in self.rows if row.key == key)

    def reported_scores(self, key: AuditKey) -> Tensor:
        """Scores of the reporting half at the chosen timestep, ascending by sample index."""
        place = 0
        if (timestep := self.row(key).timestep) is not None:
            place = self.timesteps[key.attack].index(timestep)
        return self.scores[key][place, ~self.is_calibration]

    @property
    def reported_membership(self) -> Tensor:
        """is_member of the reporting half, ascending by sample index."""
        return self.is_member[~self.is_calibration]

    @property
    def reported_group(self) -> Tensor | None:
        """Groups of the reporting half, ascending by sample index."""
        return None if self.group is None else self.group[~self.is_calibration]

    def quartiles(self, key: AuditKey, distortion: SampleTable) -> QuartileAuroc:
        """AUROC of the reporting half by timestep and quartile of local distortion, over the samples that have one."""
        chosen = ~self.is_calibration & torch.isin(self.sample_index, distortion.sample_index)
        group = None if self.group is None else self.group[chosen]
        value = distortion[self.sample_index[chosen]]
        return auroc_by_quartile(
            self.scores[key][:, chosen], self.is_member[chosen], value, confidence=self.confidence, group=group
        )

    def series(self) -> dict[str, float]:
        """All curves: name -> value."""
        return {name: value for row in self.rows for name, value in row.series().items()}


@dataclass(frozen=True)
class Evaluation:
    """An audit with what its figures need.

    Attributes:
        report: What the audit found.
        geometry, audited: Of the audited samples.
        decoder: Latent -> image.
    """

    report: AuditReport
    geometry: SampleGeometry
    audited: AuditBatch
    decoder: Decoder


class Audit:
    """Accumulates statistics batch by batch, then computes the report. Pure tensors: usable from a notebook.

    One denoiser pass per (sample, timestep, input) serves every mask. Cost of an audit: `num_passes` per sample.

    Args:
        attacks: By label.
        masks: By label; each (influence, sample_index) -> keep mask.
        influence: Per audited sample.
        timesteps: That every attack queries.
        is_calibration: (samples,) sample indices -> bool: who chooses the timestep. Stable over audits.
        combine: Add the attack "combined" for each mask: logistic regression over all statistics, fitted on the calibration
            half.
        autocast: Denoiser passes in this precision (GPU only); see `attack_statistics` for the error that it makes.
        groups: (samples,) sample indices -> group numbers, or None; intervals then resample whole groups.
        seed: Of the attacks' noise and the bootstrap.
        confidence, num_bootstrap: Of the intervals.
    """

    def __init__(
        self,
        attacks: Mapping[str, Attack],
        masks: Mapping[str, MaskRule],
        influence: SampleTable,
        timesteps: Sequence[int],
        is_calibration: Callable[[Tensor], Tensor],
        *,
        combine: bool = False,
        autocast: torch.dtype | None = None,
        groups: Callable[[Tensor], Tensor | None] = lambda sample_index: None,
        seed: int = 0,
        confidence: float = 0.95,
        num_bootstrap: int = 1000,
    ):
        if COMBINED in attacks:
            raise UserError(f"audit.attacks: the label '{COMBINED}' is taken by the combined attack (audit.combine).")
        self.attacks = dict(attacks)
        self.masks = dict(masks)
        self.influence = influence
        self.timesteps = list(timesteps)
        self.is_calibration = is_calibration
        self.combine = combine
        self.autocast = autocast
        self.groups = groups
        self.seed = seed
        self.confidence = confidence
        self.num_bootstrap = num_bootstrap
        self.reset()

    @property
    def keys(self) -> list[AuditKey]:
        """Attack x mask, in order; an attack that has no mask appears with keep-all masks only."""
        keys = [AuditKey(attack, mask) for attack in self.attacks for mask in self._masks_of(attack)]
        return keys + [AuditKey(COMBINED, mask) for mask in self.masks] if self.combine else keys

    @property
    def num_passes(self) -> int:
        """Denoiser passes per sample and audit."""
        return sum(attack.num_queries(self.timesteps) for attack in self.attacks.values())

    def reset(self) -> None:
        """Forget all samples."""
        self._sample_index: list[Tensor] = []
        self._is_member: list[Tensor] = []
        self._sums: dict[AuditKey, list[tuple[Tensor, ...]]] = {key: [] for key in self.keys if key.attack != COMBINED}

    @torch.no_grad()
    def update(self, predictor: NoisePredictor, batch: AuditBatch) -> None:
        """Attack one batch. The noise belongs to the sample, so batches and their order don't matter."""
        influence = self.influence[batch.sample_index]
        keep = {label: rule(influence, batch.sample_index) for label, rule in self.masks.items()}
        for name, attack in self.attacks.items():
            labels = self._masks_of(name)
            arguments = (attack, predictor, batch.latent, self.timesteps, torch.stack([keep[label] for label in labels]))
            options: dict[str, Any] = {
                "condition": batch.condition,
                "sample_index": batch.sample_index,
                "seed": self.seed,
                "autocast": self.autocast,
            }
            # What is no sum over dimensions comes finished, for the one mask that keeps everything.
            run = masked_sums if attack.maskable else attack_statistics
            result = run(*arguments, **options)
            sums = result if isinstance(result, tuple) else (result,)
            for place, label in enumerate(labels):
                self._sums[AuditKey(name, label)].append(tuple(each[place].double().cpu() for each in sums))
        self._sample_index.append(batch.sample_index.cpu())
        self._is_member.append(batch.is_member.cpu())

    def compute(self) -> AuditReport:
        """The report over all batches since the last reset.

        Raises:
            UserError: Members or held-out samples are missing from one of the halves, or a score is not finite.
        """
        sample_index = torch.cat(self._sample_index)
        order = sample_index.argsort()
        sample_index, is_member = sample_index[order], torch.cat(self._is_member)[order]
        is_calibration = self.is_calibration(sample_index)
        check_halves(is_calibration, is_member)
        scores = {}
        for key, parts in self._sums.items():
            sums = [torch.cat(each, dim=1)[:, order] for each in zip(*parts)]
            scores[key] = self._oriented(self.attacks[key.attack], sums, is_member, is_calibration)
        timesteps = {name: self.timesteps if attack.per_timestep else [] for name, attack in self.attacks.items()}
        unmasked = tuple(label for label, rule in self.masks.items() if rule.keep_fraction == 1.0)
        coefficients = self._combine(scores, timesteps, is_member, is_calibration) if self.combine else {}
        group = self.groups(sample_index)
        reported_group = None if group is None else group[~is_calibration]
        rows = []
        for key, score in scores.items():
            by_timestep = auroc(score[:, ~is_calibration], is_member[~is_calibration])
            chosen = int(auroc(score[:, is_calibration], is_member[is_calibration]).argmax())
            best = int(by_timestep.argmax())
            metrics = membership_metrics(
                score[chosen, ~is_calibration],
                is_member[~is_calibration],
                confidence=self.confidence,
                group=reported_group,
                num_bootstrap=self.num_bootstrap,
                seed=self.seed,
            )
            labels: list[int] | list[None] = timesteps[key.attack] or [None]
            rows.append(AuditRow(key, labels[chosen], metrics, labels[best], float(by_timestep[best]), by_timestep))
        return AuditReport(
            sample_index, is_member, is_calibration, group, timesteps, scores, rows, self.confidence, coefficients, unmasked
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

    def _masks_of(self, attack: str) -> list[str]:
        if self.attacks[attack].maskable:
            return list(self.masks)
        return [label for label, rule in self.masks.items() if rule.keep_fraction == 1.0]


def check_halves(is_calibration: Tensor, is_member: Tensor) -> None:
    """Raise UserError where a half of the audit has fewer than two members or two held-out samples."""
    for half, name in ((is_calibration, "calibration"), (~is_calibration, "reporting")):
        for side, what in ((is_member, "members"), (~is_member, "held-out samples")):
            if int((half & side).sum()) < 2:
                raise UserError(
                    f"the {name} half of the audit has fewer than two {what}: audit more samples "
                    "(data.num_members, data.num_heldout, audit.max_samples)."
                )

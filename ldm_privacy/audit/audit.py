"""The audit: every attack with every mask on the same samples, each half choosing for the other."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field

import torch

from ldm_privacy.attacks.base import Attack
from ldm_privacy.audit.calibrate import (
    MOST_EARLIER,
    Derivation,
    check_derivations,
    derivations,
    known_to,
    level,
    with_calibrated,
)
from ldm_privacy.audit.checks import check_keep_fractions, check_labels, check_masked, check_masks, check_views
from ldm_privacy.audit.collected import Collected
from ldm_privacy.audit.kept import History, KeptScores
from ldm_privacy.audit.oriented import oriented
from ldm_privacy.audit.passes import collect, num_passes
from ldm_privacy.audit.report import AuditReport, report_of
from ldm_privacy.audit.samples import AuditedSamples, MaskRule, check_halves
from ldm_privacy.audit.scores import TUNED, AuditScores, forms, is_alike
from ldm_privacy.audit.sweep import split_ladder
from ldm_privacy.audit.views import USE_PASSES, with_views
from ldm_privacy.calibrations.base import Calibration
from ldm_privacy.device import give_back
from ldm_privacy.types import AuditKey, Intervals, NoisePredictor, Whose


@dataclass(eq=False, repr=False)
class Audit:
    """Attacks the audited samples and computes the report. Pure tensors: usable from a notebook, `audit(predictor)`.

    One denoiser pass per (sample, timestep, input) serves every mask and every keep fraction. Cost of an audit:
    `num_passes`; masks of a sweep cost a sort per ranking and a matrix product.

    Args:
        samples: Whom to audit, on the device of the denoiser. Of several processes each has its share.
        attacks: By label.
        masks: By label; see `MaskRule`.
        views: Other conditions of the samples ("null", "shuffled") that every attack is repeated under, unmasked; its label is
            then "<attack>_<view>". Attacks that compare conditions themselves are not. Where a sample's condition under a view
            is its own, the queries coincide and are made once.
        timesteps: That every attack queries.
        sigmas: Of a flow, the share of noise at each timestep, for tables.
        keep_fractions: Of the sweep over masks of largest influence, with random masks and masks of largest deviation beside
            them; empty = no sweep. Every maskable attack then gets a row `tuned`, whose keep fraction and timestep each half
            chose for the other. Without influence there is no sweep.
        calibrations: By label; each adds the scores of an attack beyond how difficult an image is, see `Calibration`.
        whose_reference: Whose the reference is, should there be one: an "outsider"'s, since it is public, or an "insider"'s, as
            an earlier checkpoint of the run; "": there is none, and calibrations that need one are left out.
        calibrated: The attacks and masks that they wrap, the primary one first; the first of `keys` by default. Their results
            are called "<attack>_<label>"; of a calibration that wraps none, such as combined, the label alone.
        by_coins: A fair coin of its own, independent of all else, decided of each sample (of each group) whether it is a
            member; every row then bounds epsilon, see `ldm_privacy.metrics.crossfit_epsilon`.
        cross_fit: Each half chooses and fits for the other, so that every sample reports. False: the calibration half chooses
            and the other alone reports.
        autocast: Denoiser passes in this precision (GPU only); see `attack_statistics` for the error that it makes.
        seed: Of the attacks' noise and the random masks of the sweep.
        intervals: How intervals are made; they resample whole groups where the samples have groups.
        target_fprs: Of TPR@FPR.

    Raises:
        UserError: See `check_labels`; a mask by influence where the samples have none; a mask or keep fraction that keeps no
            dimension; an attack that has no mask, and none of the masks keeps everything; an attack that is calibrated twice or
            isn't there, a calibration by complexity where the samples have none.
    """

    samples: AuditedSamples
    attacks: Mapping[str, Attack]
    masks: Mapping[str, MaskRule]
    timesteps: Sequence[int]
    _: KW_ONLY
    sigmas: Mapping[int, float] = field(default_factory=dict)
    views: Sequence[str] = ()
    keep_fractions: Sequence[float] = ()
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    calibrated: Sequence[AuditKey] = ()
    whose_reference: Whose = "outsider"
    by_coins: bool = False
    cross_fit: bool = True
    autocast: torch.dtype | None = None
    seed: int = 0
    intervals: Intervals = None  # type: ignore[assignment]
    target_fprs: Sequence[float] = (0.01, 0.001)

    def __post_init__(self) -> None:
        check_labels(self.attacks, self.masks, self.calibrations)
        check_masks(self.masks, self.samples)
        self.attacks, self.masks, self.timesteps = dict(self.attacks), dict(self.masks), list(self.timesteps)
        check_views(self.attacks, self.views, self.samples)
        self.asked, self.view_of = with_views(self.attacks, self.views)
        check_masked({label: self.masks_of(label) for label in self.asked})
        if self.samples.influence is None:
            self.keep_fractions = ()
        check_keep_fractions(self.keep_fractions, self.samples)
        if self.intervals is None:
            self.intervals = Intervals(seed=self.seed)
        self.calibrated = tuple(self.calibrated) or tuple(self._plain_keys()[:1])
        self._derivations = derivations(self.calibrations, self.calibrated, self.whose_reference)
        check_derivations(self._derivations, self._plain_keys(), has_complexity=self.samples.complexity is not None)

    def __call__(self, predictor: NoisePredictor, reference: NoisePredictor | None = None) -> AuditReport:
        """Report of one audit, of `scores(collect(predictor))`, with the passes of a reference where something needs it."""
        asked = None if reference is None or not self.compared else self.collect_reference(reference)
        data = self.scores(self.collect(predictor), reference=asked)
        del asked
        return self.report(data)

    @property
    def keys(self) -> list[AuditKey]:
        """Attack x mask, in the order of the report; an attack that has no mask appears with keep-all masks only."""
        keys = []
        for attack in self.asked:
            keys += [AuditKey(attack, mask) for mask in self.masks_of(attack)]
            keys += [AuditKey(attack, TUNED)] if self.sweeps(attack) else []
        return keys + [each.key for each in self._derivations]

    @property
    def looks_back_at(self) -> set[AuditKey]:
        """The attacks and masks whose scores at earlier audits the calibrations look at."""
        return self._looked_at([each for each in self._derivations if each.calibration.needs_history])

    def look_back(self, history: History, *, until: float) -> dict[int, KeptScores]:
        """What the calibrations look at of a history, up to and with that time."""
        return history.read(until=until, keys=self.looks_back_at, most=MOST_EARLIER)

    @property
    def compared(self) -> list[str]:
        """The attacks, by label, that calibrations compare with the reference's."""
        return [label for label in self.asked if label in {key.attack for key in self._compared_keys}]

    @property
    def num_passes(self) -> int:
        """Denoiser passes of an audit of its samples; those of a reference come to them once, see `num_reference_passes`."""
        return num_passes(self, list(self.asked)) + len(self.samples) * USE_PASSES * ("shuffled" in self.views)

    @property
    def num_reference_passes(self) -> int:
        """Passes of a reference on its samples, which serve every audit of these samples: a reference doesn't move."""
        return num_passes(self, self.compared)

    @torch.no_grad()
    def collect(self, predictor: NoisePredictor, progress: Callable[[int], None] = lambda done: None) -> Collected:
        """The masked sums of all samples, on the CPU; of several processes, those of each join by `collected.join`.

        The noise belongs to the sample, so batches don't matter: their masks fit in the memory budget. `progress` is called
        with the number of samples done.
        """
        return collect(self, predictor, list(self.asked), progress)

    @torch.no_grad()
    def collect_reference(self, predictor: NoisePredictor, progress: Callable[[int], None] = lambda done: None) -> Collected:
        """As `collect`, what the reference has under the attacks that are `compared`: with the same noise, without a sweep."""
        return collect(self, predictor, self.compared, progress, is_reference=True)

    def report(self, data: AuditScores) -> AuditReport:
        """The report of scores; the sums they were made of are best let go before. Errors as in `report_of`."""
        give_back()
        return report_of(data, intervals=self.intervals, target_fprs=self.target_fprs)

    def scores(
        self, collected: Collected, history: Mapping[int, KeptScores] | None = None, reference: Collected | None = None
    ) -> AuditScores:
        """Membership scores from the masked sums; free settings of attacks, and calibrations, are fitted on each half.

        Args:
            collected: Of all samples.
            history: The earlier audits, by time; {} in the first one. None where it isn't known: then there are no scores of
                calibrations that need it. An audit that lacks a sample is left out.
            reference: What the reference has of the same samples, by `collect_reference`; None: calibrations that need it are
                left out. What an attack fits is fitted to the target's sums.

        Raises:
            UserError: A half is too small.
            ValueError: The reference's samples are others.
        """
        is_member, first = collected.is_member, collected.is_calibration
        check_halves(first, is_member, collected.group)
        halves = [first, ~first] if self.cross_fit else [first]
        scores, sweeps, of_reference = {}, {}, {}
        for name, attack in self.asked.items():
            for label, *terms in zip(self.masks_of(name), *collected.sums[name]):
                scores[AuditKey(name, label)] = oriented(attack, terms, is_member, halves)
            if self.sweeps(name):
                rungs = [oriented(attack, terms, is_member, halves) for terms in zip(*collected.sweeps[name])]
                sweeps[name] = split_ladder(rungs, self.keep_fractions)
        if reference is not None:
            if not torch.equal(reference.sample_index, collected.sample_index):
                raise ValueError("the reference was asked of other samples")
            for key in (key for key in scores if key in self._compared_keys):
                place = self.masks_of(key.attack).index(key.mask)
                theirs, mine = ([term[place] for term in each.sums[key.attack]] for each in (reference, collected))
                attack = self.asked[key.attack]
                score = oriented(attack, theirs, is_member, halves, fitted_to=mine)
                of_reference[key] = level(score, attack.log_scale)
        data = AuditScores(
            collected.sample_index,
            is_member,
            first,
            collected.group,
            {name: list(self.timesteps) if attack.per_timestep else [] for name, attack in self.asked.items()},
            scores,
            {key: self.masks[key.mask].keep_fraction for key in scores},
            frozenset(label for label, rule in self.masks.items() if getattr(rule, "is_control", False)),
            sweeps,
            num_fitted={key: self.asked[key.attack].num_fitted for key in scores if not is_alike(scores[key])},
            views=self.view_of,
            repeats=collected.repeats,
            condition_use=collected.condition_use,
            sigmas=dict(self.sigmas),
            by_coins=self.by_coins,
            reference=of_reference,
        )
        known = [each for each in self._derivations if history is not None or not each.calibration.needs_history]
        known = [each for each in known if reference is not None or not each.calibration.needs_reference]
        scales = {name: attack.log_scale for name, attack in self.asked.items()}
        return with_calibrated(data, known, scales, collected.complexity, history or {})

    def masks_of(self, attack: str) -> list[str]:
        """The masks that an attack goes with, by label."""
        if self.asked[attack].maskable and attack not in self.view_of:
            return list(self.masks)
        return [label for label, rule in self.masks.items() if rule.keep_fraction == 1.0]

    def sweeps(self, attack: str) -> bool:
        """Whether its keep fractions are swept."""
        return bool(self.keep_fractions) and self.asked[attack].maskable and attack not in self.view_of

    def counting_onset(self, key: AuditKey) -> list[AuditKey]:
        """Its calibrated scores that an onset is counted from."""
        return [each.key for each in self._derivations if each.of == key and each.calibration.counts_onset]

    def forms(self, key: AuditKey) -> list[AuditKey]:
        """That attack and mask, and its calibrated scores that an outsider and an insider have."""
        return forms({each.key: each.derived for each in self._derivations}, key)

    @property
    def _compared_keys(self) -> set[AuditKey]:
        return self._looked_at([each for each in self._derivations if each.calibration.needs_reference])

    def _looked_at(self, looking: Sequence[Derivation]) -> set[AuditKey]:
        plain = known_to(self._derivations, self._plain_keys(), self.view_of)
        return {key for each in looking for key in each.calibration.attacks(each.of, plain)}

    def _plain_keys(self) -> list[AuditKey]:
        return [AuditKey(attack, mask) for attack in self.asked for mask in self.masks_of(attack)]

"""A run's kept scores, and what it takes to calibrate them again. No denoiser passes; images are read for their complexity."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ldm_privacy.audit.calibrate import MOST_EARLIER, Derivation, derivations, with_calibrated
from ldm_privacy.audit.kept import KeptScores, spread_over
from ldm_privacy.audit.samples import is_calibration
from ldm_privacy.audit.scores import AuditScores
from ldm_privacy.config import compose_stored
from ldm_privacy.data.complexity import image_complexity
from ldm_privacy.metrics import permuted_labels
from ldm_privacy.randomness import derive_seed
from ldm_privacy.recipes.run_setup import RunSetup
from ldm_privacy.recipes.terminal import progress
from ldm_privacy.runs.folder import RunFolder
from ldm_privacy.runs.history import ScoreHistory
from ldm_privacy.targets.record import Checkpoint
from ldm_privacy.types import AuditKey


@dataclass(frozen=True)
class Looks:
    """Audits of the same samples.

    Attributes:
        kept: Time -> scores.
        data: The plain scores of the last of them; each half reports.
        complexity: (samples,).
        found: The calibrated scores to be made.
        log_scale: By attack.
    """

    kept: Mapping[int, KeptScores]
    data: AuditScores
    complexity: Tensor
    found: Sequence[Derivation]
    log_scale: Mapping[str, bool]

    def at(self, time: int, is_member: Tensor) -> AuditScores:
        """All scores of an audit under those labels, calibrated ones too: everything is fitted again."""
        scores = {key: both_folds(self.kept[time].scores[key]) for key in self.data.scores}
        data = replace(self.data, is_member=is_member, scores=scores)
        before = spread_over([each for each in self.kept if each < time], MOST_EARLIER)
        history = {each: self.kept[each] for each in before}
        return with_calibrated(data, self.found, self.log_scale, self.complexity, history)

    def permuted(self, count: int, seed: int) -> Tensor:
        """(count, samples) labels, permuted within each half, whole groups where there are groups."""
        data = self.data
        labels = torch.empty(count, len(data.is_member), dtype=torch.bool)
        for number, half in enumerate((data.is_calibration, ~data.is_calibration)):
            mine, group = data.is_member[half], data.group_of(half)
            seed_of_half = derive_seed("null", seed, number)
            labels[:, half] = permuted_labels(mine, num_permutations=count, group=group, seed=seed_of_half)
        return labels


def kept_looks(folder: Path) -> Looks:
    """All audits of a run."""
    run = RunFolder(folder)
    checkpoint = Checkpoint.read(run.last)
    setup = RunSetup(compose_stored(checkpoint.config, []).config, progress, split=checkpoint.split)
    kept = ScoreHistory(run.scores, setup.provenance).read(until=checkpoint.epoch)
    last = kept[max(kept)]
    keys = [key for attack in setup.attacks for mask in setup.masks if (key := AuditKey(attack, mask)) in last.scores]
    index = last.sample_index
    group = setup.data.groups(index)
    data = AuditScores(
        index,
        torch.isin(index, checkpoint.split.member_index),
        is_calibration(index, group=group),
        group,
        last.timesteps,
        {key: both_folds(last.scores[key]) for key in keys},
        {key: setup.masks[key.mask].keep_fraction for key in keys},
    )
    complexity = torch.cat([image_complexity(setup.data.images(part)) for part in index.split(1024)])
    log_scale = {label: attack.log_scale for label, attack in setup.attacks.items()}
    return Looks(kept, data, complexity, derivations(setup.calibrations, setup.calibrated), log_scale)


def both_folds(score: Tensor) -> Tensor:
    """(2, timesteps, samples) of (1 or 2, timesteps, samples)."""
    return score.expand(2, -1, -1)


def keys_of(looks: Looks, *, masks: bool) -> list[AuditKey]:
    """The unmasked attacks, with `masks` all masks too, and the calibrated scores."""
    return [key for key, kept in looks.data.keep_fraction.items() if masks or kept == 1.0] + [each.key for each in looks.found]

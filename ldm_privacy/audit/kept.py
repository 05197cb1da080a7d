"""What is kept of an audit, so that later ones have a history: every attack's scores in single precision."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from ldm_privacy.audit.report import AuditReport
from ldm_privacy.audit.scores import TUNED, is_alike
from ldm_privacy.calibrations.history import spread_out
from ldm_privacy.errors import UserError
from ldm_privacy.types import AuditKey


@dataclass(frozen=True)
class KeptScores:
    """The scores of one audit; a history is a mapping of times (epochs or steps) to these.

    Attributes:
        sample_index: (samples,) int64.
        timesteps: Per attack, those of its scores; empty for attacks with one number for all.
        scores: (1 or folds, timesteps, samples) float32 of every configured attack and mask, higher = member.
        standing: (samples,) float32 of every row of the report: `AuditReport.scores_at`.
        made: As `scores`, what was made of them: calibrated scores and `tuned`. No later audit looks at it; what compares
            trainings does.
        num_fitted: See `AuditScores`.
    """

    sample_index: Tensor
    timesteps: dict[str, list[int]]
    scores: dict[AuditKey, Tensor]
    standing: dict[AuditKey, Tensor]
    made: dict[AuditKey, Tensor] = field(default_factory=dict)
    num_fitted: dict[AuditKey, int] = field(default_factory=dict)

    @property
    def parts(self) -> tuple[dict[AuditKey, Tensor], dict[AuditKey, Tensor]]:
        """Scores and standings: what later audits look at."""
        return self.scores, self.standing

    def has(self, sample_index: Tensor) -> bool:
        """Whether all those samples were audited then."""
        return bool(torch.isin(sample_index, self.sample_index).all())

    def at(self, sample_index: Tensor) -> "KeptScores":
        """The scores of those samples, in their order.

        Raises:
            UserError: One of them was not audited then.
        """
        ordered, place = self.sample_index.sort()
        unknown = sample_index[~torch.isin(sample_index, ordered)]
        if len(unknown):
            raise UserError(
                f"sample {int(unknown[0])} has no scores in an earlier audit ({len(unknown)} of {len(sample_index)} have "
                "none): audit the samples that were audited then (audit.max_samples)."
            )
        rows = place[torch.searchsorted(ordered, sample_index)]

        def those(values: Mapping[AuditKey, Tensor]) -> dict[AuditKey, Tensor]:
            return {key: value[..., rows] for key, value in values.items()}

        return KeptScores(
            sample_index, self.timesteps, those(self.scores), those(self.standing), those(self.made), self.num_fitted
        )


class History(Protocol):
    """Where the scores of audits are kept."""

    def write(self, time: int, kept: KeptScores) -> None:
        """Keep the scores of an audit; one that is repeated replaces its earlier ones."""
        ...

    def read(
        self, *, until: float = math.inf, keys: Collection[AuditKey] | None = None, most: int | None = None
    ) -> dict[int, KeptScores]:
        """Time -> scores, up to and with `until`; of `keys` alone, and at most so many audits, spread over them."""
        ...


class Memory:
    """A history that lies in memory."""

    def __init__(self) -> None:
        self._kept: dict[int, KeptScores] = {}

    def write(self, time: int, kept: KeptScores) -> None:
        """See `History`."""
        self._kept[time] = kept

    def read(
        self, *, until: float = math.inf, keys: Collection[AuditKey] | None = None, most: int | None = None
    ) -> dict[int, KeptScores]:
        """See `History`."""
        return {time: self._kept[time] for time in spread_over([each for each in sorted(self._kept) if each <= until], most)}

    def state(self) -> list[list[Any]]:
        """For a checkpoint, in plain values and tensors: `Memory.of(state)` is the inverse."""
        return [
            [time, kept.sample_index, kept.timesteps, *({str(key): each for key, each in part.items()} for part in kept.parts)]
            for time, kept in self._kept.items()
        ]

    @classmethod
    def of(cls, state: Sequence[Sequence[Any]]) -> "Memory":
        """The inverse of `state`."""
        memory = cls()
        for time, index, timesteps, *parts in state:
            scores, standing = ({AuditKey.of(key): each for key, each in part.items()} for part in parts)
            memory.write(time, KeptScores(index, timesteps, scores, standing))
        return memory


def spread_over(times: Sequence[int], most: int | None) -> list[int]:
    """At most so many of ascending times, spread over them: the last, the first, the middle, the quarters, ..."""
    return [times[place] for place in sorted(spread_out(len(times))[:most])]


def kept_of(report: AuditReport) -> KeptScores:
    """What is kept of that audit: scores of configured attacks and masks and of what was made of them, the standing of rows."""
    data = report.data
    scores = {key: _single(score[:1] if is_alike(score) else score) for key, score in data.scores.items()}
    configured = [key for key in scores if key not in data.derived and key.mask != TUNED]
    return KeptScores(
        data.sample_index,
        dict(data.timesteps),
        {key: scores[key] for key in configured},
        {row.key: _single(report.scores_at(row.key)) for row in report.rows},
        {key: score for key, score in scores.items() if key not in configured},
        dict(data.num_fitted),
    )


def _single(score: Tensor) -> Tensor:
    """In single precision; what is beyond its range is at its end, so that finite scores stay finite."""
    most = torch.finfo(torch.float32).max
    return score.clamp(-most, most).float()

"""What is kept of an audit, so that later ones have a history: every attack's scores in single precision."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ldm_privacy.audit.audit import COMBINED
from ldm_privacy.audit.report import AuditReport
from ldm_privacy.audit.scores import TUNED
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
    """

    sample_index: Tensor
    timesteps: dict[str, list[int]]
    scores: dict[AuditKey, Tensor]
    standing: dict[AuditKey, Tensor]

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

        return KeptScores(sample_index, self.timesteps, those(self.scores), those(self.standing))


def kept_of(report: AuditReport) -> KeptScores:
    """What is kept of that audit: scores of the configured attacks and masks, the standing of every row."""
    data = report.data
    configured = [key for key in data.scores if key.attack != COMBINED and key.mask != TUNED]
    return KeptScores(
        data.sample_index,
        {key.attack: data.timesteps[key.attack] for key in configured},
        {key: _single(data.scores[key])[None] for key in configured},
        {row.key: _single(report.scores_at(row.key)) for row in report.rows},
    )


def _single(score: Tensor) -> Tensor:
    """In single precision; what is beyond its range is at its end, so that finite scores stay finite."""
    most = torch.finfo(torch.float32).max
    return score.clamp(-most, most).float()

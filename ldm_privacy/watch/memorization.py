"""Memorization: every attack and mask at every audit, and the onset of the primary one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ldm_privacy.audit.audit import Audit
from ldm_privacy.audit.collected import Collected, join
from ldm_privacy.audit.report import AuditReport
from ldm_privacy.audit.row import AuditRow
from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.errors import UserError
from ldm_privacy.metrics import auroc_difference
from ldm_privacy.processes import gather_on_main, on_main
from ldm_privacy.targets.target import Target
from ldm_privacy.types import AuditKey, Estimate, Progress, no_progress
from ldm_privacy.watch.onset import Baseline, OnsetDetector, Rise
from ldm_privacy.watch.watcher import Every, Look, Moment, Watcher


@dataclass(frozen=True)
class News:
    """An audit in a few numbers, which every process learns; the scores and the report stay in the main one.

    Attributes:
        auroc: Of the primary attack and mask.
        num_reported: Samples that it rests on.
        rise: Since the untrained denoiser; None in its own audit.
    """

    auroc: Estimate
    num_reported: int
    rise: Rise | None


class Memorization(Watcher):
    """Audits the denoiser, counts the onset from the audit of the untrained one, and keeps the best of each curve.

    Series: `memorization/<attack>/<mask>/auroc` with its bounds, and whatever else an `AuditRow` reports; AUROC by quartile of
    local distortion where it was measured; the rise and the onset of the primary attack.

    Args:
        audit: Of all samples, or of this process's share.
        every: See `Watcher`.
        key: The primary attack and mask; the audit's first by default.
        onset: Counts from the first audit.
        on_report: Called with (report, moment) in the main process after each audit.
        progress: Shows how far an audit is; see `Progress`.
    """

    def __init__(
        self,
        audit: Audit,
        *,
        every: Every | None = None,
        key: AuditKey | None = None,
        onset: OnsetDetector | None = None,
        on_report: Callable[[AuditReport, Moment], None] = lambda report, moment: None,
        progress: Progress = no_progress,
    ):
        super().__init__(every)
        self.audit = audit
        self.samples: AuditedSamples = audit.samples
        self.key = key or audit.keys[0]
        self.onset = onset or OnsetDetector(confidence=audit.intervals.confidence)
        self.on_report = on_report
        self.progress = progress
        self.report: AuditReport | None = None
        """Of the newest audit; the main process's."""
        self.news: News | None = None
        """Of the newest audit in this process."""
        self.best: dict[str, tuple[float, int]] = {}
        self._baseline: Baseline | None = None
        self._distortion: Tensor | None = None

    def is_before_onset(self) -> bool:
        """Whether the newest audit lies before any rise of the AUROC that is certain."""
        rise = None if self.news is None else self.news.rise
        return rise is None or (rise.onset_epoch is None and rise.lower <= 0)

    def look(self, target: Target, moment: Moment) -> Look:
        """One audit: `audit.num_passes` denoiser passes a sample."""
        self.audit.samples = self.samples
        with self.progress("Audit", len(self.samples)) as done:
            mine = self.audit.collect(target.predictor, done)
        shards = gather_on_main(mine)
        if self._distortion is None and self.samples.distortion is not None:
            self._distortion = torch.cat(gather_on_main(self.samples.distortion.cpu()))
        look, self.news = on_main(partial(self._conclude, shards, moment))
        return look

    def _conclude(self, shards: Sequence[Collected], moment: Moment) -> tuple[Look, News]:
        """The main process's part: report, rise, series."""
        self.report = report = self.audit.compute(join(shards))
        series = report.series() | report.data.coefficients | self._quartiles(report)
        rise = None
        scores, index = report.reported_scores(self.key), report.data.sample_index[report.is_reporting]
        if moment.step == 0:
            self._baseline = Baseline(index, scores)
        elif self._baseline is not None:
            here, before = self._baseline.paired(index)
            group = None if report.reported_group is None else report.reported_group[here]
            paired = partial(auroc_difference, scores[here], before, report.reported_membership[here], group=group)
            rise = self.onset.look(self.time(moment), lambda level: paired(confidence=level, alternative="greater"))
            series |= rise.series(f"memorization/{self.key}/")
        for row in report.rows:
            best = self.best.get(str(row.key))
            if best is None or row.metrics.auroc.value > best[0]:
                self.best[str(row.key)] = (row.metrics.auroc.value, self.time(moment))
        self.on_report(report, moment)
        news = News(report.row(self.key).metrics.auroc, len(report.reported_membership), rise)
        return Look(series, self._lines(report, moment), charts=self._charts(report)), news

    def _claims(self, report: AuditReport) -> list[AuditRow]:
        """The rows that a person watches: the primary one, and those of masks that are no controls."""
        return [row for row in report.rows if row.key == self.key or row.key.mask not in report.data.controls]

    def _charts(self, report: AuditReport) -> dict[str, str]:
        """AUROC of every claim, those of the primary attack apart; of the primary attack also the TPR at 1 % FPR."""
        charts = {}
        for row in self._claims(report):
            is_primary, series = row.key.attack == self.key.attack, f"memorization/{row.key}"
            charts[f"{'auroc' if is_primary else 'auroc_other'}/{row.key}"] = f"{series}/auroc"
            if is_primary:
                charts[f"tpr/{row.key}"] = f"{series}/tpr_at_{100 * row.metrics.tpr_at_1fpr.target_fpr:g}fpr"
        return charts

    def _quartiles(self, report: AuditReport) -> dict[str, float]:
        """AUROC of each unmasked attack in each quartile of local distortion, at its chosen timestep."""
        series: dict[str, float] = {}
        if self._distortion is None:
            return series
        for key in report.unmasked:
            place = report.place(key)
            for quartile, estimate in enumerate(report.quartiles(key, self._distortion).auroc[place], start=1):
                series |= estimate.series(f"memorization/{key}/quartile{quartile}/auroc")
        return series

    def _lines(self, report: AuditReport, moment: Moment) -> tuple[str, ...]:
        """One audit in one line: the AUROC of each attack, a number per mask; before the first, what the numbers are."""
        claims = self._claims(report)
        attacks: dict[str, list[str]] = {}
        for row in claims:
            attacks.setdefault(row.key.attack, []).append(f"{row.metrics.auroc.value:.3f}".removeprefix("0"))
        line = f"{self.unit} {self.time(moment):>4}  " + "  ".join(
            f"{attack} {' '.join(each)}" for attack, each in attacks.items()
        )
        masks = ", ".join(dict.fromkeys(row.key.mask for row in claims))
        legend = f"AUROC with the masks {masks} (controls are in metrics.csv and in the table at the end):"
        return (legend, line) if self.last is None else (line,)

    def passes(self) -> dict[str, int]:
        return {"denoiser": self.audit.num_passes * len(self.audit.samples)}

    def sentences(self) -> list[str]:
        """When memorization set in, in words."""
        if self.onset.onset_epoch is not None:
            return [f"Memorization onset ({self.key}): {self.unit} {self.onset.onset_epoch}."]
        if (rise := self.onset.rise) is None:
            return [f"Memorization onset ({self.key}): there was no audit after the untrained denoiser's."]
        return [
            f"Memorization onset ({self.key}): none. The AUROC's rise over the untrained denoiser was {rise.value:+.3f} at "
            f"the last audit, its lower bound {rise.lower:+.3f}."
        ]

    def summary(self) -> dict[str, Any]:
        """The onset epoch, and the best AUROC of each chart."""
        values: dict[str, Any] = {"onset_epoch": self.onset.onset_epoch}
        for row in self._claims(self.report) if self.report is not None else []:
            best, epoch = self.best[str(row.key)]
            values |= {f"best/{row.key}/auroc": best, f"best/{row.key}/epoch": epoch}
        return values

    def state_dict(self) -> dict[str, Any]:
        return {
            "onset": self.onset.state_dict(),
            "key": str(self.key),
            "baseline": None if self._baseline is None else self._baseline.state(),
            "best": {key: list(value) for key, value in self.best.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.onset.load_state_dict(state["onset"])
        if state["key"] != str(self.key):
            raise UserError(
                f"audit.onset: this run counts its onset by {state['key']} since its first audit; it can't be changed to "
                f"{self.key} half-way."
            )
        self._baseline = None if state["baseline"] is None else Baseline(*state["baseline"])
        self.best = {key: (value[0], value[1]) for key, value in state["best"].items()}

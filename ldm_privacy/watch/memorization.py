"""Memorization: every attack and mask at every audit, and the onset of the primary one."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ldm_privacy.audit.audit import Audit
from ldm_privacy.audit.collected import Collected, join
from ldm_privacy.audit.kept import History, Memory, kept_of
from ldm_privacy.audit.reference import AskedOnce
from ldm_privacy.audit.report import AuditReport
from ldm_privacy.audit.row import AuditRow, paired
from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.errors import UserError
from ldm_privacy.metrics import PairedDifference
from ldm_privacy.processes import gather_on_main, on_main
from ldm_privacy.targets.target import Target
from ldm_privacy.types import AuditKey, Progress, no_progress
from ldm_privacy.watch.onset import Baseline, OnsetDetector, Rise
from ldm_privacy.watch.watcher import Every, Look, Moment, Watcher


@dataclass(frozen=True)
class News:
    """An audit in a few numbers, which every process learns; the scores and the report stay in the main one.

    Attributes:
        rises: Of each quantity with an onset, since the untrained denoiser; none in its own audit.
    """

    rises: tuple[Rise, ...]


class Memorization(Watcher):
    """Audits the denoiser, counts the onset from the audit of the untrained one, and keeps the best of each curve.

    Series: `memorization/<attack>/<mask>/auroc` with its bounds, and whatever else an `AuditRow` reports; AUROC by quartile of
    local distortion where it was measured; rise and onset of the primary attack and of those of its calibrated scores that
    count one.

    Args:
        audit: Of all samples, or of this process's share.
        every: See `Watcher`.
        key: The primary attack and mask; the audit's first by default.
        onset: Counts from the first audit; those of calibrated scores are made like it.
        history: Where the scores of each audit are kept, and the earlier ones found; in memory by default.
        progress: Shows how far an audit is; see `Progress`.
    """

    def __init__(
        self,
        audit: Audit,
        *,
        every: Every | None = None,
        key: AuditKey | None = None,
        onset: OnsetDetector | None = None,
        history: History | None = None,
        progress: Progress = no_progress,
    ):
        super().__init__(every)
        self.audit = audit
        self.samples: AuditedSamples = audit.samples
        self.key = key or audit.keys[0]
        self.onset = onset or OnsetDetector(confidence=audit.intervals.confidence)
        self.onsets = {self.key: self.onset} | {
            key: OnsetDetector(self.onset.num_consecutive, self.onset.confidence) for key in audit.counting_onset(self.key)
        }
        """Of the primary attack, and of its calibrated scores that count one."""
        self.history = history or Memory()
        self.progress = progress
        self.report: AuditReport | None = None
        """Of the newest audit; the main process's."""
        self.news: News | None = None
        """Of the newest audit in this process."""
        self.best: dict[str, tuple[float, int]] = {}
        self._baselines: dict[AuditKey, Baseline] = {}
        self._distortion: Tensor | None = None
        self._reference = AskedOnce()

    def is_before_onset(self) -> bool:
        """Whether the newest audit lies before any rise that is certain, of the primary attack or of calibrated scores."""
        rises = () if self.news is None else self.news.rises
        return all(rise.onset_epoch is None and rise.lower <= 0 for rise in rises)

    def look(self, target: Target, moment: Moment) -> Look:
        """One audit: `audit.num_passes` denoiser passes, at the first look `audit.num_reference_passes` more."""
        self.audit.samples = self.samples
        with self.progress("Audit", len(self.samples)) as done:
            mine = self.audit.collect(target.predictor, done)
        shards = gather_on_main((mine, self._reference(self.audit, target.reference, self.progress)))
        del mine
        if self._distortion is None and self.samples.distortion is not None:
            self._distortion = torch.cat(gather_on_main(self.samples.distortion.cpu()))
        look, self.news = on_main(partial(self._conclude, shards, moment))
        return look

    def _conclude(self, shards: list[tuple[Collected, Collected | None]], moment: Moment) -> tuple[Look, News]:
        """The main process's part: report, rise, series."""
        time = self.time(moment)
        history = self.audit.look_back(self.history, until=time - 1)
        collected, references = [mine for mine, _ in shards], [each for _, each in shards if each is not None]
        # Neither the last report nor the sums are held while the new report is made.
        self.report = None
        shards.clear()
        scores = self.audit.scores(join(collected), history, join(references) if references else None)
        self.report = report = self.audit.report(scores)
        self.history.write(time, kept_of(report))
        series = report.series() | report.data.coefficients | self._quartiles(report)
        rises: dict[AuditKey, Rise] = {}
        for key, onset in self.onsets.items():
            if moment.step == 0:
                self._baselines[key] = Baseline(report.data.sample_index, report.scores_at(key))
            elif key in self._baselines:
                rises[key] = onset.look(time, partial(self._rise, report, key))
                series |= rises[key].series(f"memorization/{key}/")
        for row in report.rows:
            best = self.best.get(str(row.key))
            if best is None or row.metrics.auroc.value > best[0]:
                self.best[str(row.key)] = (row.metrics.auroc.value, self.time(moment))
        return Look(series, self._lines(report, moment), charts=self._charts(report)), News(tuple(rises.values()))

    def _rise(self, report: AuditReport, key: AuditKey, level: float) -> PairedDifference:
        """AUROC minus that of the untrained denoiser's audit, with its one-sided lower bound at that confidence."""
        data = report.data
        there, before = self._baselines[key].paired(data.sample_index)
        score = torch.zeros(len(there), dtype=torch.float64)
        score[there] = before
        return paired(report.halves[key], score, data, level, alternative="greater", among=there)

    def _claims(self, report: AuditReport) -> list[AuditRow]:
        """The rows that a person watches: of onsets and verdicts, and plain attacks with masks that are no controls."""
        data = report.data
        own = [row.key for row in report.rows if row.key not in data.derived and self._is_claim(report, row.key.attack)]
        others = (key for key in own if key.mask not in data.controls)
        watched = {*self.onsets, *self.audit.forms(self.key), *others}
        return [row for row in report.rows if row.key in watched]

    def _is_claim(self, report: AuditReport, attack: str) -> bool:
        """Whether it is under the samples' own condition, or the primary attack under another."""
        return attack not in report.data.views or self._is_primary(report, attack)

    def _is_primary(self, report: AuditReport, attack: str) -> bool:
        view = report.data.views.get(attack)
        return self.key.attack == (attack if view is None else view.attack)

    def _charts(self, report: AuditReport) -> dict[str, str]:
        """AUROC of every claim, those of the primary attack and calibrated scores apart; of what the verdict rests on the TPR,
        and where there is one the bound on epsilon."""
        charts, of_verdict = {}, self.audit.forms(self.key)
        for row in self._claims(report):
            is_primary = self._is_primary(report, row.key.attack) or row.key in report.data.derived
            series = f"memorization/{row.key}"
            charts[f"{'auroc' if is_primary else 'auroc_other'}/{row.key}"] = f"{series}/auroc"
            if row.key == self.key:
                charts |= {f"auroc_planted/{group}": f"{series}/auroc_{group}" for group in row.by_repeats}
            if row.key in of_verdict:
                charts[f"tpr/{row.key}"] = f"{series}/tpr_at_{100 * row.metrics.tpr_at_1fpr.target_fpr:g}fpr"
            if row.epsilon is not None and row.key == of_verdict[-1]:
                charts[f"epsilon/{row.key}"] = f"{series}/epsilon_lower"
        return charts

    def _quartiles(self, report: AuditReport) -> dict[str, float]:
        """AUROC of each unmasked attack in each quartile of local distortion, at its chosen timesteps."""
        series: dict[str, float] = {}
        if self._distortion is None:
            return series
        for key in report.unmasked:
            areas = report.quartiles(key, self._distortion, at_choice=True).auroc[0]
            for quartile, estimate in enumerate(areas, start=1):
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
        legend = f"AUROC with the masks {masks} (controls are among the series):"
        return (legend, line) if self.last is None else (line,)

    def passes(self) -> dict[str, int]:
        return {"denoiser": self.audit.num_passes}

    def sentences(self) -> list[str]:
        """When memorization set in, in words."""
        return [self._sentence(key, onset) for key, onset in self.onsets.items()]

    def _sentence(self, key: AuditKey, onset: OnsetDetector) -> str:
        if onset.onset_epoch is not None:
            return f"Memorization onset ({key}): {self.unit} {onset.onset_epoch}."
        if (rise := onset.rise) is None:
            return f"Memorization onset ({key}): there was no audit after the untrained denoiser's."
        return (
            f"Memorization onset ({key}): none. The AUROC's rise over the untrained denoiser was {rise.value:+.3f} at the last "
            f"audit, its lower bound {rise.lower:+.3f}."
        )

    def summary(self) -> dict[str, Any]:
        """The onset epoch, and the best AUROC of each chart."""
        values: dict[str, Any] = {"onset_epoch": self.onset.onset_epoch}
        values |= {f"onset_epoch/{key}": each.onset_epoch for key, each in self.onsets.items() if key != self.key}
        for row in self._claims(self.report) if self.report is not None else []:
            best, epoch = self.best[str(row.key)]
            values |= {f"best/{row.key}/auroc": best, f"best/{row.key}/epoch": epoch}
        return values

    def state_dict(self) -> dict[str, Any]:
        kept = self.history.state() if isinstance(self.history, Memory) else None
        return {
            "onsets": {str(key): onset.state_dict() for key, onset in self.onsets.items()},
            "key": str(self.key),
            "baselines": {str(key): baseline.state() for key, baseline in self._baselines.items()},
            "best": {key: list(value) for key, value in self.best.items()},
            "history": kept,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state["key"] != str(self.key):
            raise UserError(
                f"audit.onset: this run counts its onset by {state['key']} since its first audit; it can't be changed to "
                f"{self.key} half-way."
            )
        self._baselines = {}
        for key, onset in self.onsets.items():
            if str(key) in state["baselines"]:
                self._baselines[key] = Baseline(*state["baselines"][str(key)])
                onset.load_state_dict(state["onsets"][str(key)])
        self.best = {key: (value[0], value[1]) for key, value in state["best"].items()}
        if isinstance(self.history, Memory):
            self.history = Memory.of(state["history"])

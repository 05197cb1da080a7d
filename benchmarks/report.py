"""What an evaluation costs beside its denoiser passes: CPU seconds by part, and peak memory, of scores that are drawn.

    OMP_NUM_THREADS=1 python -m benchmarks.report [--members 25000] [--timesteps 30] [--attacks 7] [--earlier 8] [--no-sweep]

As many held-out samples; five masks an attack; every shipped calibration of the first attack, with so many earlier audits; a
sweep of ten keep fractions and three rankings. Scores of an attack are a difficulty that its audits, masks and timesteps
share, noise, and for members a shift of half a standard deviation at the best timestep, less at others. Not in it: the attacks
themselves, the controls (which read images), maps of influence, the curves of a training.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from ldm_privacy.audit.calibrate import derivations, with_calibrated
from ldm_privacy.audit.kept import KeptScores, kept_of
from ldm_privacy.audit.report import AuditReport, report_of
from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.audit.score_file import write_scores
from ldm_privacy.audit.scores import AuditScores, informed
from ldm_privacy.audit.sweep import RANKINGS
from ldm_privacy.evidence.agreement import agreement_of
from ldm_privacy.evidence.dataset import dataset_verdict
from ldm_privacy.evidence.exposure import epoch_agreement, exposure_of
from ldm_privacy.evidence.gather import NUM_SHOWN, Evidence
from ldm_privacy.evidence.image_onset import onsets_of
from ldm_privacy.evidence.null import label_permutation
from ldm_privacy.registry import CALIBRATIONS
from ldm_privacy.report.evaluation import Evaluation
from ldm_privacy.report.exposed_file import write_exposed
from ldm_privacy.report.folder import evaluation_page, evidence_figures
from ldm_privacy.report.metrics_file import write_metrics
from ldm_privacy.report.page.page import write_page
from ldm_privacy.types import AuditKey

MASKS = {"all": 1.0, "top60": 0.6, "random60": 0.6, "low60": 0.6, "std60": 0.6}
FRACTIONS = [place / 10 for place in range(1, 11)]


class Clock:
    """CPU seconds by part, in the order in which they began."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str):
        """Adds what is done inside to that part."""
        start = time.process_time()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - start


class Drawn:
    """Scores of a number of audits of the same samples."""

    def __init__(self, num_members: int, num_timesteps: int, attacks: Sequence[str], *, has_sweep: bool):
        self.generator = torch.Generator().manual_seed(0)
        self.index = torch.arange(2 * num_members)
        self.is_member = torch.randperm(2 * num_members, generator=self.generator) < num_members
        self.timesteps = {attack: [10 * place for place in range(num_timesteps)] for attack in attacks}
        self.complexity, self.difficulty = self._noise(torch.float64), self._noise(torch.float32)
        self.has_sweep = has_sweep

    def _noise(self, dtype: torch.dtype) -> torch.Tensor:
        return torch.randn(len(self.index), generator=self.generator, dtype=dtype)

    def scores(self, attack: str, dtype: torch.dtype) -> torch.Tensor:
        """(2, timesteps, samples), the same in both folds."""
        place = torch.linspace(-1, 1, len(self.timesteps[attack]))
        shifts = 0.5 * torch.exp(-3 * (place + 0.3) ** 2)
        rows = [self.difficulty + 0.5 * self._noise(torch.float32) + shift * self.is_member for shift in shifts]
        return torch.stack(rows).to(dtype).expand(2, -1, -1)

    def kept(self) -> KeptScores:
        """An earlier audit: what calibrations look back at, and how every image stood."""
        scores = {AuditKey(attack, "all"): self.scores(attack, torch.float32)[:1] for attack in self.timesteps}
        labels = [*self.timesteps, *(f"{next(iter(self.timesteps))}_{name}" for name in CALIBRATIONS)]
        return KeptScores(self.index, self.timesteps, scores, {AuditKey(label, "all"): self.difficulty for label in labels})

    def audit(self) -> AuditScores:
        """The last one, plain."""
        scores = {AuditKey(attack, mask): self.scores(attack, torch.float64) for attack in self.timesteps for mask in MASKS}
        return AuditScores(
            self.index,
            self.is_member,
            torch.rand(len(self.index), generator=self.generator) < 0.5,
            None,
            self.timesteps,
            scores,
            {key: MASKS[key.mask] for key in scores},
            frozenset({"random60", "low60", "std60"}),
            {
                attack: {(ranking, each): self.scores(attack, torch.float32) for ranking in RANKINGS for each in FRACTIONS}
                for attack in self.timesteps
                if self.has_sweep
            },
        )


def images(sample_index: torch.Tensor) -> torch.Tensor:
    """Grey ones."""
    return torch.zeros(len(sample_index), 3, 32, 32)


def evidence_of(report: AuditReport, history: Mapping[int, KeptScores], clock: Clock) -> Evidence:
    """As `gather_evidence`, without controls."""
    key = report.rows[0].key
    insider, outsider = (informed(report.data.derived, key, with_history=known) for known in (True, False))
    with clock.part("label permutation"):
        permuted = label_permutation(report)
    with clock.part("exposure, agreement, image onsets"):
        exposure, agreement = exposure_of(report, insider), agreement_of(report, insider)
        onsets, by_epoch = onsets_of(report, insider, history, len(history)), epoch_agreement(report, insider, history)
    with clock.part("verdict on the set"):
        dataset = dataset_verdict(report, insider)
    heldout = report.data.sample_index[~report.data.is_member][:NUM_SHOWN]
    neighbours = (heldout, torch.ones(len(heldout)))
    return Evidence(
        report, key, insider, outsider, permuted, {}, {}, exposure, neighbours, agreement, onsets, by_epoch, dataset
    )


def measure(drawn: Drawn, num_earlier: int, clock: Clock) -> None:
    """All parts, once."""
    history, plain = {time: drawn.kept() for time in range(num_earlier)}, drawn.audit()
    print(f"Peak memory with the scores alone: {peak():.1f} GiB.", flush=True)
    first = next(iter(plain.scores))
    made = derivations({name: CALIBRATIONS.get(name)() for name in CALIBRATIONS}, [first])
    with clock.part("calibrations"):
        data = with_calibrated(plain, made, dict.fromkeys(drawn.timesteps, False), drawn.complexity, history)
    with clock.part("report_of"):
        report = report_of(data)
    with clock.part("kept scores"):
        kept_of(report)
    with clock.part("sweep"):
        _ = report.sweep
    evidence = evidence_of(report, history, clock)
    size = len(drawn.index)
    samples = AuditedSamples(torch.zeros(size, 1, 2, 2), drawn.is_member, is_calibration=data.is_calibration)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with clock.part("scores.parquet"):
            write_scores(report, folder / "scores.parquet", split_hash="")
        with clock.part("metrics.json, exposed.csv"):
            write_metrics(evidence, folder / "metrics.json", facts={"split_hash": ""})
            write_exposed(evidence, folder / "exposed.csv")
        with clock.part("figures"):
            figures = evidence_figures(evidence, samples, {}, None, images, drawn={})
            for label, figure in figures.items():
                figure.savefig(folder / f"{label}.png", dpi=110)
                figure.set_layout_engine("none")
        with clock.part("page"):
            write_page(evaluation_page(Evaluation(evidence, figures, images, "drawn", num_earlier, {})), folder / "report.html")


def peak() -> float:
    """GiB of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Draws, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=25_000)
    parser.add_argument("--timesteps", type=int, default=30)
    parser.add_argument("--attacks", type=int, default=7)
    parser.add_argument("--earlier", type=int, default=8)
    parser.add_argument("--no-sweep", dest="sweep", action="store_false")
    parser.add_argument("--profile", type=int, default=0, help="print so many functions by CPU time")
    options = parser.parse_args()
    torch.set_num_threads(1)
    attacks = ["sima", *(f"attack{place}" for place in range(1, options.attacks))]
    drawn, clock = Drawn(options.members, options.timesteps, attacks, has_sweep=options.sweep), Clock()
    if options.profile:
        import cProfile
        import pstats

        profile = cProfile.Profile(time.process_time)
        profile.runcall(measure, drawn, options.earlier, clock)
        pstats.Stats(profile).sort_stats("tottime").print_stats(options.profile)
    else:
        measure(drawn, options.earlier, clock)
    table = Table("part", "CPU seconds", title=f"{options.members:,} + {options.members:,}, {options.timesteps} timesteps")
    for name, seconds in clock.seconds.items():
        table.add_row(name, f"{seconds:.2f}")
    table.add_section()
    table.add_row("all", f"{sum(clock.seconds.values()):.1f}")
    console = Console(width=100)
    console.print(table)
    console.print(f"Peak memory {peak():.1f} GiB.")


if __name__ == "__main__":
    main()

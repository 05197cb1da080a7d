"""What an audit in training adds to its denoiser passes: CPU seconds, as a share of theirs, at each of several audits.

    OMP_NUM_THREADS=1 python -m benchmarks.audit [--samples 800] [--audits 9]

Attacks, masks, timesteps, calibrations and network of cifar10_small.yaml, with random weights that change a little between
audits, on latents that are drawn; a history on disk. Passes: attacks with their masks. Calibrations: scores with their fits,
and the history read and written. Report: choices, AUROCs, intervals, curves.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from ldm_privacy.attacks.base import Attack
from ldm_privacy.audit.audit import Audit
from ldm_privacy.audit.calibrate import MOST_EARLIER
from ldm_privacy.audit.collected import join
from ldm_privacy.audit.kept import kept_of
from ldm_privacy.audit.report import report_of
from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.config import compose
from ldm_privacy.models.predictor import NetworkPredictor
from ldm_privacy.models.unet import unet
from ldm_privacy.recipes.run_setup import RunSetup
from ldm_privacy.runs.history import Provenance, ScoreHistory
from ldm_privacy.types import no_progress

SHAPE = (4, 8, 8)


def main() -> None:
    """Audits in turn; prints a row each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=800)
    parser.add_argument("--audits", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = compose("cifar10_small.yaml").config
    setup = RunSetup(config, no_progress)
    network = unet(latent_channels=4, latent_size=8, **config.denoiser.network.arguments).eval()
    predictor = NetworkPredictor(network, (1 - torch.linspace(1e-4, 2e-2, 1000, dtype=torch.float64)).cumprod(0), "epsilon")
    samples = AuditedSamples(
        torch.randn(options.samples, *SHAPE),
        torch.arange(options.samples) % 2 == 0,
        influence=torch.rand(options.samples, *SHAPE),
        complexity=torch.randn(options.samples, dtype=torch.float64),
    )
    attacks: dict[str, Attack] = setup.attacks
    timesteps = config.audit.timesteps
    audit = Audit(samples, attacks, setup.masks, timesteps, calibrations=setup.calibrations, intervals=setup.intervals)
    table = Table("audit", "passes", "calibrations", "report", "calibrations / passes", "all / passes")
    with tempfile.TemporaryDirectory() as folder:
        provenance = Provenance.of("split", 0, attacks, setup.masks, timesteps)
        history = ScoreHistory(Path(folder), provenance)
        for number in range(options.audits):
            start = time.process_time()
            collected = join([audit.collect(predictor)])
            passes = time.process_time()
            earlier = history.read(until=number - 1, keys=audit.looks_back_at, most=MOST_EARLIER)
            read = time.process_time()
            data = audit.scores(collected, earlier)
            fitted = time.process_time()
            report = report_of(data, intervals=audit.intervals, target_fprs=audit.target_fprs)
            report.series()
            reported = time.process_time()
            history.write(number, kept_of(report))
            written = time.process_time()
            calibrations = (read - passes) + (fitted - read) + (written - reported)
            whole = calibrations + reported - fitted
            cells = [passes - start, calibrations, reported - fitted]
            shares = [f"{each / (passes - start):.1%}" for each in (calibrations, whole)]
            table.add_row(str(number), *(f"{each:.3f}" for each in cells), *shares)
            with torch.no_grad():
                for parameter in network.parameters():
                    parameter += 0.01 * parameter.std() * torch.randn_like(parameter) if parameter.numel() > 1 else 0.0
    Console(width=110).print(table)


if __name__ == "__main__":
    main()

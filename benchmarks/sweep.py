"""What a sweep adds to its trials: the same tiny trainings by hand, one after the other, and as a sweep with one worker.

python -m benchmarks.sweep [cells, default 2]
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ldm_privacy.config.compose import as_yaml
from ldm_privacy.sweeps.cells import cell_file
from tests.tiny import TINY

CALL = [sys.executable, "-c", "import sys; from ldm_privacy.recipes.cli import main; sys.exit(main(sys.argv[1:]))"]


def timed(*words: object) -> tuple[float, float]:
    """Seconds of the wall and of the processors that a command takes."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*CALL, *map(str, words)], check=True, stdout=subprocess.DEVNULL, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)
    return time.perf_counter() - began, spent


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    with tempfile.TemporaryDirectory() as temporary:
        folder, file = Path(temporary) / "sweep", Path(temporary) / "tiny.yaml"
        rates = {"key": "denoiser.learning_rate", "values": [0.001 / (1 + number) for number in range(count)]}
        overrides = [*TINY, "trainer.figures=true", "watch.quality={class: quality, num_images: 20, num_steps: 2}"]
        file.write_text(as_yaml({"config": "digits.yaml", "seeds": [0], "overrides": overrides, "grid": {"rate": rates}}))
        swept = timed("sweep", file, f"out={folder}")
        cells = [path.stem for path in cell_file(folder, "x").parent.glob("*.yaml")]
        by_hand = [
            timed("train", "--config", cell_file(folder, cell), f"output_dir={temporary}/runs", f"name=run-{number}")
            for number, cell in enumerate(cells)
        ]
    added = [(swept[place] - sum(each[place] for each in by_hand)) / count for place in (0, 1)]
    table = Table("what", "wall", "processors", "limit", title=f"{count} tiny trials, one worker")
    table.add_row("by hand, one after the other", *(f"{sum(each[place] for each in by_hand):.1f} s" for place in (0, 1)), "")
    table.add_row("as a sweep", *(f"{value:.1f} s" for value in swept), "")
    table.add_row("more, a trial", *(f"{value:.1f} s" for value in added), "15 s")
    Console().print(table)


if __name__ == "__main__":
    main()

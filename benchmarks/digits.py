"""What the digits run costs: wall time, share of the audits, peak memory, first and last AUROC. `output_dir=` keeps the run.

python -m benchmarks.digits [key=value ...]
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

start = time.perf_counter()  # the imports below are part of what a user waits for

from ldm_privacy.recipes.cli import train  # noqa: E402
from ldm_privacy.recipes.terminal import quiet_libraries  # noqa: E402
from ldm_privacy.runs.series import SeriesFile  # noqa: E402
from ldm_privacy.watch.memorization import Memorization  # noqa: E402

spent = {"audit": 0.0}
look = Memorization.look


def timed_look(*arguments):
    """An audit, its time added to the others'."""
    began = time.perf_counter()
    try:
        return look(*arguments)
    finally:
        spent["audit"] += time.perf_counter() - began


def main() -> None:
    quiet_libraries()
    Memorization.look = timed_look
    with tempfile.TemporaryDirectory() as temporary:
        given = [item.partition("=")[2] for item in sys.argv[1:] if item.startswith("output_dir=")]
        folder = given[-1] if given else temporary
        train(["--config", "digits.yaml", *sys.argv[1:], f"output_dir={folder}"])
        total = time.perf_counter() - start
        curves = SeriesFile(Path(folder) / "digits" / "metrics.csv").read("denoiser")
    auroc = {epoch: value for (epoch, series), value in curves.items() if series == "memorization/sima/all/auroc"}
    table = Table("what", "measured", "limit", title="digits.yaml")
    table.add_row("start to final table", f"{total:.0f} s", "240 s")
    table.add_row(f"{len(auroc)} audits", f"{spent['audit']:.1f} s, {spent['audit'] / total:.1%}", "10 %")
    table.add_row("peak memory", f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB", "2 GiB")
    table.add_row("SimA AUROC, first and last", f"{auroc[0]:.3f}, {auroc[max(auroc)]:.3f}", "about .5, above .85")
    Console().print(table)


if __name__ == "__main__":
    main()

"""Train tiny models as people have them on captioned emoji, audit each through the door, and print what was found.

python -m benchmarks.targets train FOLDER --data emoji.parquet      # columns image and text, 1,653 rows or more
python -m benchmarks.targets audit FOLDER --data emoji.parquet      # evaluate.py for each, then the table
python -m benchmarks.targets table FOLDER --data emoji.parquet      # of evaluations that are there
"""

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.conditional import shown, table
from benchmarks.tiny_pipelines import PARTS, T5_TOKENS, train

COLUMNS = {
    "SimA": "sima",
    "SimA, reference": "sima_reference",
    "Loss": "loss",
    "Loss, reference": "loss_reference",
    "loss_ratio": "loss_ratio",
    "reference alone": "the reference alone, loss over all t",
}
"""Column -> attack, unmasked, or control, whose AUROC it shows."""


@dataclass(frozen=True)
class Case:
    """A target to audit, its paths within the folder.

    Attributes:
        ckpt: What is opened.
        also: `base`, `layout` or `reference` -> path.
        split: Of whom.
        more: Further words.
    """

    ckpt: str
    also: Mapping[str, str]
    split: str = "lora"
    more: tuple[str, ...] = ()

    def words(self, folder: Path, data: Path, name: str) -> list[str]:
        """What `evaluate.py` is told."""
        paths = {"ckpt": self.ckpt, **self.also, "data.index_file": f"splits/{self.split}.npz", "out": f"evaluations/{name}"}
        source = ["data.source.class=parquet", f"data.source.files={data}"]
        return [*(f"{key}={folder / path}" for key, path in paths.items()), "--config", "audit.yaml", *source, *self.more]


BASE, INSIDERS = {"base": "base"}, "target.reference_is=insider"
CASES = {
    "base": Case("base", {}),
    "full": Case("full", {"reference": "base"}),
    "single": Case("single/full.safetensors", {"layout": "single/layout", "reference": "base"}),
    "lora-48": Case("lora/lora-48.safetensors", BASE),
    "lora-129": Case("lora/lora-129.safetensors", BASE),
    "lora": Case("lora/lora.safetensors", BASE),
    "lora-kohya": Case("lora/kohya.safetensors", BASE),
    "lora-peft": Case("lora/peft", BASE),
    "flow": Case("flow/end", {"reference": "flow/half"}, "flow", (f"target.num_tokens={T5_TOKENS}", INSIDERS)),
    "ddpm": Case("ddpm/end", {"reference": "ddpm/half"}, "ddpm", (INSIDERS,)),
}


def cpu_seconds() -> float:
    """Of all programs that were run from here and have ended; others on the machine don't lengthen them."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def audit(folder: Path, data: Path, cases: Iterable[str], more: list[str]) -> None:
    """Run `evaluate.py` for each case that has no evaluation yet; its output beside it."""
    (folder / "evaluations").mkdir(exist_ok=True)
    for name in cases:
        out = folder / "evaluations" / name
        if (out / "seconds.json").exists():
            continue
        command = [sys.executable, "evaluate.py", *CASES[name].words(folder, data, name), *more]
        print(" ".join(command[1:]), flush=True)
        began = cpu_seconds()
        done = subprocess.run(command, capture_output=True, text=True)
        seconds = cpu_seconds() - began
        (folder / "evaluations" / f"{name}.log").write_text(done.stdout + done.stderr)
        if done.returncode:
            print(f"  exit code {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
        else:
            (out / "seconds.json").write_text(json.dumps(seconds))


def found(folder: Path, cases: Iterable[str]) -> dict[str, dict[str, str]]:
    """Case -> column -> text, of those that were audited."""
    rows: dict[str, dict[str, str]] = {}
    for name in cases:
        out = folder / "evaluations" / name
        if not (out / "seconds.json").exists():
            continue
        metrics: dict[str, Any] = json.loads((out / "metrics.json").read_text())
        of = {name: control["auroc"] for name, control in metrics["controls"].items()}
        of |= {row["attack"]: row["auroc"] for row in metrics["rows"] if row["mask"] == "all"}
        cells = {column: shown(of[attack]) if attack in of else "" for column, attack in COLUMNS.items()}
        rows[name] = {**cells, "CPU seconds": f"{json.loads((out / 'seconds.json').read_text()):.0f}"}
    return rows


def main() -> None:
    """Train, audit, or print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train", "audit", "table"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", nargs="+", help=f"of {', '.join(PARTS)}, or of {', '.join(CASES)}")
    parser.add_argument("--more", nargs="+", default=[], help="words for evaluate.py")
    given = parser.parse_args()
    names = given.only or list(PARTS if given.what == "train" else CASES)
    if given.what == "train":
        train(given.folder, given.data, names)
        return
    if given.what == "audit":
        audit(given.folder, given.data, names, given.more)
    print(table("target", found(given.folder, names)))


if __name__ == "__main__":
    main()

"""The day with a GPU: one command that works down a list by value, for as many minutes as there are, and goes on the next time.

    python -m benchmarks.gpu --minutes 25 --out FOLDER [--data FOLDER]      # again: goes on where it was
    python -m benchmarks.gpu --minutes 3 --out FOLDER --toy                 # the whole list on a CPU, at the size of a toy
    python -m benchmarks.gpu --minutes 0 --out FOLDER --page docs/results/cifar10.md    # its tables, into the page

In this order: what the machine reaches; every entry file on a few images, in bfloat16 and compiled; the denoiser's steps,
influence and attacks beside the plain loops; `cifar10_fast.yaml` as far as the minutes go, with its audits; the published
table. Each is a process of its own with a file of its own in FOLDER/items: one that crashes is recorded with its last line, and
the list goes on. After each of them FOLDER/cifar10.md is written, with "not measured" where nothing is. No network is asked for
anything. FOLDER may travel between two calls; docs/howto/gpu.md tells how, and what the machine needs.
"""

import argparse
import contextlib
import json
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu_day.items import Day, items
from benchmarks.gpu_day.machine import refusal
from benchmarks.gpu_day.tables import BEGIN, into_page, tables
from benchmarks.gpu_day.work import Call, Item, Record, file_of
from benchmarks.json_file import write_json

GRACE = {False: 60.0, True: 20.0}
"""Seconds for an item to store what it has, by whether it is a toy."""
WRITING = 5.0
"""Seconds for the tables at the end."""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="results, logs and runs; goes on with what is in it")
    parser.add_argument("--minutes", type=float, required=True, help="of this call; 0: the tables alone")
    parser.add_argument("--data", type=Path, help="data sets: cifar10/train-*.parquet, and the published split's .npz")
    parser.add_argument(
        "--again", nargs="+", default=[], metavar="ITEM", help="items to take up again; 'failed': all that failed"
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="ITEM", help="leave the other items for another call")
    parser.add_argument("--entries", default="", metavar="A,B", help="entry files to try; all by default")
    parser.add_argument("--toy", action="store_true", help="everything at the size of a toy, on a CPU")
    parser.add_argument("--page", type=Path, help="write the tables into that page, between its two marks")
    return parser.parse_args(arguments)


def check(options: argparse.Namespace) -> str:
    """What is wrong with what was asked for, in one line; "" where nothing is."""
    if options.minutes and (lack := refusal(is_toy=options.toy)):
        return lack
    if options.data is not None and not options.data.is_dir():
        return f"--data: {options.data} is no folder."
    if not options.minutes >= 0:
        return f"--minutes: {options.minutes:g} is less than 0."
    day = options.out / "day.json"
    if day.is_file() and json.loads(day.read_text())["toy"] != options.toy:
        held = "a full day: name another folder" if options.toy else "a toy: name another folder, or add --toy"
        return f"--out: {options.out} holds {held}."
    if options.page is not None and options.toy:
        return "--page: a toy's numbers mean nothing; its tables stay in --out."
    if options.page is not None and not (options.page.is_file() and BEGIN in options.page.read_text()):
        return f"--page: {options.page} has no line '{BEGIN}', after which the tables would go."
    return ""


def main(arguments: Sequence[str]) -> int:
    """Returns the exit code: 0 when the list is done, 1 where an item of it failed, 3 when the next call goes on, 2 for a
    mistake, 130 when it was stopped."""
    began, options = time.monotonic(), parse(arguments)
    if wrong := check(options):
        print(f"error: {wrong}", file=sys.stderr)
        return 2
    from ldm_privacy.runs.lock import writing

    day = Day(options.out, options.data, options.toy, tuple(filter(None, options.entries.split(","))))
    todo = items(day)
    for option, names in (("--again", {*options.again} - {"failed"}), ("--only", {*options.only})):
        if unknown := names - {item.name for item in todo}:
            there = ", ".join(item.name for item in todo)
            print(f"error: {option}: no item {sorted(unknown)[0]}. There are: {there}.", file=sys.stderr)
            return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever ends this process lets it write first
    with writing(options.out):
        write_json(options.out / "day.json", {"toy": options.toy})
        forget(options.out, todo, options.again)
        grace = GRACE[options.toy]
        until = began + 60 * options.minutes - WRITING
        call = Call(options.out, until, grace=grace, say=say_since(began), written=lambda: write_tables(day, None))
        code = 0
        if options.minutes:
            try:
                call.work([item for item in todo if not options.only or item.name in options.only])
            except KeyboardInterrupt:
                code = 130
        write_tables(day, options.page)
        return code or summary(options, todo)


def forget(out: Path, todo: Sequence[Item], names: Sequence[str]) -> None:
    """Take those up again; entry files that don't run have failed, too."""
    tried = {file: "ok" in json.loads(file.read_text())["ways"].values() for file in (out / "smoke").glob("*.json")}
    again = [file for file, runs in tried.items() if "smoke" in names or ("failed" in names and not runs)]
    for file in again:
        file.unlink()
    for item in todo:
        has_failed = Record.read(out, item.name).status == "failed" or (item.name == "smoke" and again)
        if item.name in names or ("failed" in names and has_failed):
            file_of(out, item.name).unlink(missing_ok=True)


def say_since(began: float) -> Callable[[str], None]:
    """Prints lines with the time of the call."""

    def say(line: str) -> None:
        seconds = time.monotonic() - began
        print(f"{int(seconds // 60):3d}:{int(seconds % 60):02d}  {line}", flush=True)

    return say


def write_tables(day: Day, page: Path | None) -> None:
    """FOLDER/cifar10.md, and the page that was named."""
    text = tables(day.out, is_toy=day.is_toy)
    (day.out / "cifar10.md").write_text(text)
    if page is not None:
        page.write_text(into_page(page.read_text(), text))


def summary(options: argparse.Namespace, todo: Sequence[Item]) -> int:
    """The list as it stands and what to type next; returns the exit code."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table("item", "is", "calls", "minutes", "last line", box=box.SIMPLE_HEAD)
    records = {item.name: Record.read(options.out, item.name) for item in todo}
    for name, record in records.items():
        table.add_row(name, record.status, str(record.calls), f"{record.seconds / 60:.1f}", record.line[:90])
    Console(width=140).print(table)
    print(f"Tables: {options.out / 'cifar10.md'}")
    if not (num_open := sum(record.status in ("waits", "stopped") for record in records.values())):
        return int(any(record.status == "failed" for record in records.values()))
    words: list[Any] = ["python", "-m", "benchmarks.gpu", "--minutes", f"{options.minutes or 25:g}", "--out", options.out]
    words += [] if options.data is None else ["--data", options.data]
    words += [*(["--entries", options.entries] if options.entries else []), *(["--toy"] if options.toy else [])]
    print(f"{num_open} of {len(todo)} items are open. Next:\n  {shlex.join(map(str, words))}")
    return 3


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main(sys.argv[1:]))

"""The tables of docs/results/cifar10.md that a GPU fills, from what the items left; "not measured" where they left nothing."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu_day.standins import at
from benchmarks.gpu_day.work import Record

BEGIN, END = "<!-- from here on: python -m benchmarks.gpu -->", "<!-- to here -->"
NOT = "not measured"
TOY = "**A toy on a CPU: it shows that the list runs, and no number of it means anything.**\n\n"
TRAINING_GOAL, SHARE_GOAL, INFLUENCE_GOAL, ATTACK_GOAL = 10, 0.25, 50, 10
EPOCHS, MEMBERS = 2048, 25_000
PUBLISHED = {"all": (0.8910, 0.8163, 0.1988), "top60": (0.9126, 0.8358, 0.2456), "random60": (0.8644, 0.7880, 0.1592)}
"""SimA on CIFAR-10 (2511.20592), AUROC, ASR and TNR@1%FNR: unmasked, lowest 40 % of influence dropped, random 40 % dropped."""
QUARTILES = (0.817, 0.887, 0.930, 0.963)
"""SimA's AUROC by quartile of local distortion, lowest to highest (the same)."""
SLOWER = ("faster than published", "than the same in batches")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    lines = ["| " + " | ".join(each.replace("|", "\\|") for each in row) + " |" for row in (columns, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(columns), *lines[1:]]) + "\n"


def number(value: float | None, form: str = ",.0f") -> str:
    """In words."""
    return NOT if value is None else format(value, form)


def faster(ratios: Sequence[float] | None, goal: float | None = None) -> str:
    """Median, least and largest of the rounds, beside the goal."""
    if ratios is None:
        return NOT
    reached = "" if goal is None else f"; goal {goal:g}: {'reached' if ratios[0] >= goal else 'missed'}"
    return "{:.1f} ({:.1f} to {:.1f})".format(*ratios) + reached


def machine(found: Mapping[str, Any]) -> str:
    """Part 1."""

    def both(first: str, second: str) -> str | None:
        return f"{at(found, first)}, {at(found, second)}" if at(found, first) is not None else None

    words = {
        "device": at(found, "device"),
        "torch": at(found, "torch"),
        "CUDA, cuDNN": both("cuda", "cudnn"),
        "compute capability": at(found, "capability"),
        "device memory, GiB": at(found, "device_memory_gib"),
        "cores, memory in GiB": both("cores", "memory_gib"),
        "matrix product in float32, TFLOP/s": at(found, "tflops", "float32"),
        "the same in TensorFloat-32": at(found, "tflops", "tf32"),
        "the same in bfloat16": at(found, "tflops", "bfloat16"),
        "copies, GB/s": at(found, "copy_gb_per_second"),
        "torch.compile": at(found, "compiles"),
    }
    return table(("what", "found"), [(name, NOT if value is None else str(value)) for name, value in words.items()])


def smoke(found: Mapping[str, Any]) -> str:
    """Part 2."""
    entries, rows = at(found, "entries") or {}, []
    for name, each in sorted(entries.items()):
        *refused, (way, result) = each["ways"].items()
        runs = way if result == "ok" else f"no: {way}: {result}"
        rows.append((name, runs, "; ".join(f"{way}: {why}" for way, why in refused), f"{each['seconds']:.0f}"))
    run = sum("ok" in each["ways"].values() for each in entries.values())
    told = table(("entry file", "runs with", "refused", "s"), rows or [[NOT] * 4])
    if not entries:
        return told
    said = f"{run} of the {len(entries)} entry files that were tried run, {found['at_a_time']} at a time"
    return f"{said}; {found['num_entries'] - len(entries)} wait.\n\n{told}"


def training(found: Mapping[str, Any]) -> str:
    """Part 3."""
    ways = {"ours": "ours", "published": "published loop", "cached": "the same on cached latents"}

    def row(name: str, form: str = ",.0f") -> list[str]:
        return [number(at(found, name, way), form) for way in ways]

    of_product, forward = row("share", ".1%"), at(found, "mflop_per_sample", "ours")
    if (share := at(found, "share", "ours")) is not None:
        of_product[0] += f"; goal {SHARE_GOAL:.0%}: {'reached' if share >= SHARE_GOAL else 'missed'}"
    gains = faster(at(found, "faster", "published"), TRAINING_GOAL), faster(at(found, "faster", "cached"))
    rows = [
        ("samples per second", *row("samples_per_second")),
        ("ours is faster by", "", *gains),
        ("MFLOP per sample", *row("mflop_per_sample")),
        ("share of one matrix product's rate", *of_product),
    ]
    said = f"{at(found, 'network')} network, {number(at(found, 'parameters'))} parameters, {at(found, 'settings')}.\n\n"
    spent = ", ".join(f"{name} {share:.0%}" for name, share in (at(found, "profile") or {}).items()) or NOT
    whole = NOT if forward is None else f"{forward * 1e6 * MEMBERS * EPOCHS / 1e15:,.0f} PFLOP"
    return (
        f"{said if found else ''}{table(('', *ways.values()), rows)}\n"
        f"Where a step's time goes: {spent}.\n\nThe whole training with this network, {EPOCHS:,} epochs of {MEMBERS:,} "
        f"members, three forward passes a step, counted by `torch.utils.flop_counter`: {whole}.\n"
    )


def influence(found: Mapping[str, Any]) -> str:
    """Part 4."""

    def cells(label: str) -> tuple[str, str, str]:
        return label, number(at(found, "overlap", label), ".4f"), number(at(found, "ms", label), ".2f")

    rows = [(*cells("published code, 16"), "", "")]
    for name in at(found, "faster") or ("probe 16", "shrunk 4"):
        kind, probes = name.split(" ")
        published, batched = at(found, "faster", name) or (None, None)
        goal = INFLUENCE_GOAL if name == "shrunk 4" else None
        label = f"{'ProbeInfluence' if kind == 'probe' else 'ShrunkInfluence'}, {probes}"
        rows.append((*cells(label), faster(published, goal), faster(batched)))
    return table(("method, probes", "overlap with the exact mask", "ms a sample", *SLOWER), rows)


def attacks(found: Mapping[str, Any]) -> str:
    """Part 5."""
    rows = []
    for name in at(found, "attacks") or ("sima", "loss", "pia", "secmi"):
        each = at(found, "attacks", name) or {}
        gains = faster(at(each, "faster", "published"), ATTACK_GOAL), faster(at(each, "faster", "batched"))
        rows.append((name, number(at(each, "seconds"), ".2f"), *gains, number(at(each, "difference"), ".0e")))
    said = "{num_latents:,} latents, {num_timesteps} timesteps, {num_masks} masks, {network} network.\n\n"
    return (said.format(**found) if found else "") + table(("attack", "s", *SLOWER, "largest difference"), rows)


def curve(metrics: Path) -> str:
    """Part 6: the audits of the run, as metrics.csv has them."""
    from ldm_privacy.runs.series import SeriesFile

    series, sima = SeriesFile(metrics).read("denoiser"), "memorization/sima/all"
    epochs = sorted({epoch for epoch, name in series if name == f"{sima}/auroc"})

    def cell(epoch: int, name: str, sign: str = "") -> str:
        value, lower, upper = (series.get((epoch, f"{name}{end}")) for end in ("", "_lower", "_upper"))
        return NOT if value is None else f"{value:{sign}.3f} [{lower:.3f}, {upper:.3f}]"

    def row(epoch: int) -> list[str]:
        gains = [cell(epoch, f"memorization/sima/top60/gain_over_{rival}", "+") for rival in ("all", "random60", "std60")]
        quartiles = [series.get((epoch, f"{sima}/quartile{place}/auroc")) for place in range(1, 5)]
        by_quartile = NOT if None in quartiles else " / ".join(f"{each:.3f}" for each in quartiles)
        calibrated = cell(epoch, "memorization/sima_calibrated/all/auroc")
        return [f"{epoch:,}", cell(epoch, f"{sima}/auroc"), calibrated, *gains, by_quartile]

    gains = ("top60 over all", "over random60", "over std60")
    columns = ("epoch", "SimA", "calibrated", *gains, "SimA by quartile of distortion, lowest to highest")
    there = " / ".join(f"{each:.3f}" for each in QUARTILES)
    of_paper = [f"published, {EPOCHS:,}", f"{PUBLISHED['all'][0]:.3f} (oracle)", "", "+0.022", "+0.048", "", there]
    return table(columns, [of_paper, *(map(row, epochs) if epochs else [[NOT] * len(columns)])])


def published(metrics: Path) -> str:
    """Part 7: beside the published numbers."""
    content = json.loads(metrics.read_text()) if metrics.is_file() else {}
    rows_of = {(row["attack"], row["mask"]): row for row in content.get("rows", [])}

    def cells(attack: str, mask: str) -> list[str]:
        if (row := rows_of.get((attack, mask))) is None:
            return [NOT] * 4
        apart = "{value:.3f} [{lower:.3f}, {upper:.3f}]".format(**row["auroc"])
        numbers = row["oracle"]["auroc"], row["asr"]["value"], row["tnr_at_fnr"][0]
        oracle, asr, tnr = (NOT if each is None else f"{each:.3f}" for each in numbers)
        return [oracle, apart, asr, tnr]

    names = {"all": "SimA, unmasked", "top60": "lowest 40 % of influence dropped", "random60": "random 40 % dropped"}
    of_paper = {mask: " / ".join(f"{each:.3f}" for each in numbers) for mask, numbers in PUBLISHED.items()}
    rows = [(label, of_paper[mask], *cells("sima", mask)) for mask, label in names.items()]
    others = ("loss", "pia", "secmi", "dime", "sima_complexity", "sima_calibrated", "combined")
    rows += [(attack, "", *cells(attack, "all")) for attack in others]
    columns = ("", "published: AUROC / ASR / TNR@1%FNR", "AUROC, oracle timestep", "AUROC, chosen apart", "ASR", "TNR@1%FNR")
    return f"At epoch {number(content.get('epoch'))} of {EPOCHS:,}:\n\n{table(columns, rows)}"


def tables(folder: Path, *, is_toy: bool = False) -> str:
    """All of them, of what was measured in that folder."""
    names = ("machine", "smoke", "training", "influence", "attacks", "cifar10_fast", "published")
    records = {name: Record.read(folder, name) for name in names}
    measured = {name: record.measured or {} for name, record in records.items()}
    runs = [
        f"`{name}`: {each.status}, {each.seconds / 60:.1f} minutes" for name, each in list(records.items())[-2:] if each.calls
    ]
    metrics = folder / "runs" / "cifar10_fast" / "metrics.csv"
    sections = {
        "The machine": machine(measured["machine"]),
        "Every entry file": smoke(measured["smoke"]),
        "Training speed": training(measured["training"]),
        "Influence speed": influence(measured["influence"]),
        "Attack speed": attacks(measured["attacks"]),
        "The run": f"{'; '.join(runs)}.\n\n{curve(metrics)}" if runs else curve(metrics),
        "Beside the published numbers": published(folder / "published" / "metrics.json"),
    }
    return "\n".join(f"### {title}\n\n{TOY if is_toy else ''}{text}" for title, text in sections.items())


def into_page(page: str, text: str) -> str:
    """A page with the tables between its two marks, or from the first on where it hasn't got the second."""
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n\n{text}\n{END}{after}"

"""What the mutation tool left alive, and why that is no hole in the tests.

mutmut changes one expression of the library at a time and runs the tests that reach it (settings: `[tool.mutmut]` of
pyproject.toml). A change that no test notices is either a law that nobody wrote down, or changes no number. The second kind is
listed with its reason in `benchmarks/equivalent_mutants/<room>.yaml`: file -> changed line -> reason.

    pip install mutmut
    mutmut run --max-children 2           # all rooms; or: mutmut run 'ldm_privacy.attacks.*'
    python -m benchmarks.mutation         # the table, then every survivor without a reason; exit code 1 where there is one
"""

import argparse
import re
from collections import Counter
from pathlib import Path

import yaml
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code

REASONS = Path(__file__).parent / "equivalent_mutants"
CAUGHT = ("killed", "timeout", "segfault", "caught by type check")

DEVICE = re.compile(r"(device=)?[\w.]*\bdevice\b(\.type)?")


def changed_lines(name: str, path: Path) -> tuple[str, str]:
    """The lines that a mutant takes away and puts in, each joined and stripped."""
    diff = get_diff_for_mutant(name, path=path).splitlines()[2:]
    old, new = ("".join(line[1:].strip() + " " for line in diff if line.startswith(sign)).strip() for sign in "-+")
    return old, new


def only_a_device(old: str, new: str) -> bool:
    """Whether a tensor's device was left out or emptied: without an accelerator all of them are the same one."""
    for place in DEVICE.finditer(old):
        before, keyword, after = old[: place.start()], place.group(1) or "", old[place.end() :]
        if new in (f"{before}{keyword}None{after}", before + after.removeprefix(", ")):
            return True
    return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="every survivor with its reason")
    arguments = parser.parse_args()
    reasons: dict[str, dict[str, str]] = {}
    for file in sorted(REASONS.glob("*.yaml")):
        reasons |= yaml.safe_load(file.read_text()) or {}
    rooms: dict[str, Counter] = {}
    holes, used = [], set()
    for meta in sorted(Path("mutants").rglob("*.py.meta")):
        path = meta.relative_to("mutants").with_suffix("")
        data = SourceFileMutationData(path=path)
        data.load()
        room = rooms.setdefault("/".join(path.parts[:2]), Counter())
        for name, code in data.exit_code_by_key.items():
            status = status_by_exit_code[code]
            if status == "not checked":
                continue
            room["mutants"] += 1
            if status in CAUGHT:
                room["caught"] += 1
                continue
            old, new = changed_lines(name, path)
            known = reasons.get(str(path), {})
            why = known.get(new) or ("the device of a tensor" if only_a_device(old, new) else None)
            room["device" if new not in known and why else "listed" if why else "holes"] += 1
            used.add((str(path), new))
            if why is None:
                holes.append(f"{name} ({status})\n  - {old}\n  + {new}")
            elif arguments.list:
                print(f"{path}: {why}\n  + {new}")
    print("| room | mutants | caught | the device of a tensor | no number changes | not caught |\n|---|---|---|---|---|---|")
    columns = ("mutants", "caught", "device", "listed", "holes")
    rooms["all"] = sum(rooms.values(), Counter())
    for room, counts in ((room, counts) for room, counts in rooms.items() if counts["mutants"]):
        print(f"| {room} | " + " | ".join(str(counts[column]) for column in columns) + " |")
    for hole in holes:
        print(f"\n{hole}")
    for path, line in sorted({(path, line) for path, lines in reasons.items() for line in lines} - used):
        print(f"\na reason that no survivor needs any more: {path}: {line}")
    return bool(holes)


if __name__ == "__main__":
    raise SystemExit(main())

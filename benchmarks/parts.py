"""Files for a machine without internet, cut into parts that each travel by themselves. Needs nothing but Python.

    python benchmarks/parts.py split PARTS FILE_OR_FOLDER ... [--mib 60]    # PARTS/part-001, ..., and PARTS/parts.json
    python benchmarks/parts.py join PARTS FOLDER                            # whichever files are whole by now

The files of all that is named, one after the other, are cut every `--mib`; a folder's keep their places below its name.
parts.json, which every part needs beside it, has their names, sizes and hashes. `join` writes each file of which all parts are
there and that isn't written yet, says which parts are missing (exit code 1), and refuses a part that has changed on its way.
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

CHUNK = 1 << 20


def files_of(sources: list[Path]) -> dict[str, Path]:
    """Name in the target folder -> file."""
    found: dict[str, Path] = {}
    for source in (Path(os.path.abspath(each)) for each in sources):
        if not source.exists():
            raise SystemExit(f"error: {source}: there is no such file or folder.")
        below = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]
        for path in below:
            name = path.relative_to(source.parent).as_posix()
            if found.setdefault(name, path) != path:
                raise SystemExit(f"error: {path} and {found[name]} would both become {name}; split them apart.")
    return found


def hash_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def split(parts: Path, sources: list[Path], size: int) -> int:
    """Write the parts and parts.json; returns how many."""
    files = files_of(sources)
    parts.mkdir(parents=True, exist_ok=True)
    if any(parts.iterdir()):
        raise SystemExit(f"error: {parts} isn't empty; name a new folder.")
    number, room, target = 0, 0, None
    for path in files.values():
        with path.open("rb") as file:
            while piece := file.read(min(CHUNK, room or size)):
                if not room:
                    if target is not None:
                        target.close()
                    number, room = number + 1, size
                    target = part(parts, number).open("wb")
                assert target is not None
                target.write(piece)
                room -= len(piece)
    if target is not None:
        target.close()
    manifest = {
        "size": size,
        "parts": [hash_of(part(parts, each)) for each in range(1, number + 1)],
        "files": [{"name": name, "size": path.stat().st_size, "sha256": hash_of(path)} for name, path in files.items()],
    }
    (parts / "parts.json").write_text(json.dumps(manifest, indent=1))
    return number


def part(parts: Path, number: int) -> Path:
    """The file of a part, counted from 1."""
    return parts / f"part-{number:03d}"


def join(parts: Path, folder: Path) -> tuple[list[str], list[str], list[str]]:
    """Files that are written (now or before), files that can't be yet, parts that are missing."""
    if not (parts / "parts.json").is_file():
        raise SystemExit(f"error: {parts} has no parts.json: carry it with every part.")
    manifest = json.loads((parts / "parts.json").read_text())
    size, start, used, written, waiting = manifest["size"], 0, set[int](), [], []
    missing = [number for number in range(1, len(manifest["parts"]) + 1) if not part(parts, number).is_file()]
    for entry in manifest["files"]:
        name, end = entry["name"], start + entry["size"]
        target = folder / name
        if ".." in Path(name).parts or Path(name).is_absolute():
            raise SystemExit(f"error: {parts / 'parts.json'}: '{name}' leads out of the folder.")
        needed = range(start // size + 1, max(start, end - 1) // size + 2)
        is_there = target.is_file() and target.stat().st_size == entry["size"] and hash_of(target) == entry["sha256"]
        if is_there or not set(needed) & set(missing):
            if not is_there:
                check(parts, manifest, set(needed) - used)
                used |= set(needed)
                write(target, pieces(parts, size, start, end), entry["sha256"])
            written.append(name)
        else:
            waiting.append(name)
        start = end
    return written, waiting, [part(parts, number).name for number in missing]


def check(parts: Path, manifest: dict, numbers: set[int]) -> None:
    """Refuse a part that isn't what was cut."""
    for number in sorted(numbers):
        if number <= len(manifest["parts"]) and hash_of(part(parts, number)) != manifest["parts"][number - 1]:
            raise SystemExit(f"error: {part(parts, number)} isn't what was cut: carry it again.")


def pieces(parts: Path, size: int, start: int, end: int) -> Iterator[bytes]:
    """The bytes from `start` to `end` of all files together."""
    while start < end:
        with part(parts, start // size + 1).open("rb") as file:
            file.seek(start % size)
            piece = file.read(min(CHUNK, end - start, size - start % size))
        start += len(piece)
        yield piece


def write(target: Path, content: Iterator[bytes], sha256: str) -> None:
    """A file, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{target.name}.part")
    with temporary.open("wb") as file:
        file.writelines(content)
    if hash_of(temporary) != sha256:
        raise SystemExit(f"error: {target} isn't what was cut, though its parts are: free some disk and join again.")
    os.replace(temporary, target)


def main(arguments: list[str]) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    cutting = actions.add_parser("split")
    cutting.add_argument("parts", type=Path)
    cutting.add_argument("sources", type=Path, nargs="+")
    cutting.add_argument("--mib", type=float, default=60)
    joining = actions.add_parser("join")
    joining.add_argument("parts", type=Path)
    joining.add_argument("folder", type=Path)
    options = parser.parse_args(arguments)
    if options.action == "split":
        if not options.mib >= 1:
            parser.error(f"--mib {options.mib:g}: a part has 1 MiB or more")
        count = split(options.parts, options.sources, int(options.mib * 2**20))
        print(f"{count} parts of at most {options.mib:g} MiB in {options.parts}; parts.json goes with each.")
        return 0
    written, waiting, missing = join(options.parts, options.folder)
    if missing:
        print(f"{len(written)} files are whole, {len(waiting)} wait for {', '.join(missing)}.")
        return 1
    print(f"{len(written)} files in {options.folder}.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

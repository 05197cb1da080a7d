"""Whether something lies at a path, before anything heavy is loaded to read it."""

from pathlib import Path

from ldm_privacy.errors import UserError


def check_is_file(path: Path) -> None:
    """Raise UserError, with the checkpoints beside it, where there is no such file."""
    if path.is_file():
        return
    what = "is a folder" if path.is_dir() else "does not exist"
    beside = sorted(str(file) for file in path.parent.glob("*.ckpt")) if path.parent.is_dir() else []
    hint = f" There: {', '.join(beside)}." if beside else " Checkpoints lie in runs/<name>/checkpoints/."
    raise UserError(f"{path}: {what}; name a checkpoint file.{hint}")

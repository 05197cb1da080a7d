"""`ldm-privacy suspect`: which folder, which target. Nothing heavy is imported before that is known."""

import os
from pathlib import Path

from ldm_privacy.commands import command
from ldm_privacy.config.command_line import parse
from ldm_privacy.errors import UserError
from ldm_privacy.recipes.evaluate.check import BESIDE, check_ours, check_targets
from ldm_privacy.recipes.terminal import LOADING, tell, waiting
from ldm_privacy.runs.folder import RunFolder, check_writable
from ldm_privacy.targets.place import check_may_be_denoiser

USAGE = """ldm-privacy suspect photos ckpt=runs/digits/checkpoints/last.ckpt [out=FOLDER] [audit.* data.* trainer.* ...]
                                       was this folder of images, as a set, in the training data?
ldm-privacy suspect photos ckpt=my-sd-model [base=FOLDER] --config audit.yaml data.source.class=folder data.source.path=images
                       data.index_file=split.npz [out=FOLDER]    the same of a target that was not trained here"""

FEWEST = 10
"""`evidence.suspect_copies.MIN_IMAGES`, known before anything heavy is imported."""


def suspect(arguments: list[str]) -> int:
    """Ask whether a folder of images was trained on; returns the exit code."""
    if not arguments or {"-h", "--help"} & {*arguments}:
        tell(USAGE)
        return 0
    first, *rest = arguments
    folder = Path(first).expanduser()
    if first.startswith("-") or ("=" in first and not folder.exists()):
        raise UserError(f"'{first}': name the folder of images first, as in ldm-privacy suspect photos ckpt=last.ckpt.")
    line = parse(rest, words=("ckpt", "out", *BESIDE))
    if not line.words.get("ckpt"):
        raise UserError("ckpt: name a checkpoint, as in ckpt=runs/digits/checkpoints/last.ckpt.")
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "there is no such folder"
        raise UserError(f"{folder}: {what}; name a folder of images.")
    if not (count := _num_images(folder)):
        raise UserError(f"{folder}: no images in it: no file has an image's ending, such as .png, .jpg or .tif.")
    if count < FEWEST:
        raise UserError(f"{folder}: {count} images; a test of a set needs {FEWEST} at least.")
    path, again = Path(line.words["ckpt"]).expanduser(), command("ldm-privacy", "suspect", *arguments)
    out = Path(line.words["out"]) if line.words.get("out") else None
    if line.config is None and path.suffix == ".ckpt":
        check_may_be_denoiser(path)
        if "reference" in line.words:
            raise UserError(f"reference: {path} is a checkpoint of this program, which is asked alone.")
        check_ours(line, path)
        out = out or RunFolder.around(path).path / f"suspect-{folder.absolute().name}"
        check_writable(out, "out")
        with waiting(LOADING):
            from ldm_privacy.recipes.suspect.suspect import suspect_checkpoint

        suspect_checkpoint(folder, path, line.overrides, out, again)
        return 0
    asked = check_targets(line, [path], out)
    out = out or Path(str(asked.tree.get("output_dir", "runs"))) / asked.names[path] / f"suspect-{folder.absolute().name}"
    check_writable(out, "out")
    with waiting(LOADING):
        from ldm_privacy.recipes.suspect.suspect import suspect_target

    suspect_target(folder, path, asked, out, again)
    return 0


def _num_images(folder: Path) -> int:
    """Files in the folder, and below it, that are named like images."""
    from ldm_privacy.data.endings import image_endings

    endings = image_endings()
    return sum(Path(name).suffix.lower() in endings for _, _, names in os.walk(folder, followlinks=True) for name in names)

"""Was a folder of images, as a set, in the training data of a target?"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldm_privacy.audit.samples import AuditedSamples, is_calibration
from ldm_privacy.controls.finding import Case
from ldm_privacy.data.images import to_float
from ldm_privacy.data.loose import LooseImages, loose_images
from ldm_privacy.errors import UserError
from ldm_privacy.evidence.suspect import SuspectImages, SuspectVerdict, suspect_verdict
from ldm_privacy.evidence.suspect_copies import MIN_IMAGES, Looks, check_enough, copies_of
from ldm_privacy.evidence.suspect_score import Levels, choose_score, joined
from ldm_privacy.recipes.audit import check_content
from ldm_privacy.recipes.check import check_audit, check_geometry
from ldm_privacy.recipes.evaluate.check import TargetWords
from ldm_privacy.recipes.evaluate.target import TargetEvaluation
from ldm_privacy.recipes.reference import composed_with, read_with
from ldm_privacy.recipes.run_setup import RunSetup
from ldm_privacy.recipes.setup import Setup
from ldm_privacy.recipes.suspect.levels import candidates, generations, levels_of, measured, repeated, run_levels
from ldm_privacy.recipes.suspect.told import told_of
from ldm_privacy.recipes.terminal import console, progress, tell
from ldm_privacy.report.page.page import write_page
from ldm_privacy.report.suspect import Asked, print_suspect, suspect_page, write_suspect_json
from ldm_privacy.runs.folder import RunFolder
from ldm_privacy.runs.lock import writing
from ldm_privacy.targets.checkpoint import target_of_checkpoint
from ldm_privacy.targets.target import Target
from ldm_privacy.types import AuditKey, Image

_IMAGES_AT_ONCE = 256


def suspect_checkpoint(folder: Path, path: Path, overrides: Sequence[str], out: Path, command: str) -> SuspectVerdict:
    """The verdict on a folder against a checkpoint of this program, written and printed.

    Raises:
        UserError: See `suspect`; the checkpoint can't be read, or its data are not there or others.
    """
    checkpoint = read_with(path, overrides)
    config = composed_with(checkpoint, overrides).config
    loose = _read(folder, config.data)
    setup = RunSetup(config, progress, split=checkpoint.split, stored=checkpoint.denoiser)
    check_audit(setup)
    check_content(setup, checkpoint)
    target = target_of_checkpoint(checkpoint, setup.device, setup.condition.given)
    return suspect(folder, loose, setup, target, RunFolder.around(path), checkpoint.epoch, out, command=command, path=path)


def suspect_target(folder: Path, path: Path, words: TargetWords, out: Path, command: str) -> SuspectVerdict:
    """As `suspect_checkpoint`, against a target that was not trained here. `words`: the config, which says who is a member."""
    setup, composed, run = TargetEvaluation(words.tree, **words.beside).prepared(path, words.names[path])
    loose = _read(folder, composed.config.data)
    return suspect(folder, loose, setup, setup.target, run, None, out, command=command, path=path)


def suspect(
    folder: Path,
    loose: LooseImages,
    setup: Setup,
    target: Target,
    run: RunFolder,
    epoch: int | None,
    out: Path,
    *,
    command: str,
    path: Path,
) -> SuspectVerdict:
    """The verdict on the images of a folder: written to `out` as suspect.html and suspect.json, and printed.

    The run's images are measured and audited as an evaluation does it, or what was kept of that is read; the suspects and
    `NUM_GENERATED` generations are encoded, decoded and asked by the one attack and mask that is chosen.

    Args:
        folder, loose: The suspects.
        setup, target: Of the run, on its device, told its condition.
        run, epoch: Where its store and its audits' scores lie, and of which audit they are; None: no scores are kept.
        out, command, path: Where it is written; what repeats it; where the target lies.

    Raises:
        UserError: Too few images of the run are left beside those that are in the folder; every score is constant.
    """
    check_geometry(setup, target.codec)
    data, split, index = setup.data, setup.data.split, setup.audited_index
    told = told_of(setup, target, loose)
    with setup.progress("Copies and near-duplicates", 0):
        everyone = split.audited_index
        looks = Looks.of(data.pixels(rows) for rows in everyone.split(_IMAGES_AT_ONCE))
        suspected = Looks.of(loose.pixels.split(_IMAGES_AT_ONCE))
        copies = copies_of(suspected, looks, everyone, torch.isin(everyone, split.member_index), group=data.groups(everyone))
    is_known = torch.isin(index, torch.cat([copies.member_index, copies.heldout_index]))
    members, group = setup.audited_members, data.groups(index)
    chooses = is_calibration(index, group=group)
    counts = {"num_members": int(members.sum()), "num_heldout": int((~members).sum())}
    check_enough(str(folder), copies, members[~is_known], chooses[~is_known], **counts)

    keys = candidates(setup, target)
    measuring = setup.measuring(target.codec, run.store)
    means = measuring.means(index)
    target = setup.checked(target, means)
    suspects_target = replace(told.target, facts=target.facts)
    samples = setup.samples(measuring, means)
    if told.is_null:
        null = repeated(setup.condition.null(), len(samples))
        samples = samples.with_columns(condition={name: value.to(setup.device) for name, value in null.items()})
    of_run, was_kept = run_levels(setup, target, samples, keys, run, None if told.is_null else epoch)
    choice = choose_score(of_run, members, chooses & ~is_known)
    generated, their_condition = generations(setup, target, samples)
    parts = [(loose.pixels, suspects_target, told.condition, "Asking of the suspects")]
    parts += [(generated, target, their_condition, "Asking of generations")]
    levels, cases, first = [of_run], [Case(samples.to("cpu"), data.images)], split.num_rows
    seen = [_seen(of_run, choice.key, samples)]
    for pixels, asked, condition, words in parts:
        own = {name: value.to(setup.device) for name, value in condition.items()}
        found = measured(setup, asked, pixels, own, choice.key, first=first)
        levels.append(levels_of(setup, asked, found, [choice.key], words))
        cases.append(Case(found.to("cpu"), _images(pixels, first)))
        seen.append(_seen(levels[-1], choice.key, found))
        first += len(pixels)
    with setup.progress("The verdict", 0):
        sizes = [len(index), len(loose.pixels), len(generated)]
        verdict = suspect_verdict(
            joined(levels),
            choice,
            SuspectImages(
                is_member=_padded(members & ~is_known, sizes),
                is_heldout=_padded(~members & ~is_known, sizes),
                is_suspect=_part(1, sizes),
                is_generated=_part(2, sizes),
                chooses=_padded(chooses & ~is_known, sizes),
                group=None if group is None else torch.cat([group, -1 - torch.arange(sum(sizes[1:]))]),
                features={name: torch.cat([case.features[name] for case in cases]) for name in cases[0].features},
                seen={name: torch.cat([each[name] for each in seen]) for name in seen[0] if all(name in each for each in seen)},
            ),
            copies,
            confidence=setup.config.audit.confidence,
            seed=setup.config.seed,
        )
    asked_so = Asked(
        folder=str(folder),
        target=str(path),
        facts=target.facts,
        num_images=len(loose.pixels),
        unreadable=loose.unreadable,
        told=told.note,
        sizes=_other_sizes(loose, setup.config.data.resolution),
        split_hash=split.hash,
        scores="kept by the run's own audit" if was_kept else "audited for this",
        command=command,
    )
    out.mkdir(parents=True, exist_ok=True)
    with writing(out, wait=True):
        write_suspect_json(verdict, asked_so, out / "suspect.json")
        write_page(suspect_page(verdict, asked_so), out / "suspect.html")
    print_suspect(verdict, asked_so, console)
    tell(f"Written to {out}: suspect.html, suspect.json.\nOpen {out / 'suspect.html'}")
    return verdict


def _read(folder: Path, data: Any) -> LooseImages:
    """The suspects as the run's images are. Raises UserError where there are too few."""
    source_range = data.source.arguments.get("value_range")
    try:
        with progress(f"Reading {folder}", 0) as done:
            loose = loose_images(
                str(folder), resolution=data.resolution, channels=data.channels, value_range=source_range, progress=done
            )
    except UserError as error:
        raise UserError(f"{folder}: {str(error).removeprefix('data.source.path: ').removeprefix('data.source: ')}") from None
    if (count := len(loose.pixels)) < MIN_IMAGES:
        lost = f", and {len(loose.unreadable)} that can't be read" if loose.unreadable else ""
        raise UserError(f"{folder}: {count} images{lost}; a test of a set needs {MIN_IMAGES} at least.")
    return loose


def _other_sizes(loose: LooseImages, resolution: int) -> str:
    """How many images were stored in another size than the run's, in words; "" where none was."""
    others = [size for size in loose.sizes if size != (resolution, resolution)]
    if not others:
        return ""
    first, own = (f"{width} x {height}" for width, height in (others[0], (resolution, resolution)))
    return f"{len(others)} of {len(loose.sizes)} images have another size (the first: {first} pixels) than the run's {own}"


def _images(pixels: Tensor, first: int) -> Callable[[Tensor], Image]:
    """By sample index."""
    return lambda index: to_float(pixels[index - first])


def _seen(levels: Levels, key: AuditKey, samples: AuditedSamples) -> dict[str, Tensor]:
    """What the model says of each image, beside the image itself: levels of the attack, and how little the codec changes it."""
    names: Sequence[object] = levels.timesteps[key.attack] or ["all timesteps"]
    found = {f"{key} at {name}": row for name, row in zip(names, levels.now[key].double())}
    if (error := samples.reconstruction_error) is not None:
        found["log reconstruction error"] = error.cpu().double().clamp_min(1e-12).log()
    return found


def _part(place: int, sizes: Sequence[int]) -> Tensor:
    """Which rows are of the part at that place."""
    return torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)) == place


def _padded(of_run: Tensor, sizes: Sequence[int]) -> Tensor:
    """Of the run's rows, and of no others."""
    return torch.cat([of_run, torch.zeros(sum(sizes[1:]), dtype=torch.bool)])

"""Evaluating a target that was not trained here: a folder, an adapter, a single file."""

from pathlib import Path
from typing import Any

from ldm_privacy.config import TargetConfig, finish
from ldm_privacy.config.check import check_section
from ldm_privacy.config.schema import DeviceConfig
from ldm_privacy.device import device_of
from ldm_privacy.errors import UserError
from ldm_privacy.evidence.verdict import verdict_of
from ldm_privacy.plugins import import_plugins
from ldm_privacy.recipes.audit import audit_target
from ldm_privacy.recipes.check import check_audit
from ldm_privacy.recipes.publish import publish, without_reference
from ldm_privacy.recipes.target_setup import TargetSetup
from ldm_privacy.recipes.terminal import console, progress, tell
from ldm_privacy.report.folder import FILES
from ldm_privacy.report.tables import print_audit, print_verdict
from ldm_privacy.runs.folder import RunFolder, next_free
from ldm_privacy.targets.door import open_target
from ldm_privacy.targets.reference import with_reference
from ldm_privacy.targets.target import Target
from ldm_privacy.watch.watcher import Moment


def evaluate_target(
    path: Path, tree: dict[str, Any], out: Path | None, *, command: str, reference: Path | None = None, **where: Path | None
) -> Path:
    """Audit a target, publish it, print its verdict and table; returns the path of its scores.

    Args:
        path: Where it lies.
        tree: The config, of which the target itself may give resolution and channels of the images.
        out: Where the evaluation goes; `<output_dir>/<name>/evaluation`, or the next that is free, by default.
        command: That repeats it.
        reference: Of another target that attacks are calibrated against.
        where: `base` and `layout`, see `Opening`.

    Raises:
        UserError: It can't be opened, or the data don't go with it.
    """
    import_plugins(tree.get("plugins"))  # they may bring the kind of target
    given = tree.get("target") or {}
    how = {name: value for name, value in given.items() if name != "self_check"} | where
    how = {name: value for name, value in how.items() if value is not None}
    place: DeviceConfig = check_section(DeviceConfig, tree.get("trainer") or {}, "trainer")
    device = device_of(place.accelerator, tf32=place.tf32)
    with progress(f"Opening {path.name}", 0):
        target = open_target(path, device=device, **how)
        if reference is not None:
            target = with_reference(target, open_target(reference, device=device), reference)
    composed = finish(fitted(tree, target), TargetConfig)
    setup = TargetSetup(composed.config, progress, target)
    check_audit(setup)
    target = setup.target = target.told_by(setup.condition)
    run = RunFolder(Path(composed.config.output_dir) / composed.config.name)
    run.store = Path(composed.config.output_dir) / "store"  # several adapters of one base share what it makes of the images
    audited = audit_target(setup, target, run, Moment(0, 0, is_last=True))
    assert audited is not None  # there is one process
    folder = out or next_free(run.evaluation)
    evaluation = publish(setup, composed, audited, folder, checkpoint=path, run=run, command=command)
    evidence = evaluation.evidence
    console.print(setup.describe(), highlight=False)
    for name, value in audited.target.facts.items():
        console.print(f"{name}: {value}", highlight=False, markup=False)
    print_audit(evidence.report, console, title=str(path), permuted=evidence.permuted)
    print_verdict(verdict_of(evidence), console)
    if without_reference(setup, evidence.report):
        console.print(f"Reference: {evaluation.facts['reference']}.", highlight=False)
    tell(f"Written to {folder}: {FILES}.\nOpen {folder / 'report.html'}")
    return folder / "scores.parquet"


def fitted(tree: dict[str, Any], target: Target) -> dict[str, Any]:
    """The config with resolution and channels of the images that the target was made for, where it says none."""
    data = dict(tree["data"])
    for key, value in (("resolution", target.resolution), ("channels", target.image_channels)):
        if data.get(key) is None:
            if value is None:
                raise UserError(f"data.{key}: missing, and the target doesn't say for which images it was made. Give it.")
            data[key] = value
        elif key == "channels" and value is not None and data[key] != value:
            raise UserError(f"data.channels: {data[key]}, but the target was made for images of {value}; leave it out.")
    return {**tree, "data": data}

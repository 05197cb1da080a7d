"""Evaluating a target that was not trained here: a folder, an adapter, a single file."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from ldm_privacy.config import Composed, TargetConfig, finish
from ldm_privacy.config.check import check_section
from ldm_privacy.config.data_section import DataConfig
from ldm_privacy.config.schema import DeviceConfig, OpeningConfig
from ldm_privacy.data.module import ImageData
from ldm_privacy.device import device_of, limit_memory
from ldm_privacy.errors import UserError, under
from ldm_privacy.evidence.verdict import verdict_of
from ldm_privacy.plugins import import_plugins
from ldm_privacy.recipes.audit import Audited, audit_target
from ldm_privacy.recipes.check import check_audit
from ldm_privacy.recipes.gate import Evaluated
from ldm_privacy.recipes.gate_check import check_gate
from ldm_privacy.recipes.publish import publish, without_reference
from ldm_privacy.recipes.target_setup import TargetSetup
from ldm_privacy.recipes.terminal import console, progress, tell
from ldm_privacy.report.folder import FILES
from ldm_privacy.report.tables import print_audit, print_verdict
from ldm_privacy.runs.folder import RunFolder, next_free
from ldm_privacy.targets.door import Opening, open_target
from ldm_privacy.targets.lora import Base, LoraTarget
from ldm_privacy.targets.reference import of_whom, with_reference
from ldm_privacy.targets.target import Target
from ldm_privacy.types import Whose
from ldm_privacy.watch.watcher import Moment


class Prepared(NamedTuple):
    """A target that is open, and its audit: the setup, its config, the folder that it would have as a run."""

    setup: TargetSetup
    composed: Composed[TargetConfig]
    run: RunFolder

    def audited(self) -> Audited:
        """The audit. Raises UserError as `audit_target`."""
        found = audit_target(self.setup, self.setup.target, self.run, Moment(0, 0, is_last=True))
        assert found is not None  # there is one process
        return found


class TargetEvaluation:
    """Audits targets with one config; a base is read once for all of its adapters.

    Args:
        tree: The config, of which a target itself may give resolution and channels of the images.
        reference: Of another target that attacks are calibrated against.
        where: `base` and `layout`, see `Opening`.
    """

    def __init__(self, tree: dict[str, Any], *, reference: Path | None = None, **where: Path | None):
        import_plugins(tree.get("plugins"))  # they may bring the kind of target
        place: DeviceConfig = check_section(DeviceConfig, tree.get("trainer") or {}, "trainer")
        self.tree, self.reference, self.device = tree, reference, device_of(place.accelerator, tf32=place.tf32)
        self.memory: dict[str, Any] = {}  # several adapters of one base share what its codec makes of the images
        self._read: tuple[DataConfig, ImageData] | None = None
        limit_memory((tree.get("audit") or {}).get("memory_gib"))
        named = {**where, "reference": reference}
        self.beside = {word: str(path.resolve()) for word, path in named.items() if path is not None}
        given, how = tree.get("target") or {}, [field.name for field in fields(Opening)]
        self.whose: Whose | None = given.get("reference_is")
        self.how = {name: value for name, value in (given | where).items() if name in how and value is not None}

    def __call__(self, path: Path, name: str, out: Path | None, *, command: str) -> Evaluated:
        """Audit one, publish it, print its verdict and table.

        Args:
            path: Where it lies.
            name: What it is called.
            out: Where the evaluation goes; `<output_dir>/<name>/evaluation`, or the next that is free, by default.
            command: That repeats it.

        Raises:
            UserError: It can't be opened, or the data don't go with it.
        """
        opened = self.prepared(path, name)
        setup, composed, run = opened
        audited = opened.audited()
        folder = out or next_free(run.evaluation)
        about: Any = {"checkpoint": path, "run": run, "command": command, "beside": self.beside}
        evaluation = publish(setup, composed, audited, folder, **about)
        evidence = evaluation.evidence
        console.print(setup.describe(), highlight=False)
        for name, value in audited.target.facts.items():
            console.print(f"{name}: {value}", highlight=False, markup=False)
        print_audit(evidence.report, console, title=str(path), permuted=evidence.permuted)
        print_verdict(verdict_of(evidence), console)
        if without_reference(setup, evidence.report):
            console.print(f"Reference: {evaluation.facts['reference']}.", highlight=False)
        tell(f"Written to {folder}: {FILES}.\nOpen {folder / 'report.html'}")
        return Evaluated(folder / "scores.parquet", evaluation.ruling, composed.config.gate)

    def prepared(self, path: Path, name: str) -> Prepared:
        """One target with all that its audit takes. Raises UserError as `__call__`, before anything is measured."""
        with progress(f"Opening {path.name}", 0):
            target = self.opened(path)
            if self.reference is not None:
                target = with_reference(target, self.opened_reference, self.reference)
            with _keyed():
                target = of_whom(target, self.whose)
        tree = fitted({**self.tree, "name": name}, target)
        composed = finish(tree, TargetConfig)
        check_gate(composed.tree)  # with what interpolations stand for
        setup = TargetSetup(composed.config, progress, target)
        setup.memory = self.memory
        if self._read is not None and self._read[0] == composed.config.data:
            setup.data = self._read[1]
        check_audit(setup)
        self._read = composed.config.data, setup.data
        setup.target = target.told_by(setup.condition)
        run = RunFolder(Path(composed.config.output_dir) / composed.config.name)
        run.store = Path(composed.config.output_dir) / "store"  # several adapters of one base share what it makes of the images
        return Prepared(setup, composed, run)

    def opened(self, path: Path) -> Target:
        """The target at a path. Raises UserError, with the key in front where one is wrong."""
        return self._open(path, self.how)

    @cached_property
    def opened_reference(self) -> Target:
        """Opened as the target is, but for what is of its adapter, and what this file or folder has no use for."""
        assert self.reference is not None
        is_adapter, variant = LoraTarget.recognises(self.reference), self.how.get("variant")
        foreign = {
            "alpha": True,
            "scale": True,
            "base": not is_adapter,
            "layout": self.reference.is_dir(),
            "variant": not is_adapter and not any(self.reference.rglob(f"*.{variant}.*")),
        }
        return self._open(self.reference, {name: value for name, value in self.how.items() if not foreign.get(name)})

    def _open(self, path: Path, how: Mapping[str, Any]) -> Target:
        with _keyed():
            if "base" in how and LoraTarget.recognises(path):
                return self._base.adapted(path, alpha=how.get("alpha"), scale=how.get("scale", 1.0))
            return open_target(path, device=self.device, **how)

    @cached_property
    def _base(self) -> Base:
        return Base.open(Opening(self.device, **self.how))


@contextmanager
def _keyed() -> Iterator[None]:
    """With the key in front of a refusal where one is wrong."""
    try:
        yield
    except UserError as error:
        raise UserError(under("target", str(error), [field.name for field in fields(OpeningConfig)])) from error


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

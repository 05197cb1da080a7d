"""Runs whose audits foretell another's onset: read, checked, compared. Nothing heavy is imported here."""

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

from ldm_privacy.config.audit_sections import AuditConfig, OnsetConfig
from ldm_privacy.config.compose import differences, read_yaml
from ldm_privacy.config.schema import DenoiserConfig
from ldm_privacy.errors import UserError
from ldm_privacy.evidence.forecast import Pilot, SeriesHistory, Size, forecast, pilot_of, watched_keys
from ldm_privacy.evidence.forecast_words import basis, own_constant, without_pilot
from ldm_privacy.runs.folder import RunFolder
from ldm_privacy.runs.series import SeriesFile

MATTERING = (
    *("denoiser", "autoencoder.network", "data.source", "data.resolution", "data.channels", "data.flip"),
    *("audit.timesteps", "audit.sigmas", "audit.onset", "audit.confidence", "audit.cross_fit", "trainer.precision"),
)
"""Keys and sections that may move an onset, beside the attack and the mask that it is counted by."""

DAMAGE = (OSError, EOFError, ValueError, BadZipFile, zlib.error)
"""What reading a damaged file raises."""


class PilotRun(NamedTuple):
    """A pilot's folder as it is named, what its metrics.csv says of the denoiser's stage, and the rest that counts."""

    name: str
    history: SeriesHistory
    size: Size
    differs: tuple[str, ...]
    detector: Mapping[str, Any]

    def pilot(self, key: str) -> Pilot | None:
        """What it says of that attack and mask; None where it didn't look for its onset."""
        return pilot_of(self.history, key, self.name, self.size, differs=self.differs, **self.detector)


def read_pilots(tree: Mapping[str, Any]) -> list[PilotRun]:
    """The runs that `audit.forecast` of a config names.

    Raises:
        UserError: A folder is no run, can't be read, has no audit after that of the untrained denoiser, or counted its onset by
            another attack or mask than this config does.
    """
    named = (tree.get("audit") or {}).get("forecast") or ()
    return [_read(name, tree) for name in dict.fromkeys(named)]


def size_of(tree: Mapping[str, Any], num_members: int, num_heldout: int) -> Size:
    """Of a run with that config, on so many members and held-out images."""
    most = tree["audit"].get("max_samples") or max(num_members, num_heldout)
    batch_size = int(tree["denoiser"].get("batch_size", DenoiserConfig.batch_size))
    return Size(num_members, batch_size, (min(most, num_members), min(most, num_heldout)))


def foretold(tree: Mapping[str, Any], *, num_members: int, num_heldout: int) -> tuple[str, ...]:
    """Before a training: when it is to be expected to memorize, or how to learn that.

    Raises UserError as `read_pilots`.
    """
    runs = read_pilots(tree)
    if not runs:
        return without_pilot(num_members, num_heldout)
    size, lines = size_of(tree, num_members, num_heldout), []
    for key in watched_keys(runs[0].history):
        if pilots := _all_of(runs, key):
            lines.append(forecast(pilots, size).sentence(key, tree["trainer"]["max_epochs"]))
    return *lines, basis(_all_of(runs, _primary(tree)))


def compared(tree: Mapping[str, Any], history: SeriesHistory, *, num_members: int, num_heldout: int) -> list[str]:
    """After a training: what its pilots foretold beside what was found, and what it foretells itself.

    A pilot that can't be read any more is said, not raised: the evidence of a training doesn't hang on it.
    """
    size, held, rests = size_of(tree, num_members, num_heldout), list[str](), list[str]()
    own: dict[str, list[str]] = {}
    try:
        runs = read_pilots(tree)
    except UserError as error:
        runs, held = [], [f"The forecast can't be compared: {error}"]
    for key in watched_keys(history):
        here = pilot_of(history, key, "this run", size, **_detector(tree))
        if here is None:
            continue
        if pilots := _all_of(runs, key):
            ahead = forecast(pilots, size)
            held.append(f"Onset of {key}, forecast: {ahead}. Audited: {ahead.outcome(here)}.")
            rests = rests or [basis(pilots)]
        if here.onset() != (0, None):  # a first rise that isn't known to stay
            own.setdefault(own_constant(here), []).append(key)  # what holds of several is said once
    return [*held, *rests, *(said.format(keys=" and ".join(keys)) for said, keys in own.items())]


def _all_of(runs: list[PilotRun], key: str) -> list[Pilot]:
    """What the runs say of that attack and mask; nothing where one of them says nothing."""
    found = [pilot for run in runs if (pilot := run.pilot(key)) is not None]
    return found if len(found) == len(runs) else []


def _read(name: str, tree: Mapping[str, Any]) -> PilotRun:
    run, key = RunFolder(Path(name)), _primary(tree)
    if not run.config.is_file():
        raise UserError(f"audit.forecast: '{name}' is no run: it has no config.yaml. Name a folder like runs/digits.")
    theirs = read_yaml(run.config)
    try:
        history, size = SeriesFile(run.metrics).read("denoiser"), size_of(theirs, *_num_samples(run.split))
    except (*DAMAGE, KeyError, TypeError, AttributeError):
        raise UserError(
            f"audit.forecast: '{name}' can't be read as a run: its metrics.csv, split.npz or config.yaml is missing or "
            "damaged; name another."
        ) from None
    keys = watched_keys(history)
    if not keys:
        raise UserError(
            f"audit.forecast: '{name}' has no audit after that of the untrained denoiser; let it train on (resume={name}), or "
            "name another run."
        )
    if key not in keys:
        raise UserError(
            f"audit.forecast: '{name}' counted its onset by {' and '.join(keys)}, this config counts it by {key}; name a "
            "run of the same audit.onset."
        )
    attack, mask = key.split("/")
    mattering = (*MATTERING, f"audit.attacks.{attack}", f"audit.masks.{mask}")
    sections = tuple(f"{each}." for each in mattering)
    differs = (each for each in differences(tree, theirs) if f"{each}.".startswith(sections) and each != "denoiser.batch_size")
    detector = {**_detector(tree), "confidence": _detector(theirs)["confidence"]}
    return PilotRun(name, history, size, tuple(differs), detector)


def _num_samples(split: Path) -> tuple[int, int]:
    """Members and held-out samples."""
    import numpy as np

    with np.load(split, allow_pickle=False) as stored:
        return len(stored["mia_train_idxs"]), len(stored["mia_eval_idxs"])


def _detector(tree: Mapping[str, Any]) -> dict[str, Any]:
    """What finds an onset."""
    onset = tree["audit"].get("onset") or {}
    return {
        "num_consecutive": onset.get("num_consecutive", OnsetConfig.num_consecutive),
        "confidence": tree["audit"].get("confidence", AuditConfig.confidence),
    }


def _primary(tree: Mapping[str, Any]) -> str:
    """Attack and mask that the onset is counted by."""
    audit = tree["audit"]
    onset, attacks = audit.get("onset") or {}, audit.get("attacks") or {}
    labels = [label for label in attacks if not isinstance(attacks, Mapping) or attacks[label] is not None]
    return f"{onset.get('attack') or next(iter(labels), '')}/{onset.get('mask', 'all')}"

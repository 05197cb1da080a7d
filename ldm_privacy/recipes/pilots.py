"""Runs whose audits foretell another's onset: read, checked, compared. Nothing heavy is imported here."""

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

from ldm_privacy.config.compose import differences, read_yaml
from ldm_privacy.config.schema import DenoiserConfig
from ldm_privacy.errors import UserError
from ldm_privacy.evidence.forecast import Pilot, basis, forecast, own_constant, pilot_of, watched_keys, without_pilot
from ldm_privacy.runs.folder import RunFolder
from ldm_privacy.runs.series import SeriesFile

History = Mapping[tuple[int, str], float]

MATTERING = (
    *("denoiser", "autoencoder.network", "data.source", "data.resolution", "data.channels", "data.flip"),
    *("audit.timesteps", "audit.onset", "trainer.precision"),
)
"""Keys and sections that may move an onset, beside the attack and the mask that it is counted by."""


DAMAGE = (OSError, EOFError, ValueError, BadZipFile, zlib.error)
"""What reading a damaged file raises."""


class PilotRun(NamedTuple):
    """A pilot's folder as it is named, what its metrics.csv says of the denoiser's stage, and the rest that counts."""

    name: str
    history: History
    num_members: int
    batch_size: int
    differs: tuple[str, ...]

    def pilot(self, key: str) -> Pilot | None:
        """What it says of that attack and mask; None where it didn't look for its onset."""
        return pilot_of(
            self.history,
            key,
            self.name,
            num_members=self.num_members,
            batch_size=self.batch_size,
            differs=self.differs,
        )


def read_pilots(tree: Mapping[str, Any]) -> list[PilotRun]:
    """The runs that `audit.forecast` of a config names.

    Raises:
        UserError: A folder is no run, can't be read, has no audit after that of the untrained denoiser, or counted its onset by
            another attack or mask than this config does.
    """
    named = (tree.get("audit") or {}).get("forecast") or ()
    return [_read(name, tree) for name in dict.fromkeys(named)]


def foretold(tree: Mapping[str, Any], *, num_members: int, num_heldout: int) -> tuple[str, ...]:
    """Before a training: when it is to be expected to memorize, or how to learn that.

    Raises UserError as `read_pilots`.
    """
    runs = read_pilots(tree)
    if not runs:
        return without_pilot(num_members, num_heldout)
    lines = []
    for key in watched_keys(runs[0].history):
        if pilots := _all_of(runs, key):
            ahead = forecast(pilots, num_members=num_members, batch_size=_batch_size(tree))
            lines.append(ahead.sentence(key, tree["trainer"]["max_epochs"]))
    return *lines, basis(_all_of(runs, _primary(tree)))


def compared(tree: Mapping[str, Any], history: History, *, num_members: int) -> list[str]:
    """After a training: what its pilots foretold beside what was found, and what it foretells itself.

    A pilot that can't be read any more is said, not raised: the evidence of a training doesn't hang on it.
    """
    batch_size, lines, rests = _batch_size(tree), list[str](), ""
    try:
        runs = read_pilots(tree)
    except UserError as error:
        runs, lines = [], [f"The forecast can't be compared: {error}"]
    for key in watched_keys(history):
        if (here := pilot_of(history, key, "this run", num_members=num_members, batch_size=batch_size)) is None:
            continue
        if pilots := _all_of(runs, key):
            ahead = forecast(pilots, num_members=num_members, batch_size=batch_size)
            lines.append(f"Onset of {key}, forecast: {ahead}. Audited: {ahead.outcome(here)}.")
            rests = rests or basis(pilots)
        if here.after or here.by:
            lines.append(own_constant(here, key))
    return [*lines, rests] if rests else lines


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
        history, batch_size = SeriesFile(run.metrics).read("denoiser"), _batch_size(theirs)
        num_members = _num_members(run.split)
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
    differs = (each for each in differences(tree, theirs) if f"{each}.".startswith(tuple(f"{name}." for name in mattering)))
    return PilotRun(name, history, num_members, batch_size, tuple(each for each in differs if each != "denoiser.batch_size"))


def _num_members(split: Path) -> int:
    import numpy as np

    with np.load(split, allow_pickle=False) as stored:
        return len(stored["mia_train_idxs"])


def _batch_size(tree: Mapping[str, Any]) -> int:
    return int(tree["denoiser"].get("batch_size", DenoiserConfig.batch_size))


def _primary(tree: Mapping[str, Any]) -> str:
    """Attack and mask that the onset is counted by."""
    audit = tree["audit"]
    onset, attacks = audit.get("onset") or {}, audit.get("attacks") or {}
    labels = [label for label in attacks if not isinstance(attacks, Mapping) or attacks[label] is not None]
    return f"{onset.get('attack') or next(iter(labels), '')}/{onset.get('mask', 'all')}"

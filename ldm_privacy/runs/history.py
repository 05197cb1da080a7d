"""The scores of every audit of a run, a file each: what later audits, and the evidence at the end, look back on."""

import json
import logging
import math
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ldm_privacy.attacks.base import Attack
from ldm_privacy.audit.kept import KeptScores, spread_over
from ldm_privacy.audit.samples import MaskRule
from ldm_privacy.errors import UserError, reason_of
from ldm_privacy.plugins import blamed_on
from ldm_privacy.types import AuditKey

log = logging.getLogger("ldm_privacy")

FORMAT = "ldm_privacy scores 1"
"""Key of the one entry of a file's metadata: entries are written in any order, and equal audits have equal files."""


@dataclass(frozen=True)
class Provenance:
    """What kept scores are of.

    Attributes:
        split_hash: Of who is a member.
        seed: Of the attacks' noise and the random masks.
        attacks: What each attack is, by label: its repr and its timesteps.
        masks: What each mask rule is, by label.
        cross_fit: Whether each half chose and fitted for the other.
    """

    split_hash: str
    seed: int
    attacks: Mapping[str, str]
    masks: Mapping[str, str]
    cross_fit: bool = True

    @classmethod
    def of(
        cls,
        split_hash: str,
        seed: int,
        attacks: Mapping[str, Attack],
        masks: Mapping[str, MaskRule],
        timesteps: Sequence[int],
        *,
        cross_fit: bool = True,
    ) -> "Provenance":
        """Of an audit with these attacks and masks; `timesteps` are those of the attacks that have no own."""
        where = f" at timesteps {', '.join(map(str, timesteps))}"
        return cls(
            split_hash,
            seed,
            {label: _words(attack) + where * attack.per_timestep for label, attack in attacks.items()},
            {label: _words(rule) for label, rule in masks.items()},
            cross_fit,
        )


class ScoreHistory:
    """A safetensors file per audit, named by its epoch: `KeptScores` and their provenance.

    Args:
        folder: Made at the first write.
        provenance: Of the audits that are written here and of the one that looks back.
    """

    def __init__(self, folder: Path, provenance: Provenance):
        self.folder = folder
        self.provenance = provenance

    @classmethod
    def found(cls, folder: Path) -> "ScoreHistory | None":
        """As the newest audit in that folder would look back; None where there is none that can be read."""
        for path in reversed(cls(folder, Provenance("", 0, {}, {})).audits.values()):
            try:
                with safe_open(path, framework="pt") as file:
                    record = json.loads((file.metadata() or {})[FORMAT])
                return cls(folder, Provenance(**{each.name: record[each.name] for each in fields(Provenance)}))
            except (SafetensorError, OSError, ValueError, KeyError) as error:
                _warn_once(f"{path} can't be used ({reason_of(error)}): that epoch is left out.")
        return None

    def write(self, epoch: int, kept: KeptScores) -> None:
        """Store the scores of an audit, whole or not at all; an audit repeated after a resume replaces its file."""
        tensors = {"sample_index": kept.sample_index}
        for part in ("scores", "standing", "made"):
            tensors |= {f"{part}/{key}": value for key, value in getattr(kept, part).items()}
        num_fitted = {str(key): number for key, number in kept.num_fitted.items()}
        record = json.dumps({**asdict(self.provenance), "timesteps": kept.timesteps, "num_fitted": num_fitted}, sort_keys=True)
        # Copied, since parts of one tensor can't be stored as tensors of their own.
        copies = {name: value.clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
        content = save(copies, metadata={FORMAT: record})
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f"{epoch}.tmp"
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.folder / f"epoch-{epoch}.safetensors")

    def cut_back(self, epoch: int) -> None:
        """Delete the scores of audits after `epoch`: a resumed run may look at other epochs, or be stopped before them."""
        for number, path in self._files():
            if number > epoch:
                path.unlink()

    def check(self) -> None:
        """Raise UserError as `read`; no scores are loaded."""
        self.read(keys=())

    def read(
        self, *, until: float = math.inf, keys: Collection[AuditKey] | None = None, most: int | None = None
    ) -> dict[int, KeptScores]:
        """Epoch -> scores, up to and with the epoch `until`; {} where nothing is kept.

        A damaged file is left out, and so are scores of another attack, mask or timesteps under the same label, and those of
        one half alone where each half shall choose for the other: with a warning.

        Args:
            until: The last epoch.
            keys: Only those attacks and masks are loaded; epochs that have none of them are left out. None: all, and what was
                made of them.
            most: Of more audits so many that are spread over them.

        Raises:
            UserError: Scores of another split or seed, as where a checkpoint was moved beside another run's.
        """
        found = {}
        for epoch in spread_over([each for each in self.audits if each <= until], most):
            kept = self.at(epoch, keys=keys)
            if kept is not None and kept.standing:
                found[epoch] = kept
        return found

    @property
    def audits(self) -> dict[int, Path]:
        """Epoch -> file of what is kept, ascending."""
        return {epoch: path for epoch, path in self._files() if path.suffix == ".safetensors"}

    def at(self, epoch: int, *, keys: Collection[AuditKey] | None = None) -> KeptScores | None:
        """The scores of one audit, see `read`; None, with a warning, where its file can't be used."""
        path = self.audits[epoch]
        try:
            return self._load(path, keys)
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            _warn_once(f"{path} can't be used ({reason_of(error)}): that epoch is left out.")
            return None

    def _files(self) -> list[tuple[int, Path]]:
        """What is written here, half-written files too, with their epochs, ascending."""
        numbers = [(path.stem.removeprefix("epoch-"), path) for path in self.folder.glob("*.*")]
        return sorted((int(number), path) for number, path in numbers if number.isdigit())

    def _load(self, path: Path, keys: Collection[AuditKey] | None) -> KeptScores:
        """What of a file is wanted and is of this provenance."""
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if FORMAT not in metadata:
                raise ValueError("these are no scores of an audit, or those of another version")
            record = json.loads(metadata[FORMAT])
            self._check(path, record)
            if self.provenance.cross_fit and not record["cross_fit"]:
                # Half of the samples chose and fitted their own scores there.
                raise ValueError("it was made with audit.cross_fit=false")
            parts: dict[str, Any] = {"scores": {}, "standing": {}, **({"made": {}} if keys is None else {})}
            for name in file.keys():  # noqa: SIM118 (no mapping)
                part, _, label = name.partition("/")
                if part not in parts:
                    continue
                key = AuditKey.of(label)
                if (keys is None or key in keys) and self._is_same(key, record):
                    parts[part][key] = file.get_tensor(name)
            timesteps = {key.attack: record["timesteps"][key.attack] for key in [*parts["scores"], *parts.get("made", ())]}
            num_fitted = {AuditKey.of(name): number for name, number in record.get("num_fitted", {}).items()}
            return KeptScores(file.get_tensor("sample_index"), timesteps, **parts, num_fitted=num_fitted)

    def _check(self, path: Path, record: Mapping[str, Any]) -> None:
        for what, name, length in (("split", "split_hash", 12), ("seed", "seed", None)):
            then, now = str(record[name])[:length], str(getattr(self.provenance, name))[:length]
            if then != now:
                raise UserError(
                    f"{path}: the scores of {what} {then} are no history of {what} {now}. Leave a checkpoint in the folder of "
                    f"its own run, or move {self.folder} elsewhere: an audit needs no history."
                )

    def _is_same(self, key: AuditKey, record: Mapping[str, Any]) -> bool:
        """Whether attack and mask are what they were; a label that is unknown here or there is none to differ."""
        for section, label in (("attacks", key.attack), ("masks", key.mask)):
            now = getattr(self.provenance, section).get(label)
            then = record[section].get(label)
            if None not in (now, then) and now != then:
                _warn_once(
                    f"audit.{section}.{label}: it is {now}, but earlier audits in {self.folder} were made with {then}: they "
                    "are no history of it and are left out."
                )
                return False
        return True


def _words(component: object) -> str:
    """Its repr, in one line and without addresses, which every process has others of."""
    with blamed_on(component):
        return " ".join(re.sub(r" at 0x[0-9a-f]+", "", repr(component)).split())


@cache
def _warn_once(message: str) -> None:
    """A history is read at many audits."""
    log.warning("%s", message)

"""Reading checkpoints of this program: nothing in them is run, and each part is checked where it is read."""

import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ldm_privacy.data.split import Split
from ldm_privacy.errors import UserError, reason_of
from ldm_privacy.models.codec import Codec, codec_from_record
from ldm_privacy.models.part import AnotherBase, check_same
from ldm_privacy.models.weights import misfit
from ldm_privacy.targets.adapters.trained import Lora
from ldm_privacy.targets.denoiser import Denoiser
from ldm_privacy.targets.place import check_is_file
from ldm_privacy.targets.privacy import Privacy

RECORD = "ldm_privacy"
FORMAT = 2
NETWORKS = {"autoencoder": "autoencoder.", "denoiser": "network."}
"""Stage -> what stands before the names of its network's weights."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read.

    Attributes:
        path: The file.
        stage: "autoencoder" or "denoiser".
        epoch: Finished epochs of that stage.
        config: The resolved config as YAML text; not trusted.
        split: Who is a member.
        content_hash: Of the images.
        parts: Everything as it lies in the file.
        base: Where the pipeline that was fine-tuned lies now; None: where it lay then.
        autoencoder: Likewise of an autoencoder that was named by itself.
    """

    path: Path
    stage: str
    epoch: int
    config: str
    split: Split
    content_hash: str
    parts: Mapping[str, Any]
    base: str | None = None
    autoencoder: str | None = None

    @staticmethod
    def read(path: Path, *, stage: str = "denoiser", base: str | None = None, autoencoder: str | None = None) -> "Checkpoint":
        """Read a checkpoint of this program with `weights_only=True`: nothing in it is run.

        `base`, `autoencoder`: see the attributes.

        Raises UserError: missing, truncated, a pickle that would run code, of another program, of another stage, or without
        something that a checkpoint of that stage holds.
        """
        check_is_file(path)
        parts = _loaded(path)
        record = parts.get(RECORD) if isinstance(parts, dict) else None
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise UserError(f"{path}: not a checkpoint of this program (format {FORMAT}); it holds no config and no split.")
        if isinstance(record.get("stage"), str) and record["stage"] != stage:
            raise UserError(
                f"{path}: it is from the {record['stage']} stage, and only a checkpoint of the {stage} stage can be used here."
            )
        try:
            for name, kind, what in (
                ("stage", str, "its stage"),
                ("config", str, "its config"),
                ("content_hash", str, "the hash of its images"),
                ("split", dict, "its split"),
            ):
                if not isinstance(record.get(name), kind):
                    raise UserError(f"{what} is missing or holds something else")
            split = Split.from_state_dict(record["split"])
            told = record["config"], split, record["content_hash"]
            checkpoint = Checkpoint(path, stage, _epoch(parts), *told, parts, base, autoencoder)
            state = parts.get("state_dict")
            if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
                raise UserError("its weights (state_dict) are missing or hold something else")
            if stage == "denoiser":
                Denoiser.from_record(record.get("denoiser"))
                if not isinstance(record.get("codec"), dict):
                    raise UserError("its codec is missing or holds something else")
        except UserError as error:
            raise checkpoint_error(path, error) from None
        return checkpoint

    def codec(self) -> Codec:
        """The codec with its channel map. Raises UserError where it is damaged, AnotherBase where it can't be looked up."""
        with self._explained():
            return codec_from_record(self._moved(self.parts[RECORD]["codec"], path=self.autoencoder))

    @property
    def step(self) -> int:
        """Optimizer steps of that stage."""
        step = self.parts.get("global_step")
        return step if type(step) is int else 0

    @property
    def denoiser(self) -> Denoiser:
        """What it says of its denoiser."""
        denoiser = Denoiser.from_record(self.parts[RECORD]["denoiser"])
        return replace(denoiser, network=self._moved(denoiser.network))

    @property
    def privacy(self) -> Privacy | None:
        """What DP-SGD guarantees of its denoiser; None without it. Raises UserError where that is damaged."""
        if "privacy" not in self.parts:
            return None
        with self._explained():
            return Privacy.from_record(self.parts["privacy"])

    def network(self) -> nn.Module:
        """The denoiser with the (averaged) weights, in evaluation mode. Raises UserError where they don't fit; see `codec`."""
        with self._explained():
            return self.denoiser.with_weights(self.weights())

    def check_weights(self, network: nn.Module, *, are_averaged: bool = False) -> None:
        """Raise UserError where a training of `network` can't go on with what is stored of it; see `codec`.

        Args:
            network: Of the checkpoint's stage.
            are_averaged: The training averages its weights, so there are two of each.
        """
        origin = getattr(network.base if isinstance(network, Lora) else network, "origin", None)
        if origin is not None:
            with self._explained():
                then = self.denoiser.network
                check_same(f"{then.get('base')}/{then.get('subfolder', 'unet')}", origin["sha256"], then.get("sha256"))
        for part in ("state_dict", "current_model_state") if are_averaged else ("state_dict",):
            if wrong := misfit(network.state_dict(), self.weights(part)):
                error = UserError(f"its weights ({part}) don't fit the {self.stage} of its config ({wrong})")
                raise checkpoint_error(self.path, error)

    def weights(self, part: str = "state_dict") -> dict[str, Any]:
        """What one part of the file holds, by the names that the stage's network gives them; foreign names stay as they are."""
        state = self.parts.get(part)
        return {str(name).removeprefix(NETWORKS[self.stage]): value for name, value in (state or {}).items()}

    def _moved(self, record: dict[str, Any], **places: str | None) -> dict[str, Any]:
        """A part's record with the base, and other places that it names, where they lie now."""
        now = {"base": self.base, **places}
        return {**record, **{name: at for name, at in now.items() if at is not None and record.get(name) is not None}}

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """With the file in front of what a part complains of; a base that isn't there is no damage of it."""
        try:
            yield
        except AnotherBase as error:
            raise AnotherBase(f"{self.path}: {error}") from None
        except UserError as error:
            raise checkpoint_error(self.path, error) from None


def check_plain(value: object, where: str) -> None:
    """Raise UserError where a checkpoint is to hold something else than plain values and tensors: it couldn't be read again."""
    if isinstance(value, dict):
        for name, each in value.items():
            check_plain(each, f"{where}.{name}")
    elif isinstance(value, list | tuple):
        for each in value:
            check_plain(each, where)
    elif not isinstance(value, Tensor) and type(value) not in (str, bool, int, float, type(None)):
        raise UserError(f"{where}: a {type(value).__name__} can't be stored in a checkpoint; use numbers and texts.")


def checkpoint_error(path: Path, error: UserError) -> UserError:
    """A part's complaint, with the file and what to do."""
    return UserError(f"{path}: {str(error).rstrip('.')}; the checkpoint is damaged. Use another one.")


def _loaded(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path}: refused: no plain checkpoint of tensors and settings: another kind of file, or one that would run code."
        ) from None
    except Exception as error:  # torch raises whatever its readers stumble over in bytes that are no checkpoint
        reason = reason_of(error)
        raise UserError(f"{path}: can't be read, it is truncated or no checkpoint ({reason}). Use another one.") from None


def _epoch(parts: Mapping[str, Any]) -> int:
    """Epochs finished when the checkpoint was stored."""
    try:
        epoch = parts["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    except (KeyError, TypeError, IndexError):
        epoch = None
    if type(epoch) is not int or epoch < 0:
        raise UserError("the number of its epochs (loops) is missing or holds something else")
    return epoch

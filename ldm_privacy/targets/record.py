"""Reading checkpoints of this program: nothing in them is run, and each part is checked where it is read."""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ldm_privacy.data.split import Split
from ldm_privacy.diffusion import PREDICTION_TYPES, PredictionType
from ldm_privacy.errors import UserError, reason_of
from ldm_privacy.models.codec import Codec, codec_from_record
from ldm_privacy.models.weights import built_with, misfit
from ldm_privacy.registry import DENOISERS
from ldm_privacy.targets.place import check_is_file
from ldm_privacy.targets.privacy import Privacy

RECORD = "ldm_privacy"
FORMAT = 2
NETWORKS = {"autoencoder": "autoencoder.", "denoiser": "network."}
"""Stage -> what stands before the names of its network's weights."""


@dataclass(frozen=True)
class Denoiser:
    """What a checkpoint says of its denoiser, beside the weights.

    Attributes:
        network: Its name in the registry and its arguments, as {"class": name, argument: value}.
        alphas_cumprod: (num_train_timesteps,).
        prediction_type: What the network outputs.
        condition: Its condition, as {"class": name, argument: value}; {} for none.
    """

    network: dict[str, Any]
    alphas_cumprod: Tensor
    prediction_type: PredictionType
    condition: dict[str, Any]

    def record(self) -> dict[str, Any]:
        """For a checkpoint."""
        return dict(vars(self))

    @staticmethod
    def from_record(record: object) -> "Denoiser":
        """The inverse of `record`. Raises UserError where a part is missing or something else."""
        stored = record if isinstance(record, dict) else {}
        parts: list[Any] = [stored.get(name) for name in Denoiser.__annotations__]
        network, abar, kind, condition = parts
        named = all(isinstance(each, dict) and all(isinstance(key, str) for key in each) for each in (network, condition))
        if not named or not isinstance(network.get("class"), str) or kind not in PREDICTION_TYPES:
            raise UserError("the settings of its denoiser are missing or hold something else")
        is_schedule = isinstance(abar, Tensor) and abar.ndim == 1 and abar.is_floating_point() and len(abar) > 0
        if not is_schedule or not bool(((abar > 0) & (abar <= 1)).all()):
            raise UserError("its noise schedule is missing or holds something else")
        return Denoiser(network, abar, kind, condition)

    def with_weights(self, state: Mapping[str, Any]) -> nn.Module:
        """The network with those weights, in evaluation mode. Raises UserError where they don't fit."""
        arguments = {name: value for name, value in self.network.items() if name != "class"}
        build = DENOISERS.maker(self.network["class"])
        return built_with(lambda: build(**arguments), dict(state), "its denoiser").eval()


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
    """

    path: Path
    stage: str
    epoch: int
    config: str
    split: Split
    content_hash: str
    parts: Mapping[str, Any]

    @staticmethod
    def read(path: Path, *, stage: str = "denoiser") -> "Checkpoint":
        """Read a checkpoint of this program with `weights_only=True`: nothing in it is run.

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
            checkpoint = Checkpoint(path, stage, _epoch(parts), record["config"], split, record["content_hash"], parts)
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
        """The codec with its channel map. Raises UserError where it is damaged."""
        try:
            return codec_from_record(self.parts[RECORD]["codec"])
        except UserError as error:
            raise checkpoint_error(self.path, error) from None

    @property
    def step(self) -> int:
        """Optimizer steps of that stage."""
        step = self.parts.get("global_step")
        return step if type(step) is int else 0

    @property
    def denoiser(self) -> Denoiser:
        """What it says of its denoiser."""
        return Denoiser.from_record(self.parts[RECORD]["denoiser"])

    @property
    def privacy(self) -> Privacy | None:
        """What DP-SGD guarantees of its denoiser; None without it. Raises UserError where that is damaged."""
        if "privacy" not in self.parts:
            return None
        try:
            return Privacy.from_record(self.parts["privacy"])
        except UserError as error:
            raise checkpoint_error(self.path, error) from None

    def network(self) -> nn.Module:
        """The denoiser with the (averaged) weights, in evaluation mode. Raises UserError where they don't fit."""
        try:
            return self.denoiser.with_weights(self._weights("state_dict"))
        except UserError as error:
            raise checkpoint_error(self.path, error) from None

    def check_weights(self, network: nn.Module, *, are_averaged: bool = False) -> None:
        """Raise UserError where a training of `network` can't go on with what is stored of it.

        Args:
            network: Of the checkpoint's stage.
            are_averaged: The training averages its weights, so there are two of each.
        """
        for part in ("state_dict", "current_model_state") if are_averaged else ("state_dict",):
            if wrong := misfit(network.state_dict(), self._weights(part)):
                error = UserError(f"its weights ({part}) don't fit the {self.stage} of its config ({wrong})")
                raise checkpoint_error(self.path, error)

    def _weights(self, part: str) -> dict[str, Any]:
        """What one part of the file holds, by the names that the stage's network gives them; foreign names stay as they are."""
        state = self.parts.get(part)
        return {str(name).removeprefix(NETWORKS[self.stage]): value for name, value in (state or {}).items()}


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

"""A single file of Stable Diffusion under its authors' names, as most web pages offer them, as a target.

Such a file holds weights and little else. Number of attention heads, prediction type, betas and latent scaling are not in it
(nothing fails where they are wrong), nor is the tokenizer: the layout says them, a local folder of the same family.
"""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ldm_privacy.diffusion import PredictionType
from ldm_privacy.errors import UserError, reason_of
from ldm_privacy.models.schedule import LEAST_ABAR
from ldm_privacy.models.weights import header_of, read_safetensors
from ldm_privacy.registry import TARGETS
from ldm_privacy.targets.door import Opening
from ldm_privacy.targets.family import family_of, open_as
from ldm_privacy.targets.parts import Parts
from ldm_privacy.targets.stored import check_names
from ldm_privacy.targets.target import Target

_UNET, _CLIP, _OPEN_CLIP = "model.diffusion_model.", "cond_stage_model.transformer.", "cond_stage_model.model."
_CLIP_XL, _OPEN_CLIP_XL = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."
_PREFIXES = {
    "unet": (_UNET,),
    "vae": ("first_stage_model.", "vae."),
    "text_encoder": (_CLIP, _OPEN_CLIP, _CLIP_XL),
    "text_encoder_2": (_OPEN_CLIP_XL,),
}
"""Part -> what its weights' names may begin with."""
_WITHOUT_PART = re.compile(
    r"(log_one_minus_|sqrt_(one_minus_|recipm?1?_)?)?alphas_cumprod(_prev)?|betas|posterior_\w+|logvar|v_pred|ztsnr|model_ema\..+"
    r"|(cond_stage_model|conditioner\.embedders\.[01])\.(logit_scale|text_projection)|denoiser\.sigmas"
)
"""Names of what no part needs: tables of the schedule, marks, averages, ends of text models that no denoiser is told of."""
_FAMILIES = (
    ("joint_blocks.", "Stable Diffusion 3"),
    ("double_blocks.", "Flux"),
    ("conditioner.", "Stable Diffusion XL"),
    (f"{_UNET}label_emb.", "Stable Diffusion XL"),
    (_OPEN_CLIP, "Stable Diffusion 2"),
    (_CLIP, "Stable Diffusion 1"),
    (_UNET, "a UNet of Stable Diffusion alone"),
)
_PREDICTIONS = {"epsilon": "epsilon", "v": "v_prediction", "v_prediction": "v_prediction"}


@TARGETS.register("single_file")
class SingleFile:
    """Stable Diffusion 1, 2 and XL; safetensors."""

    takes: ClassVar[tuple[str, ...]] = ("layout", "dtype")

    @staticmethod
    def recognises(path: Path) -> bool:
        return path.suffix == ".safetensors" and path.is_file() and guessed_family(header_of(path)[0]) is not None

    @staticmethod
    def open(path: Path, opening: Opening) -> Target:
        guess = guessed_family(header_of(path)[0])
        if opening.layout is None:
            raise UserError(
                f"{path}: a single file ({guess}) holds no settings and no tokenizer; name a local folder of diffusers of the "
                "same family: layout=FOLDER (its weights aren't needed)."
            )
        parts = SingleFileParts(path, opening.layout, device=opening.device, dtype=getattr(torch, opening.dtype))
        family = family_of(parts)
        if family.denoiser != "unet" or guess in ("Stable Diffusion 3", "Flux"):
            raise UserError(
                f"{path}: a single file of {guess} with the layout of a {parts.kind} can't be opened; Stable Diffusion 1, 2 "
                "and XL can. Save the others as a folder, with from_single_file and save_pretrained of diffusers."
            )
        parts.check_all_known()
        return open_as(family, parts, opening, shared=("device", "layout", "dtype"))


class SingleFileParts(Parts):
    """Settings and tokenizer of a folder, weights of a file; of the folder too where the file has none of a part.

    Args:
        file: safetensors.
        layout: Folder of a pipeline.
        device, dtype: See `Parts`.
    """

    def __init__(self, file: Path, layout: Path, **options: Any):
        super().__init__(layout, **options)
        self.file = file
        self.names, self.remarks = header_of(file)
        self.notes.append("number of attention heads, prediction type, betas and latent scaling are the layout's")
        if any(name.startswith("model_ema.") for name in self.names):
            self.notes.append("the file holds averaged weights too (model_ema.); the others are used")

    @property
    def place(self) -> str:
        return f"file {self.file}, layout {self.folder}"

    def check_all_known(self) -> None:
        """Raise UserError for names of the file that belong to no part of the layout: they would be left out unsaid."""
        taken = tuple(prefix for part in _PREFIXES if self.has(part) and (prefix := self._prefix(part)))
        foreign = [name for name in self.names if not name.startswith(taken) and not _WITHOUT_PART.fullmatch(name)]
        if foreign:
            raise UserError(
                f"{self.file}: {len(foreign)} of its {len(self.names)} weights belong to no part of a {self.kind} that is "
                f"known, the first '{foreign[0]}'; a file is opened whole or not at all."
            )

    def check_weights(self, part: str, settings: dict[str, Any]) -> None:
        prefix = self._prefix(part)
        if prefix is not None:
            check_names(self.file, settings, [name for name in self.names if name.startswith(prefix)])
            return
        if part == "unet":
            raise UserError(f"{self.file}: holds no denoiser ({_UNET}...); name a file that does.")
        try:
            super().check_weights(part, settings)
        except UserError as error:
            raise UserError(
                f"{self.file}: holds no {part}, and its layout neither ({str(error).rstrip('.')}); name a layout that does."
            ) from None
        self.notes.append(f"{part}: the file has none, the layout's is taken")

    def weights(self, part: str) -> dict[str, Tensor]:
        """The tensors of a part under diffusers' names. Raises UserError where one of the file has no place there."""
        prefix = self._prefix(part)
        if prefix is None:
            return super().weights(part)
        stored = read_safetensors(self.file, prefixes=(prefix,))
        settings = self.settings(part)
        try:
            found = _renamed(part, prefix, stored, settings)
        except Exception as error:  # the library's conversion raises whatever it stumbles over in names that it doesn't check
            raise UserError(f"{self.file}: its {part} is not that of {self.folder / part} ({reason_of(error)}).") from None
        taken = {value.data_ptr() for value in found.values()}
        unused = [name for name, value in stored.items() if value.data_ptr() not in taken]
        if unused and prefix not in (_OPEN_CLIP, _OPEN_CLIP_XL):  # those are copied, and what is left over is known
            raise UserError(
                f"{self.file}: {len(unused)} weights have no place in the {part} of {self.folder}, the first '{unused[0]}'; "
                "name the layout of its own family."
            )
        return found

    def schedule(self, part: str = "scheduler") -> tuple[Tensor, PredictionType]:
        """The layout's. Raises UserError where the file says something else."""
        abar, kind = super().schedule(part)
        said = _PREDICTIONS.get(
            self.remarks.get("modelspec.prediction_type", ""), "v_prediction" if "v_pred" in self.names else kind
        )
        if said != kind:
            raise UserError(f"{self.file}: says that it predicts {said}, but its layout {self.folder / part} says {kind}.")
        if "ztsnr" in self.names and abar[-1] > 2 * LEAST_ABAR:
            raise UserError(
                f"{self.file}: says that its betas end in noise alone (ztsnr), but those of its layout {self.folder / part} "
                "don't; name one with rescale_betas_zero_snr."
            )
        if "alphas_cumprod" in self.names:
            stored = read_safetensors(self.file, prefixes=("alphas_cumprod",))["alphas_cumprod"].to(abar)
            if stored.shape != abar.shape or not torch.allclose(stored, abar, rtol=5e-3, atol=1e-6):
                raise UserError(f"{self.file}: its alphas_cumprod are not those of its layout {self.folder / part}.")
        return abar, kind

    def _prefix(self, part: str) -> str | None:
        return next((each for each in _PREFIXES.get(part, ()) if any(name.startswith(each) for name in self.names)), None)


def guessed_family(names: list[str]) -> str | None:
    """What names of weights look like; None where they are no single file's."""
    is_single = any(name.startswith((_UNET, "first_stage_model.", "double_blocks.", "joint_blocks.")) for name in names)
    return next((family for part, family in _FAMILIES if any(part in name for name in names)), None) if is_single else None


def _renamed(part: str, prefix: str, stored: dict[str, Tensor], settings: dict[str, Any]) -> dict[str, Tensor]:
    """By diffusers' own conversions of names, which are given nothing but one part's weights."""
    from diffusers.loaders import single_file_utils as library

    if part == "unet":
        return library.convert_ldm_unet_checkpoint(stored, settings)
    if part == "vae":
        return library.convert_ldm_vae_checkpoint(stored, settings)
    if prefix in (_OPEN_CLIP, _OPEN_CLIP_XL):
        model = SimpleNamespace(config=SimpleNamespace(hidden_size=settings["hidden_size"]))
        return library.convert_open_clip_checkpoint(model, stored, prefix=prefix)
    return {name.removeprefix(prefix): value for name, value in stored.items()}

"""What a fine-tuning leaves for others: an adapter's file, or a whole pipeline, as diffusers loads it."""

import json
import shutil
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from safetensors.torch import save_file

from ldm_privacy.errors import UserError, reason_of
from ldm_privacy.models.folder import settings_of
from ldm_privacy.models.part import Part, check_same
from ldm_privacy.models.text.pretrained import WEIGHTS
from ldm_privacy.runs.folder import RunFolder
from ldm_privacy.targets.adapters.file import FILES
from ldm_privacy.targets.denoiser import Denoiser
from ldm_privacy.targets.parts import INDEX
from ldm_privacy.targets.record import Checkpoint

PARTS = ("text_encoder", "tokenizer", "scheduler")
"""Of a pipeline, beside its UNet and autoencoder."""
TAKEN = ("*.json", "*.txt", WEIGHTS)
"""Of the files of a part: settings, vocabularies, and weights in full precision."""


def save_tuned(checkpoint: Checkpoint, run: RunFolder) -> Path | None:
    """Write what a checkpoint was fine-tuned to, with its averaged weights; returns the folder. None where it has no base.

    `lora/pytorch_lora_weights.safetensors` under diffusers' own names, or `pipeline/`, whose other parts are copies of the
    base's.

    Raises:
        UserError: It can't be written, or the base isn't there.
    """
    denoiser = checkpoint.denoiser
    if denoiser.base is None:
        return None
    folder = run.lora if denoiser.adapter else run.pipeline
    unfinished = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir()
        (_write_lora if denoiser.adapter else _write_pipeline)(checkpoint, denoiser, unfinished)
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
    except OSError as error:
        raise UserError(f"{folder}: can't be written ({error.strerror or reason_of(error)}).") from error
    return folder


def _write_lora(checkpoint: Checkpoint, denoiser: Denoiser, folder: Path) -> None:
    adapter = denoiser.adapter
    told = {"r": adapter["rank"], "lora_alpha": adapter["alpha"], "target_modules": adapter["targets"]}
    header = {"format": "pt", "lora_adapter_metadata": json.dumps({f"unet.{name}": value for name, value in told.items()})}
    save_file({name: value.contiguous() for name, value in checkpoint.weights().items()}, folder / FILES[0], header)


def _base_of(denoiser: Denoiser) -> tuple[Path, dict[str, Any]]:
    """The folder that the parts which weren't trained are copied from, and its index.

    Raises UserError where it isn't there, or has another text encoder than the training.
    """
    base, told = Path(denoiser.base or "").expanduser(), denoiser.condition.get("encoder") or {}
    try:
        if not base.is_dir():
            patterns = [INDEX, *(f"{part}/{pattern}" for part in PARTS for pattern in TAKEN)]
            revision = denoiser.network.get("revision")
            base = Path(snapshot_download(str(denoiser.base), revision=revision, allow_patterns=patterns))
        part = Part.find(str(base), subfolder=PARTS[0], weights=WEIGHTS)
        check_same(str(base / PARTS[0]), part.sha256, told.get("hash"))
        return base, settings_of(base / INDEX)
    except (OSError, UserError) as error:
        words = str(error).removeprefix("base: ") if isinstance(error, UserError) else reason_of(error)
        raise UserError(f"base: no pipeline can be saved beside its other parts: {words.rstrip('.')}.") from None


def _write_pipeline(checkpoint: Checkpoint, denoiser: Denoiser, folder: Path) -> None:
    base, index = _base_of(denoiser)
    kept = {name: value for name, value in index.items() if name in (*PARTS, "unet", "vae") or name.startswith("_")}
    missing = {name: [None, None] for name in ("safety_checker", "feature_extractor", "image_encoder") if name in index}
    text = json.dumps({**kept, **missing, "requires_safety_checker": False}, indent=2)
    (folder / INDEX).write_text(text, encoding="utf-8")
    for file in (file for part in PARTS for pattern in TAKEN for file in (base / part).glob(pattern)):
        (place := folder / file.relative_to(base)).parent.mkdir(exist_ok=True)
        shutil.copyfile(file, place)
    for part, network in (("vae", checkpoint.codec().network), ("unet", checkpoint.network())):
        network.save_pretrained(folder / part, safe_serialization=True)  # type: ignore[union-attr,operator]

"""A LoRA's file on the folder of its base, which is the reference: one model in memory, with the adapter on or off."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch

from ldm_privacy.errors import UserError
from ldm_privacy.models.predictor import NetworkPredictor
from ldm_privacy.models.text.encoder import EncoderIn
from ldm_privacy.models.weights import header_of
from ldm_privacy.registry import TARGETS
from ldm_privacy.targets.adapters.file import CONFIG, FILES, Factors, LoraFile, is_adapters
from ldm_privacy.targets.adapters.names import Modules, converted, factors_misfit, whose
from ldm_privacy.targets.adapters.switch import Adapted, Adapter, Layer
from ldm_privacy.targets.door import Opening, check_strength, open_target
from ldm_privacy.targets.family import family_of, is_pipeline
from ldm_privacy.targets.parts import Parts
from ldm_privacy.targets.place import check_is_there
from ldm_privacy.targets.target import Target

ASSUMED, GIVEN = "assumed, as the rank: its file says none", "as given"


@TARGETS.register("lora")
class LoraTarget:
    """A safetensors file whose names are an adapter's, or a folder that holds one under the name of diffusers or peft."""

    takes: ClassVar[tuple[str, ...]] = ("base", "layout", "dtype", "variant", "alpha", "scale", "guidance", "num_tokens")

    @staticmethod
    def recognises(path: Path) -> bool:
        if path.is_dir():
            files = (*FILES, CONFIG, "pytorch_lora_weights.bin")
            return not is_pipeline(path) and any((path / name).is_file() for name in files)
        return path.suffix == ".safetensors" and any(is_adapters(name) for name in header_of(path)[0])

    @staticmethod
    def open(path: Path, opening: Opening) -> Target:
        file = LoraFile.read(path)
        if opening.base is None:
            raise UserError(f"{path}: a LoRA for {whose(file)}; name the folder of the model that it belongs to: base=FOLDER.")
        return Base.open(opening).adapted(file, alpha=opening.alpha, scale=opening.scale)


@dataclass(frozen=True)
class Base:
    """The model that adapters belong to: read once, for as many as there are.

    Attributes:
        target: Opened.
        pipeline: The class of diffusers that knows other trainers' names for its modules, by name; None where there is none.
        place: Where it lies.
    """

    target: Target
    pipeline: str | None
    place: Path

    @classmethod
    def open(cls, opening: Opening) -> "Base":
        """What `opening.base` names. Raises UserError where nothing is there, or a model without a denoiser that is known."""
        place = Path(opening.base or "").expanduser()
        check_is_there(place, "base")
        if LoraTarget.recognises(place):
            raise UserError(f"base: {opening.base} is an adapter itself; name its base's folder.")
        plain = replace(opening, base=None, alpha=None, scale=1.0)
        how = {name: getattr(plain, name) for name in plain.given() if name != "device"}
        target = open_target(place, device=opening.device, **how)
        if not isinstance(target.predictor, NetworkPredictor) or not {"unet", "transformer"} & {*target.modules}:
            raise UserError(f"base: {opening.base} is no model of diffusers, which adapters are for.")
        return cls(target, family_of(Parts(Path(opening.layout or place))).lora_pipeline, place)

    @torch.inference_mode(False)
    def adapted(self, file: LoraFile | Path, *, alpha: float | None = None, scale: float = 1.0) -> Target:
        """The base with an adapter on; its reference is the base. Several may be in use at once; the base stays as it is.

        Args:
            file: Or where it lies.
            alpha: Where the file doesn't say its own: the adapter counts alpha / rank times. As the rank where None.
            scale: Strength: how many times it counts beside that.

        Raises:
            UserError: It is another model's, in whole or in part; it changes nothing; alpha is given and known.
        """
        file = LoraFile.read(file) if isinstance(file, Path) else file
        check_strength(alpha, scale)
        target = self.target
        denoiser = next(part for part in ("unet", "transformer") if part in target.modules)
        modules = Modules(target.modules, denoiser)
        found = self._placed(file, modules)
        alphas, sources = {}, Counter[str]()
        for (part, name), each in found.items():
            alphas[part, name], source = _alpha(file, part, name, each, alpha)
            sources[source] += 1
        if alpha is not None and GIVEN not in sources:
            raise UserError(f"alpha: {file.path} says its own, {_span(alphas.values())}; leave it out.")
        layers = {}
        for (part, name), each in found.items():
            module: Any = modules.by_name[part][name]
            layers[part, name] = Layer(module, each, alphas[part, name] / each.rank * scale)
        adapter = Adapter({modules.by_name[part][name]: layer for (part, name), layer in layers.items()})
        own = {f"{part}.{name}": layer for (part, name), layer in layers.items() if part == denoiser}
        assert isinstance(target.predictor, NetworkPredictor)
        has_text = len(own) < len(layers)
        record = {"adapter": file.sha256, "alpha": _span(alphas.values()), "scale": scale}
        counts = Counter(part for part, _ in layers)
        return replace(
            target,
            predictor=replace(target.predictor, network=Adapted(target.predictor.network, adapter, own)),
            reference=target.predictor,
            encoder=EncoderIn(target.encoder, adapter.on, record) if has_text and target.encoder else target.encoder,
            reference_encoder=target.encoder if has_text else None,
            fingerprint={**target.fingerprint, "adapter": file.sha256, "alpha": str(alpha), "scale": str(scale)},
            reference_fingerprint=target.fingerprint,
            facts={
                **target.facts,
                "target": f"LoRA {file.path} on {target.facts['target']}",
                "adapter": f"{file.form} form, rank {_span(each.rank for each in found.values())}, "
                f"alpha {_span(alphas.values())} ({_said(sources)}), strength {scale:g}",
                "adapter modules": ", ".join(f"{count} in {part}" for part, count in counts.items()),
                "adapter SHA-256": file.sha256,
                "reference": "the base with its adapter off",
            },
        )

    def _placed(self, file: LoraFile, modules: Modules) -> dict[tuple[str, str], Factors]:
        """(part, module) -> factors, all of them. Raises UserError where one has no place, or doesn't fit there."""
        factors = file.factors
        if self.pipeline is not None and any(modules(name) is None for name in factors):
            factors = converted(file, self.pipeline, self.target.modules[modules.denoiser])
        seems = f"It seems to be for {whose(file)}."
        if lost := [name for name in factors if modules(name) is None]:
            raise UserError(
                f"{file.path}: {len(lost)} of its {len(factors)} modules are none of {self.place}'s, the first '{lost[0]}': "
                f"it is another model's, or its names are of a form that isn't known. {seems}"
            )
        found: dict[tuple[str, str], Factors] = {}
        misfits = []
        for name, each in factors.items():
            part, module = modules(name)  # type: ignore[misc]
            if (part, module) in found:
                raise UserError(f"{file.path}: '{name}' and another of its names mean one module, {part}.{module}.")
            found[part, module] = each
            if (shapes := factors_misfit(modules.by_name[part][module], each)) is not None:
                misfits.append(f"'{name}', {shapes}")
        if misfits:
            raise UserError(
                f"{file.path}: {len(misfits)} of its {len(factors)} modules don't fit those of {self.place}, the first "
                f"{misfits[0]}. {seems}"
            )
        return found


def _alpha(file: LoraFile, part: str, module: str, factors: Factors, given: float | None) -> tuple[float, str]:
    """Of one module, and who says so."""
    if factors.alpha is not None:
        return factors.alpha, "its own"
    if (known := file.known_alpha(part, module, factors.rank)) is not None:
        return known
    return (factors.rank, ASSUMED) if given is None else (given, GIVEN)


def _span(values: Iterable[float]) -> str:
    """ "4", or "2 to 4"."""
    found = sorted(set(values))
    return f"{found[0]:g}" if len(found) == 1 else f"{found[0]:g} to {found[-1]:g}"


def _said(sources: Mapping[str, int]) -> str:
    """Who says so, with numbers of modules where several do."""
    return next(iter(sources)) if len(sources) == 1 else ", ".join(f"{source}: {count}" for source, count in sources.items())

"""What a checkpoint of this program says of its denoiser, and the network that it makes of the weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from ldm_privacy.diffusion import PREDICTION_TYPES, PredictionType
from ldm_privacy.errors import UserError, reason_of
from ldm_privacy.models.weights import built_with, load_weights
from ldm_privacy.registry import DENOISERS
from ldm_privacy.targets.adapters.trained import Lora


@dataclass(frozen=True)
class Denoiser:
    """What a checkpoint says of its denoiser, beside the weights.

    Attributes:
        network: Its name in the registry and its arguments, as {"class": name, argument: value}.
        alphas_cumprod: (num_train_timesteps,).
        prediction_type: What the network outputs.
        condition: Its condition, as {"class": name, argument: value}; {} for none.
        adapter: Of a LoRA its rank, alpha and targets: then the checkpoint holds its weights, and of the base where it lies and
            its SHA-256 alone. {} for none.
    """

    network: dict[str, Any]
    alphas_cumprod: Tensor
    prediction_type: PredictionType
    condition: dict[str, Any]
    adapter: dict[str, Any] = field(default_factory=dict)

    @property
    def base(self) -> str | None:
        """The pipeline that was fine-tuned, where it lay then; None for a network that began at random."""
        return self.network.get("base")

    def record(self) -> dict[str, Any]:
        """For a checkpoint."""
        return dict(vars(self))

    @staticmethod
    def from_record(record: object) -> "Denoiser":
        """The inverse of `record`. Raises UserError where a part is missing or something else."""
        stored = record if isinstance(record, dict) else {}
        parts: list[Any] = [{"adapter": {}, **stored}.get(name) for name in Denoiser.__annotations__]
        network, abar, kind, condition, adapter = parts
        records = network, condition, adapter
        named = all(isinstance(each, dict) and all(isinstance(key, str) for key in each) for each in records)
        if not named or not isinstance(network.get("class"), str) or kind not in PREDICTION_TYPES:
            raise UserError("the settings of its denoiser are missing or hold something else")
        is_schedule = isinstance(abar, Tensor) and abar.ndim == 1 and abar.is_floating_point() and len(abar) > 0
        if not is_schedule or not bool(((abar > 0) & (abar <= 1)).all()):
            raise UserError("its noise schedule is missing or holds something else")
        if adapter and not _is_adapter(**adapter):
            raise UserError("the settings of its adapter are missing or hold something else")
        return Denoiser(network, abar, kind, condition, adapter)

    def with_weights(self, state: Mapping[str, Any]) -> nn.Module:
        """The network with those weights, in evaluation mode. Raises UserError where they don't fit; see `base_network`."""
        if not self.adapter:
            return built_with(self._build, dict(state), "its denoiser").eval()
        network = Lora(self.base_network(), **self.adapter)
        load_weights(network, dict(state), "its adapter")
        return network.eval()

    def base_network(self) -> nn.Module:
        """The network that was fine-tuned, read from the base. Raises AnotherBase where it isn't there, or is another one."""
        network = {name: value for name, value in self.network.items() if name != "config"}
        try:
            return replace(self, network=network)._build().eval().requires_grad_(False)
        except UserError:
            raise
        except Exception as error:  # whatever arguments raise that no training stored
            raise UserError(f"its denoiser can't be used ({reason_of(error)})") from None

    def _build(self) -> nn.Module:
        arguments = {name: value for name, value in self.network.items() if name != "class"}
        return DENOISERS.maker(self.network["class"])(**arguments)


def _is_adapter(rank: object = None, alpha: object = None, targets: object = None, **more: object) -> bool:
    """Whether a LoRA can be made of those settings."""
    are_names = isinstance(targets, list) and bool(targets) and all(isinstance(each, str) for each in targets)
    return type(rank) is int and 0 < rank <= 2**16 and isinstance(alpha, int | float) and are_names and not more

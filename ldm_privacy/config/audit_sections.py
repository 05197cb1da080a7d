"""The sections of a config that say how it is audited."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from ldm_privacy import registry
from ldm_privacy.config.check import Component
from ldm_privacy.config.fields import Confidence, KeepFraction, Share, View, component, option

TARGET_FPRS = [0.01, 0.001]


@dataclass
class OnsetConfig:
    """Memorization onset."""

    attack: str | None = option("label of the attack; null = the first", None)
    mask: str = option("label of the mask", "all")
    num_consecutive: PositiveInt = option("looks in a row that the rise must hold, for each quantity", 2)


@dataclass
class StopConfig:
    """What happens where an audit in training finds more than the gate allows."""

    at: Literal["undecided", "fail"] | None = option(
        "the gate's decision at an audit in training that is acted upon, as is a worse one; null = it decides at the end alone",
        None,
    )
    action: Literal["stop", "lower_learning_rate"] = option("what is then done", "stop")
    factor: Share = option("that lower_learning_rate multiplies the denoiser's learning rate by", 0.1)


@dataclass
class AuditConfig:
    """Membership-inference audits during training and in evaluate.py."""

    attacks: dict[str, Component] = component("label: attack", registry.ATTACKS, many=True)
    masks: dict[str, Component] = component("label: mask rule", registry.MASK_RULES, provided="seed", many=True)
    timesteps: list[NonNegativeInt] | None = option(
        "timesteps that every attack queries; each half chooses one for the other; null where sigmas are given"
    )
    sigmas: list[Share] | None = option(
        "of a flow, in place of timesteps: shares of noise between 0 and 1, each taken to the nearest timestep", None
    )
    every_n_epochs: PositiveInt = option("audits before the first step, every n epochs, and after the last", 10)
    views: list[View] = option("conditions that every attack is repeated under, beside the own one: null, shuffled", [])
    keep_fractions: list[KeepFraction] = option(
        "of a sweep over masks of largest influence, in the same passes; each half chooses one for the other; empty = no sweep",
        [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0],
    )
    target_fprs: list[Share] = option("false-positive rates at which the TPR is reported", TARGET_FPRS)
    calibrations: dict[str, Component] = component(
        "label: calibration, a score beyond how difficult an image is", registry.CALIBRATIONS, many=True, default="none"
    )
    calibrated: list[str] = option(
        "attacks and masks that they wrap, as sima/all, the primary one first; empty = onset.attack and onset.mask", []
    )
    cross_fit: bool = option("each half chooses for the other and all samples report; false: one half reports", True)
    precision: Literal["float32", "bfloat16"] = option("of the attacks' denoiser passes; bfloat16 on GPUs only", "float32")
    max_samples: PositiveInt | None = option("audited members and audited held-out samples, at most; null = all", None)
    memory_gib: PositiveFloat | None = option(
        "for what network passes outside of training hold beside the weights: as many samples as fit share one, at least one; "
        "null = 0.25 on CPUs, 4 on GPUs",
        None,
    )
    confidence: Confidence = option("of all intervals", 0.95)
    num_bootstrap: Annotated[int, Field(gt=0, le=100_000)] = option("resamples of the bootstrap intervals", 1000)
    onset: OnsetConfig = field(default_factory=OnsetConfig, metadata={"help": "memorization onset"})
    forecast: list[str] = option("folders of runs whose audits say when this one is to be expected to memorize", [])
    stop: StopConfig = field(default_factory=StopConfig, metadata={"help": "what the gate does in training"})


@dataclass
class GeometryConfig:
    """The decoder's pullback metric at every audited latent."""

    influence: Component = component(
        "estimator of the diagonal of J^T J", registry.INFLUENCE_ESTIMATORS, provided="seed", default="probe"
    )
    distortion_rank: NonNegativeInt = option("singular values in the local distortion; 0 = no distortion", 20)
    distortion_oversample: NonNegativeInt = option("further directions of the randomized SVD", 10)
    distortion_power_iterations: NonNegativeInt = option("its applications of J^T J; more is more exact", 2)
    distortion_max_samples: PositiveInt = option("members and held-out samples with a distortion, at most", 64)

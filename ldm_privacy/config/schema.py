"""The typed top level of a config. Sections are dataclasses; components name registered classes.

Every field has its help text in its metadata: `--help` prints them.
"""

from dataclasses import MISSING, dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt

from ldm_privacy import registry
from ldm_privacy.config.check import Component

Share = Annotated[float, Field(gt=0, lt=1)]
Confidence = Annotated[float, Field(ge=0.5, le=0.999999)]
Rate = Annotated[float, Field(gt=0, le=1)]
"""AdamW moves a weight by about this much in a step."""
Decay = Annotated[float, Field(ge=0, le=100)]
View = Annotated[Literal["null", "shuffled"], BeforeValidator(lambda value: "null" if value is None else value)]
"""YAML reads a bare null as nothing, and nothing is what it means here."""
KeepFraction = Annotated[float, Field(gt=0, le=1)]


def _option(text: str, default: Any = MISSING) -> Any:
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata={"help": text})
    return field(default=default, metadata={"help": text})


def _component(text: str, of: registry.Registry, *, provided: str = "", many: bool = False, default: str | None = None) -> Any:
    metadata = {"help": text, "registry": of, "provided": provided.split(), "many": many}
    if default is None:
        return field(metadata=metadata)
    return field(default_factory=dict if many else lambda: Component(of, default, {}), metadata=metadata)


@dataclass
class RepeatsConfig:
    """Members that are planted to be memorized: a positive control."""

    share: Annotated[float, Field(ge=0, lt=1)] = _option("of the members, that the denoiser is shown more often; 0 = none", 0.0)
    times: Annotated[int, Field(ge=2, le=1000)] = _option("that each of them comes in an epoch", 10)


@dataclass
class DataConfig:
    """Images and who is a member."""

    source: Component = _component("where the images come from", registry.IMAGE_SOURCES)
    resolution: Annotated[int, Field(gt=0, le=4096)] = _option("height and width that images are brought to")
    channels: Literal[1, 3] = _option("1 = grey, 3 = colour")
    num_members: PositiveInt | None = _option("training images; null = all of the index file", None)
    num_heldout: PositiveInt | None = _option("images that are never trained on; null = all of the index file", None)
    num_public: NonNegativeInt | None = _option(
        "further images, disjoint from both, for the autoencoder; null: all public_idxs of the index file", 0
    )
    index_file: str | None = _option(
        ".npz with mia_train_idxs and mia_eval_idxs: a published split; may have public_idxs", None
    )
    group_column: str | None = _option("column whose groups (patients, identities) stay on one side", None)
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = _option("of the split; null = the seed of everything", None)
    flip: bool = _option("mirror images in training (never in an audit)", True)
    repeats: RepeatsConfig = field(default_factory=RepeatsConfig, metadata={"help": "planted duplicates"})


@dataclass
class AutoencoderConfig:
    """Stage 1."""

    network: Component = _component(
        "the codec: an autoencoder, or identity for pixel space", registry.CODECS, provided="image_channels resolution"
    )
    train_on: Literal["members", "public", "all"] = _option("all = members and public, never held-out", "members")
    max_epochs: NonNegativeInt = _option("epochs of this stage (0 with a pretrained network)", 120)
    batch_size: PositiveInt = _option("images per step", 128)
    learning_rate: Rate = _option("of AdamW", 2e-4)
    weight_decay: Decay = _option("of AdamW", 1e-2)
    losses: dict[str, Component] = _component("label: loss, each with a weight", registry.LOSSES, many=True, default="none")


@dataclass
class DenoiserConfig:
    """Stage 2."""

    network: Component = _component(
        "the denoiser", registry.DENOISERS, provided="latent_channels latent_size num_class_embeds cross_attention_dim"
    )
    channel_map: Component = _component(
        "latent coordinates, fitted to the members", registry.CHANNEL_MAPS, provided="means codec", default="scaling_factor"
    )
    condition: Component = _component(
        "what the denoiser is told of each image",
        registry.CONDITIONS,
        provided="images labels num_classes class_names captions member_index heldout_index stored",
        default="none",
    )
    prediction_type: Literal["epsilon", "v_prediction", "sample", "flow"] = _option("what the network outputs", "epsilon")
    num_train_timesteps: Annotated[int, Field(gt=0, le=100_000)] = _option("length of the noise schedule", 1000)
    schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2", "flow"] = _option(
        "noise schedule: of betas, or flow = a rectified flow's, with prediction_type: flow", "linear"
    )
    beta_start: Share = _option("first beta; a flow has none", 1e-4)
    beta_end: Share = _option("last beta; a flow has none", 2e-2)
    batch_size: PositiveInt = _option("latents per step", 128)
    learning_rate: Rate = _option("of AdamW", 2e-4)
    weight_decay: Decay = _option("of AdamW", 1e-4)
    warmup_steps: NonNegativeInt = _option("steps in which the learning rate rises linearly from 0; 0 = none", 0)
    ema_decay: Share | None = _option("decay of the averaged weights that audits and samples use; null = no averaging", None)


@dataclass
class OnsetConfig:
    """Memorization onset."""

    attack: str | None = _option("label of the attack; null = the first", None)
    mask: str = _option("label of the mask", "all")
    num_consecutive: PositiveInt = _option("looks in a row that the rise must hold, for each quantity", 2)


@dataclass
class StopConfig:
    """What happens where an audit finds more memorization than allowed."""

    limit: Annotated[float, Field(gt=0.5, lt=1)] | None = _option(
        "AUROC of the onset's attack and mask, calibrated as the verdict has it, that no audit may exceed; null = no limit",
        None,
    )
    bound: Literal["upper", "value", "lower"] = _option("the number of its interval that is held against the limit", "upper")
    action: Literal["stop", "lower_learning_rate"] = _option("at every audit above the limit", "stop")
    factor: Share = _option("that lower_learning_rate multiplies the denoiser's learning rate by", 0.1)


@dataclass
class AuditConfig:
    """Membership-inference audits during training and in evaluate.py."""

    attacks: dict[str, Component] = _component("label: attack", registry.ATTACKS, many=True)
    masks: dict[str, Component] = _component("label: mask rule", registry.MASK_RULES, provided="seed", many=True)
    timesteps: list[NonNegativeInt] | None = _option(
        "timesteps that every attack queries; each half chooses one for the other; null where sigmas are given"
    )
    sigmas: list[Share] | None = _option(
        "of a flow, in place of timesteps: shares of noise between 0 and 1, each taken to the nearest timestep", None
    )
    every_n_epochs: PositiveInt = _option("audits before the first step, every n epochs, and after the last", 10)
    views: list[View] = _option("conditions that every attack is repeated under, beside the own one: null, shuffled", [])
    keep_fractions: list[KeepFraction] = _option(
        "of a sweep over masks of largest influence, in the same passes; each half chooses one for the other; empty = no sweep",
        [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0],
    )
    target_fprs: list[Share] = _option("false-positive rates at which the TPR is reported", [0.01, 0.001])
    calibrations: dict[str, Component] = _component(
        "label: calibration, a score beyond how difficult an image is", registry.CALIBRATIONS, many=True, default="none"
    )
    calibrated: list[str] = _option(
        "attacks and masks that they wrap, as sima/all, the primary one first; empty = onset.attack and onset.mask", []
    )
    cross_fit: bool = _option("each half chooses for the other and all samples report; false: one half reports", True)
    precision: Literal["float32", "bfloat16"] = _option("of the attacks' denoiser passes; bfloat16 on GPUs only", "float32")
    max_samples: PositiveInt | None = _option("audited members and audited held-out samples, at most; null = all", None)
    memory_gib: PositiveFloat | None = _option(
        "for what network passes outside of training hold beside the weights: as many samples as fit share one, at least one; "
        "null = 0.25 on CPUs, 4 on GPUs",
        None,
    )
    confidence: Confidence = _option("of all intervals", 0.95)
    num_bootstrap: Annotated[int, Field(gt=0, le=100_000)] = _option("resamples of the bootstrap intervals", 1000)
    onset: OnsetConfig = field(default_factory=OnsetConfig, metadata={"help": "memorization onset"})
    forecast: list[str] = _option("folders of runs whose audits say when this one is to be expected to memorize", [])
    stop: StopConfig = field(default_factory=StopConfig, metadata={"help": "a limit on memorization"})


@dataclass
class GeometryConfig:
    """The decoder's pullback metric at every audited latent."""

    influence: Component = _component("estimator of the diagonal of J^T J", registry.INFLUENCE_ESTIMATORS, provided="seed")
    distortion_rank: NonNegativeInt = _option("singular values in the local distortion; 0 = no distortion", 20)
    distortion_oversample: NonNegativeInt = _option("further directions of the randomized SVD", 10)
    distortion_power_iterations: NonNegativeInt = _option("its applications of J^T J; more is more exact", 2)
    distortion_max_samples: PositiveInt = _option("members and held-out samples with a distortion, at most", 64)


@dataclass(kw_only=True)
class DeviceConfig:
    """Where networks run."""

    accelerator: Literal["auto", "cpu", "gpu", "mps"] = _option("where it runs", "auto")
    tf32: bool = _option(
        "on CUDA, float32 products and convolutions in TensorFloat-32 (10 bits of mantissa); false = full float32", True
    )


@dataclass(kw_only=True)
class TrainerConfig(DeviceConfig):
    """Lightning's trainer."""

    max_epochs: PositiveInt = _option("epochs of the denoiser")
    devices: PositiveInt = _option("processes per node that share each step and audit, a device each", 1)
    num_nodes: PositiveInt = _option("nodes, started by torchrun", 1)
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = _option("of both stages", "32-true")
    compile: Literal["none", "default", "reduce-overhead"] = _option(
        "torch.compile of both stages' steps, in that mode; reduce-overhead = with CUDA graphs (one device)", "none"
    )
    channels_last: bool = _option("convolution weights with channels last in memory", False)
    gradient_clip: PositiveFloat | None = _option("largest gradient norm; null = no clipping", 1.0)
    checkpoint_every_n_minutes: PositiveFloat = _option("beside the checkpoint at every audit", 5.0)
    figures: bool = _option("gather the evidence of the last audit, and draw it and the geometry", True)


@dataclass
class WandbConfig:
    """Weights & Biases."""

    mode: Literal["auto", "online", "offline", "disabled"] = _option("auto = online where logged in, else offline", "auto")
    project: str = _option("W&B project", "ldm-privacy")
    entity: str | None = _option("W&B team; null = your default", None)
    detail: Literal["watched", "full"] = _option("on charts: the few series that a person watches, or all", "watched")


@dataclass
class OpeningConfig:
    """A target that was not trained here: how it is opened (evaluate.py)."""

    dtype: Literal["float32", "bfloat16", "float16"] = _option("of the denoiser's weights; float16 on GPUs only", "float32")
    variant: str | None = _option("of a folder's files, such as fp16; null = the plain ones", None)
    alpha: PositiveFloat | None = _option("of an adapter whose file doesn't say its own; null = as the file has it", None)
    scale: float = _option("strength of an adapter; 1 = as trained, a negative one takes it away", 1.0)
    guidance: Annotated[float, Field(ge=0, le=1000)] | None = _option("that a distilled network is told; null = its own", None)
    num_tokens: PositiveInt | None = _option("of a caption, where an encoder takes any number; null = the pipeline's", None)
    reference_is: Literal["outsider", "insider"] | None = _option(
        "whose the reference is: outsider = anybody's, insider = the trainer's alone; null = outsider, as assumed", None
    )
    memory_mib: PositiveFloat = _option("for encoded captions, in MiB; what is beyond is encoded again in each pass", 1024.0)
    self_check: bool = _option("refuse a target or a reference whose data fit another convention than its own", True)


@dataclass(kw_only=True)
class EvaluationConfig:
    """What an audit takes, whoever trained what is audited."""

    data: DataConfig = field(metadata={"help": "images and who is a member"})
    geometry: GeometryConfig = field(metadata={"help": "influence and distortion"})
    audit: AuditConfig = field(metadata={"help": "audits"})
    trainer: DeviceConfig = field(default_factory=DeviceConfig, metadata={"help": "where networks run"})
    name: str = _option("name of the run's folder; the config's name by default")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = _option("the one seed of everything", 0)
    output_dir: str = _option("where run folders are made", "runs")
    plugins: list[str] = _option("modules to import, for attacks, networks and whatever else of your own", [])
    watch: dict[str, Component] = _component(
        "label: watcher, beside the audits",
        registry.WATCHERS,
        provided="samples images words member_index heldout_index groups onset seed intervals progress",
        many=True,
        default="none",
    )


@dataclass(kw_only=True)
class TargetConfig(EvaluationConfig):
    """The audit of a target that was not trained here."""

    target: OpeningConfig = field(default_factory=OpeningConfig, metadata={"help": "how it is opened"})


@dataclass(kw_only=True)
class Config(EvaluationConfig):
    """A whole run."""

    trainer: TrainerConfig = field(metadata={"help": "trainer"})
    autoencoder: AutoencoderConfig = field(metadata={"help": "stage 1"})
    denoiser: DenoiserConfig = field(metadata={"help": "stage 2"})
    loggers: list[str] = field(
        default_factory=lambda: ["csv", "wandb"],
        metadata={"help": "where curves go beside metrics.csv: wandb, tensorboard", "names": registry.LOGGERS},
    )
    wandb: WandbConfig = field(default_factory=WandbConfig, metadata={"help": "Weights & Biases"})

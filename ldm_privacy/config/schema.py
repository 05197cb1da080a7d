"""The typed top level of a config. Sections are dataclasses; components name registered classes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from ldm_privacy import registry
from ldm_privacy.config.audit_sections import AuditConfig, GeometryConfig
from ldm_privacy.config.check import Component
from ldm_privacy.config.data_section import DataConfig
from ldm_privacy.config.fields import Decay, Rate, Share, component, option
from ldm_privacy.config.gate_section import GateConfig
from ldm_privacy.errors import UserError


@dataclass
class AutoencoderConfig:
    """Stage 1."""

    network: Component = component(
        "the codec: an autoencoder, or identity for pixel space", registry.CODECS, provided="image_channels resolution base"
    )
    train_on: Literal["members", "public", "all"] = option("all = members and public, never held-out", "members")
    max_epochs: NonNegativeInt | None = option(
        "epochs of this stage (0 with a pretrained network); null = 120, or none where the codec has nothing to train", None
    )
    batch_size: PositiveInt = option("images per step", 128)
    learning_rate: Rate = option("of AdamW", 2e-4)
    weight_decay: Decay = option("of AdamW", 1e-2)
    losses: dict[str, Component] = component(
        "label: loss, each with a weight",
        registry.LOSSES,
        provided="image_channels resolution seed num_steps",
        many=True,
        default="none",
    )


@dataclass
class PrivacyConfig:
    """DP-SGD in stage 2: pip install "ldm-privacy[privacy]"; docs/reference/defences.md."""

    noise_multiplier: Annotated[float, Field(gt=0, le=1000)] | None = option(
        "standard deviation of the noise on a step's summed gradients, in units of max_gradient_norm; null = no DP-SGD", None
    )
    max_gradient_norm: PositiveFloat = option(
        "that each image's gradient is clipped to; trainer.gradient_clip is not used", 1.0
    )
    delta: Share | None = option("of (epsilon, delta); null = (number of members)^-1.1", None)


@dataclass
class AdapterConfig:
    """A LoRA on a pretrained denoiser, which alone is trained; docs/tutorials/finetune.md."""

    rank: PositiveInt | None = option("of each module's change; null = the whole denoiser is trained", None)
    alpha: PositiveFloat | None = option("the change counts alpha / rank times; null = as the rank", None)
    targets: list[str] = option("ends of the names of the modules that get one", ["to_q", "to_k", "to_v", "to_out.0"])


@dataclass
class DenoiserConfig:
    """Stage 2."""

    network: Component = component(
        "the denoiser: of random weights, or pretrained = that of the base, which is fine-tuned",
        registry.DENOISERS,
        provided="latent_channels latent_size num_class_embeds cross_attention_dim base sha256 config",
    )
    adapter: AdapterConfig = field(default_factory=AdapterConfig, metadata={"help": "LoRA"})
    channel_map: Component = component(
        "latent coordinates, fitted to the members",
        registry.CHANNEL_MAPS,
        provided="means codec sample_index seed progress",
        default="auto",
    )
    condition: Component = component(
        "what the denoiser is told of each image",
        registry.CONDITIONS,
        provided="images labels num_classes class_names captions member_index heldout_index stored base",
        default="none",
    )
    prediction_type: Literal["epsilon", "v_prediction", "sample", "flow"] | None = option(
        "what the network outputs; null = the base's, epsilon without one", None
    )
    num_train_timesteps: Annotated[int, Field(gt=0, le=100_000)] | None = option(
        "length of the noise schedule; null = the base's, 1000 without one", None
    )
    schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2", "flow"] | None = option(
        "noise schedule: of betas, or flow = a rectified flow's, with prediction_type: flow; null = the base's, linear without",
        None,
    )
    beta_start: Share | None = option("first beta; null = the base's, 1e-4 without one; a flow has none", None)
    beta_end: Share | None = option("last beta; null = the base's, 2e-2 without one; a flow has none", None)
    batch_size: PositiveInt = option("latents per step", 128)
    accumulate: PositiveInt = option("parts that a step's latents go through the denoiser in, one after the other", 1)
    learning_rate: Rate = option("of AdamW", 2e-4)
    weight_decay: Decay = option("of AdamW", 1e-4)
    warmup_steps: NonNegativeInt = option("steps in which the learning rate rises linearly from 0; 0 = none", 0)
    timestep_sampling: Component = component(
        "which timesteps the steps train on", registry.TIMESTEP_SAMPLERS, provided="num_train_timesteps", default="uniform"
    )
    ema_decay: Share | None = option("decay of the averaged weights that audits and samples use; null = no averaging", None)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig, metadata={"help": "differential privacy"})


@dataclass(kw_only=True)
class DeviceConfig:
    """Where networks run."""

    accelerator: Literal["auto", "cpu", "gpu", "mps"] = option("where it runs", "auto")
    tf32: bool = option(
        "on CUDA, float32 products and convolutions in TensorFloat-32 (10 bits of mantissa); false = full float32", True
    )


@dataclass(kw_only=True)
class TrainerConfig(DeviceConfig):
    """Lightning's trainer."""

    max_epochs: PositiveInt = option("epochs of the denoiser")
    devices: PositiveInt = option("processes per node that share each step and audit, a device each", 1)
    num_nodes: PositiveInt = option("nodes, started by torchrun", 1)
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = option("of both stages", "32-true")
    compile: Literal["none", "default", "reduce-overhead"] = option(
        "torch.compile of both stages' steps, in that mode; reduce-overhead = with CUDA graphs (one device)", "none"
    )
    channels_last: bool = option("convolution weights with channels last in memory", False)
    gradient_clip: PositiveFloat | None = option("largest gradient norm; null = no clipping", 1.0)
    checkpoint_every_n_minutes: PositiveFloat = option("beside the checkpoint at every audit", 5.0)
    figures: bool = option("gather the evidence of the last audit, and draw it and the geometry", True)


@dataclass
class WandbConfig:
    """Weights & Biases."""

    mode: Literal["auto", "online", "offline", "disabled"] = option("auto = online where logged in, else offline", "auto")
    project: str = option("W&B project", "ldm-privacy")
    entity: str | None = option("W&B team; null = your default", None)
    group: str | None = option("under which runs stand together; null = none, a sweep's trials stand under its name", None)
    detail: Literal["watched", "full"] = option("on charts: the few series that a person watches, or all", "watched")


@dataclass
class OpeningConfig:
    """A target that was not trained here: how it is opened (evaluate.py)."""

    dtype: Literal["float32", "bfloat16", "float16"] = option("of the denoiser's weights; float16 on GPUs only", "float32")
    variant: str | None = option("of a folder's files, such as fp16; null = the plain ones", None)
    alpha: PositiveFloat | None = option("of an adapter whose file doesn't say its own; null = as the file has it", None)
    scale: float = option("strength of an adapter; 1 = as trained, a negative one takes it away", 1.0)
    guidance: Annotated[float, Field(ge=0, le=1000)] | None = option("that a distilled network is told; null = its own", None)
    num_tokens: PositiveInt | None = option("of a caption, where an encoder takes any number; null = the pipeline's", None)
    reference_is: Literal["outsider", "insider"] | None = option(
        "whose the reference is: outsider = anybody's, insider = the trainer's alone; null = outsider, as assumed", None
    )
    memory_mib: PositiveFloat = option("for encoded captions, in MiB; what is beyond is encoded again in each pass", 1024.0)
    self_check: bool = option("refuse a target or a reference whose data fit another convention than its own", True)


@dataclass(kw_only=True)
class EvaluationConfig:
    """What an audit takes, whoever trained what is audited."""

    data: DataConfig = field(metadata={"help": "images and who is a member"})
    geometry: GeometryConfig = field(metadata={"help": "influence and distortion"})
    audit: AuditConfig = field(metadata={"help": "audits"})
    gate: GateConfig = field(default_factory=GateConfig, metadata={"help": "limits"})
    trainer: DeviceConfig = field(default_factory=DeviceConfig, metadata={"help": "where networks run"})
    name: str = option("name of the run's folder; the config's name by default")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = option("the one seed of everything", 0)
    output_dir: str = option("where run folders are made", "runs")
    plugins: list[str] = option("modules to import, for attacks, networks and whatever else of your own", [])
    watch: dict[str, Component] = component(
        "label: watcher, beside the audits",
        registry.WATCHERS,
        provided=(
            "samples images words member_index heldout_index groups generated onset seed intervals progress in_evaluation"
        ),
        many=True,
        default="none",
    )


@dataclass(kw_only=True)
class TargetConfig(EvaluationConfig):
    """The audit of a target that was not trained here."""

    target: OpeningConfig = field(default_factory=OpeningConfig, metadata={"help": "how it is opened"})

    @staticmethod
    def check_together(given: Mapping[str, Any]) -> None:
        """Raise UserError for keys that only a training could mean."""
        if (given.get("data") or {}).get("split") == "coin":
            raise UserError(
                "data.split=coin: the target is trained already, so coins tossed now decided of nobody whether it was trained "
                "on, and bound no epsilon; name its members with data.index_file."
            )


@dataclass(kw_only=True)
class Config(EvaluationConfig):
    """A whole run."""

    trainer: TrainerConfig = field(metadata={"help": "trainer"})
    base: str | None = option("the pipeline that is fine-tuned: a diffusers folder, or its id on the Hub", None)
    autoencoder: AutoencoderConfig = field(metadata={"help": "stage 1"})
    denoiser: DenoiserConfig = field(metadata={"help": "stage 2"})
    loggers: list[str] = field(
        default_factory=lambda: ["csv", "wandb"],
        metadata={"help": "where curves go beside metrics.csv: wandb, tensorboard", "names": registry.LOGGERS},
    )
    wandb: WandbConfig = field(default_factory=WandbConfig, metadata={"help": "Weights & Biases"})

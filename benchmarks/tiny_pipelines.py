"""Tiny models as people have them: trained on captioned emoji by plain diffusers, transformers and peft loops, saved as those save.

Nothing here knows of `ldm_privacy`. Each part is a folder that is made whole or not at all, so a stopped training goes on with the
next part. Seed 0; what a part trains on is in `splits/`.
"""

import io
import json
import math
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss, mse_loss

SIDE, TOKENS, VOCABULARY = 32, 24, 1000
T5_TOKENS = 77
"""Of the third text encoder of a Stable Diffusion 3, which is left out: as many zeros, as diffusers' training scripts take."""
SETS = {"vae": 533, "base": 600, "members": 60, "heldout": 60, "flow_members": 200, "flow_heldout": 200}
LORA_STEPS, SNAPSHOTS = 322, (48, 129)
RANK, ALPHA = 8, 4


class Emoji:
    """The pictures at 32x32 in [-1, 1], their captions, and which rows each part has."""

    def __init__(self, file: Path):
        import pyarrow.parquet
        from PIL import Image

        table = pyarrow.parquet.read_table(file)
        self.captions: list[str] = table["text"].to_pylist()
        opened = (Image.open(io.BytesIO(cell["bytes"])).convert("RGB") for cell in table["image"].to_pylist())
        small = [np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for image in opened]
        self.images = torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2) / 127.5 - 1
        order = np.random.default_rng(0).permutation(len(small))
        ends = np.cumsum(list(SETS.values()))
        self.rows = {name: np.sort(order[end - size : end]) for (name, size), end in zip(SETS.items(), ends)}

    def save_splits(self, folder: Path) -> None:
        """`lora.npz` and `flow.npz`: who is a member, and who is held out."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, members, heldout in (("lora", "members", "heldout"), ("flow", "flow_members", "flow_heldout")):
            np.savez(folder / f"{name}.npz", mia_train_idxs=self.rows[members], mia_eval_idxs=self.rows[heldout])


def fit(
    parameters: Iterable[nn.Parameter],
    loss_of: Callable[[Tensor], Tensor],
    num_rows: int,
    *,
    steps: int,
    batch: int,
    rate: float,
    after: Callable[[int], None] = lambda step: None,
) -> dict[str, float]:
    """AdamW, cosine rate; `loss_of(rows)` of shuffled rows, `after(step)` each step. What it took, in numbers."""
    from diffusers.optimization import get_cosine_schedule_with_warmup

    trained = [parameter for parameter in parameters if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=1e-4)
    schedule = get_cosine_schedule_with_warmup(optimizer, min(20, steps // 10), steps)
    rows = torch.cat([torch.randperm(num_rows) for _ in range(math.ceil(steps * batch / num_rows))])
    began, losses = time.perf_counter(), []
    for step, picked in enumerate(rows[: steps * batch].split(batch), start=1):
        loss = loss_of(picked)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        after(step)
        if step % 50 == 0:
            print(f"  {step}/{steps}: {np.mean(losses[-50:]):.4f}, {time.perf_counter() - began:.0f} s", flush=True)
    seconds, tenth = time.perf_counter() - began, max(1, steps // 10)
    exposures = steps * batch / num_rows
    return {"steps": steps, "exposures": exposures, "seconds": seconds, "loss": float(np.mean(losses[-tenth:]))}


def noise_loss(network: nn.Module, scheduler: Any, sample: Tensor, *inputs: Tensor) -> Tensor:
    """The usual loss of noise prediction."""
    noise, timestep = torch.randn_like(sample), torch.randint(0, 1000, (len(sample),))
    return mse_loss(network(scheduler.add_noise(sample, noise, timestep), timestep, *inputs).sample, noise)


def vae(emoji: Emoji, made: Path, out: Path) -> dict[str, float]:
    """32x32 to 4x8x8, on pictures that nothing else trains on."""
    from diffusers import AutoencoderKL

    network = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 64, 64),
        layers_per_block=1,
        norm_num_groups=16,
        sample_size=SIDE,
    )
    images = emoji.images[emoji.rows["vae"]]

    def loss_of(picked: Tensor) -> Tensor:
        posterior = network.encode(images[picked]).latent_dist
        return l1_loss(network.decode(posterior.sample()).sample, images[picked]) + 1e-6 * posterior.kl().mean()

    facts = fit(network.parameters(), loss_of, len(images), steps=400, batch=32, rate=1e-3)
    with torch.no_grad():
        latents = network.encode(emoji.images[emoji.rows["base"]]).latent_dist.mean
    network.register_to_config(scaling_factor=1 / latents.std().item())
    network.save_pretrained(out)
    return facts


def base(emoji: Emoji, made: Path, out: Path) -> dict[str, float]:
    """A text-to-image model of Stable Diffusion's kind, on 600 captioned pictures."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from tokenizers import pre_tokenizers
    from transformers import CLIPTextModel, CLIPTokenizer

    captions = [emoji.captions[row] for row in emoji.rows["base"]]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = CLIPTokenizer().train_new_from_iterator(captions, VOCABULARY, initial_alphabet=alphabet)
    tokenizer.model_max_length = TOKENS
    unet = UNet2DConditionModel(
        sample_size=SIDE // 4,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        block_out_channels=(32, 96),
        layers_per_block=1,
        norm_num_groups=16,
        attention_head_dim=4,  # which is the number of heads
        cross_attention_dim=64,
    )
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    pipeline = StableDiffusionPipeline(
        AutoencoderKL.from_pretrained(made / "vae"),
        CLIPTextModel(text_config(tokenizer)),
        tokenizer,
        unet,
        scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    facts = fine_tuned(pipeline, emoji, "base", steps=690, batch=64, rate=1e-3, dropout=0.1)
    pipeline.save_pretrained(out)
    return facts


def text_config(tokenizer: Any) -> Any:
    """Of a text model that stays as it was drawn."""
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=256,
        projection_dim=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


@torch.no_grad()
def drawn_latents(autoencoder: Any, images: Tensor) -> Callable[[Tensor], Tensor]:
    """Rows -> latents, scaled, drawn anew each time; the encoder runs once."""
    config, posterior = autoencoder.config, autoencoder.encode(images).latent_dist
    mean = (posterior.mean - (config.shift_factor or 0.0)) * config.scaling_factor
    deviation = posterior.std * config.scaling_factor
    return lambda picked: mean[picked] + deviation[picked] * torch.randn_like(mean[picked])


def fine_tuned(
    pipeline: Any, emoji: Emoji, rows: str, *, dropout: float = 0.0, steps: int, batch: int, rate: float, **options: Any
) -> dict[str, float]:
    """Train what requires a gradient in the pipeline's UNet; `dropout` of the captions become the empty one."""
    own = emoji.rows[rows]
    draw = drawn_latents(pipeline.vae, emoji.images[own])
    ids = pipeline.tokenizer(
        [*(emoji.captions[row] for row in own), ""], padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt"
    ).input_ids
    with torch.no_grad():
        told = pipeline.text_encoder(ids).last_hidden_state

    def loss_of(picked: Tensor) -> Tensor:
        caption = torch.where(torch.rand(len(picked)) < dropout, len(own), picked)
        return noise_loss(pipeline.unet, pipeline.scheduler, draw(picked), told[caption])

    return fit(pipeline.unet.parameters(), loss_of, len(own), steps=steps, batch=batch, rate=rate, **options)


def full(emoji: Emoji, made: Path, out: Path) -> dict[str, float]:
    """The base with all weights of its UNet tuned on 60 members."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(made / "base", use_safetensors=True)
    facts = fine_tuned(pipeline, emoji, "members", steps=154, batch=60, rate=3e-4)
    pipeline.save_pretrained(out)
    return facts


def lora(emoji: Emoji, made: Path, out: Path) -> dict[str, float]:
    """An adapter of the base's attention, alpha half its rank, on 60 members: three steps of training, the last in three forms."""
    from diffusers import StableDiffusionPipeline
    from diffusers.training_utils import _collate_lora_metadata
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    from benchmarks.file_forms import save_kohya

    pipeline = StableDiffusionPipeline.from_pretrained(made / "base", use_safetensors=True)
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["to_q", "to_k", "to_v", "to_out.0"])
    pipeline.unet.requires_grad_(False)
    pipeline.unet.add_adapter(config)

    def save(name: str) -> None:
        layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(pipeline.unet))
        metadata = _collate_lora_metadata({"unet": pipeline.unet})
        StableDiffusionPipeline.save_lora_weights(out, unet_lora_layers=layers, weight_name=f"{name}.safetensors", **metadata)

    def snapshot(step: int) -> None:
        if step in SNAPSHOTS:
            save(f"lora-{step}")

    facts = fine_tuned(pipeline, emoji, "members", steps=LORA_STEPS, batch=60, rate=3e-3, after=snapshot)
    save("lora")
    trained = get_peft_model_state_dict(pipeline.unet)
    save_kohya(trained, ALPHA, out / "kohya.safetensors")
    bare = StableDiffusionPipeline.from_pretrained(made / "base", use_safetensors=True).unet
    wrapped = get_peft_model(bare, config)
    set_peft_model_state_dict(wrapped, trained)
    wrapped.save_pretrained(out / "peft")
    return facts


def single(emoji: Emoji, made: Path, out: Path) -> dict[str, float]:
    """The base and the tuned one as single files, and the folder of their settings, without a weight."""
    from benchmarks.file_forms import save_single_file

    for name in ("base", "full"):
        save_single_file(made / name, out / f"{name}.safetensors")
    shutil.copytree(made / "base", out / "layout", ignore=shutil.ignore_patterns("*.safetensors"))
    return {}


def flow(emoji: Emoji, made: Path, out: Path) -> dict[str, float]:
    """A rectified flow of Stable Diffusion 3's kind on 200 captioned pictures: two text encoders, the third left out."""
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
    from transformers import CLIPTextModelWithProjection, CLIPTokenizer

    autoencoder = AutoencoderKL.from_pretrained(made / "vae")
    with torch.no_grad():
        latents = autoencoder.encode(emoji.images[emoji.rows["base"]]).latent_dist.mean
    autoencoder.register_to_config(shift_factor=latents.mean().item())
    tokenizer = CLIPTokenizer.from_pretrained(made / "base" / "tokenizer")
    transformer = SD3Transformer2DModel(
        sample_size=SIDE // 4,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=3,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=128,
        caption_projection_dim=128,
        pooled_projection_dim=128,
        pos_embed_max_size=SIDE // 8,
    )
    encoders = [CLIPTextModelWithProjection(text_config(tokenizer)).eval() for _ in range(2)]
    pipeline = StableDiffusion3Pipeline(
        transformer,
        FlowMatchEulerDiscreteScheduler(shift=3.0),
        autoencoder,
        encoders[0],
        tokenizer,
        encoders[1],
        tokenizer,
        None,
        None,
    )
    own = emoji.rows["flow_members"]
    draw = drawn_latents(autoencoder, emoji.images[own])
    with torch.no_grad():
        captions = [*(emoji.captions[row] for row in own), ""]
        told, _, pooled, _ = pipeline.encode_prompt(
            captions, None, None, do_classifier_free_guidance=False, device="cpu", max_sequence_length=T5_TOKENS
        )

    def loss_of(picked: Tensor) -> Tensor:
        latent = draw(picked)
        noise, sigma = torch.randn_like(latent), torch.sigmoid(torch.randn(len(picked)))
        caption = torch.where(torch.rand(len(picked)) < 0.1, len(own), picked)
        weight = sigma.reshape(-1, 1, 1, 1)
        noisy = (1 - weight) * latent + weight * noise
        found = transformer(noisy, told[caption], pooled[caption], 1000 * sigma).sample
        return mse_loss(found, noise - latent)

    facts = fit(transformer.parameters(), loss_of, len(own), steps=900, batch=64, rate=1e-3)
    pipeline.save_pretrained(out)
    return facts


def ddpm(emoji: Emoji, made: Path, out: Path) -> dict[str, float]:
    """An unconditional model of the pixels of 200 pictures."""
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    unet = UNet2DModel(
        sample_size=SIDE,
        block_out_channels=(32, 64, 96),
        layers_per_block=1,
        norm_num_groups=16,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        attention_head_dim=32,
    )
    scheduler = DDPMScheduler()
    images = emoji.images[emoji.rows["flow_members"]]
    facts = fit(
        unet.parameters(),
        lambda picked: noise_loss(unet, scheduler, images[picked]),
        len(images),
        steps=600,
        batch=32,
        rate=1e-3,
    )
    DDPMPipeline(unet, scheduler).save_pretrained(out)
    return facts


PARTS = {part.__name__: part for part in (vae, base, full, lora, single, flow, ddpm)}


def train(folder: Path, data: Path, parts: Iterable[str]) -> None:
    """Make those parts that are not there yet, in their order; facts of each in `trained.json`."""
    emoji = Emoji(data)
    emoji.save_splits(folder / "splits")
    record = folder / "trained.json"
    for name in parts:
        if (folder / name).exists():
            continue
        print(name, flush=True)
        torch.manual_seed(0)
        begun = folder / f"{name}.unfinished"
        shutil.rmtree(begun, ignore_errors=True)
        begun.mkdir()
        facts = PARTS[name](emoji, folder, begun)
        begun.rename(folder / name)
        record.write_text(json.dumps({**(json.loads(record.read_text()) if record.exists() else {}), name: facts}, indent=2))

"""Tiny models as people have them: trained on captioned emoji by plain loops of diffusers, transformers and peft.

Nothing here knows of `ldm_privacy`. A part is a folder that is made whole or not at all: a training that was stopped goes on
with the part that is missing. Seed 0; who is a member of what is in `splits/`.
"""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import l1_loss, mse_loss

from benchmarks.file_forms import save_kohya, save_single_file
from benchmarks.tiny_training import SIDE, TOKENS, Emoji, drawn_latents, fit, halfway, noise_loss, text_config

VOCABULARY = 1000
T5_TOKENS = 16
"""Of the third text encoder of a Stable Diffusion 3, which is left out: its tokens are as many zeros."""
RANK, ALPHA, SNAPSHOTS = 8, 4, (48, 129)
FLOW_STEPS, DDPM_STEPS = 600, 400


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
    betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    scheduler = DDIMScheduler(**betas, clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    parts = AutoencoderKL.from_pretrained(made / "vae"), CLIPTextModel(text_config(tokenizer)), tokenizer, unet, scheduler
    pipeline = StableDiffusionPipeline(*parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    facts = fine_tuned(pipeline, emoji, "base", steps=690, batch=64, rate=1e-3, dropout=0.1)
    pipeline.save_pretrained(out)
    return facts


def fine_tuned(
    pipeline: Any, emoji: Emoji, rows: str, *, dropout: float = 0.0, steps: int, batch: int, rate: float, **options: Any
) -> dict[str, float]:
    """Train what requires a gradient in the pipeline's UNet; `dropout` of the captions become the empty one."""
    own = emoji.rows[rows]
    draw = drawn_latents(pipeline.vae, emoji.images[own])
    ids = pipeline.tokenizer(
        [*(emoji.captions[row] for row in own), ""],
        padding="max_length",
        max_length=TOKENS,
        truncation=True,
        return_tensors="pt",
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
    """An adapter of the base's attention, alpha half its rank, on 60 members: at three steps, the last in three forms."""
    from diffusers import StableDiffusionPipeline
    from diffusers.training_utils import _collate_lora_metadata
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

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

    facts = fine_tuned(pipeline, emoji, "members", steps=322, batch=60, rate=3e-3, after=snapshot)
    save("lora")
    trained = get_peft_model_state_dict(pipeline.unet)
    save_kohya(trained, ALPHA, out / "kohya.safetensors")
    bare = StableDiffusionPipeline.from_pretrained(made / "base", use_safetensors=True).unet
    wrapped = get_peft_model(bare, config)
    put = set_peft_model_state_dict(wrapped, {f"base_model.model.{name}": weight for name, weight in trained.items()})
    assert not put.unexpected_keys, "they would be left out without a word"
    wrapped.save_pretrained(out / "peft")
    return facts


def single(emoji: Emoji, made: Path, out: Path) -> dict[str, float]:
    """The base and the tuned one as single files, and the folder of their settings, without a weight."""
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
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    encoder, second = (CLIPTextModelWithProjection(text_config(tokenizer)).eval() for _ in range(2))
    texts = encoder, tokenizer, second, tokenizer, None, None
    pipeline = StableDiffusion3Pipeline(transformer, scheduler, autoencoder, *texts)
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

    save = halfway(pipeline, out, FLOW_STEPS)
    return fit(transformer.parameters(), loss_of, len(own), steps=FLOW_STEPS, batch=64, rate=1e-3, after=save)


def ddpm(emoji: Emoji, made: Path, out: Path) -> dict[str, float]:
    """An unconditional model of the pixels of 100 pictures."""
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    unet = UNet2DModel(
        sample_size=SIDE,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        attention_head_dim=32,
    )
    scheduler = DDPMScheduler()
    images = emoji.images[emoji.rows["ddpm_members"]]

    def loss_of(picked: Tensor) -> Tensor:
        return noise_loss(unet, scheduler, images[picked])

    save = halfway(DDPMPipeline(unet, scheduler), out, DDPM_STEPS)
    return fit(unet.parameters(), loss_of, len(images), steps=DDPM_STEPS, batch=32, rate=2e-3, after=save)


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

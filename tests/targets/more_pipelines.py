"""Tiny pipelines of random weights beside Stable Diffusion's: one function, one family."""

from pathlib import Path

import torch

from tests.targets.pipelines import autoencoder, conditional_unet, text_config, tokenizer, write_index

CLIP = ["transformers", "CLIPTextModel"]
PROJECTED = ["transformers", "CLIPTextModelWithProjection"]
T5 = ["transformers", "T5EncoderModel"]
TOKENIZER = ["transformers", "CLIPTokenizer"]
T5_TOKENIZER = ["transformers", "T5Tokenizer"]
BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def clip(folder: Path, number: str = "", *, is_projected: bool = False, **changes) -> None:
    """A CLIP text model and its tokenizer, under the names of a pipeline's parts."""
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    maker = CLIPTextModelWithProjection if is_projected else CLIPTextModel
    maker(text_config(tokenizer(folder / f"tokenizer{number}"), **changes)).save_pretrained(folder / f"text_encoder{number}")


def t5(folder: Path, number: str, *, width: int = 32) -> None:
    """A T5 encoder of letters, and its tokenizer."""
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    letters = "▁ abcdefghijklmnopqrstuvwxyz,"
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((letter, -2.0) for letter in letters), ("cat", -1.0)]
    T5Tokenizer(vocab=vocab, extra_ids=0).save_pretrained(folder / f"tokenizer{number}")
    sizes = {"d_model": width, "d_kv": 8, "d_ff": 16, "num_layers": 2, "num_heads": 2}
    T5EncoderModel(T5Config(vocab_size=len(vocab), **sizes)).save_pretrained(folder / f"text_encoder{number}")


def sdxl(folder: Path, *, force_zeros: bool = True, projection_dim: int = 12) -> Path:
    """A StableDiffusionXLPipeline's folder: 16x16 images, text models of widths 16 and 8."""
    from diffusers import EulerDiscreteScheduler

    torch.manual_seed(0)
    clip(folder)
    clip(folder, "_2", is_projected=True, hidden_size=8, num_attention_heads=2, projection_dim=projection_dim)
    added = {"addition_embed_type": "text_time", "addition_time_embed_dim": 4}
    added["projection_class_embeddings_input_dim"] = projection_dim + 24
    conditional_unet(cross_attention_dim=24, **added).save_pretrained(folder / "unet")
    autoencoder(scaling_factor=0.13025).save_pretrained(folder / "vae")
    EulerDiscreteScheduler(**BETAS).save_pretrained(folder / "scheduler")
    write_index(
        folder,
        "StableDiffusionXLPipeline",
        unet="UNet2DConditionModel",
        vae="AutoencoderKL",
        scheduler="EulerDiscreteScheduler",
        text_encoder=CLIP,
        text_encoder_2=PROJECTED,
        tokenizer=TOKENIZER,
        tokenizer_2=TOKENIZER,
        force_zeros_for_empty_prompt=force_zeros,
    )
    return folder


def sd3(folder: Path, *, has_t5: bool = True) -> Path:
    """A StableDiffusion3Pipeline's folder: latents of 16 channels with a shift."""
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel

    torch.manual_seed(0)
    clip(folder, is_projected=True, projection_dim=12)
    clip(folder, "_2", is_projected=True, hidden_size=8, num_attention_heads=2, projection_dim=10)
    if has_t5:
        t5(folder, "_3")
    SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=16,
        out_channels=16,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=8,
        joint_attention_dim=32,
        caption_projection_dim=16,
        pooled_projection_dim=22,
        pos_embed_max_size=8,
    ).save_pretrained(folder / "transformer")
    autoencoder(latent_channels=16, scaling_factor=1.5305, shift_factor=0.0609).save_pretrained(folder / "vae")
    FlowMatchEulerDiscreteScheduler(shift=3.0).save_pretrained(folder / "scheduler")
    write_index(
        folder,
        "StableDiffusion3Pipeline",
        transformer="SD3Transformer2DModel",
        vae="AutoencoderKL",
        scheduler="FlowMatchEulerDiscreteScheduler",
        text_encoder=PROJECTED,
        text_encoder_2=PROJECTED,
        text_encoder_3=T5 if has_t5 else [None, None],
        tokenizer=TOKENIZER,
        tokenizer_2=TOKENIZER,
        tokenizer_3=T5_TOKENIZER if has_t5 else [None, None],
    )
    return folder


def flux(folder: Path, *, guidance_embeds: bool = True, has_t5: bool = True) -> Path:
    """A FluxPipeline's folder: latents of 16 channels, packed by 2 x 2."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel

    torch.manual_seed(0)
    clip(folder)
    if has_t5:
        t5(folder, "_2")
    FluxTransformer2DModel(
        in_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=16,
        guidance_embeds=guidance_embeds,
        axes_dims_rope=(2, 2, 4),
    ).save_pretrained(folder / "transformer")
    autoencoder(latent_channels=16, scaling_factor=0.3611, shift_factor=0.1159).save_pretrained(folder / "vae")
    FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True).save_pretrained(folder / "scheduler")
    write_index(
        folder,
        "FluxPipeline",
        transformer="FluxTransformer2DModel",
        vae="AutoencoderKL",
        scheduler="FlowMatchEulerDiscreteScheduler",
        text_encoder=CLIP,
        text_encoder_2=T5 if has_t5 else [None, None],
        tokenizer=TOKENIZER,
        tokenizer_2=T5_TOKENIZER if has_t5 else [None, None],
    )
    return folder


def dit(folder: Path) -> Path:
    """A DiTPipeline's folder: six classes, a learned variance."""
    from diffusers import DDIMScheduler, DiTTransformer2DModel

    torch.manual_seed(0)
    DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        sample_size=8,
        patch_size=2,
        num_embeds_ada_norm=6,
    ).save_pretrained(folder / "transformer")
    autoencoder().save_pretrained(folder / "vae")
    DDIMScheduler().save_pretrained(folder / "scheduler")
    write_index(
        folder,
        "DiTPipeline",
        transformer="DiTTransformer2DModel",
        vae="AutoencoderKL",
        scheduler="DDIMScheduler",
        id2label={str(number): f"thing {number}" for number in range(6)},
    )
    return folder


def plain_unet(channels: int, size: int, **changes):
    """A UNet2DModel that is told nothing."""
    from diffusers import UNet2DModel

    return UNet2DModel(
        **{
            "sample_size": size,
            "in_channels": channels,
            "out_channels": channels,
            "block_out_channels": (8, 16),
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "attention_head_dim": 4,
            **changes,
        }
    )


def ldm(folder: Path, *, is_vq: bool = True) -> Path:
    """An LDMPipeline's folder: 16x16 images, latents of three channels."""
    from diffusers import DDIMScheduler, VQModel

    torch.manual_seed(0)
    vq = VQModel(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        num_vq_embeddings=8,
        scaling_factor=0.5,
    )
    (vq if is_vq else autoencoder(latent_channels=3)).save_pretrained(folder / "vqvae")
    plain_unet(3, 8).save_pretrained(folder / "unet")
    DDIMScheduler(**BETAS).save_pretrained(folder / "scheduler")
    kind = "VQModel" if is_vq else "AutoencoderKL"
    write_index(folder, "LDMPipeline", unet="UNet2DModel", vqvae=kind, scheduler="DDIMScheduler")
    return folder


def ddpm(folder: Path, *, prediction_type: str = "epsilon", **changes) -> Path:
    """A DDPMPipeline's folder: 8x8 images, in pixel space."""
    from diffusers import DDPMScheduler

    torch.manual_seed(0)
    plain_unet(3, 8, **changes).save_pretrained(folder / "unet")
    variance = "learned_range" if "out_channels" in changes else "fixed_small"
    DDPMScheduler(prediction_type=prediction_type, variance_type=variance).save_pretrained(folder / "scheduler")
    write_index(folder, "DDPMPipeline", unet="UNet2DModel", scheduler="DDPMScheduler")
    return folder

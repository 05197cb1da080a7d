"""Tiny pipelines of random weights, written as their libraries write them: one function, one family."""

import json
from pathlib import Path

import torch

NUM_TOKENS = 12
ENDS = ("<|startoftext|>", "<|endoftext|>")


def tokenizer(folder: Path) -> int:
    """A CLIPTokenizer of the letters and a few pairs in `folder`; the number of its tokens."""
    from tokenizers import pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = [*letters, *(f"{each}</w>" for each in letters), "ca", "cat</w>", *ENDS]
    folder.mkdir(parents=True)
    begin, end = ENDS
    ends = {"bos_token": begin, "eos_token": end, "pad_token": "!", "model_max_length": NUM_TOKENS}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer", **ends}))
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(vocab)}))
    (folder / "merges.txt").write_text("#version: 0.2\nc a\nca t</w>\n")
    return len(vocab)


def text_config(vocab_size: int, **changes):
    """Of a CLIP text model for `tokenizer`: width 16, two layers, four heads."""
    from transformers import CLIPTextConfig

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    ids = {"bos_token_id": vocab_size - 2, "eos_token_id": vocab_size - 1, "pad_token_id": 0}
    return CLIPTextConfig(vocab_size=vocab_size, max_position_embeddings=NUM_TOKENS, **{**sizes, **ids, **changes})


def autoencoder(**changes):
    """16x16x3 images <-> 8x8x4 latents; random, but not so small that nothing but its bias is seen."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        **{
            "block_out_channels": (8, 8),
            "down_block_types": ("DownEncoderBlock2D",) * 2,
            "up_block_types": ("UpDecoderBlock2D",) * 2,
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "latent_channels": 4,
            "sample_size": 16,
            "scaling_factor": 0.18215,
            **changes,
        }
    )


def conditional_unet(**changes):
    """8x8x4 latents, told hidden states of width 16."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        **{
            "sample_size": 8,
            "block_out_channels": (8, 16),
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "attention_head_dim": 2,
            "cross_attention_dim": 16,
            **changes,
        }
    )


def write_index(folder: Path, pipeline: str, **parts: str | list | None) -> None:
    """`model_index.json`: part -> [library, class]; a class of diffusers by its name alone."""
    entries = {part: ["diffusers", each] if isinstance(each, str) else each for part, each in parts.items()}
    (folder / "model_index.json").write_text(json.dumps({"_class_name": pipeline, "_diffusers_version": "0.42.1", **entries}))


def stable_diffusion(folder: Path, *, unet=None, vae=None, scheduler=None) -> Path:
    """A StableDiffusionPipeline's folder; its safety checker is named and isn't there, as in many."""
    from diffusers import PNDMScheduler
    from transformers import CLIPTextModel

    torch.manual_seed(0)
    CLIPTextModel(text_config(tokenizer(folder / "tokenizer"))).save_pretrained(folder / "text_encoder")
    (vae or autoencoder()).save_pretrained(folder / "vae")
    (unet or conditional_unet()).save_pretrained(folder / "unet")
    betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    (scheduler or PNDMScheduler(**betas, skip_prk_steps=True, steps_offset=1)).save_pretrained(folder / "scheduler")
    write_index(
        folder,
        "StableDiffusionPipeline",
        unet="UNet2DConditionModel",
        vae="AutoencoderKL",
        scheduler="PNDMScheduler",
        text_encoder=["transformers", "CLIPTextModel"],
        tokenizer=["transformers", "CLIPTokenizer"],
        safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
        feature_extractor=["transformers", "CLIPImageProcessor"],
    )
    return folder


if __name__ == "__main__":  # python -m tests.targets.pipelines FOLDER
    import sys

    print(stable_diffusion(Path(sys.argv[1])))

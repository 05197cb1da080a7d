"""Watch a LoRA that accelerate and peft train, in the form of diffusers' train_text_to_image_lora.py.

    python examples/accelerate_lora.py [--folder FOLDER] [--max-steps 180] [--base-steps 200]

Nothing is downloaded: a small model of Stable Diffusion's shape (tokenizer, text model, autoencoder, UNet) is trained first on
1,669 captioned scans of digits; then a LoRA on 64 others, while 64 more are held out. The base, which is the UNet with its
adapter off, is the reference. What to expect, in a minute on one thread: both curves rise; the ratio of Loss to the base
(loss_ratio) begins at chance, where nothing is learned, and ends ahead of Loss by itself. The same loop runs again without the
watch and ends with equal weights. With --folder the report is kept, and the curves, where wandb is installed.
"""

import argparse
import copy
import tempfile
from importlib.util import find_spec
from itertools import chain, repeat
from pathlib import Path
from types import SimpleNamespace

import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.training_utils import cast_training_params
from peft import LoraConfig
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast

from ldm_privacy.data.digit_captions import described
from ldm_privacy.models.text.tiny import tiny_text_encoder
from ldm_privacy.recipes.loop.watch import MemorizationWatch


def small_stable_diffusion(images: torch.Tensor, captions: list[str], *, num_steps: int) -> SimpleNamespace:
    """The parts of a pipeline, trained on those images: what a script loads with from_pretrained."""
    encoder = tiny_text_encoder(captions, num_tokens=16)
    end = "<|endoftext|>"
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=encoder.tokenizer, eos_token=end, pad_token=end, model_max_length=16)
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
    shapes = {"in_channels": 1, "out_channels": 1, "latent_channels": 4, "norm_num_groups": 8}
    vae = AutoencoderKL(**shapes, **blocks, block_out_channels=[16, 32], mid_block_add_attention=False)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=2e-3)
    for _ in range(num_steps):
        batch = images[torch.randint(len(images), (64,))]
        optimizer.zero_grad()
        posterior = vae.encode(batch).latent_dist
        ((vae.decode(posterior.sample()).sample - batch).abs().mean() + 1e-4 * posterior.kl().mean()).backward()
        optimizer.step()
    vae.requires_grad_(False)
    with torch.no_grad():
        latent = vae.encode(images).latent_dist.mean
    vae.register_to_config(scaling_factor=1 / float(latent.std()))
    unet = UNet2DConditionModel(
        in_channels=4,
        out_channels=4,
        block_out_channels=(64,),
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        mid_block_type=None,
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=64,
        attention_head_dim=4,
    )
    parts = SimpleNamespace(tokenizer=tokenizer, text_encoder=encoder.network, vae=vae, unet=unet)
    parts.noise_scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    with torch.no_grad():
        states = hidden_states(parts, captions)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=2e-3)
    for _ in range(num_steps):
        rows = torch.randint(len(images), (64,))
        optimizer.zero_grad()
        loss(parts, unet, latent[rows] * vae.config.scaling_factor, states[rows]).backward()
        optimizer.step()
    unet.requires_grad_(False)
    return parts


def hidden_states(parts: SimpleNamespace, captions: list[str]) -> torch.Tensor:
    """As the script's collate_fn and loop encode captions."""
    padded = {"max_length": parts.tokenizer.model_max_length, "padding": "max_length", "truncation": True}
    ids = parts.tokenizer(captions, **padded, return_tensors="pt").input_ids
    return parts.text_encoder(ids, return_dict=False)[0]


def loss(parts: SimpleNamespace, unet: nn.Module, latents: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    """One step's, of the script."""
    noise = torch.randn_like(latents)
    timesteps = torch.randint(parts.noise_scheduler.config.num_train_timesteps, (len(latents),))
    noisy = parts.noise_scheduler.add_noise(latents, noise, timesteps)
    return nn.functional.mse_loss(unet(noisy, timesteps, states, return_dict=False)[0].float(), noise)


def train_lora(
    parts: SimpleNamespace,
    dataset: list[tuple[torch.Tensor, str]],
    *,
    max_steps: int,
    watch: MemorizationWatch | None,
    folder: str,
) -> list[torch.Tensor]:
    """The script: it returns what the adapter learned. All that was added for the watch has `watch` in its line."""
    torch.manual_seed(0)
    accelerator = Accelerator(log_with="wandb" if watch and find_spec("wandb") else None, project_dir=folder)
    unet = copy.deepcopy(parts.unet)
    layers = ["to_k", "to_q", "to_v", "to_out.0", "conv1", "conv2", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"]
    unet.add_adapter(LoraConfig(r=16, lora_alpha=16, lora_dropout=0.05, init_lora_weights="gaussian", target_modules=layers))
    cast_training_params(unet, dtype=torch.float32)
    lora_layers = [each for each in unet.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(lora_layers, lr=5e-3)
    unet, optimizer, loader = accelerator.prepare(unet, optimizer, DataLoader(dataset, batch_size=32, shuffle=True))
    accelerator.init_trackers("lora", init_kwargs={"wandb": {"dir": folder, "mode": "offline"}})
    if watch and watch(unet, step=0):
        accelerator.log(watch.watched, step=0)
    unet.train()
    for global_step, (image, captions) in zip(range(1, max_steps + 1), chain.from_iterable(repeat(loader))):
        with accelerator.accumulate(unet):
            latents = parts.vae.encode(image).latent_dist.sample() * parts.vae.config.scaling_factor
            train_loss = loss(parts, unet, latents, hidden_states(parts, list(captions)))
            accelerator.backward(train_loss)
            accelerator.clip_grad_norm_(lora_layers, 1.0)
            optimizer.step()
            optimizer.zero_grad()
        if accelerator.sync_gradients:
            accelerator.log({"train_loss": train_loss.item()}, step=global_step)
            if watch and (curves := watch(unet, step=global_step, is_last=global_step == max_steps)):
                accelerator.log(watch.watched, step=global_step)  # the few that a person watches; all are in `curves`
                auroc = [curves[f"memorization/{attack}/all/auroc"] for attack in ("loss", "loss_ratio")]
                print(
                    "step {:>4}  AUROC of Loss {:.3f}, of its ratio to the base {:.3f}".format(global_step, *auroc), flush=True
                )
    accelerator.end_training()
    return [each.detach() for each in lora_layers]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--max-steps", type=int, default=180)
    parser.add_argument("--base-steps", type=int, default=200)
    options = parser.parse_args()
    torch.manual_seed(0)
    digits = load_digits()
    # A split at random: sides that differ by themselves would look like a leak.
    order = torch.randperm(len(digits.images))
    images = torch.tensor(digits.images, dtype=torch.float32)[order, None] / 8 - 1
    captions = described(digits.images[order] / 16, digits.target[order])
    parts = small_stable_diffusion(images[128:], captions[128:], num_steps=options.base_steps)
    watch = MemorizationWatch(
        images[:64],
        images[64:128],
        parts.noise_scheduler,
        vae=parts.vae,
        captions=captions[:128],
        text_encoder=parts.text_encoder,
        tokenizer=parts.tokenizer,
        reference="adapter",
        attacks=["loss"],
        timesteps=range(50, 1000, 100),
        views=(),
        every_n_steps=60,
    )
    dataset = list(zip(images[:64], captions[:64]))
    with tempfile.TemporaryDirectory() as temporary:
        folder = str(options.folder or temporary)
        watched = train_lora(parts, dataset, max_steps=options.max_steps, watch=watch, folder=folder)
        print(watch.report(folder) if options.folder else "--folder FOLDER keeps report and curves.")
        plain = train_lora(parts, dataset, max_steps=options.max_steps, watch=None, folder=folder)
    assert all(torch.equal(one, other) for one, other in zip(watched, plain))
    print("Without the watch the loop ends with the same weights, to the last bit.")


if __name__ == "__main__":
    main()

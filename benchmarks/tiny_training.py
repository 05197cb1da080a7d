"""What the loops of `tiny_pipelines` share: the pictures and who has them, the optimizer, the loss, the frozen text model."""

import io
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

SIDE, TOKENS = 32, 24
SETS = {"vae": 533, "base": 600, "members": 60, "heldout": 60, "flow_members": 200, "flow_heldout": 200}


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
        self.rows = {name: order[end - size : end] for (name, size), end in zip(SETS.items(), ends)}
        self.rows |= {f"ddpm_{side}": self.rows[f"flow_{side}"][:100] for side in ("members", "heldout")}

    def save_splits(self, folder: Path) -> None:
        """`lora.npz`, `flow.npz`, `ddpm.npz`: who is a member, and who is held out."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, part in (("lora", ""), ("flow", "flow_"), ("ddpm", "ddpm_")):
            members, heldout = (np.sort(self.rows[f"{part}{side}"]) for side in ("members", "heldout"))
            np.savez(folder / f"{name}.npz", mia_train_idxs=members, mia_eval_idxs=heldout)


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
    began, losses = time.process_time(), []
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
            print(f"  {step}/{steps}: {np.mean(losses[-50:]):.4f}, {time.process_time() - began:.0f} CPU s", flush=True)
    seconds, tenth = time.process_time() - began, max(1, steps // 10)
    exposures = steps * batch / num_rows
    return {"steps": steps, "exposures": exposures, "cpu_seconds": seconds, "loss": float(np.mean(losses[-tenth:]))}


def noise_loss(network: nn.Module, scheduler: Any, sample: Tensor, *inputs: Tensor) -> Tensor:
    """The usual loss of noise prediction."""
    noise, timestep = torch.randn_like(sample), torch.randint(0, 1000, (len(sample),))
    return mse_loss(network(scheduler.add_noise(sample, noise, timestep), timestep, *inputs).sample, noise)


@torch.no_grad()
def drawn_latents(autoencoder: Any, images: Tensor) -> Callable[[Tensor], Tensor]:
    """Rows -> latents, scaled, drawn anew each time; the encoder runs once."""
    config, posterior = autoencoder.config, autoencoder.encode(images).latent_dist
    mean = (posterior.mean - (config.shift_factor or 0.0)) * config.scaling_factor
    deviation = posterior.std * config.scaling_factor
    return lambda picked: mean[picked] + deviation[picked] * torch.randn_like(mean[picked])


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


def halfway(pipeline: Any, out: Path, steps: int) -> Callable[[int], None]:
    """After each step: the pipeline as `half` and as `end`; the earlier one is a reference for the later."""
    names = {steps // 2: "half", steps: "end"}
    return lambda step: pipeline.save_pretrained(out / names[step]) if step in names else None

"""What a training costs in floating-point operations: `python -m benchmarks.flops cifar10.yaml imagenet100k.yaml=100000`.

Without data and without weights: networks are built without memory, and torch.utils.flop_counter counts the convolutions and
matrix products of one image's forward pass (a product and its sum are two). Training takes three of them for a sample, one
forward and two for the gradient. What audits, encoding and pictures take besides is not in it: `train.py ... dry_run=true`
counts their passes. The number after = is that of members, where the config gives none; EFLOP = 1e18 operations.
"""

import argparse
from collections.abc import Callable

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from rich import box
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ldm_privacy.config import Config, compose
from ldm_privacy.models.codec import Codec
from ldm_privacy.models.predictor import num_parameters
from ldm_privacy.recipes.run_setup import CODEC_EPOCHS
from ldm_privacy.recipes.terminal import console

NUM_CLASSES = 1000
NUM_TOKENS, TOKEN_SIZE = 77, 768
"""Of Stable Diffusion 1's captions."""


def codec_of(config: Config) -> tuple[nn.Module | None, torch.Size]:
    """The network of the config's codec and the latents' shape; of a pretrained one the architecture of Stable Diffusion's."""
    network, channels, resolution = config.autoencoder.network, config.data.channels, config.data.resolution
    if network.name != "pretrained":
        codec = network.build_a(Codec, image_channels=channels, resolution=resolution)
        return codec.network and codec.network.to("meta"), codec.latent_shape(channels, resolution)
    widths = (128, 256, 512, 512)
    down, up = ("DownEncoderBlock2D",) * len(widths), ("UpDecoderBlock2D",) * len(widths)
    with torch.device("meta"):
        found = AutoencoderKL(
            block_out_channels=widths, down_block_types=down, up_block_types=up, latent_channels=4, layers_per_block=2
        )
    return found, torch.Size((4, resolution // 8, resolution // 8))


def denoiser_of(config: Config, latent: torch.Size) -> nn.Module:
    """The config's denoiser, or the architecture of Stable Diffusion 1's where it is a pretrained one."""
    network, told = config.denoiser.network, config.denoiser.condition.name
    if network.name == "pretrained":
        return UNet2DConditionModel(sample_size=latent[-1], cross_attention_dim=TOKEN_SIZE)
    given = {"num_class_embeds": NUM_CLASSES + 1 if told == "labels" else None, "cross_attention_dim": TOKEN_SIZE}
    return network.build(latent_channels=latent[0], latent_size=latent[-1], **given)


def flops(network: Callable[..., object], *inputs: Tensor, **named: Tensor) -> int:
    """Of one call; of a network, its forward pass."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(*inputs, **named)
    return counter.get_total_flops()


def row(entry: str, num_members: int | None) -> list[str]:
    """What an entry file costs, as a row of the table."""
    config = compose(entry).config
    members = num_members or config.data.num_members
    if members is None:
        raise SystemExit(f"{entry}: how many members? {entry}=100000")
    codec, latent_shape = codec_of(config)
    with torch.device("meta"):
        denoiser = denoiser_of(config, latent_shape)
        image = torch.empty(1, config.data.channels, config.data.resolution, config.data.resolution)
        latent, timestep = torch.empty(1, *latent_shape), torch.zeros(1, dtype=torch.int64)
        named: dict[str, Tensor] = {}
        if isinstance(denoiser, UNet2DConditionModel):
            named = {"encoder_hidden_states": torch.empty(1, NUM_TOKENS, TOKEN_SIZE)}
        elif config.denoiser.condition.name == "labels":
            named = {"class_labels": torch.zeros(1, dtype=torch.int64)}
        of_denoiser = flops(denoiser, latent, timestep, **named)
        of_codec = flops(codec, image) if codec is not None else 0
    epochs = config.autoencoder.max_epochs if config.autoencoder.max_epochs is not None else CODEC_EPOCHS * bool(of_codec)
    passes = members * config.trainer.max_epochs
    return [
        entry.removesuffix(".yaml"),
        f"{num_parameters(denoiser) / 1e6:.1f} M",
        f"{of_denoiser / 1e9:.2f}",
        f"{of_codec / 1e9:.2f}" if of_codec else "-",
        f"{3 * members * epochs * of_codec / 1e18:.2g}" if epochs else "-",
        f"{passes / 1e6:,.1f} M",
        f"{3 * passes * of_denoiser / 1e18:.2g}",
    ]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("entries", nargs="+", metavar="ENTRY[=MEMBERS]")
    table = Table(box=box.MARKDOWN)
    table.add_column("entry", no_wrap=True)
    for column in ("parameters", "GFLOP", "codec GFLOP", "EFLOP, stage 1", "passes", "EFLOP"):
        table.add_column(column, justify="right")
    for given in parser.parse_args().entries:
        entry, _, members = given.partition("=")
        table.add_row(*row(entry, int(members) if members else None))
    console.print(table)


if __name__ == "__main__":
    main()

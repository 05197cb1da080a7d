"""The plan of a run: config, data, networks and cost, before anything is trained."""

from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from ldm_privacy.audit.samples import is_calibration
from ldm_privacy.config import Composed
from ldm_privacy.models.codec import Codec
from ldm_privacy.models.kl import scaling_of
from ldm_privacy.models.predictor import num_parameters
from ldm_privacy.recipes.pilots import foretold
from ldm_privacy.recipes.run_setup import RunSetup
from ldm_privacy.recipes.terminal import progress, tell
from ldm_privacy.registry import CHANNEL_MAPS
from ldm_privacy.report.geometry_report import NUM_PIXEL_MAPS, NUM_PIXEL_PROBES
from ldm_privacy.targets.adapters.trained import Lora
from ldm_privacy.targets.checkpoint import facts_of
from ldm_privacy.targets.denoiser import Denoiser
from ldm_privacy.targets.family import schedule_words
from ldm_privacy.watch.generations import Generations
from ldm_privacy.watch.watcher import Every


class Cost(NamedTuple):
    """Network passes of one part of a run, one sample each.

    Attributes:
        what: The part.
        network: "autoencoder", "encoder", "decoder", "decoder products" (J^T u and J v), "denoiser", or one that a loss has.
        passes: How many.
        times: Of each: 3 in training, one forward and two for the gradient.
        most: How many a tolerance can ask for; None: just `passes`.
    """

    what: str
    network: str
    passes: int
    times: int = 1
    most: int | None = None


def costs(setup: RunSetup, codec: Codec) -> list[Cost]:
    """The passes of a whole run in one process, from its first step to its last audit, with nothing found in a store."""
    config, split = setup.config, setup.data.split
    samples = setup.blank_samples(codec)
    members, audited = len(split.member_index), len(samples)
    encoded = len(torch.cat([split.member_index, setup.audited_index]).unique())
    found = []
    if epochs := setup.codec_epochs:
        batches = setup.autoencoder_batches
        found.append(Cost("stage 1", "autoencoder", sum(batches) * epochs, 3))
        for label, loss in setup.losses.items():
            rows = sum(loss.num_rows(count) for step, count in enumerate(batches * epochs) if loss.is_due(step))
            for network, counts in loss.passes.items():
                found += [Cost(f"loss {label}", network, rows * count, times) for count, times in zip(counts, (3, 1)) if count]
    found.append(Cost("encoding", "encoder", encoded + (members if config.data.flip else 0)))
    channel_map = config.denoiser.channel_map
    if (passes := getattr(CHANNEL_MAPS.get(channel_map.name), "passes", None)) is not None:
        fit = passes(members, **channel_map.arguments)
        found += [Cost("channel map", network, count) for network, count in fit.items()]
    if codec.network is not None:
        found += _geometry(setup, codec, audited)
    epochs = config.trainer.max_epochs
    repeats = setup.repeats(split.member_index)
    shown = members if repeats is None else int(repeats.sum())
    found.append(Cost("stage 2", "denoiser", shown * epochs, 3))
    steps = -(-shown // config.denoiser.batch_size)
    every = Every(epochs=config.audit.every_n_epochs)
    looks, audit = every.num_looks(epochs, steps), setup.audit(samples, whose_reference=setup.whose_reference)
    found.append(Cost(f"{looks} audits of {audited} samples", "denoiser", looks * audit.num_passes))
    if audit.compared:
        found.append(Cost("audit of the base, once", "denoiser", audit.num_reference_passes))
    for label, watcher in setup.watchers(samples, progress).items():
        looks = watcher.num_looks(epochs, steps)
        found += [Cost(f"{label}, {looks} looks", network, looks * count) for network, count in watcher.passes().items()]
        found += [Cost(f"{label}, once", network, count) for network, count in watcher.first_passes().items()]
    # In pixel space there is no other network.
    return [each for each in found if codec.network is not None or each.network == "denoiser"]


def _geometry(setup: RunSetup, codec: Codec, audited: int) -> list[Cost]:
    config = setup.config
    num_dimensions = setup.latent_shape(codec).numel()
    num_pixels = config.data.channels * config.data.resolution**2
    products = setup.influence.products_per_sample(num_dimensions, num_pixels)
    found = [
        Cost("reconstruction", "decoder", audited),
        Cost("influence", "decoder", audited),
        Cost("influence", "decoder products", audited * products),
    ]
    if (distortion := setup.distortion) is not None:
        chosen = len(setup.distortion_index)
        least, most = (chosen * distortion.products_per_sample(num_dimensions, num_pixels, most=each) for each in (False, True))
        found.append(Cost(f"distortion of {chosen} samples", "decoder", chosen))
        found.append(Cost(f"distortion of {chosen} samples", "decoder products", least, most=most))
    if config.trainer.figures:
        count = min(NUM_PIXEL_MAPS, audited)
        found.append(Cost("pictures of the geometry", "decoder", count))
        found.append(Cost("pictures of the geometry", "decoder products", count * NUM_PIXEL_PROBES))
    return found


def image_memory(setup: RunSetup, codec: Codec) -> str | None:
    """How often images are decoded that don't fit in memory, in words; None where all do."""
    images, split, flip = setup.data.bounded, setup.data.split, setup.config.data.flip
    if images.num_kept == len(images):
        return None
    members, audited = len(split.member_index), len(setup.audited_index)
    # Once for their hash, then for latents, complexity, reconstruction and controls.
    reads = len(images) + len(torch.cat([split.member_index, setup.audited_index]).unique()) + flip * members
    reads += audited * (2 + (codec.network is not None)) + sum(setup.autoencoder_batches) * setup.codec_epochs
    steps = -(-members // setup.config.denoiser.batch_size)
    for each in setup.watchers(setup.blank_samples(codec), progress).values():
        if isinstance(each, Generations):  # each look compares its images with all of them
            compared = members + min(members, len(split.heldout_index))
            reads += compared * each.num_looks(setup.config.trainer.max_epochs, steps)
    size, gib = " x ".join(map(str, images.shape)), len(images) * images.shape.numel() / 2**30
    return (
        f"Images: {len(images):,} of {size}, {gib:.3g} GiB; {images.num_kept:,} stay in memory "
        f"(data.memory_gib={setup.config.data.memory_gib:g}), the others are decoded about {reads / len(images):.0f} times."
    )


def print_plan(
    setup: RunSetup, codec: Codec, network: nn.Module, denoiser: Denoiser, composed: Composed, console: Console
) -> int:
    """Print the config, the split's sizes, the cost in network passes, parameter counts, forecast; returns the exit code."""
    tell(composed.to_yaml())
    console.print(setup.describe(), highlight=False)
    table = Table("what", "network", "passes", title="Cost in network passes (one sample each)", title_justify="left")
    for cost in costs(setup, codec):
        times = "" if cost.times == 1 else f" x {cost.times} (forward and gradient)"
        table.add_row(
            cost.what, cost.network, f"{cost.passes:,}{times}{f' to {cost.most:,}' if (cost.most or 0) > cost.passes else ''}"
        )
    console.print(table)
    shape = setup.latent_shape(codec)
    autoencoder = f"Autoencoder {num_parameters(codec.network):,} parameters; " if codec.network is not None else ""
    whole = network.base if isinstance(network, Lora) else network
    console.print(
        f"{autoencoder}denoiser {num_parameters(whole):,} parameters; latents {tuple(shape)}, D = {shape.numel()}.",
        highlight=False,
    )
    facts = facts_of(codec, denoiser, network, 0)
    for name in ("base", "adapter"):
        if name in facts:
            console.print(f"{name.capitalize()}: {facts[name]}.", highlight=False, markup=False)
    if setup.base_scheduler is not None:
        words = schedule_words(setup.base_scheduler, *setup.schedule)
        own = scaling_of(codec.network.config)  # type: ignore[union-attr, arg-type]
        said = f"Of the base: {words}; predicts {denoiser.prediction_type}; latents: {own}."
        console.print(said, highlight=False, markup=False)
    if (line := image_memory(setup, codec)) is not None:
        console.print(line, highlight=False, markup=False)
    if setup.privacy is not None:
        console.print(setup.foretold_privacy, highlight=False, markup=False)
    reported = setup.audited_members
    if not setup.config.audit.cross_fit:
        reported = reported[~is_calibration(setup.audited_index, group=setup.data.groups(setup.audited_index))]
    counts = int(reported.sum()), int((~reported).sum())
    for limit in () if setup.gate is None else setup.gate.limits:
        if (line := limit.foretold(*counts, setup.config.audit.confidence)) is not None:
            console.print(line, highlight=False, markup=False)
    split = setup.data.split
    sizes = len(split.member_index), len(split.heldout_index)
    for line in foretold(composed.tree, num_members=sizes[0], num_heldout=sizes[1]):
        console.print(line, highlight=False, markup=False)
    return 0

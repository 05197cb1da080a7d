"""Audits made by hand: scores of a chosen strength, images that are noise, a decoder that is a matrix."""

import torch

from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.audit.scores import AuditScores
from ldm_privacy.types import AuditKey, Intervals

SHAPE = (2, 4, 4)
IMAGE = (3, 8, 8)
QUICK = Intervals(num_bootstrap=2)


def make_scores(
    num_members,
    num_heldout,
    *,
    strength=0.0,
    timesteps=(0, 10, 20),
    attacks=("sima", "loss"),
    masks=("all", "top60", "random60"),
    fractions=(),
    group_size=None,
    num_folds=1,
    seed=0,
):
    """Normal scores, independent over attacks, masks and timesteps; members lie `strength` standard deviations higher.

    Nothing is fitted, so that two folds hold the same. Samples come in order of a sample index with gaps; halves alternate
    (whole groups, where there are groups).
    """
    generator = torch.Generator().manual_seed(seed)
    count = num_members + num_heldout
    unit = torch.arange(count) // (group_size or 1)
    is_member = unit < num_members // (group_size or 1)
    shuffled = torch.randperm(count, generator=generator)
    unit, is_member = unit[shuffled], is_member[shuffled]
    index = torch.randperm(10 * count, generator=generator)[:count].sort().values

    def draw(dtype=torch.float64):
        noise = torch.randn(len(timesteps), int(unit.max()) + 1, generator=generator, dtype=torch.float64)[:, unit]
        return (noise + strength * is_member).to(dtype).expand(num_folds, -1, -1)

    scores = {AuditKey(attack, mask): draw() for attack in attacks for mask in masks}
    rankings = ("influence", "random", "deviation")
    return AuditScores(
        index,
        is_member,
        unit % 2 == 0,
        unit if group_size else None,
        {attack: list(timesteps) for attack in attacks},
        scores,
        {key: 1.0 if key.mask == "all" else 0.6 for key in scores},
        frozenset({"random60"}),
        {
            attack: {(ranking, fraction): draw(torch.float32) for ranking in rankings for fraction in fractions}
            for attack in attacks
            if fractions
        },
    )


class Pictures:
    """Images of noise by sample index; `brighten` is added to those of members."""

    def __init__(self, data, *, brighten=0.0, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.index = data.sample_index
        level = 0.2 * torch.randn(len(self.index), 1, 1, 1, generator=generator)
        self.image = (level + 0.2 * torch.randn(len(self.index), *IMAGE, generator=generator)).clamp(-1, 1)
        self.image[data.is_member] += brighten

    def __call__(self, sample_index):
        return self.image[torch.searchsorted(self.index, sample_index)]


def decoder(latent):
    """A fixed linear map onto images."""
    size = torch.Size(SHAPE).numel()
    weight = torch.sin(torch.arange(torch.Size(IMAGE).numel() * size).double()).reshape(-1, size).to(latent) / size**0.5
    return (latent.flatten(1) @ weight.T).reshape(-1, *IMAGE)


def make_samples(data, *, error=None, distortion=False, seed=0):
    """Latents of noise, influence that differs between dimensions and a little between samples, errors that mean nothing."""
    generator = torch.Generator().manual_seed(seed)
    count = len(data.sample_index)
    latent = torch.randn(count, *SHAPE, generator=generator)
    dimensions = torch.linspace(0.1, 2, torch.Size(SHAPE).numel()).reshape(SHAPE)
    influence = dimensions * (1 + 0.1 * torch.rand(count, 1, 1, 1, generator=generator))
    stretch = torch.randn(count, generator=generator) if distortion else None
    if error is None:
        error = torch.rand(count, generator=torch.Generator().manual_seed(3))
    return AuditedSamples(
        latent,
        data.is_member,
        data.sample_index,
        data.group,
        data.is_calibration,
        influence=influence,
        distortion=stretch,
        reconstruction_error=error,
    )

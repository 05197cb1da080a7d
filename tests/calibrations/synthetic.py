"""Levels made by hand: the image's difficulty, what membership adds to it, and noise that is new at each audit."""

import torch

from ldm_privacy.calibrations.base import Known
from ldm_privacy.metrics import auroc
from ldm_privacy.types import AuditKey

KEY = AuditKey("sima", "all")
OTHERS = (AuditKey("loss", "all"), AuditKey("pia", "all"))
MASKED = AuditKey("loss", "top60")


def make_known(
    count=400,
    *,
    signal=0.5,
    noise=0.3,
    audits=2,
    timesteps=3,
    keys=(KEY, *OTHERS, MASKED),
    slope=0.0,
    shift=0.0,
    place=1,
    seed=0,
):
    """Level = difficulty + noise, and `signal` for members in this audit alone, not in earlier ones and not in the reference;
    the first half of a shuffle chooses.

    Difficulty has a standard deviation of 1; `slope` times a further part of it, of standard deviation 1, is the image's
    complexity, which is larger by `shift` for members.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    is_member, chooses = (torch.randperm(count, generator=generator) < count // 2 for _ in range(2))
    complexity, difficulty = normal(count) + shift * is_member, normal(count)
    hard = difficulty + slope * complexity
    now = {key: hard + noise * normal(timesteps, count) + signal * is_member for key in keys}
    earlier = [{key: hard + noise * normal(count) for key in keys} for _ in range(audits)]
    reference = {key: hard + noise * normal(timesteps, count) for key in keys}
    return Known(KEY, place, now, dict.fromkeys(keys, place), earlier, complexity, is_member, chooses, reference)


def area(score, known):
    """AUROC of (samples,) on those that don't choose."""
    return float(auroc(score[~known.chooses], known.is_member[~known.chooses]))

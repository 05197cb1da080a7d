"""Runs any attack with any masks: draws the noise, batches the denoiser passes, masks and sums."""

import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import TypedDict, Unpack

import torch
from torch import Tensor

from ldm_privacy import randomness
from ldm_privacy.attacks.base import Attack, UnmaskableAttack
from ldm_privacy.attacks.query import DenoiserQuery
from ldm_privacy.device import memory_budget as device_budget
from ldm_privacy.device import passes
from ldm_privacy.errors import UserError
from ldm_privacy.models.predictor import rows_per_pass
from ldm_privacy.types import Condition, Contribution, KeepMask, Latent, NoisePredictor, Statistic, check_shape, rows_of

_WORKING_BYTES = 64
"""Bytes per number of noise, state, prediction and contribution, with the temporaries of drawing the noise."""


class RunOptions(TypedDict, total=False):
    """How an attack is run.

    Attributes:
        condition: Name -> (batch, ...), passed on to the predictor; none by default.
        views: Other conditions of the same samples by name, for attacks that query under them; none by default.
        sample_index: (batch,) int, the samples' numbers in the data source; 0, 1, ... by default. Noise belongs to it.
        seed: Of the noise; 0 by default.
        noise: Used instead of drawn noise: (timesteps, *latent.shape) for attacks with one draw,
            (draws, timesteps, *latent.shape) for attacks with more. Attacks without draws don't look at it.
        memory_budget: Bytes; by default `device.memory_budget`, 256 MiB on CPU, 4 GiB on a GPU. Half is for the tensors of the
            attack, half for the activations of a network pass, see `models.predictor.rows_per_pass`.
        autocast: A reduced precision for the network passes, `torch.bfloat16` for example, on a GPU only. The attack's own
            arithmetic stays in the latent's dtype, sums in float64. On an untrained small UNet, measured with CPU autocast,
            bfloat16 moved predictions by 1 % (root mean square) from float32, statistics of SimA by 0.3 %, Loss 0.04 %, SecMI
            1-3 %, PIA 4 % at timesteps 10 and 100; PIA at timestep 0, a difference of nearly equal predictions, was rounding
            error alone.
    """

    condition: Condition | None
    views: Mapping[str, Condition] | None
    sample_index: Tensor | None
    seed: int
    noise: Tensor | None
    memory_budget: int | None
    autocast: torch.dtype | None


def attack_statistics(
    attack: Attack,
    predictor: NoisePredictor,
    latent: Latent,
    timesteps: Sequence[int],
    keep_masks: KeepMask,
    **options: Unpack[RunOptions],
) -> Statistic:
    """The raw statistics of an attack, before orientation: masked sums of its contributions.

    One denoiser pass per (sample, timestep, input) serves all masks; states of many samples and timesteps share a pass.
    A sample's numbers depend on the batch it comes in, its order and the budget only through float rounding.

    Args:
        attack: From `get_attack`, or your own.
        predictor: Called as `predictor(noisy_latent, timestep, condition)`, `timestep` an int64 tensor (batch,).
        latent: (batch, channels, height, width), clean, as the denoiser was trained on.
        timesteps: Of the schedule of `predictor.alphas_cumprod`. Attacks that give one number for all timesteps use their
            own instead.
        keep_masks: (masks, *latent.shape) bool, True = kept.
        options: See `RunOptions`.

    Returns:
        Tensor float64 (masks, timesteps, batch); the timestep axis has length 1 where the attack gives one number for all.
        Randomness: normal (or Rademacher) noise per (seed, sample index, timestep, draw), the same on every device to
        float32 rounding. Cost: `attack.num_queries(timesteps)` network passes per sample.

    Raises:
        UserError: A timestep that the schedule or the attack doesn't have, a mask asked of an attack that has none, a
            prediction that is not finite (sample and timestep are named), autocast on CPU.
        ValueError: Shapes or dtypes that don't fit together; the attack returns another shape.
    """
    return attack.combine(*masked_sums(attack, predictor, latent, timesteps, keep_masks, **options))


def masked_sums(
    attack: Attack,
    predictor: NoisePredictor,
    latent: Latent,
    timesteps: Sequence[int],
    keep_masks: KeepMask,
    **options: Unpack[RunOptions],
) -> tuple[Tensor, ...]:
    """The masked sum of each term of an attack, each float64 (masks, timesteps, batch): what `Attack.combine` gets.

    Arguments and errors as in `attack_statistics`. An attack that is no sum has one, its statistic.
    """
    with torch.no_grad():
        parts = [_sums(attack, *part) for part in _parts(attack, predictor, latent, timesteps, keep_masks, **options)]
        return tuple(torch.cat(sums, dim=-1) for sums in zip(*parts))


def mask_and_sum(contribution: Contribution, keep_masks: KeepMask) -> Statistic:
    """sum over dimensions of keep * contribution, in float64.

    (timesteps, batch, channels, height, width) and (masks, batch, channels, height, width) -> (masks, timesteps, batch).
    """
    by_sample = contribution.flatten(2).double().transpose(0, 1)
    kept = keep_masks.flatten(2).double().permute(1, 2, 0)
    return torch.bmm(by_sample, kept).permute(2, 1, 0)


def draw_noise(
    attack: Attack, latent: Latent, timesteps: Sequence[int], *, sample_index: Tensor | None = None, seed: int = 0
) -> Tensor:
    """The noise of those samples: a function of (seed, sample index, timestep, draw) alone.

    Like `latent`, (timesteps, *latent.shape) for one draw, (draws, timesteps, *latent.shape) for more, no numbers for none.
    Normal noise is the same for every attack.
    """
    if not attack.num_draws:
        return latent.new_empty(0)
    if sample_index is None:
        sample_index = torch.arange(len(latent))
    device = latent.device
    timestep = torch.tensor(timesteps, device=device)[:, None]
    draw = torch.arange(attack.num_draws, device=device)[:, None, None] if attack.num_draws > 1 else 0
    key = (seed, sample_index.to(device), timestep, draw)
    if attack.noise_distribution == "rademacher":
        return randomness.rademacher("signs", key, latent.shape[1:], device).to(latent.dtype)
    return randomness.normal("noise", key, latent.shape[1:], device).to(latent.dtype)


_Arguments = tuple[DenoiserQuery, Latent, list[int], Tensor]
"""What an attack gets of some samples: the denoiser, latents, timesteps and noise."""


def _parts(
    attack: Attack,
    predictor: NoisePredictor,
    latent: Latent,
    timesteps: Sequence[int],
    keep_masks: KeepMask,
    *,
    condition: Condition | None = None,
    views: Mapping[str, Condition] | None = None,
    sample_index: Tensor | None = None,
    seed: int = 0,
    noise: Tensor | None = None,
    memory_budget: int | None = None,
    autocast: torch.dtype | None = None,
) -> Iterator[tuple[_Arguments, KeepMask]]:
    """The batch, checked, in parts of about equal size and bounded memory, each with its masks."""
    if keep_masks.dtype != torch.bool or keep_masks.shape[1:] != latent.shape or keep_masks.ndim != 5:
        raise ValueError(
            f"keep_masks must be a bool tensor (masks, {', '.join(map(str, latent.shape))}), "
            f"not {keep_masks.dtype} {tuple(keep_masks.shape)}"
        )
    if not len(latent):
        raise ValueError("no latents to attack")
    condition, views = condition or {}, views or {}
    sample_index = torch.arange(len(latent)) if sample_index is None else sample_index
    for each in ({"sample_index": sample_index}, condition, *views.values()):
        for name, value in each.items():
            if len(value) != len(latent):
                raise ValueError(f"{len(value)} entries of {name} for {len(latent)} latents")
    if autocast is not None and latent.device.type == "cpu":
        raise UserError(f"autocast to {autocast} is for a GPU: on CPU it is slower than float32. Leave it out.")
    grid = attack.grid([operator.index(timestep) for timestep in timesteps], len(predictor.alphas_cumprod))
    if not attack.num_draws:
        noise = None
    elif noise is not None:
        noise = _checked_noise(attack, noise, (len(grid), *latent.shape))
    if isinstance(attack, UnmaskableAttack) and not keep_masks.all():
        raise UserError(
            f"{type(attack).__name__} is no sum over latent dimensions, so it has no mask: "
            "give it keep-all masks only, or leave it out of the masked attacks."
        )
    budget = memory_budget or device_budget(latent.device)
    numbers = latent[0].numel()
    per_sample = _WORKING_BYTES * len(grid) * max(1, attack.num_draws) + 16 * len(keep_masks)
    samples_per_part = max(1, budget // 2 // (numbers * per_sample))
    keep_masks, sample_index = keep_masks.to(latent.device), sample_index.to(latent.device)
    for rows in passes(len(latent), samples_per_part):
        index = sample_index[rows]
        query = DenoiserQuery(
            predictor,
            index,
            condition=rows_of(condition, rows),
            views={view: rows_of(each, rows) for view, each in views.items()},
            rows_per_call=rows_per_pass(predictor, latent, budget),
            autocast=autocast,
        )
        if noise is None:
            drawn = draw_noise(attack, latent[rows], grid, sample_index=index, seed=seed)
        else:
            drawn = noise[..., rows, :, :, :].to(latent)
        yield (query.under(attack.view), latent[rows], grid, drawn), keep_masks[:, rows]


def _checked_noise(attack: Attack, noise: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Noise that was handed in, with an axis for draws where there are several; `shape` is that of one draw."""
    if attack.num_draws == 1 and noise.shape == (1, *shape):
        return noise[0]
    wanted = shape if attack.num_draws == 1 else (attack.num_draws, *shape)
    if noise.shape != wanted:
        raise ValueError(f"noise must be {wanted} for {attack!r}, not {tuple(noise.shape)}")
    return noise


def _sums(attack: Attack, arguments: _Arguments, keep_masks: KeepMask) -> list[Tensor]:
    """The masked sum of each term over some samples, (masks, timesteps, samples)."""
    _, latent, timesteps, _ = arguments
    num_timesteps = len(timesteps) if attack.per_timestep else 1
    if isinstance(attack, UnmaskableAttack):
        statistic = check_shape("statistic", attack.statistic(*arguments), (num_timesteps, len(latent)))
        return [statistic.double().expand(len(keep_masks), -1, -1)]
    terms = attack.contributions(*arguments)
    terms = terms if isinstance(terms, tuple | list) else (terms,)
    shape = (num_timesteps, *latent.shape)
    return [mask_and_sum(check_shape("contributions", term, shape), keep_masks) for term in terms]

"""What a target says of images: of the run's, read where it was kept, and of others."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ldm_privacy.attacks.base import Attack
from ldm_privacy.audit.audit import Audit
from ldm_privacy.audit.calibrate import level
from ldm_privacy.audit.measure import Measuring
from ldm_privacy.audit.oriented import oriented
from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.data.images import to_float, to_uint8
from ldm_privacy.device import explain_out_of_memory, lower_memory
from ldm_privacy.errors import UserError
from ldm_privacy.evidence.suspect_score import Levels
from ldm_privacy.geometry.estimate import SetInfluenceEstimator
from ldm_privacy.models.predictor import rows_per_pass
from ldm_privacy.recipes.setup import Setup
from ldm_privacy.runs.folder import RunFolder
from ldm_privacy.runs.history import ScoreHistory
from ldm_privacy.sampling import generate_images
from ldm_privacy.targets.target import Target
from ldm_privacy.types import AuditKey, Condition, Image

NUM_GENERATED = 256
NUM_STEPS = (50, 20)
"""Of each half of the generations; the second half is guided where there is a null condition."""
GUIDANCE_SCALE = 3.0


def candidates(setup: Setup, target: Target) -> list[AuditKey]:
    """Attacks and masks that mean the same for an image whatever images it is among: a suspect is asked as a member was.

    Left out are attacks that fit something to labels or ask under parts of a caption, controls, and masks that look at a whole
    set of images. Raises UserError where none is left.
    """
    over_set = target.codec.network is None or isinstance(setup.influence, SetInfluenceEstimator)
    left_out = {"deviation", *(["influence"] if over_set else [])}
    masks = {
        label: rule
        for label, rule in setup.masks.items()
        if not getattr(rule, "is_control", False) and getattr(rule, "ranks_by", "influence") not in left_out
    }
    found = [
        AuditKey(label, mask)
        for label, attack in setup.attacks.items()
        for mask, rule in masks.items()
        if type(attack).calibrated is Attack.calibrated
        and {*attack.views} <= ({"null"} if setup.condition.null() else set())
        and (attack.maskable or rule.keep_fraction == 1.0)
    ]
    if not found:
        raise UserError("audit.attacks: none of them scores an image by itself; add audit.attacks.sima.class=sima.")
    return found


def run_levels(
    setup: Setup, target: Target, samples: AuditedSamples, keys: Sequence[AuditKey], run: RunFolder, epoch: int | None
) -> tuple[Levels, bool]:
    """Of the run's images, and whether they were kept: by the run's own audit at that epoch; audited now otherwise."""
    history = ScoreHistory(run.scores, setup.provenance)
    kept = history.at(epoch, keys=keys) if epoch is not None and epoch in history.audits else None
    index = samples.sample_index.cpu()
    if kept is None or not {*keys} <= {*kept.scores} or not kept.has(index) or target.reference is not None:
        return levels_of(setup, target, samples, keys, "Audit of the run's images"), False
    kept = kept.at(index)
    now = {key: level(kept.scores[key][0].double(), setup.attacks[key.attack].log_scale) for key in keys}
    return Levels(now, kept.timesteps, samples.complexity), True


def levels_of(setup: Setup, target: Target, samples: AuditedSamples, keys: Sequence[AuditKey], words: str) -> Levels:
    """Of any images, by these attacks and masks at every timestep of the audit; the same passes of a reference, if any."""
    attacks = {label: setup.attacks[label] for label in dict.fromkeys(key.attack for key in keys)}
    masks = {label: setup.masks[label] for label in dict.fromkeys(key.mask for key in keys)}
    autocast = torch.bfloat16 if setup.config.audit.precision == "bfloat16" else None
    audit = Audit(samples, attacks, masks, setup.timesteps, autocast=autocast, seed=setup.config.seed)
    found: list[dict[AuditKey, Tensor]] = []
    for predictor in (target.predictor, target.reference):
        if predictor is None:
            continue
        with setup.progress(words if predictor is target.predictor else f"{words}, by the reference", len(samples)) as done:
            collected = audit.collect(predictor, done)
        found.append({})
        for key in keys:
            attack, place = attacks[key.attack], audit.masks_of(key.attack).index(key.mask)
            terms, everyone = [term[place] for term in collected.sums[key.attack]], torch.ones_like(collected.is_member)
            found[-1][key] = level(oriented(attack, terms, collected.is_member, [everyone])[0].double(), attack.log_scale)
    timesteps = {label: list(setup.timesteps) if attack.per_timestep else [] for label, attack in attacks.items()}
    return Levels(found[0], timesteps, samples.complexity, found[1] if len(found) > 1 else {})


def measured(
    setup: Setup, target: Target, pixels: Tensor, condition: Condition, key: AuditKey, *, first: int
) -> AuditedSamples:
    """Images from elsewhere as samples, measured as the run's are; on the device, held-out by name.

    Args:
        setup, target: Of the run.
        pixels: uint8, (images, channels, resolution, resolution).
        condition: What the target is told of them.
        key: Attack and mask that they are asked by; influence is measured where the mask goes by it.
        first: Their first sample index: no image of the run has it, so that their noise is their own.
    """
    index, null = torch.arange(first, first + len(pixels)), setup.condition.null()

    def images(index: Tensor) -> Image:
        return to_float(pixels[index.cpu() - first])

    measuring = Measuring(target.codec.to(setup.device), images, "", None, setup.device, setup.progress)
    by_influence = getattr(setup.masks[key.mask], "ranks_by", "influence") == "influence"
    return measuring.samples(
        index,
        measuring.means(index),
        torch.zeros(len(index), dtype=torch.bool),
        condition=condition,
        views={"null": repeated(null, len(index))} if null else {},
        influence=setup.influence if by_influence else None,
    )


def generations(setup: Setup, target: Target, samples: AuditedSamples) -> tuple[Tensor, Condition]:
    """`NUM_GENERATED` images of the target as files would hold them, uint8, and what each was told: what the run's images are.

    Half of them in more steps, half in fewer and guided where there is a null condition.
    """
    count, null, pixels = NUM_GENERATED // len(NUM_STEPS), setup.condition.null(), []
    with (
        setup.progress("Generating images", NUM_GENERATED) as done,
        explain_out_of_memory(lambda: f"while images are generated: {lower_memory(setup.device)}."),
    ):
        for place, num_steps in enumerate(NUM_STEPS):
            images = generate_images(
                target.predictor,
                target.codec.decode,
                samples.latent.shape[1:],
                num_images=count,
                num_steps=num_steps,
                condition=samples.condition,
                null={name: value.to(setup.device) for name, value in null.items()},
                guidance_scale=GUIDANCE_SCALE if null and place else None,
                seed=setup.config.seed + place,
                batch_size=rows_per_pass(target.predictor, samples.latent),
                device=setup.device,
                progress=lambda number, before=place * count: done(before + number),  # type: ignore[misc]
            )
            pixels.append(to_uint8(images).cpu())
    rows = torch.arange(count).repeat(len(NUM_STEPS)) % len(samples)
    return torch.cat(pixels), {name: value.cpu()[rows] for name, value in samples.condition.items()}


def repeated(condition: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """A condition of one row for so many images."""
    return {name: value.expand(count, *value.shape[1:]) for name, value in condition.items()}

"""What an audit is asked for, checked before any pass."""

import re
from collections.abc import Collection, Mapping, Sequence

from ldm_privacy.attacks.base import Attack
from ldm_privacy.audit.samples import AuditedSamples, MaskRule
from ldm_privacy.audit.scores import TUNED
from ldm_privacy.diffusion import PredictionType, flow_timestep
from ldm_privacy.errors import UserError, under
from ldm_privacy.geometry.masks import num_kept


def check_labels(attacks: Collection[str], masks: Collection[str], calibrations: Collection[str]) -> None:
    """Raise UserError for a label that is taken (`tuned`) or can't be part of a series' or a file's name."""
    if TUNED in masks:
        raise UserError(f"audit.masks: the label '{TUNED}' is taken by the keep fraction of audit.keep_fractions.")
    for section, labels in (("attacks", attacks), ("masks", masks), ("calibrations", calibrations)):
        if wrong := next((label for label in labels if not re.fullmatch(r"[\w.+-]+", label)), None):
            raise UserError(
                f"audit.{section}: the label '{wrong}' names files and curves: use letters, digits, '_', '.', '+' and '-'."
            )


def audited_timesteps(
    timesteps: Sequence[int] | None, sigmas: Sequence[float] | None, prediction_type: PredictionType, num_train_timesteps: int
) -> list[int]:
    """The timesteps that `audit.timesteps` or, of a flow, `audit.sigmas` name; two sigmas with one timestep count once.

    Raises UserError where both are given or neither, sigmas are given for no flow, or a timestep lies outside the schedule.
    """
    if timesteps is not None and sigmas is not None:
        raise UserError("audit.sigmas: audit.timesteps is given too; set the one that you don't mean to null.")
    if sigmas is not None and prediction_type != "flow":
        raise UserError(f"audit.sigmas: they are of flows; this denoiser predicts {prediction_type}, so name audit.timesteps.")
    if not (timesteps or sigmas):
        raise UserError("audit.timesteps: empty; name at least one timestep, or of a flow audit.sigmas.")
    if wrong := [timestep for timestep in timesteps or () if timestep >= num_train_timesteps]:
        raise UserError(f"audit.timesteps: {wrong[0]} is outside the noise schedule, 0 to {num_train_timesteps - 1}.")
    return list(dict.fromkeys(timesteps or [flow_timestep(each, num_train_timesteps) for each in sigmas or ()]))


def check_masks(masks: Mapping[str, MaskRule], samples: AuditedSamples) -> None:
    """Raise UserError for a mask by influence where there is none, or one that keeps no dimension."""
    if samples.influence is None:
        refuse_influence(masks)
    for label, rule in masks.items():
        try:
            samples.rows(slice(1)).keep(rule)
        except UserError as error:
            raise UserError(under(f"audit.masks.{label}", str(error), ("keep_fraction",))) from None


def check_masked(masks_of: Mapping[str, Collection[str]]) -> None:
    """Raise UserError for an attack, by label, that goes with no mask."""
    if alone := [label for label, masks in masks_of.items() if not masks]:
        raise UserError(f"audit.masks: the attack '{alone[0]}' has no mask: add one that keeps everything, such as all.")


def check_keep_fractions(fractions: Sequence[float], samples: AuditedSamples) -> None:
    """Raise UserError for a keep fraction of the sweep that keeps no dimension."""
    try:
        for fraction in fractions:
            num_kept(samples.latent.shape[1:].numel(), fraction)
    except UserError as error:
        raise UserError(f"audit.keep_fractions: {str(error).removeprefix('keep_fraction: ')}") from None


def refuse_influence(masks: Mapping[str, MaskRule]) -> None:
    """Raise UserError for a mask by influence."""
    for label, rule in masks.items():
        if getattr(rule, "ranks_by", "influence") == "influence":
            raise UserError(
                f"audit.masks.{label}: ranks by influence, but there is none: the codec has no decoder, or it wasn't "
                f"measured. Take it out: audit.masks.{label}=null; the masks all, random and deviation work."
            )


def check_views(attacks: Mapping[str, Attack], views: Sequence[str], samples: AuditedSamples) -> None:
    """Raise UserError where a view, or a condition that an attack asks for, is none that the samples have."""
    known = f"what they have is {', '.join(samples.views)}" if samples.views else "they have none: set denoiser.condition"
    for view in views:
        if view not in samples.views:
            raise UserError(f"audit.views: there is no '{view}' condition of the audited samples ({known}); take it out.")
    for label, attack in attacks.items():
        if lacking := [view for view in attack.views if view not in samples.views]:
            raise UserError(
                f"audit.attacks.{label}: it asks for the condition '{lacking[0]}' of the audited samples ({known}); take it "
                f"out with audit.attacks.{label}=null."
            )

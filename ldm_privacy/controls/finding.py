"""What a control may look at, and what it finds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.controls.image_features import image_features
from ldm_privacy.controls.thumbnails import thumbnail_features
from ldm_privacy.device import ahead, give_back, passes, rows_within
from ldm_privacy.errors import UserError
from ldm_privacy.metrics import auroc_interval
from ldm_privacy.plugins import blamed_on
from ldm_privacy.registry import CONTROLS
from ldm_privacy.types import Done, Estimate, Images, Intervals, MembershipScore, check_shape

WITHOUT_DENOISER = "without the denoiser"
WITHOUT_MODEL = "without any model"
WITHOUT_TARGET = "without the target"
REFERENCE_ALONE = "the reference alone"
_IMAGES_AT_ONCE = 32
_COPIES = 8
"""Of an image, while its features are computed."""


@dataclass(frozen=True, eq=False)
class Case:
    """What a control may look at: everything but the denoiser that is audited.

    Attributes:
        samples: All audited samples, on the CPU.
        images: Of them.
        intervals: How they are made.
        seed: Of folds and draws.
        reference: What attacks score on the reference alone, by name, (samples,) each, higher = member; none without one.
    """

    samples: AuditedSamples
    images: Images
    intervals: Intervals = Intervals()
    seed: int = 0
    reference: Mapping[str, MembershipScore] = field(default_factory=dict)

    @property
    def features(self) -> dict[str, Tensor]:
        """`image_features` of all images. Raises UserError where one is not finite."""
        return self._seen[0]

    @property
    def thumbnails(self) -> Tensor:
        """`thumbnail_features` of all images."""
        return self._seen[1]

    @cached_property
    def _seen(self) -> tuple[dict[str, Tensor], Tensor]:
        """Both from one reading of the images."""
        names: list[str] = []
        features, thumbnails = [], []
        chunks = self.samples.sample_index.split(_IMAGES_AT_ONCE)
        for chunk, pixels in zip(chunks, ahead(self.images, chunks)):
            finite = pixels.isfinite().flatten(1).all(dim=1)
            if not finite.all():
                raise UserError(
                    f"the image of sample {int(chunk[~finite][0])} is not finite; mend it or take it out of the data."
                )
            for rows in passes(len(pixels), rows_within(4 * _COPIES * pixels.shape[1:].numel(), pixels.device)):
                found = image_features(pixels[rows])
                names = list(found)
                # One tensor of all: the head of a tensor takes more than the number of a row or two.
                features.append(torch.stack([*found.values()], dim=1))
                thumbnails.append(thumbnail_features(pixels[rows]))
        return dict(zip(names, torch.cat(features).unbind(1))), torch.cat(thumbnails)


class Pair(NamedTuple):
    """Sample indices of two images that are shown side by side."""

    member: int
    heldout: int
    caption: str


@dataclass(frozen=True, eq=False)
class Finding:
    """What a control found.

    Attributes:
        name: In words: "latent norm".
        looks_at: In words: `WITHOUT_DENOISER`, `WITHOUT_MODEL` or `WITHOUT_TARGET`.
        sentence: What was found. Findings that share one say it once.
        meaning: What it means where the score tells the sides apart; of findings that leave `estimate` out.
        score: (samples,), higher = member, NaN where a sample has none. The primary attack is compared with it.
        estimate: AUROC of the score. Where it is left out, `run_controls` fills it in, with a sentence.
        is_telling: Whether it tells the sides apart.
        leaks: It makes the verdict "the split leaks": attack numbers up to `level` measure the split.
        is_learned: The score is a classifier's that learned on other samples which side is which: below 0.5 it was wrong by
            chance, and nobody reaches more by turning it round.
        is_missing: It can't be computed here; the sentence says why.
        pairs: To be shown, the most telling first.
        numbers: More for metrics.json.
    """

    name: str
    looks_at: str
    sentence: str = ""
    meaning: str = "this score tells the sides apart"
    score: MembershipScore | None = None
    estimate: Estimate | None = None
    is_telling: bool = False
    leaks: bool = False
    is_learned: bool = False
    is_missing: bool = False
    pairs: tuple[Pair, ...] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)

    @property
    def level(self) -> Estimate | None:
        """The estimate; of the score turned round where it surely lies below 0.5, unless it was learned."""
        area = self.estimate
        if area is None or area.upper >= 0.5 or self.is_learned:
            return area
        return Estimate(1 - area.value, 1 - area.upper, 1 - area.lower)


def run_controls(case: Case, progress: Done = lambda done, total=None: None) -> dict[str, Finding]:
    """What every registered control finds, by the finding's name. No denoiser passes; the images are read once.

    Raises:
        UserError: An image or a score is not finite.
        ValueError: Two findings have the same name.
    """
    findings: list[Finding] = []
    for done, name in enumerate(CONTROLS, start=1):
        findings += findings_of(name, case)
        give_back()
        progress(done)
    named = {each.name: each for each in hold_together(findings, case)}
    if len(named) < len(findings):
        raise ValueError(f"two controls found something of the same name: {[each.name for each in findings]}")
    return named


def findings_of(name: str, case: Case) -> list[Finding]:
    """What the control registered under that name finds. Raises TypeError or ValueError where it returns something else."""
    control = CONTROLS.get(name)
    with blamed_on(control):
        found = control(case)
        findings = [found] if isinstance(found, Finding) else [*(found or ())]
        for each in findings:
            if not isinstance(each, Finding):
                raise TypeError(f"it returns {type(each).__name__}, not a Finding")
            if each.score is not None:
                check_shape("score", each.score, case.samples.is_member.shape)
    return findings


def hold_together(findings: Sequence[Finding], case: Case) -> list[Finding]:
    """The same with an AUROC and a sentence for each score that has none yet; one below 0.5 tells as much as one above.

    Intervals of the scores that look at the same hold together (Bonferroni): each of k has confidence 1 - (1 - confidence) / k.
    """
    filled: dict[str, Finding] = {}
    plain = [each for each in findings if each.score is not None and each.estimate is None]
    for looks_at in dict.fromkeys(each.looks_at for each in plain):
        family = [each for each in plain if each.looks_at == looks_at]
        confidence = 1 - (1 - case.intervals.confidence) / len(family)
        options = replace(case.intervals, confidence=confidence).options(case.samples.group)
        areas = {each.name: auroc_interval(torch.as_tensor(each.score), case.samples.is_member, **options) for each in family}
        sentence = _told(family, areas)
        for each in family:
            area = areas[each.name]
            filled[each.name] = replace(each, estimate=area, is_telling=area.leaves_out(0.5), sentence=sentence)
    return [filled.get(each.name, each) for each in findings]


def _told(family: Sequence[Finding], areas: Mapping[str, Estimate]) -> str:
    """Which scores, all looking at the same, tell members from held-out, and what that means, in plain words."""
    looks_at = family[0].looks_at
    telling = [f"{each.name} has AUROC {area}: {each.meaning}" for each in family if (area := areas[each.name]).leaves_out(0.5)]
    if telling:
        return (
            f"Members can be told from held-out {looks_at}: {'; '.join(telling)}. Attack numbers are to be read against this."
        )
    *most, last = areas
    reached = max(max(area.upper, 1 - area.lower) for area in areas.values())
    return (
        f"{looks_at.capitalize()} no difference was found: the intervals of {', '.join(most)}{' and ' * bool(most)}{last} "
        f"include 0.5; up to {reached:.3f} can't be excluded."
    )

"""Was this set of images in the training data? A test of the set, and what else could explain that it scores high."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats
from torch import Tensor

from ldm_privacy.controls.model_free import classify
from ldm_privacy.evidence.dataset import false_alarms_of, set_sizes
from ldm_privacy.evidence.own_generations import OwnGenerations, own_generations
from ldm_privacy.evidence.suspect_copies import MIN_IMAGES, Copies
from ldm_privacy.evidence.suspect_score import Levels, ScoreChoice, scores_under
from ldm_privacy.metrics import PValueAtSize, WelchVerdict, p_value_by_set_size, welch_verdict
from ldm_privacy.randomness import derive_seed
from ldm_privacy.types import Estimate, MembershipScore

NUM_PERMUTATIONS = 1999
SuspectAnswer = Literal["yes", "no", "differs", "generated"]


@dataclass(frozen=True, eq=False)
class SuspectImages:
    """Every image that is looked at, one row each: the run's, then the suspects, then generations of the target.

    Attributes:
        is_member, is_heldout, is_suspect, is_generated: (images,) bool; each image is of one part. Images of the run that are
            among the suspects are of neither side.
        chooses: (images,) bool: members and held-out images that chose the score. The other held-out ones are compared with.
        group: (images,) labels of the run's groups; None where it has none. Every suspect is a group of its own.
        features: `image_features` of all.
        seen: Name -> (images,), what the model says of each.
    """

    is_member: Tensor
    is_heldout: Tensor
    is_suspect: Tensor
    is_generated: Tensor
    chooses: Tensor
    group: Tensor | None
    features: Mapping[str, Tensor]
    seen: Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class SuspectVerdict:
    """The answer and the numbers behind it.

    Attributes:
        answer: By `answer_of`.
        choice: The score.
        scores: By part ("suspects", "heldout", "members", "generations"): what was tested, compared with, and shown beside it.
        test: One-sided Welch test of the suspects against the held-out images that chose nothing.
        p_permuted: Of the same difference under permuted labels, exact at any size; None where the run has groups.
        by_size: The p-value of random parts of the suspects.
        power: The same of members that chose nothing: how large a set of members would have been found.
        false_alarms: By size, the share of sets of held-out images that the same test takes for members.
        blind: AUROC of telling the suspects from held-out images without any model, the better of two classifiers.
        causes: The features that these differ in most.
        generated: The comparison with the target's own generations.
        copies: What is known without any model.
        level: Of the tests.
    """

    answer: SuspectAnswer
    choice: ScoreChoice
    scores: Mapping[str, MembershipScore]
    test: WelchVerdict
    p_permuted: float | None
    by_size: Sequence[PValueAtSize]
    power: Sequence[PValueAtSize]
    false_alarms: Mapping[int, float]
    blind: Estimate
    causes: Sequence[str]
    generated: OwnGenerations
    copies: Copies
    level: float

    @property
    def p_value(self) -> float:
        """The larger of both: small sets of skewed scores don't obey Welch's law."""
        return max(self.test.p_value, self.p_permuted or 0.0)

    @property
    def has_near_members(self) -> bool:
        """Whether members have near-duplicates in the set more often than held-out images have, at the level of the test."""
        return self.copies.p_value <= self.level

    @property
    def is_of_record(self) -> bool:
        """Whether the answer is yes because images of members, or near-duplicates of them, are in the set."""
        return self.answer == "yes" and (self.copies.of_members > 0 or self.has_near_members)

    def power_at(self, size: int) -> float:
        """How often a set of so many members of such scores is found: by the normal law, against these held-out images."""
        gap, member, heldout = self._gap
        return float(stats.norm.cdf(gap / np.sqrt(member / size + heldout) - stats.norm.isf(self.level)))

    def size_found(self, share: float) -> int | None:
        """The least size of which that share of sets of members is found, `MIN_IMAGES` or more; None where none is so large."""
        gap, member, heldout = self._gap
        room = (gap / (stats.norm.isf(self.level) + stats.norm.ppf(share))) ** 2 - heldout
        return max(MIN_IMAGES, math.ceil(member / room)) if gap > 0 and room > 0 else None

    @property
    def _gap(self) -> tuple[float, float, float]:
        """Means of members minus held-out images; variance of a member's score, and of the held-out images' mean."""
        members, heldout = (self.scores[name].double() for name in ("members", "heldout"))
        gap, spread = float(members.mean() - heldout.mean()), float(heldout.var()) / self.test.num_heldout
        return gap, float(members.var()), spread


def suspect_verdict(
    levels: Levels, choice: ScoreChoice, images: SuspectImages, copies: Copies, *, confidence: float = 0.95, seed: int = 0
) -> SuspectVerdict:
    """The verdict on the suspects. No network passes.

    Args:
        levels: Of all images.
        choice: By members and held-out images that choose.
        images, copies: See there.
        confidence: Of each interval; 1 - confidence is the level of the tests.
        seed: Of folds, permutations and random subsets.

    Raises:
        UserError: As `welch_verdict`.
    """
    score = scores_under(choice, levels, images.is_member, images.chooses)
    reports, level = ~images.chooses, round(1 - confidence, 12)
    sides = {"suspects": images.is_suspect, "heldout": images.is_heldout & reports}
    sides |= {"members": images.is_member & reports, "generations": images.is_generated}
    scores = {name: score[side] for name, side in sides.items()}
    suspects, heldout, members = scores["suspects"], scores["heldout"], scores["members"]
    group = None if images.group is None else images.group[sides["heldout"]]
    groups: dict[str, Any] = {} if group is None else {"heldout_group": group}
    test = welch_verdict(suspects, heldout, confidence=confidence, **groups)
    sized: dict[str, Any] = {"alpha": level, "seed": seed, **groups}
    told = blind_classifiers(images, confidence=confidence, seed=seed)
    generated = own_generations(
        images.seen,
        images.features,
        is_member=images.is_member,
        is_heldout=images.is_heldout,
        is_suspect=images.is_suspect,
        is_generated=images.is_generated,
        chooses=images.chooses,
        blind=told[0],
        confidence=confidence,
        seed=seed,
    )
    p_permuted = None if groups else permuted_p_value(suspects, heldout, seed=seed)
    return SuspectVerdict(
        answer=answer_of(max(test.p_value, p_permuted or 0.0), told[0], generated, copies, level=level),
        choice=choice,
        scores=scores,
        test=test,
        p_permuted=p_permuted,
        by_size=p_value_by_set_size(suspects, heldout, set_sizes(len(suspects)), **sized),
        power=p_value_by_set_size(members, heldout, set_sizes(len(members)), **sized),
        false_alarms=false_alarms_of(heldout, group, set_sizes(len(heldout)), level, seed),
        blind=told[0],
        causes=told[1],
        generated=generated,
        copies=copies,
        level=level,
    )


def answer_of(p_value: float, blind: Estimate, generated: OwnGenerations, copies: Copies, *, level: float) -> SuspectAnswer:
    """One of four, by fixed rules: what the run's record says, then what could explain a high score, then the score.

    * yes: images of members are among them pixel by pixel, whatever the model shows.
    * generated: the images pass for the model's own generations, which score as members whatever it was trained on.
    * yes: members have a near-duplicate among them more often than held-out images have. Images of another kind have none of
      either, and images of a kind that is common have both; but generations are nearer to members, so they come before.
    * differs: a classifier tells them from held-out images without any model; then scores differ for that alone.
    * yes: neither, and the set scores above held-out images at that level.
    * no: none of these.
    """
    if copies.of_members:
        return "yes"
    if generated.are_likely:
        return "generated"
    if copies.p_value <= level:
        return "yes"
    if blind.lower > 0.5:
        return "differs"
    return "yes" if p_value <= level else "no"


def blind_classifiers(images: SuspectImages, *, confidence: float, seed: int) -> tuple[Estimate, list[str]]:
    """How well the suspects are told from all held-out images without any model, and by which features; see `classify`."""
    both = images.is_suspect | images.is_heldout
    group = None if images.group is None else images.group[both]
    features = {name: value[both] for name, value in images.features.items()}
    found = classify(features, images.is_suspect[both], group=group, confidence=confidence, seed=seed)
    best = max((each.estimate for each in found if each.estimate is not None), key=lambda each: each.lower)
    return best, found[0].numbers["deciding_features"]


def permuted_p_value(suspects: Tensor, heldout: Tensor, *, num_permutations: int = NUM_PERMUTATIONS, seed: int = 0) -> float:
    """Of the difference of means, when it is chance which images are suspected: (1 + at least as large ones) / (1 + all).

    Exact at any size and for any law of the scores, so at most alpha of sets of held-out images have a p-value below alpha.
    """
    generator = np.random.default_rng(derive_seed("suspect set", seed))
    both = np.concatenate([suspects.double().numpy(), heldout.double().numpy()])
    both, count = both - both.mean(), len(suspects)
    found = both[:count].sum()
    drawn = np.array([generator.permutation(both)[:count].sum() for _ in range(num_permutations)])
    return float((1 + (drawn >= found - 1e-12 * np.abs(both).sum()).sum()) / (1 + num_permutations))

"""The verdict in three sentences: who is exposed, how sure that is, what it means.

A further one of conditional denoisers: why; where coins decided who is a member, or a proof speaks of it: how large epsilon is.
"""

from collections.abc import Iterable
from typing import NamedTuple

from ldm_privacy.controls.finding import WITHOUT_MODEL, WITHOUT_TARGET, Finding
from ldm_privacy.evidence.conditions import said_of_conditions
from ldm_privacy.evidence.epsilon import said_of_epsilon
from ldm_privacy.evidence.gather import Evidence
from ldm_privacy.metrics import holm
from ldm_privacy.types import Estimate, Tone

RULED_OUT = 0.6
"""A verdict of "safe" needs an interval that ends below this AUROC: it rules out more than a weak attack, not every attack."""

RULED_OUT_TPR = 0.1
"""It also needs the share of members found at the carried-over threshold to be surely below this."""

LABELS: dict[Tone, str] = {
    "leak": "The split leaks",
    "exposed": "Members are exposed",
    "safe": "No exposure found",
    "unclear": "Undecided",
}
ADVICE = "Treat the checkpoint like the data it was trained on, or take an earlier one."
SAFE = "Audit again when the model is trained further."


class Verdict(NamedTuple):
    """An answer in a few sentences, its tone, and the same in two or three words: colour never speaks alone."""

    sentences: tuple[str, ...]
    tone: Tone
    label: str


class VerdictParts(NamedTuple):
    """What a verdict is made of.

    Attributes:
        found: What the attack finds, in numbers.
        sure: How sure that is: permuted labels, controls.
        meaning: What that means.
        advice: What to do.
        further: Why, of conditional denoisers; how large epsilon is.
        tone: Of the whole.
    """

    found: str
    sure: str
    meaning: str
    advice: str
    further: tuple[str, ...]
    tone: Tone


def verdict_of(evidence: Evidence) -> Verdict:
    """`parts_of` in three sentences or more."""
    parts = parts_of(evidence)
    label = LABELS[parts.tone]
    sentences = (f"{label}: {parts.found}", parts.sure, f"{parts.meaning} {parts.advice}", *parts.further)
    return Verdict(sentences, parts.tone, label)


def parts_of(evidence: Evidence) -> VerdictParts:
    """What the evidence says, by fixed rules.

    * leak: a control tells the two image sets apart without any model; attack numbers up to its level are no evidence.
    * exposed: the AUROC of the insider's scores lies above 0.5, interval and permuted labels agreeing; or any row of the
      audit stands out with all rows tested together (Holm). Two tests: where nothing is to be found one of them says so in at
      most twice 1 - confidence.
    * safe: neither, the interval of that AUROC lies between 1 - `RULED_OUT` and `RULED_OUT` (an attack that is certain the
      wrong way round tells the sides apart as well), and the carried-over threshold finds surely less than `RULED_OUT_TPR` of
      the members: a few wholly exposed members hardly move an AUROC. The outsider's scores and the plain attack must hold both
      as well: a calibration that was fitted to little may lose what they find.
    * unclear: none of these.
    """
    report, key, exposure = evidence.report, evidence.insider, evidence.exposure
    row, band, alpha = report.row(key), evidence.permuted[key].band, 1 - report.confidence
    area, tpr, rates = row.metrics.auroc, row.metrics.tpr_at_fpr[0], row.carried[0]
    adjusted = dict(zip(evidence.permuted, holm([each.p_normal for each in evidence.permuted.values()])))
    others = [each for each, p in adjusted.items() if each != key and p <= alpha and report.row(each).metrics.auroc.lower > 0.5]
    is_certain = area.lower > 0.5 and band.p_value <= alpha
    levels = [0.5 if each.level is None else each.level.value for each in evidence.findings.values() if each.leaks]
    forms = [report.row(each) for each in {key, evidence.outsider, evidence.key}]
    possible = max(end for each in forms for end in (each.metrics.auroc.upper, 1 - each.metrics.auroc.lower))
    findable = max(each.carried[0].tpr.upper for each in forms)
    above = f"{exposure.num_above_all} of {len(exposure.sample_index)} members score above every held-out image of their half"
    found, advice = f"{key} has", ADVICE
    tone: Tone
    if levels:
        tone = "leak"
        meaning = (
            f"The two image sets differ by themselves: attack numbers up to about {max(levels):.3f} measure the split, not the "
            "model."
        )
        advice = (
            "Draw the split at random and audit again; if it was, this is chance, which is likelier the fewer images or groups "
            "there are: audit more of them, or take another data.seed."
        )
    elif is_certain:
        tone, found = "exposed", f"{key} tells them from held-out images with"
        meaning = f"Who has an image can learn whether it was in the training set; {above}."
        if (single := row.by_repeats.get("single")) is not None and not single.lower > 0.5:
            meaning = "What is told apart are the planted duplicates; the other members are not for certain."
        if area.value < RULED_OUT:
            meaning = f"The advantage is small: the set as a whole is told apart, single images hardly ({above})."
    elif others:
        tone = "exposed"
        named = ", ".join(map(str, others[:3])) + (" and others" if len(others) > 3 else "")
        verb = "stands" if len(others) == 1 else "stand"
        best = max(others, key=lambda each: report.row(each).metrics.auroc.lower)
        found = (
            f"{named} {verb} out with all rows tested together, up to AUROC {report.row(best).metrics.auroc}; {key}, on which "
            "the verdict rests first, has"
        )
        meaning = f"{key} alone is not certain."
    elif possible < RULED_OUT and findable < RULED_OUT_TPR:
        tone = "safe"
        meaning = (
            f"An AUROC of {possible:.3f} or more, and {findable:.1%} of the members found, are excluded for this attack on "
            "such images; not for stronger attacks or another training."
        )
        advice = SAFE
    elif area.upper < 0.5:
        tone = "unclear"
        meaning = "Held-out images score above members: the same scores turned round tell the sides apart."
        advice = "Find out why before this checkpoint is called safe."
    else:
        tone = "unclear"
        meaning = (
            f"Not enough to tell: an AUROC up to {possible:.3f}, or {findable:.1%} of the members found, can't be excluded."
        )
        advice = "Audit more images before this checkpoint is called safe."
    of = of_groups(report.data.num_groups(report.is_reporting))
    who = (
        f"{found} AUROC {area} ({row.metrics.num_members} members{of[0]}, {row.metrics.num_heldout} held-out{of[1]}; .5 is "
        f"guessing) and finds {rates.tpr.value:.1%} of the members at the threshold that was set for {tpr.target_fpr:.1%} "
        f"false positives ({rates.fpr.value:.1%} in fact)."
    )
    if row.by_repeats:
        assert report.data.repeats is not None
        names = {"repeated": "they have", "single": "the others alone"}
        apart = ", ".join(f"{names[group]} {area}" for group, area in row.by_repeats.items())
        who += f" {int((report.data.repeats > 1).sum())} of the members are planted duplicates: {apart}."
    references = {each: derived.reference for each, derived in report.data.derived.items() if derived.reference}
    if evidence.outsider != key:
        outsider = report.row(evidence.outsider).metrics.auroc
        alone = "and its reference" if evidence.outsider in references else "alone"
        who += f" That takes the run's checkpoints; with the model {alone} {evidence.outsider} reaches {outsider}."
    if compared := [str(each) for each in dict.fromkeys((key, evidence.outsider)) if each in references]:
        verb = "compares" if len(compared) == 1 else "compare"
        who += f" {' and '.join(compared)} {verb} the model with {evidence.reference}: the same image under the same noise."
    sure = (
        f"Under permuted labels the same procedure gives {band.lower:.3f} to {band.upper:.3f} (p = {band.p_value:.3g}); "
        f"{_controls(evidence)}"
    )
    told = said_of_conditions(report, key)
    bounded = said_of_epsilon(report, key, evidence.outsider, evidence.proven)
    return VerdictParts(who, sure, meaning, advice, (*([] if told is None else [told]), *bounded), tone)


def of_groups(counts: tuple[int, int] | None) -> tuple[str, str]:
    """Of how many groups members and held-out images are, as it stands after their number; "" without groups."""
    return ("", "") if counts is None else (f" of {counts[0]} groups", f" of {counts[1]} groups")


def _highest(findings: Iterable[Finding], looks_at: str) -> tuple[Finding, Estimate] | None:
    """The finding of that kind which surely reaches most, with its level; None where none has one."""
    levels = ((each, each.level) for each in findings if each.looks_at == looks_at)
    known = [(each, level) for each, level in levels if level is not None]
    return max(known, key=lambda item: item[1].lower, default=None)


def _controls(evidence: Evidence) -> str:
    findings = evidence.findings.values()
    blind = "there were too few samples for a classifier on the images alone"
    if found := _highest(findings, WITHOUT_MODEL):
        highest, best = found
        kind = "classifier" if highest.is_learned else "score"
        blind = f"a {kind} that sees the images and no model reaches {best} ({highest.name})"
    telling = [each.name for each in findings if each.is_telling and not each.leaks and each.looks_at != WITHOUT_TARGET]
    verb = "tells" if len(telling) == 1 else "tell"
    further = "further " if any(each.leaks for each in findings) else ""
    nothing = f"no {further}difference of the sides was found"
    alone = f"{' and '.join(telling)} already {verb} the sides apart" if telling else nothing
    known = ""
    if found := _highest(findings, WITHOUT_TARGET):
        highest, best = found
        told = f", so {highest.meaning}" if highest.is_telling else ""
        known = f"; {highest.name}, reaches {best}{told}"
    return f"{blind}; without the denoiser {alone}{known}."

"""Section: when images were memorized."""

from ldm_privacy.evidence.image_onset import ImageOnsets
from ldm_privacy.registry import SECTIONS
from ldm_privacy.report.evaluation import Evaluation
from ldm_privacy.report.page.blocks import Block, Paragraph, Section
from ldm_privacy.report.tables import short
from ldm_privacy.types import AuditKey

CAPTIONS = {
    "image_onset": "Above: the share of members with an onset so far, and of held-out images by the same rule. Below: how "
    "many members have theirs at each audit, and which; the most exposed first, as many as there is room for.",
    "early_list": "Who ends exposed was known how early: of each audit's list the share that ends exposed, and how many of "
    "those that do are on it.",
}


@SECTIONS.register("image_onset")
def image_onset(evaluation: Evaluation) -> Section | None:
    """How many images came to stand out and when, the images, how early the last list was known; None without a history."""
    onsets = evaluation.evidence.onsets
    if onsets is None:
        return None
    unit, (onset, early) = evaluation.unit, CAPTIONS.items()
    blocks: list[Block] = [
        *evaluation.pictures(dict([onset])),
        Paragraph(_from_the_start(onsets, unit)),
        *evaluation.pictures(dict([early])),
        Paragraph(_known_early(onsets, unit)),
        Paragraph(_rule(onsets, unit)),
    ]
    return Section("When images were memorized", _how_many(evaluation.evidence.exposure.key, onsets, unit), blocks, place=7)


def _how_many(key: AuditKey, onsets: ImageOnsets, unit: str) -> str:
    members, heldout = onsets.reached(onsets.is_member)[-1], onsets.reached(onsets.is_heldout)[-1]
    found = onsets.onset[onsets.is_member & (onsets.onset < len(onsets.times))]
    half = f", half of them by {unit} {onsets.time(int(found.median()))}" if len(found) else ""
    nothing = (
        "" if members.lower > heldout.upper else "; the two don't differ for certain, so no image is shown to be memorized"
    )
    of_members = f"{members.value:.0%} of the members ({len(found)} of {int(onsets.is_member.sum())})"
    return (
        f"By {unit} {onsets.times[-1]}, {of_members} had come to stand above {onsets.share:.0%} of the held-out images under "
        f"{key}{half}. By the same rule {heldout.value:.0%} of the held-out images do, which were never trained on{nothing}."
    )


def _from_the_start(onsets: ImageOnsets, unit: str) -> str:
    members, heldout = (onsets.reached(side)[0] for side in (onsets.is_member, onsets.is_heldout))
    return (
        f"At {unit} {onsets.times[0]}, the first audit, {short(members)} of the members and {short(heldout)} of the held-out "
        "images stand there already. As far as the two are alike these are images that any denoiser finds easy; what was "
        "memorized is what members have above held-out images."
    )


def _known_early(onsets: ImageOnsets, unit: str) -> str:
    exposed, num_audits = int((onsets.ends_exposed & onsets.is_member).sum()), f"the last {onsets.num_consecutive} audits"
    if not exposed:
        return f"No member stands there at {num_audits}: the list of exposed members ends empty."
    lists = zip(onsets.times, onsets.precision, onsets.recall)
    time, precision, recall = next((time, p, r) for time, p, r in lists if p is not None and r is not None and r.value >= 0.5)
    return (
        f"{exposed} of {int(onsets.is_member.sum())} members end exposed: they stand there at {num_audits}. The list of {unit} "
        f"{time} is the first with half of them ({short(recall)}); {short(precision)} of it was right."
    )


def _rule(onsets: ImageOnsets, unit: str) -> str:
    (independent, most), last = onsets.false_alarms, f"{unit} {onsets.times[-1]}"
    return (
        f"An image's onset is the first of {onsets.num_consecutive} audits in a row at which it stands above "
        f"{onsets.share:.0%} of the held-out images of its half; a held-out image is compared with the others. Were audits "
        f"independent of each other, {independent:.1%} of the images that were never seen would have an onset by {last}; "
        f"however they depend, {most:.0%} at most. exposed.csv has each member's onset, and the earliest and latest that the "
        f"number of held-out images leaves open ({onsets.confidence:.0%} at each audit)."
    )

"""Section: the training set as a whole."""

from ldm_privacy.evidence.gather import Evidence
from ldm_privacy.registry import SECTIONS
from ldm_privacy.report.evaluation import Evaluation
from ldm_privacy.report.page.blocks import Note, Paragraph, Section

CAPTIONS = {"p_value": "How fast a suspect set is told from held-out images as it grows."}


@SECTIONS.register("set")
def whole_set(evaluation: Evaluation) -> Section:
    """The Welch test of the members as a set, and how many members it takes."""
    blocks = (*_test(evaluation.evidence), *evaluation.pictures(CAPTIONS))
    return Section("The training set as a whole", "", blocks, place=60)


def _test(evidence: Evidence) -> list[Note] | list[Paragraph]:
    if evidence.dataset is None:
        return [Note("No test", f"{evidence.insider} gives every sample the same score: there is nothing to test.")]
    test, adjusted, false_alarms = evidence.dataset.test, evidence.dataset.adjusted, evidence.dataset.false_alarms
    units = "groups of " if evidence.report.data.group is not None else ""
    level = 1 - evidence.report.confidence
    # Twice the level leaves room for the error of the simulated shares.
    sound = [point for point in evidence.dataset.by_size if false_alarms.get(point.size, 1.0) <= 2 * level]
    enough = [point.size for point in sound if point.power >= 0.9]
    needed = (
        f"From about {enough[0]} {units}members on nine sets in ten are told apart, while at most {2 * level:.0%} of "
        "as large sets of held-out samples are."
        if enough
        else f"At no size are nine sets in ten told apart with at most {2 * level:.0%} false alarms."
    )
    told = (
        f"As a set, the {test.num_suspect} reported {units}members score {test.effect_size:.2f} standard deviations above the "
        f"{test.num_heldout} {units}held-out samples (one-sided Welch test of {evidence.insider}, p = {test.p_value:.2g}). "
        f"{needed}"
    )
    found = sum(p <= level for p in adjusted.values())
    together = (
        f"With all {len(adjusted)} attacks and masks tested together (Holm), {found} stand out at {level:.2g}. A small p-value "
        "says that the two sets differ, not why: read it with the controls."
    )
    return [Paragraph(told), Paragraph(together)]

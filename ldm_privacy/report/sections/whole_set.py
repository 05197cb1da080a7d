"""Section: the training set as a whole."""

from ldm_privacy.evidence.gather import Evidence
from ldm_privacy.registry import SECTIONS
from ldm_privacy.report.context import Context
from ldm_privacy.report.page.blocks import Block, Note, Paragraph, Section

CAPTIONS = {"p_value": "How fast a suspect set is told from held-out images as it grows."}


@SECTIONS.register("set")
def whole_set(evidence: Evidence, context: Context) -> Section:
    """The Welch test of the members as a set, and how many members it takes."""
    blocks = (*_test(evidence), *context.pictures(CAPTIONS))
    return Section("set", "The training set as a whole", "", blocks, place=60)


def _test(evidence: Evidence) -> tuple[Block, ...]:
    if evidence.dataset is None:
        return (Note("No test", f"{evidence.key} gives every sample the same score: there is nothing to test."),)
    test, units = evidence.dataset.test, "groups of " if evidence.report.data.group is not None else ""
    num_tests = len(evidence.dataset.adjusted)
    found = sum(p <= 1 - evidence.report.confidence for p in evidence.dataset.adjusted.values())
    level = 1 - evidence.report.confidence
    false_alarms = evidence.dataset.false_alarms
    # Twice the level leaves room for the error of the simulated shares.
    sound = [point for point in evidence.dataset.by_size if false_alarms.get(point.size, 1.0) <= 2 * level]
    enough = [point.size for point in sound if point.power >= 0.9]
    needed = (
        f"From about {enough[0]} {units}members on nine sets in ten are told apart, while at most {2 * level:.0%} of "
        "as large sets of held-out samples are."
        if enough
        else f"At no size are nine sets in ten told apart with at most {2 * level:.0%} false alarms."
    )
    return (
        Paragraph(
            f"As a set, the {test.num_suspect} reported {units}members score {test.effect_size:.2f} standard deviations "
            f"above the {test.num_heldout} {units}held-out samples (one-sided Welch test of {evidence.key}, "
            f"p = {test.p_value:.2g}). {needed}"
        ),
        Paragraph(
            f"With all {num_tests} attacks and masks tested together (Holm), {found} stand out at "
            f"{level:.2g}. A small p-value says that the two sets differ, not why: read it with the "
            "controls."
        ),
    )

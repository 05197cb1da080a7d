"""Section: requirements of standards and authorities."""

from ldm_privacy.evidence.requirements.requirement import NO_ADVICE, in_short
from ldm_privacy.registry import SECTIONS
from ldm_privacy.report.evaluation import Evaluation
from ldm_privacy.report.page.blocks import Cell, DataTable, Paragraph, Section
from ldm_privacy.report.requirement_files import COLUMNS, requirement_rows, words_of
from ldm_privacy.report.sections.gate import MEANING, TONES


@SECTIONS.register("requirements")
def requirements(evaluation: Evaluation) -> Section:
    """Each with its decision, our number and what it takes; its words and the reasons folded below."""
    answers = evaluation.answers
    rows = [(row[0], Cell(row[1], TONES[each.decision]), *row[2:]) for each, row in zip(answers, requirement_rows(answers))]
    words = [(each.reference, *pair) for each in answers for pair in words_of(each)]
    return Section(
        "Requirements",
        f"What the audit says of sentences of standards: {in_short(answers)}.",
        (
            Paragraph(NO_ADVICE),
            DataTable(COLUMNS, rows, "What was found of each, and what it takes.", num_texts=4, note=MEANING, is_open=True),
            DataTable(("requirement", "", "in words"), words, "What each says, what it is held to, and why.", num_texts=3),
        ),
        place=65,
    )

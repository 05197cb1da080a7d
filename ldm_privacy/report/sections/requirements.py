"""Section: requirements of standards and authorities."""

from ldm_privacy.evidence.requirements.requirement import NO_ADVICE, in_short
from ldm_privacy.registry import SECTIONS
from ldm_privacy.report.evaluation import Evaluation
from ldm_privacy.report.page.blocks import Bullets, Cell, DataTable, Paragraph, Section
from ldm_privacy.report.requirement_files import COLUMNS, requirement_rows, words_of
from ldm_privacy.report.sections.gate import MEANING, TONES


@SECTIONS.register("requirements")
def requirements(evaluation: Evaluation) -> Section:
    """Each with its decision and our number; what it takes, its words and the reasons folded below."""
    answers = evaluation.answers
    table = requirement_rows(answers)
    said = [f"{reference}: {decision}{'' if found == '-' else f'; {found}'}." for reference, decision, found, _ in table]
    rows = [(row[0], Cell(row[1], TONES[each.decision]), *row[2:]) for each, row in zip(answers, table)]
    words = [(each.reference, *pair) for each in answers for pair in words_of(each)]
    return Section(
        "Requirements",
        f"What the audit says of sentences of standards: {in_short(answers)}.",
        (
            Bullets(said),
            Paragraph(NO_ADVICE),
            DataTable(COLUMNS, rows, "What was found of each, and what it takes.", num_texts=4, note=MEANING),
            DataTable(("requirement", "", "in words"), words, "What each says, what it is held to, and why.", num_texts=3),
        ),
        place=65,
    )

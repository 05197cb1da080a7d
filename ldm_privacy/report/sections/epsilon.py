"""Section: how large epsilon is at least, where coins decided who is a member."""

from ldm_privacy.evidence.epsilon import CONDITIONS, said_of_epsilon, unit_of
from ldm_privacy.registry import SECTIONS
from ldm_privacy.report.evaluation import Evaluation
from ldm_privacy.report.page.blocks import Bullets, DataTable, Section
from ldm_privacy.report.tables import EPSILON_COLUMNS, epsilon_cells, mask_of


@SECTIONS.register("epsilon")
def epsilon(evaluation: Evaluation) -> Section | None:
    """The bound of every attack and mask, beside a proof where there is one, and the conditions of both."""
    evidence = evaluation.evidence
    report, verdict = evidence.report, (evidence.insider, evidence.outsider)
    said, unit = said_of_epsilon(report, *verdict, evidence.proven), unit_of(report)
    if not said:
        return None
    rows = [row for row in report.rows if row.epsilon is not None]
    table = DataTable(
        ("attack", "mask", *EPSILON_COLUMNS),
        [(row.key.attack, mask_of(row), *epsilon_cells(row)) for row in rows],
        f"The least that epsilon is, by each attack and mask, {report.confidence:.0%} confidence each.",
        num_texts=2,
        emphasised=[place for place, row in enumerate(rows) if row.key in verdict],
        note="In bold: what the verdict rests on; the others are for looking only. Guesses, right ones and coins are of the "
        "half that gives the bound.",
    )
    conditions = Bullets([each.format(unit=unit) for each in CONDITIONS])
    return Section("How large epsilon is at least", " ".join(said), (conditions, table) if rows else (), place=15)

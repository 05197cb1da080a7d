"""Section: the gate."""

from ldm_privacy.registry import SECTIONS
from ldm_privacy.report.evaluation import Evaluation
from ldm_privacy.report.gate_files import COLUMNS, gate_rows
from ldm_privacy.report.page.blocks import Block, Cell, DataTable, Note, Section
from ldm_privacy.types import Tone

TONES: dict[str, Tone] = {"pass": "safe", "undecided": "unclear", "fail": "exposed"}
MEANING = (
    "Pass: the upper bound is at most the limit. Fail: the estimate isn't below it. Undecided: the estimate is, its upper "
    "bound is not. A truth at the limit or above it passes with a chance of at most half of what the intervals' confidence "
    "leaves."
)


@SECTIONS.register("gate")
def gate(evaluation: Evaluation) -> Section | None:
    """Each limit with its sentence; None where there are none."""
    if (ruling := evaluation.ruling) is None:
        return None
    rows = [(Cell(row[0], TONES[row[0]]), *row[1:]) for row in gate_rows(ruling)]
    table = DataTable(COLUMNS, rows, "What each limit allows and what was found.", num_texts=5, note=MEANING, is_open=True)
    said: list[Block] = [Note(each.limit, each.sentence, TONES[each.decision]) for each in ruling.judgements]
    return Section("Gate", ruling.sentence, [*said, table], place=-1)

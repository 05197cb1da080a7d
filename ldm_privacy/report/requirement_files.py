"""requirements.md and requirements.json: what an audit says of sentences of standards."""

from collections.abc import Sequence
from pathlib import Path

from ldm_privacy import __version__
from ldm_privacy.evidence.requirements.requirement import NO_ADVICE, RequirementAnswer, in_short
from ldm_privacy.report.evaluation import Evaluation
from ldm_privacy.report.markdown import plain_text, table_lines
from ldm_privacy.report.metrics_file import judgement_record, write_json

COLUMNS = ("requirement", "decision", "our number", "what it takes")


def requirement_rows(answers: Sequence[RequirementAnswer]) -> list[tuple[str, str, str, str]]:
    """A row for each: the cells of `COLUMNS`."""
    return [(each.reference, each.decision, "; ".join(each.found) or "-", each.takes) for each in answers]


def words_of(answer: RequirementAnswer) -> list[tuple[str, str]]:
    """What it says, what it is held to, why it is decided so."""
    return [
        ("says", answer.says),
        ("held to", answer.held_to),
        *(("why", each) for each in answer.why),
    ]


def write_requirements(evaluation: Evaluation, folder: Path, *, split_hash: str) -> None:
    """Both files; `split_hash` says who was a member."""
    answers = evaluation.answers
    of = f"Audit of {plain_text(evaluation.name)} on {evaluation.date}, split {split_hash[:12]}, ldm_privacy {__version__}."
    lines = ["# Requirements", "", of, "", NO_ADVICE, "", f"**{in_short(answers)}**", ""]
    lines += table_lines(COLUMNS, requirement_rows(answers))
    for each in answers:
        lines += ["", f"## {each.reference}: {each.decision}", ""]
        lines += [f"* {name}: {plain_text(words)}" for name, words in (*words_of(each), ("source", each.source))]
    (folder / "requirements.md").write_bytes(("\n".join(lines) + "\n").encode("utf-8", errors="replace"))
    content = {
        "name": evaluation.name,
        "date": evaluation.date,
        "split_hash": split_hash,
        "version": __version__,
        "note": NO_ADVICE,
        "requirements": [{**vars(each), "judgements": list(map(judgement_record, each.judgements))} for each in answers],
    }
    write_json(folder / "requirements.json", content)

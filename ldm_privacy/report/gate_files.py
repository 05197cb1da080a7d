"""What a gate says of audits: in the terminal, as JUnit XML for CI systems, as Markdown for a pull request."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

from rich.console import Console

from ldm_privacy.evidence.gate import Ruling
from ldm_privacy.evidence.limits.limit import Judgement, worst
from ldm_privacy.report.markdown import clean, plain_text, table_lines
from ldm_privacy.report.tables import plain_table

COLUMNS = ("decision", "limit", "at most", "found", "of")


def gate_rows(ruling: Ruling) -> list[tuple[str, str, str, str, str]]:
    """A row for each limit: the cells of `COLUMNS`."""
    return [
        (
            each.decision,
            each.limit,
            f"{each.most:g}",
            each.found,
            "-" if each.worst is None else each.worst.of,
        )
        for each in ruling.judgements
    ]


def print_rulings(rulings: Mapping[str, Ruling], console: Console) -> None:
    """The decision first, then a sentence for each limit; of several audits a table of them all."""
    if len(rulings) > 1:
        table = plain_table("Gate")
        for column in ("audit", *COLUMNS):
            table.add_column(column, overflow="fold")
        for name, ruling in rulings.items():
            table.add_section()
            for place, row in enumerate(gate_rows(ruling)):
                table.add_row("" if place else name, *row)
        console.print(table, markup=False)
        of = ", ".join(f"{name} {ruling.decision}" for name, ruling in rulings.items())
        console.print(f"Gate: {worst([each.decision for each in rulings.values()])} ({of}).", highlight=False, markup=False)
    else:
        (ruling,) = rulings.values()
        for sentence in (ruling.sentence, *(f"  {each.sentence}" for each in ruling.judgements)):
            console.print(sentence, highlight=False, markup=False)


def write_junit(rulings: Mapping[str, Ruling], path: Path) -> None:
    """JUnit's XML: a test suite for each audit, a test case for each limit.

    A limit that fails is a <failure>. One that is undecided is an <error>: CI systems count both as not passed, whereas a
    <skipped> would be shown as green. The sentence is the message.
    """
    root = ElementTree.Element("testsuites", _counts([each for ruling in rulings.values() for each in ruling.judgements]))
    for name, ruling in rulings.items():
        audit = clean(name)
        suite = ElementTree.SubElement(root, "testsuite", {"name": audit, **_counts(ruling.judgements)})
        for each in ruling.judgements:
            case = ElementTree.SubElement(suite, "testcase", {"classname": audit, "name": clean(each.limit), "time": "0"})
            sentence = clean(each.sentence)
            if each.decision == "pass":
                ElementTree.SubElement(case, "system-out").text = sentence
            else:
                kind = {"fail": "failure", "undecided": "error"}[each.decision]
                ElementTree.SubElement(case, kind, {"message": sentence, "type": each.decision}).text = sentence
    ElementTree.indent(root)
    path.parent.mkdir(parents=True, exist_ok=True)
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def write_markdown(rulings: Mapping[str, Ruling], path: Path) -> None:
    """The decision in one line, and a row for each limit."""
    decision = worst([each.decision for each in rulings.values()])
    rows = [(name, *row) for name, ruling in rulings.items() for row in gate_rows(ruling)]
    lines = [f"**Membership audit: {decision}**", "", *table_lines(("audit", *COLUMNS), rows), ""]
    lines += [f"* {plain_text(each.sentence)}" for ruling in rulings.values() for each in ruling.judgements]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _counts(judgements: Sequence[Judgement]) -> dict[str, str]:
    of = [each.decision for each in judgements]
    return {"tests": str(len(of)), "failures": str(of.count("fail")), "errors": str(of.count("undecided"))}

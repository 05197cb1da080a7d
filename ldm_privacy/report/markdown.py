"""Text and tables as Markdown: shown, never interpreted."""

from collections.abc import Iterable, Sequence


def clean(text: str) -> str:
    """In one line, without what no file should hold."""
    return "".join(each for each in text if each.isprintable())


def plain_text(text: str) -> str:
    """Without what ends a cell of a table or begins markup."""
    for sign in ("\\", "|", "`"):
        text = text.replace(sign, f"\\{sign}")
    return clean(text).replace("<", "&lt;").replace("](", "]\\(")


def table_lines(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table, a line a row."""
    lines = (f"| {' | '.join(map(plain_text, row))} |" for row in (columns, *rows))
    return [next(lines), "|" + " --- |" * len(columns), *lines]

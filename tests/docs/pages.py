"""The pages that a reader sees, and what stands on them."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
TOP = [ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "CONTRIBUTING", "SECURITY")]
PAGES = [*TOP, *sorted(DOCS.rglob("*.md"))]
FENCE = re.compile(r"^(`{3,})(\w*)\n(.*?)^\1$", re.MULTILINE | re.DOTALL)
RUN = re.compile(r"^<!-- run -->\n```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
"""Blocks that are run by tests/docs/test_run.py, with the language."""


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def prose(page: Path) -> str:
    """Without its blocks of code."""
    return FENCE.sub("", page.read_text())

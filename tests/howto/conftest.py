"""The pages of docs/howto as files in an empty folder, where somebody works who has only installed the package."""

import re
import shlex
from pathlib import Path

import pytest

from tests.desk import working_in

DOCS = Path(__file__).resolve().parents[2] / "docs" / "howto"
PAGES = [path for path in sorted(DOCS.glob("*.md")) if re.search(r"^@[A-Z_]+\.register\(", path.read_text(), re.MULTILINE)]
"""Of what a user may register."""


def examples(page: Path) -> dict[str, str]:
    """The blocks of code of a page by the file name in their first line."""
    return dict(re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL))


def commands(name: str) -> list[list[str]]:
    """The command lines on a page, each as words after `python`."""
    text = (DOCS / name).read_text().replace("\\\n", "")
    return [shlex.split(line)[1:] for line in text.splitlines() if line.startswith("python ")]


def overrides(*lines: list[str]) -> list[str]:
    """What several `train.py` commands of pages ask for, as one command."""
    words = [word for line in lines for word in line[3:]]
    plugins = [word for word in words if word.startswith("plugins=")]
    named = dict.fromkeys(name for word in plugins for name in word.removeprefix("plugins=").strip("[]").split(","))
    return [f"plugins=[{','.join(named)}]", *(word for word in words if word not in plugins)]


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """The folder; what its plug-ins register is forgotten afterwards."""
    folder = tmp_path_factory.mktemp("desk")
    for page in PAGES:
        for name, text in examples(page).items():
            (folder / name).write_text(text)
    with working_in(folder):
        yield folder

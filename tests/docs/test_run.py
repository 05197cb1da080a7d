"""The blocks of the pages under `<!-- run -->`, run in a reader's order on tiny networks: nothing is undefined or refused."""

import re
import shlex

import pytest

import evaluate
import train
from ldm_privacy.recipes import cli
from tests.desk import working_in
from tests.docs.pages import DOCS, PAGES, ROOT, RUN, name_of
from tests.tiny import settings

FIRST = DOCS / "tutorials" / "first_run.md"
SHOWN = [FIRST, *(page for page in PAGES if page != FIRST and RUN.search(page.read_text()))]


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    with working_in(tmp_path_factory.mktemp("reader")):
        yield


def run(line: str) -> int:
    """One line that a reader types, but on tiny networks; what is installed already isn't again."""
    words = shlex.split(line.rpartition("&& ")[2].partition("  #")[0])
    if words[:2] == ["python", "train.py"]:
        # a limit takes more images to show anything
        few = [item for item in settings() if not (item.startswith("data.num_") and "audit.stop.at" in line)]
        return train.main([*([] if words[2].startswith("resume=") else few), *words[2:]])
    if words[:2] == ["python", "evaluate.py"]:
        return evaluate.main(words[2:])
    if words[0] == "ldm-privacy":
        return cli.main(words[1:])
    assert (ROOT / words[1]).is_file(), "an example; tests/examples runs it"
    return 0


@pytest.mark.slow
@pytest.mark.parametrize("page", SHOWN, ids=name_of)
def test_what_a_page_runs_runs(page, desk):
    for language, block in RUN.findall(page.read_text()):
        if language == "python":
            exec(block, {})
        elif name := re.match(r"# (\w+\.yaml)\n", block):
            with open(name[1], "w") as file:
                file.write(block)
        else:
            for line in block.replace("\\\n", " ").strip().splitlines():
                assert run(line) in (0, 1, 3), line

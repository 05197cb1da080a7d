"""Evaluations whose figures are not drawn: that is most of their time, and figures have tests of their own."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from ldm_privacy.report.curves import training_figures
from ldm_privacy.report.folder import evidence_figures

BLANK = b'<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>'
PIXEL = io.BytesIO()
Image.new("RGB", (1, 1)).save(PIXEL, "PNG")
MADE = {
    "ldm_privacy.recipes.publish.evidence_figures": evidence_figures,
    "ldm_privacy.report.folder.evidence_figures": evidence_figures,
    "ldm_privacy.recipes.publish.training_figures": training_figures,
}
SAVE = Figure.savefig


def _blank(figure, file, *, format="png", **options):
    content = BLANK if format == "svg" else PIXEL.getvalue()
    file.write(content) if hasattr(file, "write") else Path(file).write_bytes(content)


@contextmanager
def undrawn() -> Iterator[pytest.MonkeyPatch]:
    """The figures of an audit and its training are left out, and all others are stored as empty ones."""
    with pytest.MonkeyPatch.context() as patch:
        for name in MADE:
            patch.setattr(name, lambda *arguments, **options: {})
        patch.setattr(Figure, "savefig", _blank)
        yield patch


def make(patch: pytest.MonkeyPatch) -> None:
    """They are made all the same, as long as `patch` lasts."""
    for name, function in MADE.items():
        patch.setattr(name, function)


def draw(patch: pytest.MonkeyPatch) -> None:
    """All are made and drawn."""
    make(patch)
    patch.setattr(Figure, "savefig", SAVE)

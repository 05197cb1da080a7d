"""The frontier in the terminal, as a figure and as a page."""

import io

import matplotlib.colors
import numpy as np
import pytest
from rich.console import Console

from ldm_privacy.evidence.cell import Cell
from ldm_privacy.evidence.frontier import frontier_of
from ldm_privacy.evidence.frontier_words import sentence
from ldm_privacy.report.figures.base import MARKERS, STYLES
from ldm_privacy.report.figures.frontier import NARROW, frontier_figure
from ldm_privacy.report.frontier import frontier_page, print_frontier
from ldm_privacy.report.page.page import write_page
from ldm_privacy.report.tables import short
from tests.evidence.trainings import DRAWS, training
from tests.pages import text_of
from tests.report.test_glossary import unexplained

NAMES = ("plain", "weaker", "<script>[red]")
CURVES = (
    ((0.0, 1.0), (0.5, 0.2), (1.2, 0.05)),
    ((0.0, 1.0), (0.2, 0.2), (0.4, 0.04)),
    ((0.0, 1.0), (0.5, 0.3)),
)


@pytest.fixture(scope="module")
def frontier():
    trainings = {
        label: [training(curve, seed=seed, cell=place, error=0.01) for seed in range(2)]
        for place, (label, curve) in enumerate(zip(NAMES, CURVES))
    }
    cells = {label: Cell(label, (f"x={place}",), place == 0) for place, label in enumerate(NAMES)}
    return frontier_of(cells, trainings, "kid_random_heldout", intervals=DRAWS, left_out=["run-7: no audit yet"])


def test_every_audit_is_a_point_and_every_mean_has_bars_in_both_directions(frontier):
    ends, lines = frontier_figure(frontier).axes
    drawn = [line.get_xydata().tolist() for line in lines.get_lines()]
    for trainings in frontier.trainings.values():
        for each in trainings.values():
            assert [[point.quality.value, point.attack.auroc.value] for point in each.points] in drawn
    segments = [segment for bars in ends.collections for segment in bars.get_segments()]
    for label, over in frontier.auroc.items():
        x, y = frontier.final_quality[label].mean, over.mean
        assert any(np.allclose(each, [[x.value, y.lower], [x.value, y.upper]]) for each in segments)
        assert any(np.allclose(each, [[x.lower, y.value], [x.upper, y.value]]) for each in segments)
    assert lines.get_xscale() == "log", "from 1 to .04"


def test_settings_are_told_apart_without_colour_and_the_legend_lies_off_the_data(frontier):
    figure = frontier_figure(frontier)
    lines = [line for line in figure.axes[1].get_lines() if len(line.get_xdata()) > 2 or line.get_linestyle() in STYLES[1:]]
    looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in lines}
    assert len({marker for _, marker, _ in looks}) == len({style for _, _, style in looks}) == len(NAMES) <= len(MARKERS)
    assert len({matplotlib.colors.to_hex(colour) for colour, _, _ in looks}) == len(NAMES)
    figure.canvas.draw()
    (legend,) = figure.legends
    assert legend.get_window_extent().y1 <= min(axis.get_window_extent().y0 for axis in figure.axes)
    assert [text.get_text() for text in legend.get_texts()] == list(NAMES)


def test_on_a_phone_the_panels_lie_below_each_other(frontier):
    figure = frontier_figure(frontier, width=NARROW)
    figure.canvas.draw()
    upper, lower = (axis.get_window_extent() for axis in figure.axes)
    assert upper.y0 > lower.y1


def test_the_terminal_holds_table_and_sentences_in_80_columns(frontier):
    console = Console(file=io.StringIO(), width=80)
    print_frontier(frontier, console)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    for label in NAMES[:2]:
        assert short(frontier.auroc[label].mean) in next(line for line in text.splitlines() if line.split()[:1] == [label])
    assert short(frontier.compared["weaker"].auroc.mean, "+") in text
    flat = " ".join(text.split())
    assert all(sentence(frontier, label) in flat for label in NAMES)
    assert "Not in it: run-7: no audit yet." in flat


def test_the_page_says_how_it_was_made_and_interprets_no_name(frontier, tmp_path):
    write_page(frontier_page("x", frontier, made_by="ldm-privacy frontier sweeps/x"), tmp_path / "frontier.html")
    page = (tmp_path / "frontier.html").read_text()
    assert "<script" not in page
    assert unexplained(page) == []
    text = text_of(page)
    assert "<script>[red]: no gain at equal quality is shown" in text
    for said in (
        "3 settings, 6 trainings have ended, 0 are under way",
        "x=1",
        "ldm-privacy frontier sweeps/x",
        "run-7: no audit",
    ):
        assert said in text
    for trainings in frontier.trainings.values():
        for each in trainings.values():
            assert short(each.points[-1].attack.auroc) in page

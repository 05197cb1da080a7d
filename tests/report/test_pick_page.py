"""A pick as a picture and as a page."""

from pathlib import Path

import pytest

from ldm_privacy.evidence.gate import Ruling
from ldm_privacy.evidence.limits.limit import Judgement, Reading, decide
from ldm_privacy.evidence.pick import Candidate, Pick
from ldm_privacy.report.figures.pick import pick_figure
from ldm_privacy.report.page.page import render
from ldm_privacy.report.pick import pick_page, write_pick
from ldm_privacy.types import Estimate
from tests.pages import text_of
from tests.report.test_glossary import unexplained


def pick(*values, epochs=True, missing=()):
    candidates = []
    for place, value in enumerate(values):
        area = Estimate(value, value - 0.05, value + 0.05)
        judged = [
            Judgement(name, "AUROC", 0.6, decide(area, 0.6), "so & <so>", None if place in missing else Reading("x", area))
            for name in ("gate.auroc", "gate.attacks.a_b$")
        ]
        name = f"step_{place}$<b>"
        candidates.append(Candidate(name, 10 * place if epochs else None, area, Ruling(tuple(judged))))
    return Pick(candidates, 0.95, "sima/all")


def test_the_figure_has_a_panel_a_limit_a_ring_around_the_named_one_and_grey_after_the_stop():
    found = pick(0.5, 0.52, 0.58, 0.54)
    axes = pick_figure(found).axes
    assert len(axes) == 2
    rings = {line.get_label(): line.get_xydata().tolist() for line in axes[0].get_lines()}
    assert rings["named"] == [[10.0, 0.52]]
    grey = axes[0].patches[0].get_extents().transformed(axes[0].transData.inverted())
    assert [grey.x0, grey.x1] == pytest.approx([15.0, axes[0].get_xlim()[1]])
    assert not pick_figure(pick(0.5, 0.5)).axes[0].patches
    assert "named" not in {line.get_label() for line in pick_figure(pick(0.7, 0.5)).axes[0].get_lines()}


def test_the_figure_of_targets_names_them_and_what_was_not_measured_is_left_out(tmp_path):
    figure = pick_figure(pick(0.5, 0.7, epochs=False, missing=(1,)))
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["step_0$<b>", "step_1$<b>"]
    figure.savefig(tmp_path / "x.png")  # nothing is taken for mathematics
    pick_figure(pick(0.5)).savefig(tmp_path / "y.png")


def test_the_page_says_it_and_escapes_it(tmp_path):
    found = pick(0.5, 0.52, 0.58, 0.54)
    page = render(pick_page(found, "ldm-privacy evaluate ckpt=x"))
    assert "The last safe checkpoint is step_1$<b> (epoch 10)" in text_of(page)
    assert "passes alone" in page
    assert unexplained(page) == []
    assert "so &amp; &lt;so&gt;" in page
    assert "$<b>" not in page
    assert "<so>" not in page
    write_pick(found, tmp_path, places={each.name: Path(each.name) for each in found.candidates}, following="x")
    assert (tmp_path / "pick.json").read_text().count('"becomes"') == 4

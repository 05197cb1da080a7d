"""A comparison in the terminal and on disk."""

import io
import json
from collections import Counter
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from ldm_privacy.audit.score_file import ScoreFile
from ldm_privacy.audit.scores import Derived
from ldm_privacy.evidence.compare import compare
from ldm_privacy.report.comparison import print_comparison, write_comparison
from ldm_privacy.report.figures.over_audits import over_audits_figure
from ldm_privacy.report.tables import short
from ldm_privacy.types import AuditKey
from tests.evidence.synthetic import QUICK, make_scores
from tests.pages import text_of
from tests.report.test_glossary import unexplained

NAMES = ("runs/a/last", "runs/b/last", "runs/<script>/last")


@pytest.fixture(scope="module")
def comparison():
    data = make_scores(60, 60, strength=0.3)
    files = {}
    for place, name in enumerate(NAMES):
        generator = torch.Generator().manual_seed(place)
        scores = {
            key: score + place * data.is_member + 0.5 * torch.randn(score.shape, generator=generator, dtype=score.dtype)
            for key, score in data.scores.items()
        }
        files[name] = ScoreFile(replace(data, scores=scores), "ab" * 32)
    return compare(files, intervals=QUICK)


def printed(comparison, width):
    console = Console(file=io.StringIO(), width=width)
    print_comparison(comparison, console)
    return console.file.getvalue()


def test_the_terminal_shows_every_audit_difference_and_spread(comparison):
    text = printed(comparison, 200)
    for letter, name in zip("ABC", NAMES):
        assert f"{letter} = {name}" in text
    lines = text.splitlines()
    for key in comparison.keys:
        line = next(each for each in lines if each.split()[:1] == [str(key)])
        for report in comparison.reports.values():
            assert short(report.row(key).metrics.auroc) in line
        for differences in comparison.differences.values():
            assert short(differences[key], "+") in line
        assert f"{comparison.spread[key].mean:.3f}, {comparison.spread[key].deviation:.3f}".replace("0.", ".") in line
    assert f"{comparison.num_shared} reported samples" in text


def test_two_audits_fit_80_columns(comparison):
    names = list(comparison.reports)[:2]
    two = replace(
        comparison,
        reports={name: comparison.reports[name] for name in names},
        differences={names[1]: comparison.differences[names[1]]},
    )
    lines = printed(two, 80).splitlines()
    for key in comparison.keys:
        line = next(each for each in lines if each.split()[:1] == [str(key)])
        assert short(two.differences[names[1]][key], "+") in line
        assert line.rstrip().endswith(f"{comparison.spread[key].deviation:.3f}".removeprefix("0"))


def test_many_audits_lose_no_number_in_80_columns(comparison):
    text = printed(comparison, 80)
    assert "…" not in text
    digits = Counter(character for character in printed(comparison, 200) if character in "0123456789")
    assert Counter(character for character in text if character in "0123456789") == digits


def test_names_are_no_markup(comparison):
    reports = dict(zip(("runs/[bold]x", "[/nothing]"), comparison.reports.values()))
    odd = replace(comparison, reports=reports, differences={"[/nothing]": comparison.differences[NAMES[1]]})
    assert "A = runs/[bold]x, B = [/nothing]" in printed(odd, 200)


def test_json_holds_every_number(comparison, tmp_path):
    write_comparison(comparison, tmp_path / "new")
    content = json.loads((tmp_path / "new" / "comparison.json").read_text())
    assert content["audits"] == list(NAMES)
    assert content["num_shared"] == comparison.num_shared
    for stored, key in zip(content["rows"], comparison.keys, strict=True):
        assert (stored["attack"], stored["mask"]) == (key.attack, key.mask)
        for name, report in comparison.reports.items():
            assert stored["auroc"][name]["value"] == report.row(key).metrics.auroc.value
        for name, differences in comparison.differences.items():
            assert stored["difference"][name]["p_value"] == differences[key].p_value
        assert stored["spread"]["count"] == 3
    assert "training" in content["note"]


def test_the_page_holds_the_same_table_and_interprets_no_name(comparison, tmp_path):
    write_comparison(comparison, tmp_path)
    page = (tmp_path / "comparison.html").read_text()
    assert "<script" not in page
    assert unexplained(page) == []
    assert "runs/&lt;script&gt;/last" in page
    page = text_of(page)
    for key in comparison.keys:
        assert str(key) in page
        assert short(comparison.reports[NAMES[1]].row(key).metrics.auroc) in page
    assert f"{NAMES[1]} differs from {NAMES[0]} in" in page
    assert f"A = {NAMES[0]}, B = {NAMES[1]}" in page


RATIO = AuditKey("loss_ratio", "all")


def calibrated(comparison):
    """The same where the loss is compared with a reference: the row of the SimA attack stands for it."""
    reports = {}
    for name, report in comparison.reports.items():
        data, taken = report.data, AuditKey("sima", "all")
        scores = {**data.scores, RATIO: data.scores[taken][:, :1]}
        kept, timesteps = {**data.keep_fraction, RATIO: 1.0}, {**data.timesteps, "loss_ratio": []}
        derived = {RATIO: Derived(AuditKey("loss", "all"), False, "outsider")}
        changed = replace(data, scores=scores, keep_fraction=kept, timesteps=timesteps, derived=derived)
        reports[name] = ScoreFile(changed, "ab" * 32)
    return compare(reports, intervals=QUICK)


def test_the_curve_over_the_audits_is_of_what_is_calibrated_and_its_forms(comparison, tmp_path):
    assert list(comparison.curve) == [AuditKey("sima", "all")], "nothing is calibrated: the first"
    several = calibrated(comparison)
    assert list(several.curve) == [AuditKey("loss", "all"), RATIO]
    for key, areas in several.curve.items():
        assert areas == [report.row(key).metrics.auroc for report in several.reports.values()]
    write_comparison(several, tmp_path)
    content = json.loads((tmp_path / "comparison.json").read_text())
    assert [each["value"] for each in content["curve"]["loss_ratio/all"]] == [each.value for each in several.curve[RATIO]]
    page = text_of((tmp_path / "comparison.html").read_text())
    ends = several.curve[RATIO][0].value, several.curve[RATIO][-1].value
    assert f"loss_ratio/all from {ends[0]:.3f} to {ends[1]:.3f}" in page


def test_the_figure_has_a_point_with_its_interval_for_each_audit_in_the_order_named(comparison):
    axis = over_audits_figure(several := calibrated(comparison)).axes[0]
    assert [label.get_text() for label in axis.get_xticklabels()] == list(NAMES)
    lines = [list(line.get_ydata()) for line in axis.get_lines()]
    for areas in several.curve.values():
        assert [area.value for area in areas] in lines
    ends = {round(float(y), 9) for each in axis.collections for segment in each.get_segments() for _, y in segment}
    for area in [area for areas in several.curve.values() for area in areas]:
        assert {round(area.lower, 9), round(area.upper, 9)} <= ends

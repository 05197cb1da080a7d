"""A comparison in the terminal and on disk."""

import io
import json
from collections import Counter
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from ldm_privacy.audit.score_file import ScoreFile
from ldm_privacy.evidence.compare import compare
from ldm_privacy.report.comparison import print_comparison, write_comparison
from ldm_privacy.report.tables import short
from tests.evidence.synthetic import QUICK, make_scores

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
    assert "runs/&lt;script&gt;/last" in page
    for key in comparison.keys:
        assert str(key) in page
        assert short(comparison.reports[NAMES[1]].row(key).metrics.auroc) in page
    assert f"{NAMES[1]} differs from {NAMES[0]} in" in page
    assert f"A = {NAMES[0]}, B = {NAMES[1]}" in page

"""Attacks under other conditions, and planted duplicates, in the report and in the terminal."""

from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from ldm_privacy.audit.row import OWN
from ldm_privacy.report.curves import training_figures, view_curves
from ldm_privacy.report.sections.conditions import conditions
from ldm_privacy.report.tables import print_audit, short
from ldm_privacy.types import AuditKey
from tests.audit.test_views import COUNT, Told, audit_of, samples_of

SIMA = AuditKey("sima", "all")


@pytest.fixture(scope="module")
def report():
    samples = samples_of(torch.arange(COUNT) + 1)
    samples = samples.with_columns(repeats=torch.where(torch.arange(COUNT) % 6 == 0, 9, 1))
    noise = 0.3 * torch.randn(COUNT, generator=torch.Generator().manual_seed(1))
    return audit_of(samples)(Told(torch.cat([torch.ones(1), 1 - 0.4 * samples.is_member + noise])))


@pytest.fixture
def evaluation(report):
    evidence = SimpleNamespace(report=report, insider=SIMA)
    return SimpleNamespace(evidence=evidence, pictures=lambda captions: [])


def test_the_section_holds_every_view_and_every_group(report, evaluation):
    section = conditions(evaluation)
    views, groups = section.blocks
    assert [row[:2] for row in views.rows] == [(attack, view) for attack in ("sima", "loss") for view in ("null", "shuffled")]
    row = report.row(AuditKey("loss_null", "all"))
    own = report.row(AuditKey("loss", "all")).metrics.auroc
    assert views.rows[2][2:] == (short(row.metrics.auroc), short(own), short(row.gains[OWN], "+"))
    assert [row[0] for row in groups.rows] == ["sima/all", "loss/all"]
    assert "20 planted duplicates" in groups.caption
    assert section.lead.startswith("sima under other conditions: without its condition")


def test_without_views_or_duplicates_there_is_no_section(evaluation):
    evaluation.evidence.report = audit_of(samples_of(torch.arange(COUNT) + 1), views=())(Told(torch.ones(COUNT + 1)))
    assert conditions(evaluation) is None


def test_the_terminal_has_both_tables_and_no_view_among_the_masks(report):
    console = Console(width=140)
    with console.capture() as captured:
        print_audit(report, console, title="x")
    said = captured.get()
    assert "AUROC under other conditions" in said
    assert "AUROC of 20 planted duplicates" in said
    assert "AUROC gained by the mask" not in said, "views are no masks, and the only mask here is a control"


def test_curves_under_other_conditions_are_a_figure_of_their_own(report):
    history = {
        (epoch, f"memorization/{row.key}/auroc{end}"): 0.5 + 0.01 * epoch
        for row in report.rows
        for epoch in (0, 10)
        for end in ("", "_lower", "_upper")
    }
    keys = [row.key for row in report.rows]
    curves = view_curves(history, keys, report.data.views)
    assert [(each.attack, list(each.lines)) for each in curves] == [
        ("sima", [OWN, "null", "shuffled"]),
        ("loss", [OWN, "null", "shuffled"]),
    ]
    history |= {(epoch, f"memorization/{SIMA}/auroc_{group}"): 0.7 for epoch in (0, 10) for group in ("repeated", "single")}
    figures = training_figures(history, keys, SIMA, {}, report.data.views)
    assert list(figures) == ["attack_sima", "memorization", "onset", "conditions", "planted"]
    assert [axis.get_title() for axis in figures["planted"].axes] == ["sima"]
    assert [axis.get_title() for axis in figures["memorization"].axes] == ["sima", "loss"]

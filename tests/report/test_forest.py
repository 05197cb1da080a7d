"""The forest plot: a row for every attack, mask and control, as wide as its interval; nothing covered, nothing cut off."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from matplotlib.colors import to_hex

from ldm_privacy.audit.report import report_of
from ldm_privacy.audit.scores import Derived, informed
from ldm_privacy.controls.finding import WITHOUT_MODEL, Finding
from ldm_privacy.evidence.null import label_permutation
from ldm_privacy.report.figures.forest import (
    GAP,
    LOOKS,
    MASK_ROW,
    MAX_LABEL,
    NARROW,
    ROW,
    WIDE,
    forest_caption,
    forest_figure,
    forest_marks,
)
from ldm_privacy.types import AuditKey, Estimate
from tests.evidence.synthetic import QUICK, make_scores

KEY = AuditKey("sima", "all")
LONG = "an attack of a very long name $x$ <b>"
MASKS = ("all", "top60", "random60")


CALIBRATED = {"sima_complexity": False, "sima_history": True}
"""Whether they need a history."""
CONTROLS = {
    "latent norm": Estimate(0.503, 0.442, 0.564),
    "logistic on image features": Estimate(0.539, 0.467, 0.609),
    "near-duplicates": None,
    "influence": Estimate(0.514, 0.452, 0.575),
}


def evidence_of(*, attacks=("loss", "sima", LONG), masks=MASKS, key=KEY, controls=CONTROLS, calibrated=CALIBRATED):
    """Of an audit, with what a forest is made of and nothing else."""
    data = make_scores(60, 60, strength=0.7, attacks=(*attacks, *calibrated), masks=masks)
    scores = {each: score for each, score in data.scores.items() if each.attack in attacks or each.mask == key.mask}
    derived = {each: Derived(key, calibrated[each.attack]) for each in scores if each.attack in calibrated}
    kept = {each: data.keep_fraction[each] for each in scores}
    report = report_of(replace(data, scores=scores, keep_fraction=kept, derived=derived), intervals=QUICK)
    findings = {name: Finding(name, WITHOUT_MODEL, estimate=estimate) for name, estimate in controls.items()}
    permuted = label_permutation(report, num_permutations=59)
    insider, outsider = (informed(derived, key, with_history=known) for known in (True, False))
    primary = {"key": key, "insider": insider, "outsider": outsider}
    return SimpleNamespace(report=report, permuted=permuted, findings=findings, **primary)


@pytest.fixture(scope="module")
def evidence():
    return evidence_of()


@pytest.fixture(scope="module", params=[WIDE, NARROW])
def axis(request, evidence):
    return forest_figure(evidence, width=request.param).axes[0]


def whiskers(axis):
    """(lower, upper), depth and colour of every row."""
    found = {}
    for each in axis.collections:
        (((lower, depth), (upper, _)),) = each.get_segments()
        found[lower, upper] = depth, to_hex(each.get_color()[0])
    return found


def test_every_attack_and_control_has_a_row_and_its_whisker_is_its_interval(evidence, axis):
    rows = {str(row.key): row.metrics.auroc for row in evidence.report.rows}
    controls = {name: each.estimate for name, each in evidence.findings.items() if each.estimate is not None}
    assert len(rows) == 11
    assert len(controls) == 3
    drawn = whiskers(axis)
    assert len(axis.collections) == len(rows) + len(controls)
    assert set(drawn) == {(area.lower, area.upper) for area in [*rows.values(), *controls.values()]}
    lowest_attack = max(drawn[area.lower, area.upper][0] for area in rows.values())
    highest_control = min(drawn[area.lower, area.upper][0] for area in controls.values())
    assert highest_control > lowest_attack + ROW / 2 + MASK_ROW / 2 + GAP, "controls stand beneath, apart"
    points = {(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in axis.lines if len(line.get_xdata()) == 1}
    assert points == {(area.value, drawn[area.lower, area.upper][0]) for area in [*rows.values(), *controls.values()]}
    left, right = axis.get_xlim()
    assert all(left < end < right for interval in drawn for end in interval)


def test_the_highest_comes_first_and_masks_stand_beneath_their_attack(evidence):
    attacks, controls = forest_marks(evidence)
    rows = [mark for mark in attacks if not mark.is_masked]
    for marks in (rows, controls):
        values = [mark.area.value for mark in marks]
        assert values == sorted(values, reverse=True)
    assert {mark.label for mark in rows} == {"loss", "sima", LONG, *CALIBRATED}
    assert len(attacks) == 11
    above = None
    for mark in attacks:
        above = mark.label if not mark.is_masked else above
        assert mark.label.startswith(f"{above}/" if mark.is_masked else above)


def test_bars_are_the_bands_under_permuted_labels(evidence, axis):
    drawn = whiskers(axis)
    bars = {bar.get_y() + bar.get_height() / 2: (bar.get_x(), bar.get_x() + bar.get_width()) for bar in axis.patches}
    assert len(bars) == len(evidence.report.rows)
    assert len(set(bars.values())) > 6, "of different bands"
    for row in evidence.report.rows:
        band, area = evidence.permuted[row.key].band, row.metrics.auroc
        depth = next(depth for depth in bars if depth == pytest.approx(drawn[area.lower, area.upper][0]))
        assert bars[depth] == pytest.approx((band.lower, band.upper))


def test_what_the_verdict_rests_on_is_bold_and_ringed(evidence, axis):
    areas = [evidence.report.row(AuditKey(attack, "all")).metrics.auroc for attack in CALIBRATED]
    rings = [line for line in axis.lines if line.get_fillstyle() == "none"]
    places = {(area.value, whiskers(axis)[area.lower, area.upper][0]) for area in areas}
    assert {(ring.get_xdata()[0], ring.get_ydata()[0]) for ring in rings} == places
    assert {label.get_text() for label in axis.get_yticklabels() if label.get_fontweight() == "bold"} == set(CALIBRATED)
    numbers = {text.get_text(): text.get_fontweight() for text in axis.texts}
    assert not numbers or len(numbers) == len(axis.get_yticks())
    assert {number for number, weight in numbers.items() if weight == "bold"} == ({*map(str, areas)} if numbers else set())


def test_insiders_have_a_marker_and_a_line_in_the_legend_of_their_own(evidence):
    assert len({marker for marker, _, _ in LOOKS.values()}) == len(LOOKS), "told apart in grey"
    attacks, _ = forest_marks(evidence)
    assert {mark.label.split("/")[0] for mark in attacks if mark.kind == "insider"} == {"sima_history"}
    figure = forest_figure(evidence)
    area = evidence.report.row(AuditKey("sima_history", "all")).metrics.auroc
    point, _ = (line for line in figure.axes[0].lines if list(line.get_xdata()) == [area.value])  # and its ring
    assert point.get_marker() == LOOKS["insider"][0]
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert said[:3] == [LOOKS[kind][2] for kind in ("outsider", "insider", "control")]
    few = evidence_of(attacks=("sima",), masks=("all",), controls={}, calibrated={})
    without = [text.get_text() for text in forest_figure(few).legends[0].get_texts()]
    assert without == [LOOKS["outsider"][2], "where labels mean nothing (permuted)", "the verdict rests on it"]


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_nothing_is_covered_or_cut_off(evidence, width):
    figure = forest_figure(evidence, width=width)
    figure.draw_without_rendering()
    (axis,), (legend,) = figure.axes, figure.legends
    assert not legend.get_window_extent().overlaps(axis.get_tightbbox())
    drawn, (right, top) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(drawn.x0, drawn.y0, right - drawn.x1, top - drawn.y1) > -0.02
    assert axis.get_window_extent().width > 0.35 * figure.bbox.width
    labels = [label.get_window_extent() for label in axis.get_yticklabels()]
    assert not any(one.overlaps(other) for place, one in enumerate(labels) for other in labels[:place])
    assert max(len(label.get_text()) for label in axis.get_yticklabels()) == MAX_LABEL


def test_a_masked_primary_has_a_row_beside_the_unmasked_attack():
    evidence = evidence_of(key=AuditKey("sima", "top60"), attacks=("sima",), calibrated={})
    rows = [mark for mark in forest_marks(evidence)[0] if not mark.is_masked]
    assert {(mark.label, mark.is_primary) for mark in rows} == {("sima", False), ("sima/top60", True)}
    only_masked = evidence_of(key=AuditKey("sima", "top60"), attacks=("sima",), masks=("top60", "random60"), calibrated={})
    assert [(mark.label, mark.is_masked) for mark in forest_marks(only_masked)[0]] == [
        *(("sima/top60", False), ("sima/random60", True)),
    ]


def test_the_caption_says_what_is_seen(evidence):
    rows = {row.key.attack: row.metrics.auroc for row in evidence.report.rows if row.key.mask == "all"}
    best = max(rows, key=lambda attack: rows[attack].value)
    said = forest_caption(evidence_of(controls=CONTROLS | {"latent norm": Estimate(0.1, 0.05, 0.15)}))
    assert said.startswith(f"{best} has the highest AUROC of the attacks, {rows[best]}; ")
    assert "latent norm lies farthest from guessing, 0.100 [0.050, 0.150]" in said, "below .5 tells as much as above"
    assert "denoiser" not in forest_caption(evidence_of(controls={}))

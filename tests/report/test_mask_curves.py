"""All masks of an attack in one picture: the same numbers on paper and in a browser, readable where five overlap."""

import pytest

from ldm_privacy.report.curves import mask_curves, memorization_figure
from ldm_privacy.report.figures.base import MAX_WHISKERS
from ldm_privacy.types import AuditKey

MASKS = ("all", "top60", "random60", "low60", "std60", "tuned")
KEYS = [AuditKey(attack, mask) for attack in ("loss", "sima") for mask in MASKS]
SIMA = AuditKey("sima", "all")


def history(epochs):
    found = {(epochs[2], "memorization/sima/all/onset_epoch"): epochs[1]}
    for place, key in enumerate(KEYS):
        for epoch in epochs:
            value = 0.5 + 0.3 * epoch / epochs[-1] + 0.01 * place
            for end, shift in (("", 0.0), ("_lower", -0.04), ("_upper", 0.02)):
                found[epoch, f"memorization/{key}/auroc{end}"] = value + shift
    return found


@pytest.fixture
def curves():
    return mask_curves(history(range(0, 60, 10)), KEYS, SIMA, {})


def test_the_primary_attack_comes_first_with_its_onset(curves):
    assert [(each.attack, each.onset, list(each.lines)) for each in curves] == [
        ("sima", 10, list(MASKS)),
        ("loss", None, list(MASKS)),
    ]
    assert mask_curves({}, KEYS, SIMA, {}) == []
    assert curves[0].name < "distortion"


def test_lines_and_whiskers_are_the_audits(curves):
    axis = curves[0].figure().axes[0]
    for mask, container in zip(MASKS, axis.containers):
        epochs, areas = curves[0].lines[mask]
        middle, _, (bars,) = container
        ends = [(low, high) for (_, low), (_, high) in bars.get_segments()]
        assert ends == [pytest.approx((area.lower, area.upper)) for area in areas]
        assert middle.get_ydata() == pytest.approx([area.value for area in areas])
        assert middle.get_xdata() == pytest.approx(epochs, abs=10 / 5), "a fifth of the way to the next audit at most"
        assert list(middle.get_xdata()) in [list(line.get_xdata()) for line in axis.lines], "a line goes through its marks"
    beside = [container[0].get_xdata() for container in axis.containers]
    for audit in zip(*beside):
        assert len(set(audit)) == len(MASKS), "no whisker on another"
    assert max(beside[-1][:-1]) < min(beside[0][-1:]), "nor in the next audit's place"


@pytest.mark.parametrize("count", [2, 12, 13, 100])
def test_many_audits_have_few_whiskers_the_last_among_them(count):
    (curves, _) = mask_curves(history(range(0, 10 * (count + 1), 10)), KEYS, SIMA, {})
    for container in curves.figure().axes[0].containers:
        middle = container[0]
        assert len(middle.get_xdata()) <= MAX_WHISKERS
        assert abs(middle.get_xdata()[-1] - 10 * count) < 10 * count / 4


def test_the_browser_gets_the_same_numbers(curves):
    figure = curves[0].plotly().to_dict()
    lines = {trace["name"]: trace for trace in figure["data"] if trace["mode"] == "lines"}
    marks = {trace["legendgroup"]: trace for trace in figure["data"] if trace["mode"] == "markers"}
    assert list(lines) == ["tuned", "std60", "low60", "random60", "top60", "all"], "the highest first"
    for mask, (epochs, areas) in curves[0].lines.items():
        assert list(lines[mask]["x"]) == list(marks[mask]["x"]) == pytest.approx(epochs, abs=10 / 5)
        assert list(lines[mask]["y"]) == [area.value for area in areas]
        assert [tuple(each) for each in lines[mask]["customdata"]] == [
            (area.lower, area.upper, epoch) for area, epoch in zip(areas, epochs)
        ]
        bars = marks[mask]["error_y"]
        assert [up + down for up, down in zip(bars["array"], bars["arrayminus"])] == pytest.approx([0.06] * len(areas))
    assert len({(trace["line"]["color"], trace["line"]["dash"]) for trace in lines.values()}) == len(MASKS)
    assert len({trace["line"]["dash"] for trace in lines.values()}) == len(MASKS), "told apart in grey"


def test_legends_stand_outside(curves):
    for figure in (curves[0].figure(), memorization_figure(curves)):
        figure.draw_without_rendering()
        (legend,) = figure.legends
        assert not any(legend.get_window_extent().overlaps(axis.get_window_extent()) for axis in figure.axes)
        assert len(legend.get_texts()) == len(MASKS)

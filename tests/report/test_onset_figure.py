"""The onsets that metrics.csv knows: a panel per quantity that has values, its own line and sentence where it has an onset."""

import pytest

from ldm_privacy.audit.scores import Derived
from ldm_privacy.report.curves import mask_curves, onset_figure, onset_lines, training_figures
from ldm_privacy.types import AuditKey

KEY = AuditKey("sima", "all")
AREA = f"memorization/{KEY}"


@pytest.fixture
def history():
    """The gap opens at epoch 20 and the AUROC rises at epoch 10, which the audits at 30 know; no copies stand out."""
    epochs = range(0, 50, 10)
    curves = {(epoch, "denoiser/loss_gap"): 0.001 * epoch for epoch in epochs}
    for end, offset in (("", 0.0), ("_lower", -0.05), ("_upper", 0.05)):
        curves |= {(epoch, f"{AREA}/auroc{end}"): 0.5 + 0.008 * epoch + offset for epoch in epochs}
        curves |= {(epoch, f"generations/memorized{end}"): 0.01 * epoch + offset for epoch in (20, 40)}
    curves |= {(epoch, "generations/memorized_heldout"): 0.01 for epoch in (20, 40)}
    return curves | {(30, "denoiser/loss_gap_onset_epoch"): 20.0, (30, f"{AREA}/onset_epoch"): 10.0}


def vertical_lines(axis):
    return [line.get_xdata()[0] for line in axis.lines if len(set(line.get_xdata())) == 1]


def test_every_quantity_has_its_panel_and_its_own_onset(history):
    axes = onset_figure(history, KEY).axes
    assert [vertical_lines(axis) for axis in axes] == [[20], [10], []]
    assert [axis.lines[0].get_xdata().tolist() for axis in axes] == [[0, 10, 20, 30, 40], [0, 10, 20, 30, 40], [20, 40]]
    assert axes[0].get_xlim() == axes[1].get_xlim() == axes[2].get_xlim()
    bands = [axis.collections[0].get_paths()[0].vertices[:, 1] for axis in axes]
    assert [band.min() for band in bands] == pytest.approx([0, 0.45, 0.15])
    assert [band.max() for band in bands] == pytest.approx([0.04, 0.87, 0.45])
    titles = [axis.get_title(loc="left") for axis in axes]
    assert "onset: epoch 20" in titles[0]
    assert "sima/all" in titles[1]
    assert "no onset" in titles[2]


def test_each_onset_is_said(history):
    assert onset_lines(history, KEY) == [
        "Onset of the loss gap: epoch 20.",
        "Memorization onset (sima/all): epoch 10.",
        "Onset of memorized generations: none up to epoch 40.",
    ]


def test_what_a_rise_was_counted_of_follows_the_primary_attack(history):
    outsider, gained, insider = (AuditKey(f"sima_{name}", "all") for name in ("complexity", "gained", "calibrated"))
    derived = {outsider: Derived(KEY, False), gained: Derived(KEY, True), insider: Derived(KEY, True)}
    for key in derived:
        history |= {(epoch, f"memorization/{key}/auroc"): 0.6 for epoch in (0, 10, 20)}
    for key in (KEY, outsider, gained):
        history |= {(epoch, f"memorization/{key}/{name}"): 0.1 for name in ("rise", "rise_lower") for epoch in (10, 20)}
    history[20, f"memorization/{gained}/onset_epoch"] = 10.0
    assert onset_lines(history, KEY)[1:4] == [
        "Memorization onset (sima/all): epoch 10.",
        "Memorization onset (sima_complexity/all): none up to epoch 20.",
        "Memorization onset (sima_gained/all): epoch 10.",
    ], "none is said of what none was counted of"
    assert len(onset_figure(history, KEY).axes) == 5
    (curves,) = mask_curves(history, [KEY, *derived], KEY, derived)
    assert list(curves.lines) == ["all", "sima_complexity", "sima_calibrated"], "among the primary attack's, not apart"


def test_a_quantity_that_was_never_measured_has_no_panel(history):
    without = {key: value for key, value in history.items() if not key[1].startswith("generations")}
    assert len(onset_figure(without, KEY).axes) == 2
    assert len(onset_lines(without, KEY)) == 2
    assert list(training_figures(without, [KEY], KEY, {}, {})) == ["attack_sima", "memorization", "onset"]
    assert training_figures({}, [KEY], KEY, {}, {}) == {}

"""The figure of the onsets: a panel per quantity that has values, its own line where it has an onset."""

import pytest

from ldm_privacy.report.figures.training import GENERATIONS, LOSS_GAP, onset_figure

AUROC = "memorization/sima/all/auroc"


@pytest.fixture
def history():
    epochs = range(0, 50, 10)
    curves = {(epoch, LOSS_GAP): 0.001 * epoch for epoch in epochs}
    for end, offset in (("", 0.0), ("_lower", -0.05), ("_upper", 0.05)):
        curves |= {(epoch, AUROC + end): 0.5 + 0.008 * epoch + offset for epoch in epochs}
        curves |= {(epoch, GENERATIONS + end): 0.01 * epoch + offset for epoch in (20, 40)}
    return curves | {(epoch, "generations/memorized_heldout"): 0.01 for epoch in (20, 40)}


def vertical_lines(axis):
    return [line.get_xdata()[0] for line in axis.lines if len(set(line.get_xdata())) == 1]


def test_every_quantity_has_its_panel_and_its_own_onset(history):
    axes = onset_figure(history, {LOSS_GAP: 20, AUROC: 10, GENERATIONS: None}).axes
    assert [vertical_lines(axis) for axis in axes] == [[20], [10], []]
    assert [axis.lines[0].get_xdata().tolist() for axis in axes] == [[0, 10, 20, 30, 40], [0, 10, 20, 30, 40], [20, 40]]
    assert axes[0].get_xlim() == axes[1].get_xlim() == axes[2].get_xlim()
    assert [len(axis.collections) for axis in axes] == [0, 1, 1]
    titles = [axis.get_title(loc="left") for axis in axes]
    assert "onset: epoch 20" in titles[0]
    assert "sima/all" in titles[1]
    assert "no onset" in titles[2]


def test_a_quantity_that_was_never_measured_has_no_panel(history):
    without = {key: value for key, value in history.items() if not key[1].startswith("generations")}
    assert len(onset_figure(without, {LOSS_GAP: None, AUROC: None, GENERATIONS: None}).axes) == 2

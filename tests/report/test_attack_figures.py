"""Pictures of the attacks: masks beside their attack, calibrated scores beside what they are made of."""

import pytest

from ldm_privacy.report.figures.attacks import auroc_by_timestep_figure, roc_figure
from tests.report.test_forest import CALIBRATED, MASKS, evidence_of


@pytest.mark.parametrize("draw", [roc_figure, auroc_by_timestep_figure])
def test_calibrated_scores_share_a_panel_with_the_plain_one(draw):
    report = evidence_of(attacks=("loss", "sima")).report
    panels = {axis.get_title(): axis for axis in draw(report).axes}
    assert list(panels) == ["loss", "sima", "calibrated scores"]
    drawn = {name: [label.split(" ")[0] for label in axis.get_legend_handles_labels()[1]] for name, axis in panels.items()}
    assert drawn["loss"] == drawn["sima"] == list(MASKS)
    assert drawn["calibrated scores"] == ["sima/all", *(f"{attack}/all" for attack in CALIBRATED)]
    without = draw(evidence_of(attacks=("loss", "sima"), calibrated={}).report)
    assert [axis.get_title() for axis in without.axes] == ["loss", "sima"]

"""Section: every attack beside the controls, in one picture; it leads the page."""

from ldm_privacy.registry import SECTIONS
from ldm_privacy.report.evaluation import Evaluation
from ldm_privacy.report.figures.base import picture
from ldm_privacy.report.figures.forest import NARROW, forest_caption, forest_figure
from ldm_privacy.report.page.blocks import Section


@SECTIONS.register("forest")
def forest(evaluation: Evaluation) -> Section | None:
    """The forest plot, drawn anew for narrow screens; None where there are no figures."""
    if "forest" not in evaluation.figures:
        return None
    narrow = forest_figure(evaluation.evidence, width=NARROW)
    drawn = picture(evaluation.figures["forest"], forest_caption(evaluation.evidence), narrow=narrow)
    return Section("Attacks beside controls", "", (drawn,), place=0)

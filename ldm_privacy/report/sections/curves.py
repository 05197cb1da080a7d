"""Section: the choices of an audit, and its curves."""

from ldm_privacy.registry import SECTIONS
from ldm_privacy.report.evaluation import Evaluation
from ldm_privacy.report.page.blocks import Section

CAPTIONS = {
    "roc": "ROC curves on logarithmic axes: the left edge is what an attacker who must not be wrong can do.",
    "auroc_by_timestep": "AUROC over timesteps; rings mark the timesteps that the halves chose for each other.",
    "keep_fraction": "AUROC over the share of latent dimensions kept, by influence and by its controls.",
    "histogram": "Where members and held-out samples score.",
}


@SECTIONS.register("curves")
def curves(evaluation: Evaluation) -> Section:
    """The figures of the attacks."""
    return Section("Choices and curves", "", evaluation.pictures(CAPTIONS), place=40)

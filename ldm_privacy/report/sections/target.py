"""Section: what was audited."""

from ldm_privacy.registry import SECTIONS
from ldm_privacy.report.evaluation import Evaluation
from ldm_privacy.report.page.blocks import KeyValues, Section


@SECTIONS.register("target")
def target(evaluation: Evaluation) -> Section | None:
    """The facts of the target, as it says them itself; nothing where it says none."""
    facts = evaluation.target
    return Section("What was audited", "", (KeyValues(facts.items()),), place=2) if facts else None

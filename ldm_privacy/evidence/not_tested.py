"""What an audit left untested, in words."""

from collections.abc import Mapping

from ldm_privacy.evidence.gather import Evidence
from ldm_privacy.metrics import GenerationCopies

NEVER = (
    "Another training with the same settings: intervals leave out its randomness.",
    "Attacks that train models of their own, or look at gradients of the target's parameters.",
    "Attribute inference, model inversion and other reconstruction of images that one doesn't have.",
)
"""Of no audit here."""


def not_tested(evidence: Evidence, results: Mapping[str, object]) -> list[str]:
    """What this audit could have looked at and did not, then what none does.

    Args:
        evidence: Of the audit.
        results: What watchers found, by label.
    """
    data = evidence.report.data
    untested = []
    if not any(each.needs_history for each in data.derived.values()):
        untested.append("What the run's earlier checkpoints give to an insider: no earlier audits were at hand.")
    if not any(each.reference for each in data.derived.values()):
        untested.append("Attacks that compare the model with a reference, as its base or an earlier checkpoint.")
    if not any(isinstance(each, GenerationCopies) for each in results.values()):
        untested.append("Whether generated images copy training images: none were generated.")
    if not data.by_coins:
        untested.append("How large epsilon is: no coins decided who is a member.")
    if data.group is None:
        untested.append("Persons or other groups with several images: each image counts by itself.")
    return [*untested, *NEVER]

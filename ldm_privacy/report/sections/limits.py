"""Section: what the numbers don't mean, and what was not tested."""

from ldm_privacy.evidence.not_tested import not_tested
from ldm_privacy.registry import SECTIONS
from ldm_privacy.report.evaluation import Evaluation
from ldm_privacy.report.page.blocks import Bullets, Paragraph, Section

LIMITS = (
    "Intervals are over the audited samples. They leave out the randomness of training: another seed gives another model.",
    "ASR picks its threshold, and 'oracle' its timestep, on the reported samples themselves: both are optimistic and stand "
    "here for comparison with published numbers only.",
    "These attacks are a lower bound on what can be learned. A stronger one may find what they don't.",
    "A false-positive rate below one in the number of held-out samples can't be measured.",
    "Attack numbers speak of these images. Members that are rarer or stranger than the audited ones can be more exposed.",
    "A high score of one image is a reason to look, not proof: the false-positive rate beside it says how often an image that "
    "was never seen scores as high.",
)


@SECTIONS.register("limits")
def limits(evaluation: Evaluation) -> Section:
    """What is the same for every evaluation, then what this one left untested."""
    untested = Bullets(not_tested(evaluation.evidence, evaluation.results))
    return Section("What these numbers don't mean", "", (Bullets(LIMITS), Paragraph("Not tested:"), untested), place=90)

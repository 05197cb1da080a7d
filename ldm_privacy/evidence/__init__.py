"""Evidence from an audit: null distributions, controls, exposure, verdicts, comparisons. No network passes."""

from ldm_privacy.evidence.compare import Comparison, Spread, check_one_split, compare
from ldm_privacy.evidence.exposure import Exposure, attack_agreement, epoch_agreement, exposure_of
from ldm_privacy.evidence.gather import NUM_STEPS, DatasetVerdict, Evidence, gather_evidence
from ldm_privacy.evidence.null import PermutedRow, label_permutation
from ldm_privacy.evidence.verdict import Verdict, verdict_of

__all__ = [
    "NUM_STEPS",
    "Comparison",
    "DatasetVerdict",
    "Evidence",
    "Exposure",
    "PermutedRow",
    "Spread",
    "Verdict",
    "attack_agreement",
    "check_one_split",
    "compare",
    "epoch_agreement",
    "exposure_of",
    "gather_evidence",
    "label_permutation",
    "verdict_of",
]

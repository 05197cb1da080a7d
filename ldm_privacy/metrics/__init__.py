"""Metrics of membership inference: pure functions of scores (higher = member) and labels; member is positive."""

from ldm_privacy.metrics.attack_success_rate import attack_success_rate, attack_success_rate_interval
from ldm_privacy.metrics.auroc import auroc, auroc_interval
from ldm_privacy.metrics.auroc_difference import PairedDifference, auroc_difference
from ldm_privacy.metrics.checks import check_scores
from ldm_privacy.metrics.loss_gap import loss_gap_rise
from ldm_privacy.metrics.membership_metrics import MembershipMetrics, membership_metrics
from ldm_privacy.metrics.memorized_generations import GenerationCopies, memorized_generations
from ldm_privacy.metrics.permutation import NullBand, null_band, permuted_auroc, permuted_labels
from ldm_privacy.metrics.placements import placements
from ldm_privacy.metrics.quartiles import QuartileAuroc, auroc_by_quartile
from ldm_privacy.metrics.rank_agreement import TopOverlap, rank_agreement, top_overlap
from ldm_privacy.metrics.resampling import clopper_pearson
from ldm_privacy.metrics.roc import roc_curve
from ldm_privacy.metrics.tpr_at_fpr import (
    TprAtFpr,
    resolvable,
    threshold_at_fpr,
    tnr_at_fnr,
    tpr_at_fpr,
    tpr_at_fpr_interval,
)
from ldm_privacy.metrics.tpr_at_threshold import RatesAtThreshold, tpr_at_threshold
from ldm_privacy.metrics.welch import PValueAtSize, WelchVerdict, holm, p_value_by_set_size, welch_verdict

__all__ = [
    "GenerationCopies",
    "MembershipMetrics",
    "NullBand",
    "PValueAtSize",
    "PairedDifference",
    "QuartileAuroc",
    "RatesAtThreshold",
    "TopOverlap",
    "TprAtFpr",
    "WelchVerdict",
    "attack_success_rate",
    "attack_success_rate_interval",
    "auroc",
    "auroc_by_quartile",
    "auroc_difference",
    "auroc_interval",
    "check_scores",
    "clopper_pearson",
    "holm",
    "loss_gap_rise",
    "membership_metrics",
    "memorized_generations",
    "null_band",
    "p_value_by_set_size",
    "permuted_auroc",
    "permuted_labels",
    "placements",
    "rank_agreement",
    "resolvable",
    "roc_curve",
    "threshold_at_fpr",
    "tnr_at_fnr",
    "top_overlap",
    "tpr_at_fpr",
    "tpr_at_fpr_interval",
    "tpr_at_threshold",
    "welch_verdict",
]

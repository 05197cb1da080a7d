"""Metrics of membership inference: pure functions of scores and labels; member is positive. What they share is said once, here.

Args:
    score: (..., samples), higher = member, any real dtype; each row by itself. (samples,) where there is an interval.
    is_member: (samples,) bool, the same for every row.
    confidence: Nominal coverage of an interval: two-sided, over the audited samples, without the randomness of training.
    group: (samples,) labels (patient, identity) where samples are not independent: whole groups are resampled, and counted in
        place of samples. No group lies on both sides.
    num_bootstrap: Resamples, members and held-out separately, O(samples) each.
    seed: Of the bootstrap; same seed, same bounds. Nothing else is random, and there are no network passes.

Raises:
    UserError: see `check_scores`; a share (confidence, target rate) outside (0, 1); a group on both sides, or not a label a
        sample.
"""
# ruff: noqa: F401

from ldm_privacy.metrics.attack_success_rate import attack_success_rate, attack_success_rate_interval
from ldm_privacy.metrics.auroc import auroc, auroc_interval
from ldm_privacy.metrics.auroc_difference import PairedDifference, auroc_difference
from ldm_privacy.metrics.checks import check_scores
from ldm_privacy.metrics.choice_reach import choice_reach, choice_widening
from ldm_privacy.metrics.crossfit import CrossfitRates, crossfit_auroc, crossfit_difference, crossfit_rates
from ldm_privacy.metrics.epsilon import EpsilonBound, Guesses, crossfit_epsilon, epsilon_lower_bound, guess_thresholds
from ldm_privacy.metrics.half import Half
from ldm_privacy.metrics.loss_gap import loss_gap_rise
from ldm_privacy.metrics.mean_difference import mean_difference
from ldm_privacy.metrics.membership_metrics import MembershipMetrics, membership_metrics
from ldm_privacy.metrics.memorized_generations import GenerationCopies, memorized_generations
from ldm_privacy.metrics.pearson import pearson
from ldm_privacy.metrics.permutation import NullBand, auroc_of_labels, null_band, permuted_auroc, permuted_labels
from ldm_privacy.metrics.placements import placements
from ldm_privacy.metrics.quartiles import QuartileAuroc, auroc_by_quartile
from ldm_privacy.metrics.rank_agreement import rank_agreement
from ldm_privacy.metrics.resampling import clopper_pearson
from ldm_privacy.metrics.roc import roc_curve
from ldm_privacy.metrics.tpr_at_fpr import TprAtFpr, resolvable, threshold_at_fpr, tnr_at_fnr, tpr_at_fpr, tpr_at_fpr_interval
from ldm_privacy.metrics.tpr_at_threshold import RatesAtThreshold, tpr_at_threshold
from ldm_privacy.metrics.welch import PValueAtSize, WelchVerdict, holm, p_value_by_set_size, welch_verdict

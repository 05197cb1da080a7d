"""Slow, obvious versions of the membership metrics: loops over pairs, thresholds and resamples of the scores themselves."""

import math

import numpy as np
from scipy import stats


def placements(member, heldout):
    """The two structural components of the AUROC from the full members x held-out table."""
    table = (member[:, None] > heldout[None, :]) + 0.5 * (member[:, None] == heldout[None, :])
    return table.mean(axis=1), table.mean(axis=0)


def auroc(member, heldout):
    """Share of pairs in order, ties one half, pair by pair."""
    in_order = 0.0
    for x in member:
        for y in heldout:
            in_order += 1.0 if x > y else 0.5 if x == y else 0.0
    return in_order / (len(member) * len(heldout))


def delong_logit_interval(member, heldout, confidence):
    """DeLong's variance from the table, normal interval for the log odds of the AUROC."""
    v10, v01 = placements(member, heldout)
    area = v10.mean()
    variance = np.cov(v10) / len(member) + np.cov(v01) / len(heldout)
    half_width = stats.norm.ppf((1 + confidence) / 2) * math.sqrt(variance) / (area * (1 - area))
    ends = math.log(area / (1 - area)) + np.array([-half_width, half_width])
    return 1 / (1 + np.exp(-ends))


def paired_delong(member_a, heldout_a, member_b, heldout_b):
    """Difference of two AUROCs and its standard deviation from the 2 x 2 covariance matrix of DeLong et al. 1988."""
    a10, a01 = placements(member_a, heldout_a)
    b10, b01 = placements(member_b, heldout_b)
    covariance = np.cov(np.stack([a10, b10])) / len(a10) + np.cov(np.stack([a01, b01])) / len(a01)
    contrast = np.array([1.0, -1.0])
    return a10.mean() - b10.mean(), math.sqrt(contrast @ covariance @ contrast)


def thresholds(member, heldout):
    """One threshold at every score and one above all, for the rule score >= threshold."""
    return [math.inf, *sorted(set(member) | set(heldout), reverse=True)]


def roc_curve(member, heldout):
    """FPR and TPR, threshold by threshold."""
    cuts = thresholds(member, heldout)
    fpr = [np.mean(np.asarray(heldout) >= cut) for cut in cuts]
    tpr = [np.mean(np.asarray(member) >= cut) for cut in cuts]
    return np.array(fpr), np.array(tpr), np.array(cuts)


def tpr_at_fpr(member, heldout, target_fpr):
    """The largest TPR over all thresholds with FPR <= target, up to rounding in the eleventh digit."""
    fpr, tpr, _ = roc_curve(member, heldout)
    return max(t for f, t in zip(fpr, tpr) if f <= target_fpr + 1e-11)


def tnr_at_fnr(member, heldout, target_fnr):
    """The largest share of held-out below a threshold that leaves at most the target share of members below it."""
    best = 0.0
    for cut in [*thresholds(member, heldout), -math.inf]:
        if np.mean([x < cut for x in member]) <= target_fnr + 1e-11:
            best = max(best, np.mean([y < cut for y in heldout]))
    return best


def attack_success_rate(member, heldout):
    """The best balanced accuracy over all thresholds."""
    fpr, tpr, _ = roc_curve(member, heldout)
    return max((t + 1 - f) / 2 for f, t in zip(fpr, tpr))


def naive_bootstrap_tpr(member, heldout, target_fpr, num_bootstrap, generator):
    """TPR at a target FPR of resampled scores: (strict, loose), thresholds at the a-th and (a + 1)-th largest held-out."""
    allowed = math.floor(target_fpr * len(heldout) + 1e-9)
    strict, loose = [], []
    for _ in range(num_bootstrap):
        x = generator.choice(member, size=len(member))
        y = np.sort(generator.choice(heldout, size=len(heldout)))[::-1]
        strict.append(np.mean(x > y[allowed - 1]) if allowed else 0.0)
        loose.append(np.mean(x > y[allowed]))
    return np.array(strict), np.array(loose)


def naive_bootstrap_asr(member, heldout, num_bootstrap, generator):
    """Best balanced accuracy of resampled scores, and what its threshold gives on the scores themselves."""
    rates, worths = [], []
    for _ in range(num_bootstrap):
        fpr, tpr, cuts = roc_curve(generator.choice(member, size=len(member)), generator.choice(heldout, size=len(heldout)))
        best = np.argmax(tpr - fpr)
        rates.append((tpr[best] + 1 - fpr[best]) / 2)
        worths.append((np.mean(member >= cuts[best]) + 1 - np.mean(heldout >= cuts[best])) / 2)
    return np.array(rates), np.array(worths)


def deviation_at_best_threshold(member, heldout):
    """Standard deviation of the balanced accuracy at the best threshold, two misses and two hits added to each side."""
    fpr, tpr, _ = roc_curve(member, heldout)
    best = np.argmax(tpr - fpr)
    variance = 0.0
    for share, num in ((tpr[best], len(member)), (fpr[best], len(heldout))):
        smoothed = (share * num + 2) / (num + 4)
        variance += smoothed * (1 - smoothed) / (num + 4)
    return math.sqrt(variance) / 2


def naive_group_bootstrap_auroc(groups_of_members, groups_of_heldout, num_bootstrap, generator):
    """AUROC of scores pooled from resampled groups; each argument is a list of arrays, one per group."""
    areas = []
    for _ in range(num_bootstrap):
        x = [groups_of_members[i] for i in generator.integers(len(groups_of_members), size=len(groups_of_members))]
        y = [groups_of_heldout[i] for i in generator.integers(len(groups_of_heldout), size=len(groups_of_heldout))]
        areas.append(placements(np.concatenate(x), np.concatenate(y))[0].mean())
    return np.array(areas)


def welch(suspect, heldout, confidence):
    """One-sided p-value and lower bound of Welch's test, by Welch & Satterthwaite's degrees of freedom."""
    share_s, share_h = np.var(suspect, ddof=1) / len(suspect), np.var(heldout, ddof=1) / len(heldout)
    freedom = (share_s + share_h) ** 2 / (share_s**2 / (len(suspect) - 1) + share_h**2 / (len(heldout) - 1))
    difference, deviation = np.mean(suspect) - np.mean(heldout), math.sqrt(share_s + share_h)
    return stats.t.sf(difference / deviation, freedom), difference - stats.t.ppf(confidence, freedom) * deviation


def normal_truth(shift, target_fpr=0.01):
    """AUROC, best balanced accuracy and TPR at a target FPR of members N(shift, 1) against held-out N(0, 1)."""
    return {
        "auroc": stats.norm.cdf(shift / math.sqrt(2)),
        "asr": stats.norm.cdf(shift / 2),
        "tpr": stats.norm.sf(stats.norm.isf(target_fpr) - shift),
    }

"""Slow, obvious versions of the membership metrics: loops over pairs, thresholds and resamples of the scores themselves."""

import math

import numpy as np
from scipy import optimize, stats


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


def auroc_interval(member, heldout, confidence):
    """The interval of `auroc_interval` by its docstring, case by case."""
    area, num_pairs, tail = auroc(member, heldout), min(len(member), len(heldout)), (1 - confidence) / 2
    if area == 1:
        return tail ** (1 / num_pairs), 1.0
    if area == 0:
        return 0.0, 1 - tail ** (1 / num_pairs)
    if len({*member, *heldout}) == 1:
        share_tied = (2 * tail) ** (1 / num_pairs)
        return share_tied / 2, 1 - share_tied / 2
    return tuple(delong_logit_interval(member, heldout, confidence)) if num_pairs > 1 else (0.0, 1.0)


def mean_variance(term, group):
    """Variance of a mean whose independent units are groups."""
    names, of_sums = set(group), 0.0
    for name in names:
        of_sums += sum(d - np.mean(term) for d, g in zip(term, group) if g == name) ** 2
    return len(names) / (len(names) - 1) * of_sums / len(term) ** 2


def paired_difference(member_a, heldout_a, member_b, heldout_b, member_group, heldout_group, confidence, is_two_sided):
    """(lower, upper, p-value) of `auroc_difference` by its docstring, case by case."""
    terms = [a - b for a, b in zip(placements(member_a, heldout_a), placements(member_b, heldout_b))]
    value, num_pairs = terms[0].mean(), min(len(set(member_group)), len(set(heldout_group)))
    tail = (1 - confidence) / 2 if is_two_sided else 1 - confidence
    if np.array_equal(member_a, member_b) and np.array_equal(heldout_a, heldout_b):
        lower, upper, p_value = 0.0, 0.0, 1.0
    elif all(len(set(term)) == 1 for term in terms):
        share, p_value = tail ** (1 / num_pairs), (1 / (1 + abs(value))) ** num_pairs
        lower, upper = value * share - (1 - share), value * share + (1 - share)
        p_value = min(1.0, 2 * p_value) if is_two_sided else p_value if value > 0 else 1.0
    elif num_pairs < 2:
        lower, upper, p_value = -1.0, 1.0, 1.0
    else:
        deviation = math.sqrt(mean_variance(terms[0], member_group) + mean_variance(terms[1], heldout_group))
        lower, upper = value + deviation * stats.norm.ppf([tail, 1 - tail])
        p_value = 2 * stats.norm.sf(abs(value) / deviation) if is_two_sided else stats.norm.sf(value / deviation)
    return max(-1.0, lower), min(1.0, upper) if is_two_sided else 1.0, p_value


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


def resample(groups, generator):
    """The pooled scores of as many groups as there are, drawn with replacement."""
    return np.concatenate([groups[i] for i in generator.integers(len(groups), size=len(groups))])


def resampled(groups_a, groups_b, num_bootstrap, generator):
    """Resamples of whole groups, each a pair of pooled scores; a side is a list of arrays, one per group (of one sample)."""
    for _ in range(num_bootstrap):
        yield [resample(side, generator) for side in (groups_a, groups_b)]


def naive_bootstrap_asr(groups_of_members, groups_of_heldout, num_bootstrap, generator):
    """Best balanced accuracy of resampled scores, and what its threshold gives on the scores themselves."""
    member, heldout = np.concatenate(groups_of_members), np.concatenate(groups_of_heldout)
    rates, worths = [], []
    for x, y in resampled(groups_of_members, groups_of_heldout, num_bootstrap, generator):
        fpr, tpr, cuts = roc_curve(x, y)
        best = np.argmax(tpr - fpr)
        rates.append((tpr[best] + 1 - fpr[best]) / 2)
        worths.append((np.mean(member >= cuts[best]) + 1 - np.mean(heldout >= cuts[best])) / 2)
    return np.array(rates), np.array(worths)


def share_variance(flagged_by_group):
    """Variance of a share, two hits and two misses added to the effective number of samples."""
    flagged = np.concatenate(flagged_by_group).astype(float)
    num_samples, num_groups, share = len(flagged), len(flagged_by_group), flagged.mean()
    of_sums = sum((group - share).sum() ** 2 for group in flagged_by_group)
    num_effective = num_groups
    if of_sums > 0:
        of_mean = of_sums * num_groups / (num_groups - 1) / num_samples**2
        num_effective = min(num_samples, max(num_groups, share * (1 - share) / of_mean))
    smoothed = (share * num_effective + 2) / (num_effective + 4)
    return smoothed * (1 - smoothed) / (num_effective + 4)


def separated_bound(num_pairs, tail):
    """The balanced accuracy from 1/2 on at which a separation of that many pairs becomes as likely as `tail`, by halving."""
    low, high = 0.5, 1.0
    for _ in range(60):
        s = (low + high) / 2
        is_rarer = 2 * num_pairs * (1 - s) * s ** (2 * num_pairs - 2) + (2 * s - 1) ** num_pairs < tail
        low, high = (s, high) if is_rarer else (low, s)
    return low


def asr_interval(groups_of_members, groups_of_heldout, confidence, num_bootstrap, generator):
    """The interval of `attack_success_rate_interval` by its docstring."""
    member, heldout = np.concatenate(groups_of_members), np.concatenate(groups_of_heldout)
    rates, worths = naive_bootstrap_asr(groups_of_members, groups_of_heldout, num_bootstrap, generator)
    fpr, tpr, cuts = roc_curve(member, heldout)
    cut, value = cuts[np.argmax(tpr - fpr)], attack_success_rate(member, heldout)
    variance = sum(share_variance([group >= cut for group in side]) for side in (groups_of_members, groups_of_heldout)) / 4
    half_width = stats.norm.ppf((1 + confidence) / 2) * math.sqrt(variance)
    bound = separated_bound(min(len(groups_of_members), len(groups_of_heldout)), (1 - confidence) / 2)
    lower = min(value - np.mean(rates - worths) - half_width, bound)
    return max(0.5, lower), min(1.0, value + half_width)


def bootstrap_tpr_by_law(member, heldout, target_fpr, num_bootstrap, generator):
    """Draws of (strict, loose) TPRs: the rank of the resample's threshold from a Beta, the members above it Binomial."""
    allowed, num = math.floor(target_fpr * len(heldout) + 1e-9), len(heldout)
    descending = [math.inf, *sorted(heldout, reverse=True)]
    ranks = [np.zeros(num_bootstrap)] if allowed == 0 else []
    for order in (allowed, allowed + 1)[len(ranks) :]:
        ranks.append(np.ceil(num * generator.beta(order, num + 1 - order, size=num_bootstrap)))
    shares = [[np.mean(np.asarray(member) > descending[int(r)]) for r in rank] for rank in ranks]
    return [generator.binomial(len(member), share) / len(member) for share in shares]


def group_bootstrap_tpr(groups_of_members, groups_of_heldout, target_fpr, num_bootstrap, generator):
    """`naive_bootstrap_tpr` with whole groups; held-out groups are drawn first."""
    strict, loose = [], []
    for heldout, member in resampled(groups_of_heldout, groups_of_members, num_bootstrap, generator):
        y, allowed = np.sort(heldout)[::-1], math.floor(target_fpr * len(heldout) + 1e-9)
        strict.append(np.mean(member > y[allowed - 1]) if allowed else 0.0)
        loose.append(np.mean(member > y[allowed]))
    return np.array(strict), np.array(loose)


def naive_group_bootstrap_auroc(groups_of_members, groups_of_heldout, num_bootstrap, generator):
    """AUROC of scores pooled from resampled groups."""
    pooled = resampled(groups_of_members, groups_of_heldout, num_bootstrap, generator)
    return np.array([placements(member, heldout)[0].mean() for member, heldout in pooled])


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


def chosen_crosswise(levels, errors, covariances, first_draw, second_draw):
    """Studentised error of one pair of draws: each half chooses by its own error, the other one reports.

    levels: per block of candidates; errors and covariances: per half, over the candidates of all blocks.
    """
    choices, sizes = [], [len(level) for level in levels]
    for error in (errors[0][first_draw], errors[1][second_draw]):
        ends, picked = np.cumsum([0, *sizes]), []
        for level, start, end in zip(levels, ends, ends[1:]):
            picked.append(start + max(range(end - start), key=lambda place: level[place] + error[start + place]))
        choices.append(picked)
    total, variance = 0.0, 0.0
    for error, covariance, reported in (
        (errors[0][first_draw], covariances[0], choices[1]),
        (errors[1][second_draw], covariances[1], choices[0]),
    ):
        contrast = np.zeros(len(error))
        for sign, place in zip((1, -1), reported):
            contrast[place] += sign
        total += contrast @ error
        variance += contrast @ covariance @ contrast
    return total / math.sqrt(variance) if variance > 0 else 0.0


def choice_quantiles(blocks, tail, draws, shifts):
    """(below, above) of the choice as `choice_reach` describes it; a block: two halves, each a list of (member, heldout)."""
    both = [[placements(*row) for block in blocks for row in block[half]] for half in range(2)]
    covariances = [
        sum(np.atleast_2d(np.cov([row[side] for row in rows])) / len(rows[0][side]) for side in range(2)) for rows in both
    ]
    area = (np.array([row[0].mean() for row in both[0]]) + np.array([row[0].mean() for row in both[1]])) / 2
    levels, start = [], 0
    for block in blocks:
        places = range(start, start + len(block[0]))
        best = max(places, key=lambda place: area[place])
        level = []
        for place in places:
            contrast = np.zeros(len(area))
            contrast[place] += 1
            contrast[best] -= 1
            deviation = math.sqrt(max(0.0, contrast @ (covariances[0] + covariances[1]) @ contrast / 4))
            level.append(-max(0.0, area[best] - area[place] - deviation))
        levels.append(level)
        start += len(block[0])
    errors = []
    for covariance in covariances:
        value, vector = np.linalg.eigh(covariance)
        errors.append(draws @ vector @ np.diag(np.sqrt(value.clip(0))) @ vector.T)
    found = [
        chosen_crosswise(levels, errors, covariances, index, (index - shift) % len(draws))
        for shift in shifts
        for index in range(len(draws))
    ]
    normal = stats.norm.isf(tail)
    return max(normal, np.quantile(found, 1 - tail)), max(normal, -np.quantile(found, tail))


def fit_quantiles(distance, tail, draws, shifts):
    """(below, above) of the fit as `choice_reach` describes it; `distance`: the reported one, in standard deviations."""
    signal = np.zeros(draws.shape[1])
    signal[0] = max(0.0, distance - math.sqrt(2))
    found = []
    for e_a, e_b in ((draws, draws[(np.arange(len(draws)) - shift) % len(draws)]) for shift in shifts):
        u_a, u_b = signal + e_a, signal + e_b
        along = [(e * u).sum(axis=1) / np.sqrt((u * u).sum(axis=1)) for e, u in ((e_a, u_b), (e_b, u_a))]
        found.append((along[0] + along[1]) / math.sqrt(2))
    normal = stats.norm.isf(tail)
    return max(normal, np.quantile(found, 1 - tail)), max(normal, -np.quantile(found, tail))


def epsilon_with_delta(num_correct, num_guesses, num_coins, delta, alpha):
    """The published p-value of so many right guesses (Steinke et al. 2305.08846), term after term; epsilon by search."""

    def p_value(epsilon):
        share = 1 / (1 + math.exp(-epsilon))
        so_far, largest = 0.0, 0.0
        for fewer in range(1, num_correct + 1):
            so_far += stats.binom.pmf(num_correct - fewer, num_guesses, share)
            largest = max(largest, so_far / fewer)
        return sum(stats.binom.pmf(range(num_correct, num_guesses + 1), num_guesses, share)) + 2 * num_coins * delta * largest

    return 0.0 if p_value(0.0) > alpha else optimize.brentq(lambda epsilon: p_value(epsilon) - alpha, 0.0, 30.0, xtol=1e-9)

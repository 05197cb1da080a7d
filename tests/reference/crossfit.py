"""Halves that choose for each other, by loops over folds, timesteps, pairs and permutations."""

import numpy as np

from tests.reference.metrics import auroc


def area(score, is_member):
    """AUROC of (samples,), pair by pair."""
    return auroc(score[is_member], score[~is_member])


def best_place(score, is_member):
    """The first timestep of the highest AUROC; `score` (timesteps, samples)."""
    areas = [area(row, is_member) for row in score]
    return areas.index(max(areas))


def folds_of(is_calibration, num_folds):
    """(half that chooses, half that reports) of each fold."""
    return [(is_calibration, ~is_calibration), (~is_calibration, is_calibration)][:num_folds]


def crossfit(score, is_member, is_calibration):
    """(AUROC, chosen places): each half chooses by its own fold's scores; the mean of what the others report."""
    areas, places = [], []
    for each, (chooses, reports) in zip(score, folds_of(is_calibration, len(score))):
        places.append(best_place(each[:, chooses], is_member[chooses]))
        areas.append(area(each[places[-1]][reports], is_member[reports]))
    return sum(areas) / len(areas), tuple(places)


def oracle(score, is_member, is_calibration):
    """The best timestep's AUROC on what is reported, mean over the folds."""
    folds = list(zip(score, folds_of(is_calibration, len(score))))
    by_place = [
        np.mean([area(each[place][reports], is_member[reports]) for each, (_, reports) in folds])
        for place in range(len(score[0]))
    ]
    return max(by_place)


def standing(score, places, is_member, is_calibration):
    """Each reported sample's score in interquartile ranges above the median of the held-out samples of the half that chose."""
    found = np.full(len(is_member), np.nan)
    for each, place, (chooses, reports) in zip(score, places, folds_of(is_calibration, len(score))):
        held = [value for value, of, choice in zip(each[place], is_member, chooses) if choice and not of]
        for sample in range(len(is_member)):
            if reports[sample]:
                found[sample] = (each[place][sample] - np.median(held)) / np.subtract(*np.percentile(held, [75, 25]))
    return found

"""Attacks as published, written plainly: one network call per timestep, one run per mask, nothing shared.

`predict(states, timestep)` takes an int timestep, and where an attack asks for several conditions, `predict(states, timestep,
condition)`; `abar` is the schedule, (timesteps,) float64; `keep` is like the latent.
Each function returns (batch,), the raw statistic with the mask at one timestep.
"""

import math

import numpy as np
import torch
from sklearn.preprocessing import RobustScaler
from torch.autograd.functional import jacobian
from torch.nn import functional


def masked(contribution, keep):
    return torch.stack([row[mask].sum() for row, mask in zip(contribution, keep)])


def noised(latent, noise, abar_t):
    return math.sqrt(abar_t) * latent + math.sqrt(1 - abar_t) * noise


def sima(predict, abar, latent, t, keep):
    return masked(predict(latent, t) ** 4, keep)


def sima_mc(predict, abar, latent, t, keep, noise):
    total = 0
    for draw in noise:
        total = total + predict(noised(latent, draw, abar[t]), t) ** 4
    return masked(total / len(noise), keep)


def sima_mc_of_mean(predict, abar, latent, t, keep, noise):
    total = 0
    for draw in noise:
        total = total + predict(noised(latent, draw, abar[t]), t)
    return masked((total / len(noise)) ** 4, keep)


def loss(predict, abar, latent, t, keep, noise, power=2):
    return masked((noise - predict(noised(latent, noise, abar[t]), t)).abs() ** power, keep)


def pia(predict, abar, latent, t, keep):
    initial = predict(latent, 0)
    return masked((initial - predict(noised(latent, initial, abar[t]), t)) ** 4, keep)


def pian(predict, abar, latent, t, keep):
    initial = predict(latent, 0)
    initial = torch.stack([row / row.abs().mean() * math.sqrt(2 / math.pi) for row in initial])
    return masked((initial - predict(noised(latent, initial, abar[t]), t)) ** 4, keep)


def secmi(predict, abar, latent, t, keep, interval=10):
    def step(state, start, end):
        # The usual form: predicted clean latent, then noise it again with the same epsilon.
        epsilon = predict(state, start)
        clean = (state - math.sqrt(1 - abar[start]) * epsilon) / math.sqrt(abar[start])
        return noised(clean, epsilon, abar[end])

    state, place = latent, 0
    while place < t:
        following = place + (t - place - 1) % interval + 1  # the first step is the short one
        state, place = step(state, place, following), following
    above = step(state, t, t + interval)
    return masked((step(above, t + interval, t) - state) ** 2, keep)


def t_mc(predict, abar, latent, t, keep, noise, antithetic=True):
    """noise: (draws, *latent.shape)."""
    draws = [sign * draw for draw in noise for sign in ((1, -1) if antithetic else (1,))]
    total = 0
    for draw in draws:
        state = noised(latent, draw, abar[t])
        epsilon = predict(state, t)
        total = total + epsilon - (state - math.sqrt(1 - abar[t]) * epsilon) / math.sqrt(abar[t])
    return masked((latent + total / len(draws)) ** 2, keep)


def pfami(predict, abar, latent, keep, noise, timesteps):
    """noise: (timesteps, *latent.shape)."""

    def losses(clean):
        total = 0
        for draw, t in zip(noise, timesteps):
            total = total + masked((draw - predict(noised(clean, draw, abar[t]), t)) ** 2, keep)
        return total / len(timesteps) / keep.sum((1, 2, 3))

    height, width = latent.shape[-2:]
    rises = 0
    for index in range(10):
        share = 0.95 - 0.25 * index / 9
        rows, columns = int(height * share), int(width * share)
        top, left = (height - rows) // 2, (width - columns) // 2
        crop = latent[:, :, top : top + rows, left : left + columns]
        crop = functional.interpolate(crop, (height, width), mode="bilinear", align_corners=False)
        rises = rises + (losses(crop) - losses(latent)) / losses(latent)
    return rises / 10


def dime(predict, abar, latent, t, keep, noise, gamma, phi):
    """noise: signs (draws, *latent.shape)."""
    sigma = math.sqrt(1 - abar[t])
    scaled = math.sqrt(abar[t]) * latent
    centre = predict(scaled, t)
    energy = divergence = 0
    for signs in noise:
        displaced = predict(scaled + gamma * sigma * signs, t)
        energy = energy + masked(displaced**2, keep) / len(noise)
        divergence = divergence + masked(signs * (displaced - centre), keep) / (gamma * sigma) / len(noise)
    return math.cos(phi) * energy + math.sin(phi) * divergence


def branch_gap(predict, abar, latent, t, keep, noise, own, null):
    state = noised(latent, noise, abar[t])
    return masked((predict(state, t, own) - predict(state, t, null)) ** 2, keep)


def curvature(predict, abar, latent, t, keep, noise, own, null):
    """One sample at a time, with the whole Jacobian."""
    state = noised(latent, noise, abar[t])

    def gradient(place, condition):
        rows = slice(place, place + 1)

        def epsilon(flat):
            return predict(flat.reshape(state[rows].shape), t, condition[rows]).flatten()

        flat = state[rows].flatten()
        return (jacobian(epsilon, flat).T @ epsilon(flat)).reshape(state.shape[1:])

    gaps = [gradient(place, own) - gradient(place, null) for place in range(len(state))]
    return masked(torch.stack(gaps) ** 2, keep)


def dsm(predict, abar, latent, t, keep, noise, own, null, guidance_scale=7.5, interval=20):
    start = noised(latent, noise, abar[t + interval])
    first = predict(start, t + interval, own)
    unconditional = predict(start, t + interval, null)
    guided = unconditional + guidance_scale * (first - unconditional)
    clean = (start - math.sqrt(1 - abar[t + interval]) * guided) / math.sqrt(abar[t + interval])
    return masked((predict(noised(clean, guided, abar[t]), t, own) - first) ** 2, keep)


def clid(predict, abar, latent, keep, noise, timesteps, own, reduced):
    """-L(c), and the mean over the reduced conditions of L(c_k) - L(c), each (batch,). noise: (timesteps, *latent.shape)."""

    def mean_error(condition):
        errors = []
        for draw, t in zip(noise, timesteps):
            error = (draw - predict(noised(latent, draw, abar[t]), t, condition)) ** 2
            errors.append(masked(error, keep) / keep.sum((1, 2, 3)))
        return torch.stack(errors).mean(0)

    own_error = mean_error(own)
    return -own_error, torch.stack([mean_error(condition) - own_error for condition in reduced]).mean(0)


def clid_scores(likelihood, discrepancy, is_member, fitted_on):
    """Of all samples, with scalers and weight from `fitted_on`; and the weights, of 0, .01, ..., 1, that are the best there."""
    parts = np.stack([likelihood.numpy(), discrepancy.numpy()], axis=1)
    scaled = RobustScaler().fit(parts[fitted_on]).transform(parts)
    scores, areas = [], []
    for hundredth in range(101):
        weight = hundredth / 100
        scores.append((1 - weight) * scaled[:, 0] + weight * scaled[:, 1])
        member, heldout = (scores[-1][(fitted_on & side).numpy()] for side in (is_member, ~is_member))
        areas.append(np.mean((member[:, None] > heldout) + 0.5 * (member[:, None] == heldout)))
    best = [hundredth for hundredth in range(101) if areas[hundredth] > max(areas) - 1e-12]
    return torch.tensor(scores[best[len(best) // 2]]), best

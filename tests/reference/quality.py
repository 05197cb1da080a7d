"""Distances between sets of features, the obvious way."""

import numpy as np
from scipy.linalg import sqrtm


def unbiased_mmd(generated, reference, kernel, label=None):
    """MMD^2 over pairs of different images, and of different labels among the references, one pair after the other."""
    label = np.arange(len(reference)) if label is None else label
    k = kernel(generated, generated)
    found = np.mean([k[i, j] for i in range(len(k)) for j in range(len(k)) if i != j])
    k = kernel(reference, reference)
    found += np.mean([k[i, j] for i in range(len(k)) for j in range(len(k)) if label[i] != label[j]])
    return found - 2 * kernel(generated, reference).mean()


def weighted_fid(generated, reference, weight):
    """FID by scipy's matrix root, of generations with weights that sum to 1; covariances of all images, not one less."""
    mean, other = weight @ generated, reference.mean(0)
    cov = (generated - mean).T @ ((generated - mean) * weight[:, None])
    other_cov = np.cov(reference.T, ddof=0)
    return np.sum((mean - other) ** 2) + np.trace(cov + other_cov - 2 * sqrtm(cov @ other_cov).real)

"""Slow, obvious versions of the geometry: the whole Jacobian, one number at a time, and the published decoder."""

import numpy as np
import torch
import torch.nn.functional as F


def published_decoder(arrays, dtype=torch.float64):
    """The decoder that the reference numbers were made with."""
    scale, up, conv = (
        torch.tensor(arrays[name], dtype=dtype) for name in ("channel_scale", "conv_transpose_weight", "conv_weight")
    )

    def decode(latent):
        hidden = F.conv_transpose2d(latent * scale[:, None, None], up, stride=2, padding=1)
        return F.conv2d(torch.tanh(hidden), conv, padding=1)

    return decode


def dense_jacobian(decode, latent):
    """J of each sample, (batch, pixels, D): one backward pass for every pixel number of every sample."""
    jacobians = []
    for sample in latent:
        leaf = sample[None].clone().requires_grad_()
        image = decode(leaf).flatten()
        rows = [torch.autograd.grad(value, leaf, retain_graph=True)[0].flatten() for value in image]
        jacobians.append(torch.stack(rows))
    return torch.stack(jacobians)


def krylov_singular_values(jacobian, block, rank):
    """`rank` singular values of J (pixels, D) on the span of B, GB, ..., G^q B, G = J^T J: (q + 1, rank) for q = 0, 1, ...

    The last span is the whole space.
    """
    basis, values = torch.linalg.qr(block).Q, []
    while True:
        values.append(torch.linalg.svdvals(jacobian @ basis)[:rank])
        if basis.shape[1] == len(block):
            return torch.stack(values)
        basis = torch.linalg.qr(torch.cat([block, jacobian.T @ jacobian @ basis], dim=1)).Q


def applications_within(values, tolerance, num_power_iterations=0):
    """Applications of G until none of `krylov_singular_values` grew by more than half the tolerance, one value at a time."""
    for q in range(num_power_iterations, len(values)):
        before = values[q - 1] if q > 0 else torch.zeros_like(values[0])
        if all((now - old) / max(now, 1e-6 * values[q][0]) <= tolerance / 2 for now, old in zip(values[q], before)):
            return q
    return len(values) - 1


def influence_loop(decode, latent, probes):
    """Probe influence one sample and one probe at a time: (batch, D)."""
    influence = []
    for sample, own in zip(latent, probes):
        total = 0
        for probe in own:
            leaf = sample[None].clone().requires_grad_()
            (decode(leaf)[0] * probe).sum().backward()
            total = total + leaf.grad.flatten() ** 2
        influence.append(total / len(own))
    return torch.stack(influence)


def percentile_mask(value, percentile):
    """Strictly above each row's percentile, NumPy's linear interpolation."""
    return value > np.percentile(value, percentile, axis=1, keepdims=True)


def shrunk_log_influence(influence, num_probes, variance):
    """ln G by a grid search of each posterior, given the residual variance of each dimension; (samples, D) NumPy arrays."""
    from scipy.special import digamma

    corrected = np.log(influence) - digamma(num_probes / 2) + np.log(num_probes / 2)
    prior = corrected.mean(1, keepdims=True) + corrected.mean(0) - corrected.mean()
    result = np.empty_like(influence)
    for n in range(influence.shape[0]):
        for i in range(influence.shape[1]):
            grid = np.linspace(prior[n, i] - 8, prior[n, i] + 8, 160_001)
            likelihood = -num_probes / 2 * (grid + influence[n, i] * np.exp(-grid))
            result[n, i] = grid[np.argmax(likelihood - (grid - prior[n, i]) ** 2 / (2 * variance[i]))]
    return result

"""What the benchmarks of the geometry compare with computes the same quantities."""

import pytest
import torch

from benchmarks.distortion import (
    RANK,
    one_graph_randomised_svd,
    published_randomised_svd,
    published_whole,
    whole_in_forward_mode,
)
from benchmarks.geometry import batched_influence, published_influence
from benchmarks.in_turn import Timing, times_faster, turns
from ldm_privacy.geometry.probe import ProbeInfluence
from tests.reference.geometry import dense_jacobian


@pytest.fixture
def decode(autoencoder):
    network = autoencoder(attention=False)
    return lambda latent: network.decode(latent).sample


@pytest.fixture
def latent():
    return torch.randn(3, 2, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_influence_with_the_same_probes_is_ours(decode, latent, batch_size):
    torch.manual_seed(0)
    influence = batched_influence(decode, latent, 5, batch_size)
    torch.manual_seed(0)
    shape = decode(latent).shape[1:]
    probes = [torch.randn(5, len(part), *shape, dtype=torch.float64).transpose(0, 1) for part in latent.split(batch_size)]
    expected = ProbeInfluence()(decode, latent, torch.arange(3), torch.cat(probes)).influence
    torch.testing.assert_close(influence, expected)
    if batch_size == 1:
        torch.manual_seed(0)
        torch.testing.assert_close(published_influence(decode, latent, 5), expected)


@pytest.mark.parametrize("method", [published_randomised_svd, one_graph_randomised_svd, published_whole, whole_in_forward_mode])
def test_singular_values_are_those_of_the_dense_jacobian(decode, latent, method):
    # 24 dimensions, fewer than directions: the randomised methods are exact.
    expected = torch.linalg.svdvals(dense_jacobian(decode, latent[:1])[0])[:RANK]
    torch.testing.assert_close(method(decode, latent[:1]), expected)


def test_a_ratio_is_taken_round_by_round():
    assert list(turns("ab", range(2))) == ["a", "b", "b", "a"]
    assert times_faster(Timing(None, [1.0, 2.0, 4.0]), Timing(None, [3.0, 4.0, 20.0])) == "3.00 (2.00 to 5.00)"

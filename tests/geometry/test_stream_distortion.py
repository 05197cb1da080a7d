"""Distortion of many samples: the two ways agree, and batches don't matter."""

import torch

from ldm_privacy.geometry import Distortion, exact_distortion, local_distortion, stream_distortion

WEIGHT = torch.randn(12, 2, 3, 3, generator=torch.Generator().manual_seed(0)).double()


def decoder(latent):
    return torch.tanh(torch.nn.functional.conv2d(latent, WEIGHT, padding=1)).flatten(1).unflatten(1, (3, 8, 8))


def test_the_exact_and_the_randomized_way_agree():
    latent = torch.randn(5, 2, 4, 4, generator=torch.Generator().manual_seed(1)).double()
    exact, randomized = exact_distortion(decoder, latent, 6), local_distortion(decoder, latent, 6)
    # Each of the 6 singular values is within 1 %.
    torch.testing.assert_close(exact, randomized, rtol=0, atol=0.06)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda z: decoder(z[None])[0].flatten()))(latent).flatten(2)
    torch.testing.assert_close(exact, torch.linalg.svdvals(jacobian)[:, :6].log().sum(1))


def test_batches_and_the_choice_of_the_way_change_nothing():
    latent = torch.randn(5, 2, 4, 4, generator=torch.Generator().manual_seed(2)).double()
    done = []
    # 192 numbers in an image: (6 + 2) * 3 = 24 products are fewer, (20 + 10) * 7 = 210 are more.
    randomized = stream_distortion(Distortion(6, 2, 1, batch_size=2), decoder, latent, progress=done.append)
    exact = stream_distortion(Distortion(6, 24, 3, batch_size=3), decoder, latent)
    assert done == [2, 4, 5]
    torch.testing.assert_close(exact, exact_distortion(decoder, latent, 6))
    torch.testing.assert_close(randomized, exact, rtol=0, atol=0.06)

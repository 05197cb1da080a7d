"""What is fitted on calibration samples: DIME's angle and orientation."""

import math

import pytest
import torch

from ldm_privacy.attacks import dime as dime_module
from ldm_privacy.attacks.base import get_attack


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("num_angles", [1, 5, dime_module.NUM_ANGLES])
def test_dimes_choice_is_the_best_of_evenly_spaced_angles(num_angles, first, monkeypatch):
    monkeypatch.setattr(dime_module, "NUM_ANGLES", num_angles)
    generator = torch.Generator().manual_seed(3)
    energy, divergence = torch.randn(2, 3, 40, generator=generator, dtype=torch.float64) * torch.tensor([[[50.0]], [[0.2]]])
    is_member = torch.arange(40) % 2 == first
    candidates = []
    for place in range(3):
        spreads = float(energy[place].std()), float(divergence[place].std())
        for number in range(num_angles):
            angle = math.pi * number / num_angles - math.pi / 2
            phi = math.atan2(math.sin(angle) * spreads[0], math.cos(angle) * spreads[1])
            score = math.cos(phi) * energy[place] + math.sin(phi) * divergence[place]
            area = float((score[is_member][:, None] > score[~is_member]).double().mean())
            candidates.append((max(area, 1 - area), area > 0.5, phi))
    dime = get_attack("dime", gamma=0.3, num_draws=4)
    found = dime.calibrated((energy, divergence), is_member)
    best = max(area for area, *_ in candidates)
    tied = [(higher, pytest.approx(phi, rel=1e-12)) for area, higher, phi in candidates if area > best - 1e-12]
    assert (found.higher_means_member, found.phi) in tied
    assert (found.gamma, found.num_draws) == (0.3, 4)


def test_where_no_angle_tells_the_sides_apart_dime_takes_the_first_and_lower_means_member():
    constant = torch.ones(2, 6, dtype=torch.float64)
    assert not get_attack("dime").calibrated((constant, constant), torch.arange(6) < 3).higher_means_member

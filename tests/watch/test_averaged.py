"""Averages stand in for a network's weights, and its own are the very same tensors afterwards."""

import pytest
import torch
from diffusers.training_utils import EMAModel
from torch import nn
from torch.optim.swa_utils import AveragedModel

from ldm_privacy.errors import UserError
from ldm_privacy.watch.averaged import averaged


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))


def of_all(made):
    return EMAModel(made.parameters(), decay=0.9)


def of_trained(made):
    made[0].requires_grad_(False)
    return EMAModel([each for each in made.parameters() if each.requires_grad], decay=0.9)


def with_buffers(made):
    return AveragedModel(made, use_buffers=True)


@pytest.mark.parametrize("make", [of_all, of_trained, AveragedModel, with_buffers])
@pytest.mark.parametrize("fails", [False, True])
def test_the_averages_are_inside_and_the_weights_back_afterwards(make, fails):
    made = network()
    average = make(made)
    with torch.no_grad():
        for each in [*made.parameters(), *made.buffers()]:
            each.add_(1)
    own = [(each, each.data_ptr(), each.clone()) for each in [*made.parameters(), *made.buffers()]]
    means = average.shadow_params if isinstance(average, EMAModel) else list(average.module.parameters())
    copies = [each.clone() for each in means]
    inside = [each for each in made.parameters() if make is not of_trained or each.requires_grad]
    try:
        with averaged(made, average):
            assert [torch.equal(one, other) for one, other in zip(inside, means)] == [True] * len(means)
            expected = network().eval()[1].running_mean if make is with_buffers else own[-3][2]
            assert torch.equal(made[1].running_mean, expected)
            if fails:
                raise KeyError
    except KeyError:
        assert fails
    assert all(each.data_ptr() == place and torch.equal(each, value) for each, place, value in own)
    assert all(torch.equal(one, other) for one, other in zip(means, copies))


def test_averages_of_something_else_cost_one_line():
    with pytest.raises(UserError, match=r"^ema: a dict is no EMAModel of diffusers[^\n]*$"), averaged(network(), {}):
        pass
    other = EMAModel(nn.Linear(2, 3).parameters())
    words = r"^ema: it averages 2 parameters, and the network has 6, of which 6 [^\n]*$"
    with pytest.raises(UserError, match=words), averaged(network(), other):
        pass
    with averaged(network(), None):
        pass

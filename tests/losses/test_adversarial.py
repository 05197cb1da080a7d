"""The critic and its loss: the published shape, hinge values, the adaptive weight, a step by hand."""

import pytest
import torch
from torch import nn

from ldm_privacy.errors import UserError
from ldm_privacy.losses.adversarial import Adversarial
from ldm_privacy.losses.critic import Critic, hinge

GIVEN = {"image_channels": 1, "resolution": 8, "seed": 5, "num_steps": 40}


def test_the_critic_is_the_published_one():
    critic = Critic(image_channels=3, resolution=32, seed=0)
    convolutions = [each for each in critic if isinstance(each, nn.Conv2d)]
    assert [each.out_channels for each in convolutions] == [64, 128, 256, 512, 1]
    assert [each.stride[0] for each in convolutions] == [2, 2, 2, 1, 1]
    assert {each.kernel_size for each in convolutions} == {(4, 4)}
    kinds = "".join({"Conv2d": "c", "InstanceNorm2d": "n", "LeakyReLU": "r"}[type(each).__name__] for each in critic)
    assert kinds == "cr" + 3 * "cnr" + "c"
    assert {each.negative_slope for each in critic if isinstance(each, nn.LeakyReLU)} == {0.2}
    assert all(not each.affine for each in critic if isinstance(each, nn.InstanceNorm2d))
    widest = convolutions[3].weight
    assert abs(widest.std() / 0.02 - 1) < 5 / (2 * widest.numel()) ** 0.5
    assert abs(widest.mean()) < 5 * 0.02 / widest.numel() ** 0.5


@pytest.mark.parametrize(
    ("size", "patches", "convolutions"), [(6, 1, 3), (8, 2, 3), (12, 1, 4), (16, 2, 4), (24, 1, 5), (32, 2, 5)]
)
def test_small_images_leave_patches_too(size, patches, convolutions):
    critic = Critic(image_channels=1, resolution=size, seed=0)
    assert critic(torch.zeros(2, 1, size, size)).shape == (2, 1, patches, patches)
    assert sum(isinstance(each, nn.Conv2d) for each in critic) == convolutions


def test_images_that_leave_none_cost_one_line():
    with pytest.raises(UserError, match="the critic needs images of 6 pixels a side, and these have 5"):
        Critic(image_channels=1, resolution=5, seed=0)


def test_its_weights_come_from_its_seed_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, same, other = (Critic(image_channels=1, resolution=8, seed=seed)[0].weight for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_hinge_is_zero_beyond_the_margins_and_linear_within():
    assert hinge(torch.tensor([1.0, 2.0]), torch.tensor([-1.0, -3.0])) == 0
    assert hinge(torch.tensor([0.0, 3.0]), torch.tensor([0.0, -0.5])) == pytest.approx((0.5 + 0.75) / 2)


def test_its_first_step_is_the_published_one_or_a_quarter_of_the_stage():
    for num_steps, first in ((23_438, 2000), (400, 100)):
        assert Adversarial(**{**GIVEN, "num_steps": num_steps}).first_step == first
    assert Adversarial(**GIVEN, first_step=7).first_step == 7


def test_the_adaptive_weight_is_that_of_two_backward_passes(batch, network):
    loss = Adversarial(**GIVEN)
    loss.critic.double()
    value, reconstruction = loss(batch), 3 * (batch.output - batch.image).abs().mean()
    weighted = loss.weighted(value, batch, reconstruction)
    last, means = network.decoder.conv_out.weight, []
    for part in (reconstruction, value):
        network.zero_grad()
        part.backward(retain_graph=True)
        means.append(float(last.grad.abs().mean()))
    factor = 0.8 * min(max(means[0] / (means[1] + 1e-4), 0), 1e4)
    assert float(weighted.detach()) == pytest.approx(factor * float(value.detach()), rel=1e-9)
    assert float(loss.told["weight"]) == pytest.approx(factor, rel=1e-9)
    network.zero_grad()
    weighted.backward()
    assert float(last.grad.abs().mean()) == pytest.approx(factor * means[1], rel=1e-9), "the weight has no gradient itself"
    assert all(each.grad is None for each in loss.critic.parameters())


def test_the_adaptive_weight_is_bounded(batch):
    loss = Adversarial(**GIVEN, weight=1.0)
    loss.critic.double()
    loss.weighted(loss(batch), batch, 1e9 * batch.output.square().mean())
    assert loss.told["weight"] == 1e4


def test_a_step_of_the_critic_is_the_one_by_hand(batch):
    loss, same = (Adversarial(**GIVEN, learning_rate=1e-2) for _ in range(2))
    critic = same.critic.double()
    loss.critic.double()
    optimizer = torch.optim.AdamW(critic.parameters(), lr=1e-2)
    for _ in range(2):
        learned = loss.learn(batch)
        real, fake = critic(batch.image), critic(batch.decode(batch.mean).detach())
        by_hand = 0.5 * torch.relu(1 - real).mean() + 0.5 * torch.relu(1 + fake).mean()
        optimizer.zero_grad()
        by_hand.backward()
        torch.nn.utils.clip_grad_norm_(critic.parameters(), 1.0)
        optimizer.step()
        torch.testing.assert_close(learned["critic"], by_hand.detach())
    for mine, theirs in zip(loss.critic.parameters(), critic.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_its_state_goes_on_exactly(batch, tmp_path):
    loss = Adversarial(**GIVEN)
    single = batch.detached()._replace(image=batch.image.float(), mean=batch.image.float(), decode=lambda mean: -mean)
    loss.learn(single)
    torch.save(loss.state_dict(), tmp_path / "state.ckpt")
    other = Adversarial(**{**GIVEN, "seed": 6})
    other.load_state_dict(torch.load(tmp_path / "state.ckpt", weights_only=True))
    assert torch.equal(loss.learn(single)["critic"], other.to("cpu").learn(single)["critic"])
    for mine, theirs in zip(loss.critic.parameters(), other.critic.parameters(), strict=True):
        assert torch.equal(mine, theirs)

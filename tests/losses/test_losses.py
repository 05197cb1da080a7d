"""Losses of stage 1: values by hand, gradients that are not zero."""

import pytest
import torch

from ldm_privacy.config.check import check_component
from ldm_privacy.errors import UserError
from ldm_privacy.losses.base import CodecLoss
from ldm_privacy.registry import LOSSES

GIVEN = {"image_channels": 1, "resolution": 8, "seed": 5, "num_steps": 40}


def test_kl_is_the_divergence_from_a_standard_normal(batch):
    posterior = torch.distributions.Normal(batch.mean, (0.5 * batch.log_variance).exp())
    expected = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).mean()
    torch.testing.assert_close(LOSSES.get("kl")()(batch), expected, check_dtype=False)


@pytest.mark.parametrize(("name", "power"), [("l1", 1), ("l2", 2)])
def test_reconstruction_is_the_mean_distance_of_the_pixels(batch, name, power):
    difference = (batch.output - batch.image).flatten().tolist()
    by_hand = sum(abs(each) ** power for each in difference) / len(difference)
    assert LOSSES.get(name)()(batch).item() == pytest.approx(by_hand, rel=1e-5)


def build(name, features, **arguments):
    arguments |= {"path": str(features)} if name == "perceptual" else {}
    component = check_component({"class": name, **arguments}, "autoencoder.losses.x", LOSSES, provided=GIVEN)
    return component.build_a(CodecLoss, **GIVEN)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_every_loss_is_a_number_that_trains_something_and_takes_the_arguments_of_all(batch, network, features, name):
    loss = build(name, features, weight=2.0, first_step=3, every=2, share=0.5)
    assert (loss.weight, loss.num_rows(64), loss.num_rows(1)) == (2.0, 32, 1)
    assert [step for step in range(8) if loss.is_due(step)] == [3, 5, 7]
    for module in (getattr(loss, "critic", None), getattr(getattr(loss, "features", None), "network", None)):
        if module is not None:
            module.double()
    value = loss(batch)
    assert value.shape == ()
    gradients = torch.autograd.grad(value, list(network.parameters()), allow_unused=True)
    assert any(gradient is not None and bool((gradient != 0).any()) for gradient in gradients)


@pytest.mark.parametrize("rate", [-1.0, 0.0, 2.0, "nan"])
def test_the_critics_learning_rate_is_one(features, rate):
    with pytest.raises(UserError, match=r"autoencoder\.losses\.x\.learning_rate: ") as caught:
        build("adversarial", features, learning_rate=rate)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("argument", "value", "match"),
    [
        ("share", 0.0, r"autoencoder\.losses\.x\.share: 0\.0"),
        ("share", 1.5, r"autoencoder\.losses\.x\.share: 1\.5"),
        ("every", 0, r"autoencoder\.losses\.x\.every: 0"),
        ("first_step", -1, r"autoencoder\.losses\.x\.first_step: -1"),
        ("weight", -1.0, r"autoencoder\.losses\.x\.weight: -1\.0"),
        ("wait", 3, r"autoencoder\.losses\.x: unknown key 'wait'"),
    ],
)
@pytest.mark.parametrize("name", sorted(LOSSES))
def test_a_wrong_argument_costs_one_line(features, name, argument, value, match):
    with pytest.raises(UserError, match=match) as caught:
        build(name, features, **{argument: value})
    assert len(str(caught.value).splitlines()) == 1


def test_perceptual_is_the_mean_over_layers_of_distances_of_unit_features(batch, features):
    loss = build("perceptual", features)
    single = batch._replace(image=batch.image.float(), output=batch.output.detach().float())
    values = []
    for one, other in zip(loss.features.layers(single.output), loss.features.layers(single.image)):
        lengths = [each.square().sum(1, keepdim=True).sqrt() for each in (one, other)]
        cosine = (one / lengths[0] * (other / lengths[1])).sum(1)
        values.append((2 - 2 * cosine).mean())
    assert len(values) == 3
    torch.testing.assert_close(loss(single), sum(values) / 3, rtol=1e-3, atol=0)
    assert loss(single._replace(output=single.image)) == 0


def test_another_feature_network_is_refused(features):
    loss = build("perceptual", features)
    loss.load_state_dict(loss.state_dict())
    with pytest.raises(UserError, match=r"has sha256 \w+, but the run began with 0000; put that network back"):
        loss.load_state_dict({"sha256": "0000"})
    with pytest.raises(UserError, match=r"autoencoder\.losses\.x\.sha256: '.*' has \w+, not 00: its files changed"):
        build("perceptual", features, sha256="00")
    with pytest.raises(UserError, match=r"autoencoder\.losses\.x\.path: there is no folder"):
        build("perceptual", features / "nowhere")

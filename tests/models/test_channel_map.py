"""Channel maps: latent = M (mean - shift), whatever M is; their fits; what a checkpoint may hold of them."""

import pytest
import torch

from ldm_privacy.errors import UserError
from ldm_privacy.models.channel_map import ChannelMap
from ldm_privacy.registry import CHANNEL_MAPS

CHANNELS = 3


def full():
    generator = torch.Generator().manual_seed(0)
    return ChannelMap("full", torch.randn(CHANNELS, generator=generator), torch.randn(CHANNELS, CHANNELS, generator=generator))


def diagonal():
    return ChannelMap.diagonal("each", torch.tensor([0.5, -1.0, 2.0]), torch.tensor([2.0, 0.25, -3.0]))


@pytest.fixture
def means():
    """Channels of unlike mean and spread, not independent of each other."""
    noise = torch.randn(50, CHANNELS, 4, 5, generator=torch.Generator().manual_seed(1))
    mixing = torch.tensor([[2.0, 0.0, 0.0], [1.0, 0.5, 0.0], [0.3, -0.2, 4.0]])
    return torch.einsum("ij,bjhw->bihw", mixing, noise) + torch.tensor([1.0, -3.0, 0.2])[:, None, None]


@pytest.mark.parametrize("channel_map", [full(), diagonal()], ids=["full", "diagonal"])
def test_it_is_the_matrix_product_at_every_position(channel_map, means):
    latent = channel_map(means)
    for place in ((0, 0, 0), (7, 2, 3), (49, 3, 4)):
        sample, row, column = place
        expected = channel_map.matrix @ (means[sample, :, row, column] - channel_map.shift)
        torch.testing.assert_close(latent[sample, :, row, column], expected)


@pytest.mark.parametrize("channel_map", [full(), diagonal()], ids=["full", "diagonal"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4), (torch.bfloat16, 0.5)])
def test_the_inverse_undoes_it_in_either_order(channel_map, means, dtype, tolerance):
    values = means.to(dtype)
    for there, back in ((channel_map, channel_map.inverse), (channel_map.inverse, channel_map)):
        result = back(there(values))
        assert result.dtype == dtype
        torch.testing.assert_close(result, values, rtol=tolerance, atol=tolerance)


def test_as_they_are():
    assert torch.equal(ChannelMap.identity(CHANNELS).matrix, torch.eye(CHANNELS))
    assert torch.equal(ChannelMap.identity(CHANNELS).shift, torch.zeros(CHANNELS))


@pytest.mark.parametrize(
    ("shift", "scale", "words"),
    [
        ([0, 0, 0], [1, 1, 1], "none (posterior means as they are)"),
        ([0, 0, 0], [2, 2, 2], "one scaling factor, 2"),
        ([0], [2], "one scaling factor, 2"),
        ([0, 0, 0], [1, 1, 2], "per channel, shift [0, 0, 0], scale [1, 1, 2]"),
        ([0, 0, 0], [2, 1, 1], "per channel, shift [0, 0, 0], scale [2, 1, 1]"),
        ([0, 0, 5], [1, 1, 1], "per channel, shift [0, 0, 5], scale [1, 1, 1]"),
        ([1, 0, 0], [3, 3, 3], "per channel, shift [1, 0, 0], scale [3, 3, 3]"),
        ([0.5, -1, 0], [0.25, 1, 1], "per channel, shift [0.5, -1, 0], scale [0.25, 1, 1]"),
    ],
)
def test_it_is_printed_as_what_it_is(shift, scale, words):
    assert str(ChannelMap.diagonal("any", torch.tensor(shift), torch.tensor(scale))) == words


def test_the_inverse_carries_gradients():
    channel_map = full()
    latent = torch.randn(1, CHANNELS, 1, 1, requires_grad=True)
    jacobian = torch.autograd.functional.jacobian(channel_map.inverse, latent).reshape(CHANNELS, CHANNELS)
    torch.testing.assert_close(jacobian, torch.linalg.inv(channel_map.matrix), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", sorted(CHANNEL_MAPS))
def test_every_fit_has_an_inverse_and_survives_its_record(name, means, tmp_path):
    channel_map = CHANNEL_MAPS.get(name)(means)
    torch.testing.assert_close(channel_map.inverse(channel_map(means)), means, rtol=1e-4, atol=1e-4)
    torch.save(channel_map.record(), tmp_path / "map.pt")
    again = ChannelMap.from_record(torch.load(tmp_path / "map.pt", weights_only=True), CHANNELS)
    assert torch.equal(again(means), channel_map(means))
    assert str(again) == str(channel_map)
    assert again.name == name


def test_the_fits_do_what_they_say(means):
    assert torch.equal(CHANNEL_MAPS.get("none")(means)(means), means)
    scaled = CHANNEL_MAPS.get("scaling_factor")(means)(means)
    torch.testing.assert_close(scaled.std(), torch.tensor(1.0))
    torch.testing.assert_close(scaled / scaled[0, 0, 0, 0], means / means[0, 0, 0, 0], rtol=1e-4, atol=1e-4)
    each = CHANNEL_MAPS.get("per_channel")(means)(means)
    torch.testing.assert_close(each.mean(dim=(0, 2, 3)), torch.zeros(CHANNELS), rtol=0, atol=1e-5)
    torch.testing.assert_close(each.std(dim=(0, 2, 3)), torch.ones(CHANNELS))


def test_fits_are_computed_in_double_precision(means):
    means = 1e-2 * means + 1e3
    values = means.double()
    each = CHANNEL_MAPS.get("per_channel")(means)
    assert torch.equal(each.shift, values.mean(dim=(0, 2, 3)).float())
    assert torch.equal(each.matrix.diagonal(), (1 / values.std(dim=(0, 2, 3))).float())
    assert torch.equal(CHANNEL_MAPS.get("scaling_factor")(means).matrix, (1 / values.std()).float() * torch.eye(CHANNELS))


def test_constant_latents_are_not_divided_by_zero():
    constant = torch.ones(4, CHANNELS, 2, 2)
    for name in CHANNEL_MAPS:
        assert CHANNEL_MAPS.get(name)(constant)(constant).isfinite().all(), name


def test_a_full_matrix_survives_its_record(means, tmp_path):
    torch.save(full().record(), tmp_path / "map.pt")
    again = ChannelMap.from_record(torch.load(tmp_path / "map.pt", weights_only=True), CHANNELS)
    assert torch.equal(again(means), full()(means))
    assert torch.equal(again.inverse(means), full().inverse(means))
    assert "a 3 x 3 matrix of determinant" in str(again)


@pytest.mark.parametrize(
    "damage",
    [
        {"name": 3},
        {"shift": None},
        {"shift": torch.zeros(CHANNELS + 1)},
        {"shift": torch.zeros(CHANNELS, 1, 1)},
        {"shift": torch.zeros(CHANNELS, dtype=torch.int64)},
        {"shift": torch.full((CHANNELS,), torch.nan)},
        {"matrix": torch.ones(CHANNELS)},
        {"matrix": torch.eye(CHANNELS - 1)},
        {"matrix": torch.eye(CHANNELS).long()},
        {"matrix": torch.full((CHANNELS, CHANNELS), torch.inf)},
        {"matrix": torch.ones(CHANNELS, CHANNELS)},  # no inverse
        {"matrix": torch.zeros(CHANNELS, CHANNELS)},
    ],
)
def test_a_damaged_record_is_refused(damage):
    with pytest.raises(UserError, match=r"^its channel map is missing or holds something else$"):
        ChannelMap.from_record({**full().record(), **damage}, CHANNELS)

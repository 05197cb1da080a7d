"""Channel maps: latent = M (mean - shift), whatever M is; their fits; what a checkpoint may hold of them."""

from contextlib import contextmanager

import pytest
import torch

from ldm_privacy.config import Component
from ldm_privacy.errors import UserError
from ldm_privacy.models import flattening as flattening_module
from ldm_privacy.models.channel_map import FLOOR, ChannelMap, channel_moments, power_of
from ldm_privacy.models.codec import Codec
from ldm_privacy.randomness import normal, uniform
from ldm_privacy.registry import CHANNEL_MAPS
from ldm_privacy.types import no_progress
from tests.two_processes import in_two_processes

CHANNELS = 3
WEIGHT = torch.tensor([[1.0, 0.3, -0.5], [0.0, 2.0, 0.4], [0.2, 0.1, 0.05], [1.5, -0.7, 0.6], [0.1, 0.0, 3.0]])
"""Of a decoder that makes five colours of three channels, at every position alike."""


class Linear(Codec):
    """A decoder whose Jacobian is known: image = weight mean + 1 at every position, so every block of J^T J is W^T W."""

    name = "linear"
    network = torch.nn.Identity()

    def __init__(self, weight=WEIGHT, channel_map=None):
        self.weight, self.channel_map = weight, channel_map or ChannelMap.identity(weight.shape[1])

    def decode(self, latent):
        return torch.einsum("oc,bchw->bohw", self.weight.to(latent), self.channel_map.inverse(latent)) + 1


FITTED = sorted({*CHANNEL_MAPS} - {"auto", "diffusers"})
"""Those that are computed from latents; the others are what an autoencoder's config says."""


def fit(name, means, codec=None, *, sample_index=None, seed=0, progress=no_progress, **options):
    """What a run gives a fit, of which it takes what it likes."""
    index = torch.arange(len(means)) if sample_index is None else sample_index
    given = {"codec": codec or Linear(), "sample_index": index, "seed": seed, "progress": progress}
    return Component(CHANNEL_MAPS, name, options).build(means=means, **given)


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
        ([3, 3, 3], [2, 2, 2], "one shift, 3, and one scaling factor, 2"),
        ([3], [2], "one shift, 3, and one scaling factor, 2"),
        ([3, 3, 3], [2, 1, 2], "per channel, shift [3, 3, 3], scale [2, 1, 2]"),
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


@pytest.mark.parametrize("name", FITTED)
def test_every_fit_has_an_inverse_and_survives_its_record(name, means, tmp_path):
    channel_map = fit(name, means)
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


@pytest.mark.parametrize("shape", [(1, CHANNELS, 1, 2), (2, CHANNELS, 1, 1), (2, CHANNELS, 3, 5), (7, CHANNELS, 2, 2)])
def test_moments_are_those_of_all_numbers_of_a_channel(shape):
    means = torch.randn(shape, generator=torch.Generator().manual_seed(3)).double()
    mean, covariance = channel_moments(means)
    numbers = means.transpose(0, 1).flatten(1)
    torch.testing.assert_close(mean, numbers.mean(1))
    torch.testing.assert_close(covariance, torch.cov(numbers))


class Elsewhere:
    """Latents that are not in memory, and how many of them are fetched at a time."""

    def __init__(self, means):
        self.means, self.shape, self.device, self.fetched = means, means.shape, means.device, []

    def __len__(self):
        return len(self.means)

    def numel(self):
        return self.means.numel()

    def __getitem__(self, rows):
        self.fetched.append(len(self.means[rows]))
        return self.means[rows]


@pytest.mark.parametrize("most", [1, 3, 25, 50])
def test_moments_are_the_same_in_passes_of_the_memory_budget(means, limit_memory, most):
    expected, elsewhere = channel_moments(means), Elsewhere(means)
    limit_memory(32 * CHANNELS * 4 * 5 * most)
    found = channel_moments(elsewhere)
    for each, other in zip(found, expected, strict=True):
        torch.testing.assert_close(each, other)
    assert max(elsewhere.fetched) == {1: 1, 3: 3, 25: 25, 50: 50}[most]
    assert sum(elsewhere.fetched) == 2 * 50, "two passes over all"


def test_a_direction_is_dead_below_the_floor_and_not_at_it(caplog):
    for least, told in ((FLOOR, 0), (0.99 * FLOOR, 1)):
        root = power_of(torch.diag(torch.tensor([1.0, least], dtype=torch.float64)), 0.5, what="it")
        torch.testing.assert_close(root.diagonal(), torch.tensor([1, FLOOR], dtype=torch.float64).sqrt())
        assert len(caplog.records) == told


def test_constant_latents_are_not_divided_by_zero():
    constant = torch.ones(4, CHANNELS, 2, 2)
    for name in FITTED:
        assert fit(name, constant)(constant).isfinite().all(), name


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


@pytest.mark.parametrize("name", FITTED)
def test_images_are_decoded_the_same_under_every_map(name, means):
    plain, mapped = Linear(), Linear()
    mapped.channel_map = fit(name, means)
    images, mapped_images = (codec.decode(codec.channel_map(means)) for codec in (plain, mapped))
    assert float((images - mapped_images).abs().max()) <= 1e-5 * float(images.abs().max())


def test_whitened_channels_have_mean_0_and_the_identity_for_covariance(means):
    fitted = fit("whitening", means)
    latent = fitted(means.double()).transpose(0, 1).flatten(1)
    torch.testing.assert_close(latent.mean(1), torch.zeros(CHANNELS, dtype=torch.float64), rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.cov(latent), torch.eye(CHANNELS, dtype=torch.float64), rtol=0, atol=1e-5)
    assert torch.equal(fitted.matrix, fitted.matrix.T), "of all whitening matrices the symmetric one is unique"
    assert torch.linalg.eigvalsh(fitted.matrix).min() > 0


def test_a_dead_direction_is_not_blown_up_and_one_line_says_it(means, caplog):
    means[:, 2] = means[:, 0]
    for name, codec in (("whitening", Linear()), ("flattening", Linear(WEIGHT[:, [0, 1, 0]]))):
        fitted = fit(name, means, codec)
        assert torch.linalg.cond(fitted.matrix.double()) < 1.01e3, name
        torch.testing.assert_close(fitted.inverse(fitted(means.double())), means.double(), rtol=1e-3, atol=1e-3)
        ChannelMap.from_record(fitted.record(), CHANNELS)
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "variance of the latents",
        "influence of the channels",
    ]
    assert "1 of 3 directions have next to none" in caplog.text


def test_the_flattening_of_a_linear_decoder_is_the_root_of_its_metric(means):
    fitted = fit("flattening", means)
    exact = WEIGHT.double().T @ WEIGHT.double()
    latent = fitted(means.double())
    assert float(latent.square().mean().sqrt()) == pytest.approx(1, rel=1e-5)
    torch.testing.assert_close(latent.mean((0, 2, 3)), torch.zeros(CHANNELS, dtype=torch.float64), rtol=0, atol=1e-5)
    back = torch.linalg.inv(fitted.matrix.double())
    metric = back.T @ exact @ back
    # B is the covariance of 50 samples x 4 probes x 20 positions normal vectors: an entry of its whitened form has a standard
    # deviation of sqrt(2 / 4000) at most.
    scaled = metric / metric.diagonal().mean()
    assert float((scaled - torch.eye(CHANNELS)).abs().max()) < 5 * (2 / 4000) ** 0.5


def block_by_hand(index, seed, num_probes, positions):
    """W^T v v^T W of a linear decoder, averaged over the probes v of a sample and its positions."""
    total = torch.zeros(CHANNELS, CHANNELS, dtype=torch.float64)
    for probe in range(num_probes):
        vectors = normal("flattening-probe", (seed, int(index), probe), (len(WEIGHT), *positions)).double()
        products = WEIGHT.double().T @ vectors.flatten(1)
        total += products @ products.T
    return total / (num_probes * positions[0] * positions[1])


def test_blocks_are_of_each_samples_own_probes_and_a_mean_over_positions(means):
    index = torch.tensor([7, 3, 40])
    blocks = flattening_module.channel_blocks(Linear(), means[:3].double(), index, num_probes=2, seed=5)
    for block, each in zip(blocks, index, strict=True):
        torch.testing.assert_close(block, block_by_hand(each, 5, 2, (4, 5)), rtol=1e-5, atol=1e-6)
    many = flattening_module.channel_blocks(Linear(), torch.zeros(400, CHANNELS, 4, 5), torch.arange(400), num_probes=1, seed=0)
    root = torch.linalg.inv(torch.linalg.cholesky(WEIGHT.double().T @ WEIGHT.double()))
    error = root @ many.mean(0) @ root.T - torch.eye(CHANNELS, dtype=torch.float64)
    assert float(error.abs().max()) < 5 * (2 / (400 * 20)) ** 0.5, "unbiased"


def test_the_flattening_is_of_the_samples_and_probes_of_its_seed(means):
    index = 2 * torch.arange(len(means)) + 1
    chosen = uniform("flattening", (3, index), ()).argsort()[:21]
    block = sum(block_by_hand(index[place], 3, 2, (4, 5)) for place in chosen)
    root = power_of(block, 0.5, what="it")
    fitted = fit("flattening", means, sample_index=index, seed=3, num_samples=21, num_probes=2)
    latent = torch.einsum("ij,bjhw->bihw", root, means.double() - means.double().mean((0, 2, 3))[:, None, None])
    torch.testing.assert_close(fitted.matrix.double(), root / latent.square().mean().sqrt(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("contrast", [1e-3, 1e3])
def test_a_flattening_is_the_same_whatever_the_contrast_of_the_images(means, contrast):
    plain, scaled = fit("flattening", means), fit("flattening", means, Linear(contrast * WEIGHT))
    torch.testing.assert_close(scaled.matrix, plain.matrix, rtol=1e-4, atol=1e-5)


def test_a_flattening_reads_no_memory_that_nobody_wrote(means):
    plain = fit("flattening", means)
    torch.use_deterministic_algorithms(True)  # and what is not written yet is not a number
    try:
        assert torch.equal(fit("flattening", means).matrix, plain.matrix)
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_flattening_takes_256_samples_and_says_how_far_it_is():
    decoded, told = [], []

    class Counting(Linear):
        def decode(self, latent):
            decoded.append(len(latent))
            return super().decode(latent)

    @contextmanager
    def progress(description, total):
        yield lambda done: told.append((done, total))

    means = torch.randn(260, CHANNELS, 1, 1, generator=torch.Generator().manual_seed(4))
    fit("flattening", means, Counting(), progress=progress)
    assert sum(decoded) == 256
    assert told == [(done, 256) for done in range(16, 257, 16)]
    assert CHANNEL_MAPS.get("flattening").passes(260) == {"decoder": 256, "decoder products": 4 * 256}


def test_after_flattening_the_mean_channel_block_of_the_new_metric_is_a_constant_times_the_identity(means):
    """Of a decoder that is not linear, estimated with the same probes, so nothing but rounding is left."""

    class Curved(Linear):
        def decode(self, latent):
            mean = self.channel_map.inverse(latent)
            return torch.einsum("oc,bchw->bohw", self.weight.to(latent), mean + mean.flip(-1).tanh() + (2 * mean).sin())

    before, after = Curved(), Curved()
    after.channel_map = fit("flattening", means, before)
    index = torch.arange(len(means))
    blocks = flattening_module.channel_blocks(after, after.channel_map(means), index, num_probes=4, seed=0).mean(0)
    other = flattening_module.channel_blocks(before, means, index, num_probes=4, seed=0).mean(0)
    torch.testing.assert_close(
        blocks, blocks.diagonal().mean() * torch.eye(CHANNELS, dtype=torch.float64), rtol=1e-4, atol=1e-4
    )
    assert (other / other.diagonal().mean() - torch.eye(CHANNELS)).abs().max() > 0.3


def test_a_flattening_is_the_same_from_wherever_it_starts(means):
    """The codec may have a map already: a pipeline's own scaling."""
    start = ChannelMap("start", torch.tensor([1.0, 0.0, -2.0]), torch.diag(torch.tensor([0.5, 2.0, 0.1])))
    plain, scaled = fit("flattening", means), fit("flattening", means, Linear(channel_map=start))
    torch.testing.assert_close(scaled.matrix, plain.matrix, rtol=1e-4, atol=1e-5)
    assert torch.equal(scaled.shift, plain.shift)


def test_a_flattening_of_two_processes_is_that_of_one_and_costs_what_it_says(means, monkeypatch):
    decoded = []

    class Counting(Linear):
        def decode(self, latent):
            decoded.append(len(latent))
            return super().decode(latent)

    one = fit("flattening", means, Counting(), num_samples=21, num_probes=2)
    assert sum(decoded) == 21
    assert CHANNEL_MAPS.get("flattening").passes(50, num_samples=21, num_probes=2) == {"decoder": 21, "decoder products": 42}
    both = in_two_processes(
        monkeypatch,
        lambda rank: fit("flattening", means, Counting(), num_samples=21, num_probes=2),
        flattening_module,
    )
    assert sum(decoded) == 42, "each decodes its share"
    for each in both:
        torch.testing.assert_close(each.matrix, one.matrix, rtol=1e-6, atol=1e-7)
    assert torch.equal(both[0].matrix, both[1].matrix)

"""What a step minimises: weighted sums of losses; the squared error of the noise; conditions, some of them dropped."""

import pytest
import torch

from ldm_privacy.diffusion import add_noise, flow_alphas_cumprod
from ldm_privacy.losses.kl import KL
from ldm_privacy.losses.reconstruction import L1, L2
from ldm_privacy.models.dit import dit
from ldm_privacy.models.unet import unet
from ldm_privacy.training.denoiser import DenoiserModule
from tests.training.test_stepwise import autoencoder, denoiser, fit


def test_the_loss_of_stage_1_is_the_sum_of_each_loss_times_its_weight():
    module = autoencoder(losses={"a": L1(weight=2.0), "b": KL(weight=0.5), "c": L2(weight=0.0)}, flip=False)
    module.on_fit_start()
    values = module.loss(torch.arange(16))
    assert float(values["loss"]) == pytest.approx(2 * float(values["a"]) + 0.5 * float(values["b"]), rel=1e-6)
    assert float(values["c"]) > 0
    means = fit(autoencoder(losses={"a": L1(), "b": KL(weight=0.0)}), max_epochs=1).epoch_means
    assert set(means) == {f"autoencoder/train_{name}" for name in ("loss", "a", "b")}
    assert means["autoencoder/train_loss"] == pytest.approx(means["autoencoder/train_a"], rel=1e-6)


class Recording(torch.nn.Module):
    """A network that remembers what it was asked, and answers with zeros."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.asked = []

    def forward(self, noisy_latent, timestep, **condition):
        self.asked.append((noisy_latent, timestep, condition))
        return torch.zeros_like(noisy_latent) + self.weight


def recording(count=4000, dropout=0.0):
    return DenoiserModule(
        Recording(),
        torch.linspace(0.99, 0.01, 10),
        torch.arange(count).float().reshape(1, -1, 1, 1, 1),
        choices={
            "class_labels": torch.arange(count)[:, None],
            "text": torch.arange(count).float()[:, None, None, None].expand(-1, 1, 2, 3),
        },
        null={"class_labels": torch.tensor([-1]), "text": torch.full((1, 2, 3), -1.0)},
        condition_dropout=dropout,
    )


def test_each_sample_is_asked_with_its_own_condition():
    module = recording()
    indices = torch.tensor([7, 1, 3999, 12])
    torch.manual_seed(0)
    loss = module.loss(indices)["loss"]
    ((noisy, timestep, condition),) = module.network.asked
    assert condition["class_labels"].tolist() == indices.tolist()
    assert torch.equal(condition["text"][:, 1, 2], indices.float())
    latent = indices.float().reshape(-1, 1, 1, 1)
    abar = module.alphas_cumprod[timestep].reshape(-1, 1, 1, 1)
    noise = (noisy - abar.sqrt() * latent) / (1 - abar).sqrt()
    torch.testing.assert_close(add_noise(latent, noise, module.alphas_cumprod, timestep), noisy)
    assert float(loss) == pytest.approx(float(noise.square().mean()), rel=1e-2)


def test_conditions_are_dropped_whole_and_as_often_as_asked():
    module = recording(dropout=0.25)
    torch.manual_seed(0)
    module.loss(torch.arange(4000))
    ((_, _, condition),) = module.network.asked
    dropped = condition["class_labels"] == -1
    assert torch.equal(condition["class_labels"][~dropped], torch.arange(4000)[~dropped])
    assert torch.equal((condition["text"] == -1).all((1, 2)), dropped)
    assert torch.equal((condition["text"] == -1).any((1, 2)), dropped)
    assert abs(int(dropped.sum()) - 1000) < 5 * (4000 * 0.25 * 0.75) ** 0.5


def test_a_condition_that_is_always_dropped_is_the_null_one():
    module = recording(count=50, dropout=1.0)
    module.loss(torch.arange(50))
    ((_, _, condition),) = module.network.asked
    assert torch.equal(condition["class_labels"], module.null["class_labels"].expand(50))
    assert torch.equal(condition["text"], module.null["text"].expand(50, 2, 3))


def test_one_of_a_samples_choices_is_drawn_in_each_step_each_as_often():
    count, num_choices = 4000, torch.arange(4000) % 3 + 1
    told = torch.arange(count)[:, None] * 10 + torch.arange(3)
    module = DenoiserModule(
        Recording(),
        torch.linspace(0.99, 0.01, 10),
        torch.zeros(1, count, 1, 1, 1),
        choices={"caption": told},
        num_choices=num_choices,
        null={"caption": torch.tensor([-1])},
        given=lambda condition: {"doubled": 2 * condition["caption"]},
    )
    torch.manual_seed(0)
    module.loss(torch.arange(count))
    ((_, _, condition),) = module.network.asked
    drawn = condition["doubled"] // 2
    assert torch.equal(drawn // 10, torch.arange(count))
    choice = drawn % 10
    assert bool((choice < num_choices).all())
    for most in (2, 3):
        counts = choice[num_choices == most].bincount(minlength=most)
        expected = counts.sum() / most
        assert bool(((counts - expected).abs() < 5 * expected.sqrt()).all())


def test_a_repeated_sample_comes_as_often_in_an_epoch():
    repeats = torch.tensor([1, 4, 1, 2])
    module = DenoiserModule(
        Recording(), torch.linspace(0.99, 0.01, 10), torch.zeros(1, 4, 1, 1, 1), repeats=repeats, batch_size=3
    )
    epoch = torch.cat([module.rows[module.batch_indices(0, step)] for step in module.train_dataloader()])
    assert torch.equal(epoch.bincount(minlength=4), repeats)


def test_a_network_with_classes_trains():
    classes = {"class_labels": torch.arange(40)[:, None] % 3}
    module = denoiser(num_classes=4, choices=classes, null={"class_labels": torch.tensor([3])}, condition_dropout=0.3)
    before = module.network.class_embedding.weight.detach().clone()
    fit(module, max_epochs=1)
    assert bool((module.network.class_embedding.weight != before).any(1).all()), (
        "an embedding, the null class's too, is untouched"
    )


def test_a_flow_is_asked_at_its_own_state_and_time_and_learns_its_velocity():
    latents = torch.randn(1, 64, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    module = DenoiserModule(Recording(), flow_alphas_cumprod(), latents, prediction_type="flow")
    torch.manual_seed(0)
    loss = module.loss(torch.arange(64))["loss"]
    ((state, time, condition),) = module.network.asked
    assert condition == {}
    assert time.dtype == torch.float32
    sigma = time[:, None, None, None] / 1000
    torch.testing.assert_close((sigma * 1001).round().flatten() / 1001 * 1000, time)
    assert sigma.std() > 0.2
    noise = (state - (1 - sigma) * latents[0]) / sigma
    torch.testing.assert_close(loss, (noise - latents[0]).square().mean(), rtol=1e-4, atol=0)
    assert 0.8 < noise.square().mean() < 1.2, "1152 squares of normal numbers: five standard deviations are .21"


def test_every_network_learns_a_flow():
    for build in (
        lambda: dit(latent_channels=4, latent_size=4, width=16, num_layers=1, num_heads=2),
        lambda: unet(latent_channels=4, latent_size=4, block_out_channels=(8,), norm_num_groups=4, layers_per_block=1),
    ):
        torch.manual_seed(0)
        module = DenoiserModule(build(), flow_alphas_cumprod(), torch.randn(1, 32, 4, 4, 4), prediction_type="flow")
        means = fit(module, max_epochs=1).epoch_means
        assert 0.5 < means["denoiser/train_loss"] < 4, "of n - z0 it is 2 at first"

"""The transformer denoiser: what is asked for is what is built, and it drops no class by itself."""

import pytest
import torch

from ldm_privacy.errors import UserError
from ldm_privacy.models.dit import dit


def built(**options):
    torch.manual_seed(0)
    return dit(**{"latent_channels": 3, "latent_size": 4, "width": 16, "num_layers": 2, "num_heads": 4, **options})


def trained(network):
    """As if it were: no weight is 0."""
    generator = torch.Generator().manual_seed(1)
    for weight in network.parameters():
        weight.data += 0.3 * torch.randn(weight.shape, generator=generator)
    return network


@pytest.mark.parametrize("size", [4, 8])
@pytest.mark.parametrize("patch_size", [1, 2, 4])
def test_the_answer_is_like_the_latent_and_each_sample_is_its_own(size, patch_size):
    network = trained(built(latent_size=size, patch_size=patch_size)).double()
    latent, timestep = torch.randn(3, 3, size, size, dtype=torch.float64), torch.tensor([0, 500, 999])
    answer = network(latent, timestep)
    assert answer.shape == latent.shape
    torch.testing.assert_close(network(latent[1:2], timestep[1:2]), answer[1:2])
    assert not torch.allclose(network(latent, timestep.flip(0)), answer)
    # A pixel of the corner reaches every other one, by attention alone.
    moved = latent.clone()
    moved[0, :, 0, 0] += 1
    changed = (network(moved, timestep) - answer).abs().amax(1)
    assert bool((changed[0] > 0).all())
    assert not changed[1:].any()


def test_settings_reach_the_network_and_the_defaults_are_the_published_small_one():
    config = built(patch_size=1, dropout=0.2, num_class_embeds=5).config
    assert (config["num_attention_heads"], config["attention_head_dim"], config["num_layers"]) == (4, 4, 2)
    assert (config["in_channels"], config["sample_size"], config["patch_size"], config["dropout"]) == (3, 4, 1, 0.2)
    with torch.device("meta"):
        network = dit(latent_channels=4, latent_size=32, num_class_embeds=1001)
    config = network.config
    assert (config["num_layers"], config["num_attention_heads"] * config["attention_head_dim"], config["patch_size"]) == (
        12,
        384,
        2,
    )
    assert network.transformer_blocks[0].norm1.emb.class_embedder.embedding_table.weight.shape == (1001, 384)


def test_every_class_has_an_embedding_and_no_class_is_the_last_one_also_in_training():
    network = trained(built(num_class_embeds=3)).train()
    latent, timestep = torch.randn(1, 3, 4, 4).expand(40, -1, -1, -1), torch.full((40,), 300)
    answers = network(latent, timestep, class_labels=torch.arange(40) % 3)
    for label in range(3):
        same = answers[label::3]
        torch.testing.assert_close(same, same[:1].expand_as(same))
        assert not torch.allclose(answers[label], answers[(label + 1) % 3])
    torch.testing.assert_close(network(latent[:1], timestep[:1]), answers[2:3])


def test_blocks_are_the_identity_at_first_and_the_answer_is_small_but_no_zero():
    network = built()
    latent, timestep = torch.randn(2, 3, 4, 4), torch.tensor([3, 700])
    answer = network(latent, timestep)
    short = built(num_layers=1)
    short.load_state_dict({name: network.state_dict()[name] for name in short.state_dict()})
    torch.testing.assert_close(short(latent, timestep), answer)
    assert 0 < float(answer.detach().abs().max()) < 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch_size": 3}, r"^denoiser\.network\.patch_size: 3 doesn't divide the latents' size, 4\.$"),
        (
            {"width": 18, "num_heads": 2},
            r"^denoiser\.network\.width: 18 is not a multiple of 4, which the position embedding takes\.$",
        ),
        ({"num_heads": 3}, r"^denoiser\.network\.num_heads: 3 heads can't share a width of 16 evenly\.$"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_key(options, message):
    with pytest.raises(UserError, match=message):
        built(**options)

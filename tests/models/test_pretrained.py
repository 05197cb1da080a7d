"""Autoencoders from diffusers folders: taken as they are, or refused where a weight isn't there."""

import json
import shutil

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from ldm_privacy.errors import UserError
from ldm_privacy.geometry.store import fingerprint
from ldm_privacy.models.codec import codec_from_record
from ldm_privacy.models.kl import KLCodec
from ldm_privacy.models.part import CONFIG, WEIGHTS, AnotherBase
from ldm_privacy.models.pretrained import PretrainedCodec, auto

DATA = {"image_channels": 1, "resolution": 8}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A diffusers folder, as this program and diffusers itself write it."""
    torch.manual_seed(0)
    codec = KLCodec.build(**DATA, block_out_channels=(8, 8), norm_num_groups=4, mid_block_attention=True)
    codec.save(path := tmp_path_factory.mktemp("whole") / "vae")
    return path


@pytest.fixture
def damaged(whole, tmp_path):
    """A function (change of the weights, changes of config.json) -> such a folder."""

    def make(change=lambda weights: weights, **config):
        shutil.copytree(whole, path := tmp_path / "damaged")
        save_file(change(load_file(path / WEIGHTS)), path / WEIGHTS)
        (path / CONFIG).write_text(json.dumps({**json.loads((path / CONFIG).read_text()), **config}))
        return path

    return make


def refused(path, message, **arguments):
    with pytest.raises(UserError, match=message) as caught:
        PretrainedCodec.build(path=str(path), **{**DATA, **arguments})
    assert str(caught.value).startswith("autoencoder.network.path: ")
    assert len(str(caught.value).splitlines()) == 1


def test_it_is_what_diffusers_loads(whole):
    mine = PretrainedCodec.build(path=str(whole.parent), subfolder="vae", **DATA).network.state_dict()
    theirs = AutoencoderKL.from_pretrained(whole, low_cpu_mem_usage=False).state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_attention_under_its_old_names_is_what_diffusers_loads(damaged):
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def old(weights):
        for new, name in names.items():
            weights = {key.replace(f".{new}.", f".{name}."): value for key, value in weights.items()}
        return weights

    folder = damaged(old)
    assert any("proj_attn" in name for name in load_file(folder / WEIGHTS))
    mine = PretrainedCodec.build(path=str(folder), **DATA).network.state_dict()
    theirs = AutoencoderKL.from_pretrained(folder, low_cpu_mem_usage=False).state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_weights_that_are_not_there_are_counted_and_the_first_is_named(damaged):
    folder = damaged(lambda weights: {name: value for name, value in weights.items() if "decoder.conv_" not in name})
    refused(folder, rf"damaged/{WEIGHTS}: .*6 weights are missing, the first 'decoder\.conv_in\.weight'")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"latent_channels": 8}, r"7 weights don't match, the first 'encoder\.conv_out\.weight' has shape"),
        ({"layers_per_block": 2}, r"32 weights are missing"),
        ({"block_out_channels": [8]}, "its autoencoder can't be used"),
        ({"norm_num_groups": 3}, "its autoencoder can't be used"),
        ({"_class_name": "UNet2DModel"}, rf"damaged/{CONFIG} describes a UNet2DModel, and an AutoencoderKL is needed"),
    ],
    ids=str,
)
def test_a_config_that_does_not_fit_the_weights_is_refused(damaged, config, message):
    refused(damaged(**config), message)


def test_files_that_are_missing_or_broken_are_named(damaged, whole, tmp_path):
    folder = damaged()
    (folder / CONFIG).write_text("{")
    refused(folder, rf"{CONFIG} is no JSON")
    (folder / CONFIG).unlink()
    refused(folder, rf"there is no .*damaged/{CONFIG}")
    refused(whole.parent, rf"there is no .*{CONFIG}.*autoencoder\.network\.subfolder")
    shutil.copy(whole / CONFIG, folder / CONFIG)
    (folder / WEIGHTS).rename(folder / "diffusion_pytorch_model.bin")
    refused(folder, rf"there is no .*{WEIGHTS}")
    (folder / WEIGHTS).write_bytes((whole / WEIGHTS).read_bytes()[:1000])
    refused(folder, rf"{WEIGHTS}: can't be read, it is truncated")
    refused("nobody/nothing", "'nobody/nothing'.*Name a local diffusers folder")
    refused(tmp_path / "nowhere", "nowhere")


def test_an_autoencoder_for_other_images_is_refused(whole):
    refused(whole, "takes 1 channels and resolutions divisible by 2, but data.channels is 3", image_channels=3)
    refused(whole, "data.resolution 7", resolution=7)


def test_a_record_says_where_it_lies_and_is_told_from_another_by_its_hash(whole, tmp_path):
    codec = PretrainedCodec.build(path=str(whole), **DATA)
    codec.channel_map = auto(torch.zeros(1, 4, 2, 2), codec)
    record = codec.record()
    assert sum(each.numel() for each in record["channel_map"].values() if isinstance(each, torch.Tensor)) == 20
    assert record.keys() == {"class", "path", "subfolder", "revision", "sha256", "channel_map"}, "no weights"
    again = codec_from_record(record)
    image = torch.rand(2, 1, 8, 8)
    assert torch.equal(again.encode(image), codec.encode(image))
    place = shutil.copytree(whole, tmp_path / "vae")
    settings = json.loads((place / CONFIG).read_text())
    (place / CONFIG).write_text(json.dumps({**settings, "_diffusers_version": "0.0"}))  # as another version writes it
    moved = codec_from_record({**record, "path": str(place)})
    assert moved.settings() == codec.settings(), "what is stored of its images is found wherever it lies"
    (place / CONFIG).write_text(json.dumps({**settings, "norm_num_groups": 8}))
    other = PretrainedCodec.build(path=str(place), **DATA)
    assert not torch.equal(other.mean(image), codec.mean(image)), "equal weights make other means in other groups"
    none = torch.empty(0)
    assert fingerprint(other.weights(), other.settings(), none) != fingerprint(codec.weights(), codec.settings(), none)
    with pytest.raises(
        AnotherBase, match=r"whole\d+/vae is not what it was trained on: SHA-256 \w{12}, not 000000000000; say .*h=F"
    ):
        codec_from_record({**record, "sha256": "0" * 64})
    with pytest.raises(AnotherBase, match=r"^autoencoder\.network\.path: what it was trained on is not in 'nowhere' \("):
        codec_from_record({**record, "path": "nowhere"})


def test_latents_are_scaled_as_its_own_config_says_and_fitted_where_it_is_ours(whole, damaged):
    codec = PretrainedCodec.build(path=str(damaged(scaling_factor=0.25, shift_factor=0.5)), **DATA)
    means = torch.randn(8, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(auto(means, codec)(means), (means - 0.5) * 0.25)
    assert auto(means, KLCodec(codec.network))(means).std() == pytest.approx(1)

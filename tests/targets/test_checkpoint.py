"""Checkpoints: read as they were written, refused in one line that says what they are where they can't be used."""

import io
import pickle
import zipfile

import pytest
import torch

from ldm_privacy.data.split import Split
from ldm_privacy.errors import UserError
from ldm_privacy.models.ideal import linear_alphas_cumprod
from ldm_privacy.models.identity import IdentityCodec
from ldm_privacy.models.kl import KLCodec
from ldm_privacy.models.unet import unet
from ldm_privacy.targets.checkpoint import target_of_checkpoint
from ldm_privacy.targets.denoiser import Denoiser
from ldm_privacy.targets.door import open_target
from ldm_privacy.targets.record import FORMAT, RECORD, Checkpoint

ARGUMENTS = {"latent_channels": 1, "latent_size": 4, "block_out_channels": [4], "norm_num_groups": 2, "layers_per_block": 1}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return unet(**ARGUMENTS, num_class_embeds=3).eval()


@pytest.fixture
def contents(network):
    """A function **changes of the record -> the smallest checkpoint of the denoiser."""
    arguments = {"class": "unet", **ARGUMENTS, "num_class_embeds": 3}
    condition = {"class": "labels", "num_classes": 2}
    denoiser = Denoiser(arguments, linear_alphas_cumprod().float(), "v_prediction", condition)

    def make(**record):
        return {
            "state_dict": {f"network.{name}": value for name, value in network.state_dict().items()},
            "loops": {"fit_loop": {"epoch_progress": {"current": {"processed": 3}}}},
            RECORD: {
                "format": FORMAT,
                "stage": "denoiser",
                "config": "seed: 0",
                "split": Split(torch.arange(2), torch.arange(2, 4), torch.arange(4, 6), 9).state_dict(),
                "content_hash": "ab" * 32,
                "codec": IdentityCodec(image_channels=1).record(),
                "denoiser": denoiser.record(),
                **record,
            },
        }

    return make


@pytest.fixture
def whole(tmp_path, contents):
    """A function **changes of the record -> the path of that checkpoint."""

    def write(**record):
        path = tmp_path / "whole.ckpt"
        torch.save(contents(**record), path)
        return path

    return write


def refused(path, message, *, stage="denoiser"):
    with pytest.raises(UserError, match=message) as caught:
        target_of_checkpoint(Checkpoint.read(path, stage=stage))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_whole_one_is_a_target(whole, network):
    checkpoint = Checkpoint.read(whole())
    assert (checkpoint.epoch, checkpoint.config, checkpoint.content_hash) == (3, "seed: 0", "ab" * 32)
    assert checkpoint.split.member_index.tolist() == [0, 1]
    target = open_target(whole())
    latent, timestep = torch.randn(2, 1, 4, 4), torch.tensor([10, 500])
    condition = {"class_labels": torch.tensor([0, 2])}
    # As a v prediction: epsilon = sqrt(abar) v + sqrt(1 - abar) z.
    abar = linear_alphas_cumprod().float()[timestep][:, None, None, None]
    with torch.no_grad():
        velocity = network(latent, timestep, **condition).sample
        epsilon = target.predictor(latent, timestep, condition)
    torch.testing.assert_close(epsilon, abar.sqrt() * velocity + (1 - abar).sqrt() * latent)
    assert torch.equal(target.codec.encode(latent), latent)
    assert not any(parameter.requires_grad for parameter in target.predictor.network.parameters())
    assert target.facts["condition"] == "labels"
    assert target.facts["target"] == "checkpoint, epoch 3"


def test_a_path_that_no_kind_of_target_recognises_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UserError, match=r"notes\.txt: no kind of target that is known \(.*checkpoint.*\)"):
        open_target(tmp_path / "notes.txt")
    with pytest.raises(UserError, match=r"nothing\.ckpt does not exist"):
        open_target(tmp_path / "nothing.ckpt")


def test_a_missing_one_lists_those_beside_it(tmp_path, whole):
    whole()
    refused(tmp_path / "nothing.ckpt", r"does not exist.*whole\.ckpt")
    refused(tmp_path, "is a folder")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_one_is_refused(tmp_path, whole, share):
    data = whole().read_bytes()
    path = tmp_path / "cut.ckpt"
    path.write_bytes(data[: int(share * len(data))])
    refused(path, "truncated or no checkpoint|refused")


class Bomb:
    def __reduce__(self):
        return (open, ("bomb-went-off", "w"))


@pytest.mark.parametrize("how", ["plain pickle", "torch.save"])
def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(tmp_path, monkeypatch, how):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bomb.ckpt"
    if how == "torch.save":
        torch.save({"state_dict": Bomb()}, path)
    else:
        path.write_bytes(pickle.dumps({"state_dict": Bomb()}))
    refused(path, "would run code")
    assert not (tmp_path / "bomb-went-off").exists()


def test_one_of_another_program_is_refused(tmp_path):
    path = tmp_path / "other.ckpt"
    torch.save({"state_dict": {}}, path)
    refused(path, "not a checkpoint of this program")
    torch.save([1, 2], path)
    refused(path, "not a checkpoint of this program")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("hello.txt", "hello")
    path.write_bytes(buffer.getvalue())
    refused(path, "truncated or no checkpoint")


@pytest.mark.parametrize("content", [b"junk", b"junk\n", b"\x00\x01\x02", b"{}", b"PK\x03\x04", bytes(range(256))])
def test_bytes_that_are_no_checkpoint_are_refused(tmp_path, content):
    path = tmp_path / "junk.ckpt"
    path.write_bytes(content)
    refused(path, "truncated or no checkpoint|would run code")


def test_one_of_the_other_stage_is_refused(whole):
    refused(whole(stage="autoencoder"), "from the autoencoder stage")
    refused(whole(), "from the denoiser stage", stage="autoencoder")


def test_one_of_another_format_is_refused(whole):
    for record_format in (FORMAT - 1, str(FORMAT), None):
        refused(whole(format=record_format), f"not a checkpoint of this program \\(format {FORMAT}\\)")


NEEDED = {
    (RECORD, "stage"): "its stage",
    (RECORD, "config"): "its config",
    (RECORD, "content_hash"): "the hash of its images",
    (RECORD, "split"): "split",
    (RECORD, "split", "member_index"): "split",
    (RECORD, "split", "num_rows"): "split",
    (RECORD, "codec"): "its codec",
    (RECORD, "codec", "class"): "its codec",
    (RECORD, "codec", "image_channels"): "its codec",
    (RECORD, "denoiser"): "its denoiser",
    (RECORD, "denoiser", "network"): "its denoiser",
    (RECORD, "denoiser", "network", "class"): "its denoiser",
    (RECORD, "denoiser", "alphas_cumprod"): "its noise schedule",
    (RECORD, "denoiser", "prediction_type"): "its denoiser",
    (RECORD, "denoiser", "condition"): "its denoiser",
    ("state_dict",): "its weights|weights are missing",
    ("state_dict", "network.conv_in.weight"): "its denoiser|its weights",
    ("loops",): r"epochs \(loops\)",
    ("loops", "fit_loop"): r"epochs \(loops\)",
    ("loops", "fit_loop", "epoch_progress", "current", "processed"): r"epochs \(loops\)",
}


@pytest.mark.parametrize("value", ["missing", None, 1.5, [1, 2], b"x", {1: 2}])
@pytest.mark.parametrize("place", list(NEEDED), ids=".".join)
def test_a_part_that_is_missing_or_something_else_is_named(tmp_path, contents, place, value):
    if place[-1] == "image_channels" and value == 1.5:
        return  # one channel, as good as 1
    checkpoint = contents()
    *way, last = place
    node = checkpoint
    for name in way:
        node = node[name]
    if value == "missing":
        del node[last]
    else:
        node[last] = value
    path = tmp_path / "damaged.ckpt"
    torch.save(checkpoint, path)
    refused(path, f"{NEEDED[place]}.*; the checkpoint is damaged\\. Use another one\\.")


@pytest.mark.parametrize(
    "abar",
    [torch.ones(0), torch.ones(2, 2), torch.ones(5).long(), torch.full((5,), torch.nan), torch.zeros(5), torch.full((5,), 1.5)],
    ids=str,
)
def test_a_noise_schedule_that_is_none_is_refused(whole, contents, abar):
    denoiser = {**contents()[RECORD]["denoiser"], "alphas_cumprod": abar}
    refused(whole(denoiser=denoiser), "its noise schedule")


def test_a_denoiser_that_nobody_knows_is_named(whole, contents):
    denoiser = contents()[RECORD]["denoiser"]
    for changes in ({"class": "unett"}, {"chanels": 3}, {"block_out_channels": [2**20]}, {"block_out_channels": [8]}):
        refused(whole(denoiser={**denoiser, "network": {**denoiser["network"], **changes}}), "unett|its denoiser can't be used")


def test_a_channel_map_that_does_not_fit_the_latents_is_refused(whole):
    codec = KLCodec.build(image_channels=1, resolution=8, block_out_channels=(8,), norm_num_groups=4)
    record = codec.record()
    for damage in ({"matrix": torch.eye(3)}, {"matrix": torch.zeros(4, 4)}, {"shift": torch.zeros(4, 1, 1)}, {"name": None}):
        refused(whole(codec={**record, "channel_map": {**record["channel_map"], **damage}}), "its channel map")


def test_the_autoencoder_stage_needs_no_codec_and_no_denoiser(whole):
    path = whole(stage="autoencoder", codec=None, denoiser=None)
    assert Checkpoint.read(path, stage="autoencoder").stage == "autoencoder"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.clear(), r"weights are missing, the first 'conv_in\.weight'"),
        (lambda state: state.update({"network.more": torch.ones(1)}), "1 weights are unknown, the first 'more'"),
        (lambda state: state.update({"network.conv_in.bias": torch.ones(3)}), r"'conv_in\.bias' has shape \(3,\), not \(4,\)"),
    ],
)
def test_weights_of_another_network_are_refused(tmp_path, contents, change, message):
    checkpoint = contents()
    change(checkpoint["state_dict"])
    torch.save(checkpoint, tmp_path / "other.ckpt")
    refused(tmp_path / "other.ckpt", f"its denoiser can't be used: the weights don't fit its settings .*{message}")


@pytest.mark.parametrize("part", ["state_dict", "current_model_state"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("network.conv_in.bias"), r"1 weights are missing, the first 'conv_in\.bias'"),
        (lambda state: state.update({"criterion.scale": torch.ones(1)}), "1 weights are unknown, the first 'criterion.scale'"),
        (lambda state: state.update({"network.conv_in.bias": torch.ones(3)}), "1 weights don't match"),
        (lambda state: state.clear(), "weights are missing"),
    ],
)
def test_a_training_goes_on_with_all_its_weights_alone(tmp_path, contents, network, part, change, message):
    checkpoint = contents()
    checkpoint["current_model_state"] = dict(checkpoint["state_dict"])
    change(checkpoint[part])
    torch.save(checkpoint, tmp_path / "other.ckpt")
    read = Checkpoint.read(tmp_path / "other.ckpt")
    with pytest.raises(UserError, match=rf"other\.ckpt: its weights \({part}\) don't fit the denoiser.*{message}") as caught:
        read.check_weights(network, are_averaged=True)
    assert len(str(caught.value).splitlines()) == 1
    if part == "current_model_state":
        read.check_weights(network)


def test_a_training_that_averages_needs_both_weights(whole, network):
    read = Checkpoint.read(whole())
    read.check_weights(network)
    with pytest.raises(UserError, match=r"its weights \(current_model_state\) .* weights are missing"):
        read.check_weights(network, are_averaged=True)

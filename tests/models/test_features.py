"""Feature networks: what transformers itself computes from the same folder, differentiable, whole or refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from ldm_privacy.errors import UserError
from ldm_privacy.models.features import CONFIG, KINDS, PREPROCESSOR, WEIGHTS, FeatureNetwork

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
SETTINGS = {
    "CLIPVisionModel": {**SMALL, "intermediate_size": 32},
    "Dinov2Model": SMALL,
    "ViTModel": {**SMALL, "intermediate_size": 32},
    "ResNetModel": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
}
PROCESSORS = {
    "CLIPVisionModel": ("CLIPImageProcessorPil", {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}),
    "Dinov2Model": ("BitImageProcessorPil", {"size": {"shortest_edge": 48}, "crop_size": {"height": 32, "width": 32}}),
    "ViTModel": ("ViTImageProcessorPil", {"size": {"height": 32, "width": 32}}),
    "ResNetModel": ("ConvNextImageProcessorPil", {"size": {"shortest_edge": 32}, "crop_pct": 0.8}),
}


@pytest.fixture(scope="module", params=KINDS)
def folder(request, tmp_path_factory):
    import transformers

    kind, path = getattr(transformers, request.param), tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    kind(kind.config_class(**SETTINGS[request.param])).save_pretrained(path)
    name, options = PROCESSORS[request.param]
    getattr(transformers, name)(**options).save_pretrained(path)
    return path


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def smooth(count, channels):
    """Images in whole bytes, (count, channels, 48, 48) in [-1, 1]."""
    grid = torch.linspace(0, 3, 48)
    waves = torch.sin(grid[:, None] * torch.arange(1, count + 1)[:, None, None]) * torch.cos(grid)
    pixels = ((waves[:, None] + 1) * 127.5 * torch.linspace(0.4, 1, channels)[:, None, None]).round()
    return pixels / 127.5 - 1


def test_features_are_those_of_transformers_own_loader_and_processor(folder):
    from transformers import AutoImageProcessor

    network = FeatureNetwork.open(str(folder))
    kind = type(network.network)
    assert network.name == f"{folder.name} ({kind.__name__})"
    images = smooth(2, 3)
    pictures = [Image.fromarray(((each.permute(1, 2, 0) + 1) * 127.5).round().numpy().astype(np.uint8)) for each in images]
    theirs = kind.from_pretrained(folder).eval()
    for name, value in theirs.state_dict().items():
        assert torch.equal(network.network.state_dict()[name], value), name
    seen = AutoImageProcessor.from_pretrained(folder)(pictures, return_tensors="pt")["pixel_values"]
    prepared = network.prepared(images)
    assert prepared.shape == seen.shape
    # PIL rounds to bytes, twice: after a pass along each side. A byte is .02 in normalised units.
    assert (prepared - seen).abs().max() < 3 * (2 / 255 / 0.26)
    with torch.no_grad():
        output = theirs(pixel_values=prepared, output_hidden_states=True)
    pooled, layers = network.pooled(images), network.layers(images)
    expected = output.last_hidden_state[:, 0] if kind.__name__ == "ViTModel" else output.pooler_output.flatten(1)
    assert torch.equal(pooled, expected)
    assert len(layers) == len(output.hidden_states) == 3
    for layer, state in zip(layers, output.hidden_states):
        assert layer.ndim == 4
        if state.ndim == 3:
            assert torch.equal(layer[:, :, 1, 2], state[:, 1 + 1 * 4 + 2]), "the token of the patch at row 1, column 2"


def test_features_are_differentiable_and_grey_is_three_equal_channels(folder):
    network = FeatureNetwork.open(str(folder))
    grey = smooth(2, 1).requires_grad_()
    pooled = network.pooled(grey)
    torch.testing.assert_close(pooled, network.pooled(grey.detach().expand(-1, 3, -1, -1)))
    network.layers(grey)[-1].square().sum().backward()
    assert grey.grad.abs().sum() > 0
    assert all(not each.requires_grad for each in network.network.parameters())


def test_a_folder_is_whole_or_refused_in_one_line(copy, tmp_path):
    network = FeatureNetwork.open(str(copy))
    assert FeatureNetwork.open(str(copy), sha256=network.sha256.upper()).sha256 == network.sha256
    weights = load_file(copy / WEIGHTS)
    first, *_ = (name for name in weights if name.endswith("weight"))
    settings = json.loads((copy / CONFIG).read_text())

    def refused(match, **options):
        with pytest.raises(UserError, match=match) as caught:
            FeatureNetwork.open(str(copy), **options)
        assert len(str(caught.value).splitlines()) == 1

    save_file({**weights, first: weights[first] + 1}, copy / WEIGHTS)
    refused("sha256: .* its files changed", sha256=network.sha256)
    save_file({name: each for name, each in weights.items() if name != first}, copy / WEIGHTS)
    refused(r"path: .*1 weights are missing, the first .*\. Name a folder")
    save_file(weights, copy / WEIGHTS)
    (copy / CONFIG).write_text(json.dumps({**settings, "architectures": ["CLIPModel"]}))
    refused("describes a CLIPModel, and one of CLIPVisionModel")
    (copy / CONFIG).write_text(json.dumps(settings))
    processor = json.loads((copy / PREPROCESSOR).read_text())
    for change in ({"size": {"longest_edge": 3}}, {"resample": 1}, {"image_std": [1]}, {"rescale_factor": 1.0}):
        (copy / PREPROCESSOR).write_text(json.dumps({**processor, **change}))
        refused(f"path: preprocessor_config.json has .*{next(iter(change))}")
    (copy / PREPROCESSOR).unlink()
    refused("path: there is no .*preprocessor_config.json")
    with pytest.raises(UserError, match="path: there is no folder"):
        FeatureNetwork.open(str(tmp_path / "nowhere"))


def rewritten(copy, name, **change):
    file = copy / name
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    return copy


@pytest.mark.parametrize("size", [(32, 32), (20, 33), (33, 20), (21, 20), (40, 48)])
@pytest.mark.parametrize("crop", [(32, 32), (33, 30)])
def test_a_crop_beyond_the_image_is_black_as_in_transformers(tmp_path, size, crop):
    from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel

    processor = CLIPImageProcessorPil(do_resize=False, crop_size={"height": crop[0], "width": crop[1]})
    processor.save_pretrained(tmp_path)
    preprocessor = json.loads((tmp_path / PREPROCESSOR).read_text())
    model = CLIPVisionModel(CLIPVisionConfig(**SETTINGS["CLIPVisionModel"]))
    network = FeatureNetwork(model, preprocessor, path=str(tmp_path), sha256="")
    image = smooth(1, 3)[..., : size[0], : size[1]]
    picture = Image.fromarray(((image[0].permute(1, 2, 0) + 1) * 127.5).round().numpy().astype(np.uint8))
    seen = processor(picture, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(network.prepared(image), seen, rtol=0, atol=1e-5)


def test_files_that_are_each_whole_but_give_no_features_are_refused(copy):
    path = str(copy)
    network = FeatureNetwork.open(path, resolution=8)
    assert network.pooled(-torch.ones(1, 1, 8, 8)).isfinite().all()
    settings = json.loads((copy / PREPROCESSOR).read_text())
    for change, words in (
        ({"image_std": [0.0, 1, 1]}, "these above 0"),
        ({"image_std": [float("nan"), 1, 1]}, "these above 0"),
        ({"image_mean": [float("inf"), 1, 1]}, "of three numbers"),
        ({"resample": [3]}, r"resample \[3\]"),
        ({"rescale_factor": "x"}, "another rescale_factor"),
    ):
        rewritten(copy, PREPROCESSOR, **change)
        with pytest.raises(UserError, match=rf"^path: {PREPROCESSOR} has .*{words}.*\. Name a folder whose files are whole"):
            FeatureNetwork.open(path)
        (copy / PREPROCESSOR).write_text(json.dumps(settings))
    if type(network.network).__name__ in ("CLIPVisionModel", "ViTModel"):  # the others take images of any size
        rewritten(copy, PREPROCESSOR, size={"height": 16, "width": 16}, do_center_crop=False)
        with pytest.raises(UserError, match=r"^path: copy \(\w+\) can't look at an image of 8 pixels \(.*belong together\.$"):
            FeatureNetwork.open(path, resolution=8)
    (copy / PREPROCESSOR).write_text(json.dumps(settings))
    weights = load_file(copy / WEIGHTS)
    save_file(
        {name: each * float("nan") if each.is_floating_point() else each for name, each in weights.items()}, copy / WEIGHTS
    )
    with pytest.raises(UserError, match=r"makes of an image of 8 pixels what is not finite"):
        FeatureNetwork.open(path, resolution=8)


def test_a_folder_names_no_code_and_not_how_its_network_answers(copy, monkeypatch):
    import transformers

    asked = []
    monkeypatch.setattr(
        transformers.modeling_utils, "lazy_import_flash_attention", lambda *seen, **more: asked.append(seen), raising=False
    )
    expected = FeatureNetwork.open(str(copy)).pooled(smooth(1, 3))
    for name in ("attn_implementation", "_attn_implementation", "experts_implementation"):
        rewritten(copy, CONFIG, **{name: "kernels-community/flash-attn"})
    rewritten(copy, CONFIG, return_dict=False, use_kernels=True, quantization_config={"a": 1}, auto_map={"AutoModel": "x.y"})
    network = FeatureNetwork.open(str(copy))
    config = network.network.config
    assert config._attn_implementation in ("sdpa", "eager")
    assert config.return_dict
    assert not {"use_kernels", "quantization_config", "auto_map"} & vars(config).keys()
    assert not asked
    assert torch.equal(network.pooled(smooth(1, 3)), expected)

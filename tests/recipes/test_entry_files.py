"""Every config that is shipped runs, both stages and the audits, on a few images."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_digits

from ldm_privacy.config.compose import FOR_TARGETS, entry_files, find_entry
from ldm_privacy.data.images import to_float
from ldm_privacy.data.split import Split
from ldm_privacy.errors import UserError
from ldm_privacy.recipes import cli
from ldm_privacy.targets.door import open_target
from tests.pages import asks_for
from tests.reference.autoencoders import far_from_zero
from tests.reference.geometry import dense_jacobian
from tests.standins import overrides as source_overrides
from tests.standins import write_celeba, write_imagenet, write_medical
from tests.tiny import arguments, series
from tests.undrawn import draw, make, undrawn

GEOMETRY = ("distortion", "influence", "masks", "pixel_influence")
PICTURES = ("samples", "reconstructions", "memorization", "onset", *GEOMETRY)
OF_THE_EVALUATION = ("memorization", "onset", "roc", "auroc_by_timestep", "keep_fraction", "histogram", "p_value", *GEOMETRY)
SMALL = [
    "data.num_members=24",
    "data.num_heldout=24",
    "denoiser.network.block_out_channels=[8,8]",
    "denoiser.network.norm_num_groups=4",
    "audit.timesteps=[100]",
    "audit.attacks=[sima]",
    "audit.num_bootstrap=20",
    "watch.samples.num_images=2",
    "watch.samples.num_steps=2",
    "watch.quality.num_images=20",
    "watch.quality.num_steps=2",
    "geometry.influence.num_probes=2",
    "geometry.distortion_rank=2",
    "geometry.distortion_oversample=1",
    "geometry.distortion_max_samples=12",
    "trainer.accelerator=cpu",
    "trainer.compile=none",
    "trainer.max_epochs=1",
    "wandb.mode=disabled",
]
WITHOUT_DECODER = ["geometry={influence: probe, distortion_rank: 0}"]
TRAJECTORIES = ["watch.trajectories.num_captions=4", "watch.trajectories.num_steps=2"]
OF_AN_ENTRY = {
    "digits": ["data.num_public=16", "watch.generations.num_steps=2"],
    "digits_pixels": [*WITHOUT_DECODER, "watch.generations.num_steps=2"],
    "cifar10_pixels": [*WITHOUT_DECODER, "denoiser.network.attention=[false,true]"],
    "cifar10_pixels_small": WITHOUT_DECODER,
    "digits_private": ["data.num_public=16"],
    "digits_flow": ["data.num_public=16", "audit.timesteps=null", "audit.sigmas=[0.3]"],
    "digits_classes": ["data.num_public=16", *TRAJECTORIES],
    "digits_captions": ["data.num_public=16", *TRAJECTORIES],
    "emoji": ["data.num_public=16", "data.repeats.times=2", *TRAJECTORIES],
    "cifar10_small": ["data.num_public=16"],
    "cifar100_pixels": [*WITHOUT_DECODER, "denoiser.network.attention=[false,true]"],
    "stl10_pixels": [*WITHOUT_DECODER, "denoiser.network.attention=[false,true]"],
    "celeba": ["data.resolution=32"],
    "celeba_pixels": [*WITHOUT_DECODER, "denoiser.network.attention=[false,true]", "data.resolution=16"],
    "imagenet100k": [
        *("data.resolution=32", "autoencoder.network.class=kl", "denoiser.network.attention=[false,true]"),
        *("denoiser.network.head_channels=8", "trainer.precision=32-true", "data.num_members=null", "data.num_heldout=null"),
        "autoencoder.max_epochs=0",
    ],
    "medical": ["data.resolution=32", "denoiser.network.attention=[false,true]", "gate.auroc=0.999"],
}
"""Beyond SMALL."""
FORMS = {
    "celeba": ("celeba", lambda at: write_celeba(at, 60, num_identities=30), ["data.group_column=identity"]),
    "imagenet100k": (
        "imagenet",
        lambda at: write_imagenet(at, 6, num_heldout=6),
        ["data.source.per_class=6", "data.source.heldout_per_class=6"],
    ),
    "medical": ("folder", lambda at: write_medical(at, 60, num_patients=30), []),
}
FORMS["celeba_pixels"] = FORMS["celeba"]
"""Of an entry: the class of its source, who writes a stand-in, and what to say besides. All others read one file of images."""


@pytest.fixture
def images(tmp_path):
    """80 colour images as CIFAR-10's parquet files hold them, with captions."""
    generator = np.random.default_rng(0)
    cells = []
    for _ in range(80):
        buffer = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(buffer, "PNG")
        cells.append({"bytes": buffer.getvalue(), "path": None})
    path = tmp_path / "images.parquet"
    words = [f"picture number {number}" for number in range(80)]
    pq.write_table(pa.table({"img": cells, "label": [0] * 80, "text": words}), path)
    return path


def source_of(entry, images, folder):
    """The overrides that give an entry file images in the form that it reads."""
    if entry in FORMS:
        name, write, besides = FORMS[entry]
        return [*source_overrides(name, write(folder)), *besides]
    return [] if entry.startswith("digits") else source_overrides("parquet", {"files": str(images)})


# Drawing takes longer than all the rest, and the configs differ in nothing that is drawn, but grey and colour. The others are
# run by CI; laws of what is particular to them stand beside it.
QUICK = ("digits",)
RUNS = [
    pytest.param(
        path, make if path.stem == "digits" else None, id=path.stem, marks=[] if path.stem in QUICK else [pytest.mark.slow]
    )
    for path in entry_files()
    if path.name != FOR_TARGETS and "denoiser/stable_diffusion" not in path.read_text()  # see test_finetune.py
]
DRAWN = [
    pytest.param(find_entry(f"{name}.yaml"), draw, id=f"{name}, drawn", marks=pytest.mark.slow)
    for name in ("digits", "cifar10")
]


def small(entry, images, folder):
    """The command line of a small run of an entry file below `folder`."""
    overrides = [*SMALL, f"output_dir={folder}/runs"]
    if "pixels" not in entry:
        blocks = "[8,8]" if entry.startswith("digits") else "[8,8,8]"
        overrides += [f"autoencoder.network.block_out_channels={blocks}", "autoencoder.network.norm_num_groups=4"]
        overrides += ["autoencoder.max_epochs=1"]
    return ["--config", f"{entry}.yaml", *overrides, *OF_AN_ENTRY.get(entry, []), *source_of(entry, images, folder / "data")]


@pytest.mark.parametrize("entry", ["celeba", "imagenet100k"])
def test_its_plan_is_printed_and_nothing_made(entry, images, tmp_path, capsys):
    assert cli.train([*small(entry, images, tmp_path), "dry_run=true"]) == 0
    said = capsys.readouterr().out
    assert "24 members, 24 held-out, 0 public" in said
    assert "Cost in network passes" in said
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("entry", "figures"), [*RUNS, *DRAWN])
def test_it_trains_audits_and_evaluates(entry, figures, images, tmp_path, monkeypatch):
    if figures is not None:
        figures(monkeypatch)
    shown = str(figures is not None).lower()
    assert cli.train([*small(entry.stem, images, tmp_path), f"trainer.figures={shown}"]) == 0
    run = tmp_path / "runs" / entry.stem
    assert ("denoiser", 1, "memorization/sima/all/auroc") in series(run)
    if figures is not None:
        stored = [
            *(run / "figures" / f"{name}.png" for name in PICTURES),
            *(run / "evaluation" / "figures" / f"{name}.png" for name in OF_THE_EVALUATION),
        ]
        for path in stored:
            assert path.stat().st_size > (1000 if figures is draw else 0), path
        report = (run / "evaluation" / "report.html").read_text()
        assert len(report.encode()) < 5e6
        assert asks_for(report) == []
    with undrawn():
        assert cli.evaluate([f"ckpt={run}/checkpoints/last.ckpt", f"out={tmp_path}/out"]) == 0
    assert (tmp_path / "out" / "report.html").exists()
    if (run / "evaluation").exists():
        folders = run / "evaluation", tmp_path / "out"
        of_run, again = (json.loads((each / "metrics.json").read_text())["watched"]["quality"] for each in folders)
        for name in ("kid_random_heldout", "kid_random_gap", "swd_reconstructions"):
            assert again[name] == pytest.approx(of_run[name], rel=1e-3, abs=1e-4), name


ONE_EPOCH = ["autoencoder.max_epochs=1", "trainer.max_epochs=1", "audit.attacks=[sima]", "audit.timesteps=[100]"]


@pytest.mark.parametrize(
    "choices",
    [
        [
            "denoiser.channel_map=per_channel",
            "denoiser.prediction_type=v_prediction",
            "autoencoder.losses.reconstruction=l2",
            "geometry.influence.class=exact",
        ],
        [
            "denoiser.channel_map=none",
            "denoiser.prediction_type=sample",
            "autoencoder.train_on=all",
            "autoencoder.network.mid_block_attention=true",
            "geometry.influence.class=shrunk",
        ],
        [
            "denoiser.ema_decay=null",
            "denoiser.network.mid_block_attention=true",
            "denoiser.condition=labels",
            "data.flip=true",
            "audit.cross_fit=false",
        ],
        ["trainer.precision=bf16-mixed", "trainer.gradient_clip=null"],
    ],
    ids=" ".join,
)
def test_every_choice_trains_and_audits(choices, tmp_path):
    assert cli.train(arguments(tmp_path, *ONE_EPOCH, *choices)) == 0
    assert ("denoiser", 1, "memorization/sima/top60/auroc") in series(tmp_path / "digits")


def test_a_pretrained_autoencoder_is_taken_as_it_is_and_normalised_wherever_its_latents_lie(tmp_path):
    given = far_from_zero()
    given.network.float()
    given.save(tmp_path / "given")
    pretrained = [
        "autoencoder.network.class=pretrained",
        f"autoencoder.network.path={tmp_path}/given",
        "autoencoder.max_epochs=0",
        "trainer.max_epochs=1",
        "denoiser.channel_map=per_channel",
        "geometry.influence.class=exact",
    ]
    assert cli.train(arguments(tmp_path, *pretrained)) == 0
    run = tmp_path / "digits"
    assert not (run / "autoencoder").exists(), "it lies where it was taken from"

    stored = {}
    for path in (run / "store").glob("*.safetensors"):
        stored |= load_file(path)
    split = Split.load(run / "split.npz")
    image = to_float(torch.tensor(load_digits().images * 255 / 16).round()[split.audited_index][:, None])
    mean = given.network.encode(image).latent_dist.mean
    torch.testing.assert_close(stored["mean"], mean, rtol=1e-4, atol=1e-4)
    codec = open_target(run / "checkpoints" / "last.ckpt").codec
    of_members = codec.channel_map(mean[split.is_member(split.audited_index)])
    torch.testing.assert_close(of_members.mean((0, 2, 3)), torch.zeros(4), rtol=0, atol=1e-4)
    torch.testing.assert_close(of_members.std((0, 2, 3)), torch.ones(4))
    # What is audited of the codec is at the posterior means, wherever normalisation has put the latents.
    decoded = given.network.decode(mean).sample
    torch.testing.assert_close(codec.decode(codec.encode(image)), decoded, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(stored["error"], (decoded - image).abs().mean((1, 2, 3)), rtol=1e-3, atol=1e-4)
    squares = dense_jacobian(lambda mean: given.network.decode(mean).sample, mean[:2]).square().sum(1).reshape(2, 4, 4, 4)
    spread = mean[split.is_member(split.audited_index)].std((0, 2, 3))[:, None, None]
    torch.testing.assert_close(stored["influence"][:2].float(), squares * spread**2, rtol=1e-3, atol=1e-6)
    # It is looked up where it lies now, and no other one is taken.
    ckpt = run / "checkpoints" / "last.ckpt"
    (tmp_path / "given").rename(tmp_path / "moved")
    with pytest.raises(UserError, match=rf"{tmp_path}/given' .*; say where .* now: autoencoder\.network\.path=FOLDER\.$"):
        cli.evaluate([f"ckpt={ckpt}"])
    assert cli.evaluate([f"ckpt={ckpt}", f"autoencoder.network.path={tmp_path}/moved"]) == 0
    assert cli.train([f"resume={run}", f"autoencoder.network.path={tmp_path}/moved", "dry_run=true"]) == 0
    (other := far_from_zero()).network.quant_conv.weight.data += 1
    other.save(tmp_path / "other")
    with pytest.raises(UserError, match=r"/other is not what it was trained on: SHA-256"):
        cli.evaluate([f"ckpt={ckpt}", f"autoencoder.network.path={tmp_path}/other"])

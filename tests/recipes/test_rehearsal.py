"""What a user's own component gets wrong is told before anything is trained: one line with its kind, name, file and line."""

import re

import numpy as np
import pytest
from PIL import Image

from ldm_privacy.plugins import import_plugins
from ldm_privacy.recipes import cli
from ldm_privacy.recipes.terminal import run_program
from ldm_privacy.registry import WATCHERS
from ldm_privacy.report.folder import section_of
from ldm_privacy.watch.watcher import Moment, look_with
from tests.desk import working_in
from tests.tiny import PIXELS, settings

HEAD = """import torch
from torch import nn
from ldm_privacy.attacks.base import Attack, UnmaskableAttack
from ldm_privacy.calibrations.base import Calibrated, Calibration
from ldm_privacy.controls.finding import WITHOUT_MODEL, Finding
from ldm_privacy.data.conditions import ConditionSource
from ldm_privacy.data.sources import ImageSource
from ldm_privacy.geometry.estimate import InfluenceEstimate
from ldm_privacy.losses.base import CodecLoss
from ldm_privacy.models.codec import Codec
from ldm_privacy.registry import *
from ldm_privacy.training.timesteps import Uniform
from ldm_privacy.watch.watcher import Look, Watcher
"""
FIRST = len(HEAD.splitlines()) + 1
"""Line of the decorator."""

TERMS = "def contributions(self, query, latent, timesteps, noise):"
ATTACK = ["audit.attacks.mine.class=mine"]
CALIBRATION = ["audit.calibrations.mine.class=mine"]
MASK = "class Mine:\n    keep_fraction = 0.5\n    def __call__(self, ranking, sample_index):\n        "
CODEC = """class Mine(Codec):
    name = "mine"
    def latent_shape(self, channels, resolution):
        return torch.Size((channels, resolution, resolution))
    def record(self):
        return {"class": "mine"}
    def mean(self, image):
        return image
    def decode(self, latent):
        return """

CASES = {
    "attack raises": ("ATTACKS", f"class Mine(Attack):\n    {TERMS}\n        return latent[999]", ATTACK, 3, "IndexError"),
    "attack's shape": (
        "ATTACKS",
        f"class Mine(Attack):\n    {TERMS}\n        return latent",
        ATTACK,
        0,
        "contributions: it returns",
    ),
    "attack's numbers": (
        "ATTACKS",
        f"class Mine(Attack):\n    {TERMS}\n        return latent.expand(len(timesteps), *latent.shape) * float('inf')",
        ATTACK,
        0,
        "a statistic is not finite",
    ),
    "attack without": ("ATTACKS", "class Mine(Attack):\n    pass", ATTACK, 0, "it lacks 'contributions'"),
    "attack ends": ("ATTACKS", f"class Mine(Attack):\n    {TERMS}\n        raise SystemExit(0)", ATTACK, 3, "SystemExit: 0"),
    "no attack": ("ATTACKS", "class Mine:\n    pass", ATTACK, 0, "which is no ldm_privacy.attacks.base.Attack"),
    "statistic's axes": (
        "ATTACKS",
        "class Mine(UnmaskableAttack):\n    def statistic(self, query, latent, timesteps, noise):\n"
        "        return latent.new_zeros(len(latent), len(timesteps))",
        ATTACK,
        0,
        "statistic: it returns torch.float32 (16, 2), not a tensor of shape (2, 16)",
    ),
    "type hint": (
        "ATTACKS",
        'class Mine(Attack):\n    def __init__(self, x: "Nothing" = 1):\n        pass',
        ATTACK,
        0,
        "NameError",
    ),
    "constructor": (
        "ATTACKS",
        "class Mine(Attack):\n    def __init__(self):\n        raise OSError(2, 'no', 'x')",
        ATTACK,
        3,
        "[Errno 2] no: 'x'",
    ),
    "timesteps": (
        "TIMESTEP_SAMPLERS",
        "class Mine(Uniform):\n    def __call__(self, count, device):\n        return super().__call__(count, device) + 1000",
        ["denoiser.timestep_sampling.class=mine"],
        0,
        "is outside the noise schedule",
    ),
    "calibration raises": (
        "CALIBRATIONS",
        "class Mine(Calibration):\n    needs_history = True\n    def __call__(self, known):\n"
        "        return Calibrated(known.earlier[-1][known.key][None], {})",
        CALIBRATION,
        4,
        "IndexError",
    ),
    "calibration looks back": (
        "CALIBRATIONS",
        "class Mine(Calibration):\n    needs_history = True\n    def __call__(self, known):\n"
        "        return Calibrated(known.level[None] if not known.earlier else known.level, {})",
        CALIBRATION,
        0,
        "score: it returns torch.float64 (64,), not a tensor of shape (1, 64)",
    ),
    "calibration's numbers": (
        "CALIBRATIONS",
        "class Mine(Calibration):\n    def __call__(self, known):\n        return Calibrated(known.level[None] / 0, {})",
        CALIBRATION,
        0,
        "score: it is not finite",
    ),
    "mask's dtype": ("MASK_RULES", f"{MASK}return ranking", ["audit.masks.mine.class=mine"], 0, "not a torch.bool tensor"),
    "estimator": (
        "INFLUENCE_ESTIMATORS",
        "class Mine:\n    def __call__(self, decoder, latent, index):\n        return InfluenceEstimate(*[latent[:1]] * 2)",
        ["geometry.influence.class=mine"],
        0,
        "influence: it returns torch.float32 (1, 4, 4, 4)",
    ),
    "channel map": (
        "CHANNEL_MAPS",
        "def mine(means):\n    return means.mean()",
        ["denoiser.channel_map=mine"],
        0,
        "it makes a Tensor",
    ),
    "loss's shape": (
        "LOSSES",
        "class Mine(CodecLoss):\n    def __call__(self, batch):\n        return batch.output - batch.image",
        ["autoencoder.losses.mine={class: mine}"],
        0,
        "not a tensor of shape ()",
    ),
    "loss's decoder": (
        "LOSSES",
        "class Mine(CodecLoss):\n    def __call__(self, batch):\n        batch.decode(batch.mean).nothing",
        ["autoencoder.losses.mine={class: mine}"],
        3,
        "has no attribute 'nothing'",
    ),
    "compiled loss draws": (
        "LOSSES",
        "class Mine(CodecLoss):\n    compiles = True\n    def __call__(self, batch):\n"
        "        return batch.normal('x', batch.output).mean()",
        ["autoencoder.losses.mine={class: mine}"],
        4,
        "leave `compiles` False",
    ),
    "loss's gradients": (
        "LOSSES",
        "class Mine(CodecLoss):\n    needs_last_layer = True\n    def __call__(self, batch):\n"
        "        return batch.output.mean()\n    def weighted(self, value, batch, reconstruction):\n"
        "        return torch.autograd.grad(reconstruction, batch.last_weight)[0]",
        ["autoencoder.losses.mine={class: mine}"],
        0,
        "weighted: it returns torch.float32 (1, 8, 3, 3), not a tensor of shape ()",
    ),
    "condition's rows": (
        "CONDITIONS",
        "class Mine(ConditionSource):\n    def network_arguments(self):\n        return {}\n    def record(self):\n"
        "        return {'class': 'mine'}\n    def __call__(self, index):\n        return {'y': torch.zeros(1)}\n"
        "    def null(self):\n        return {'y': torch.zeros(1)}",
        ["denoiser.condition=mine"],
        0,
        "condition 'y': it returns torch.float32 (1,), not a tensor of shape (3,)",
    ),
    "denoiser in training": (
        "DENOISERS",
        "class Mine(nn.Module):\n    def forward(self, latent, t):\n        return self.nothing if self.training else latent",
        ["denoiser.network.class=mine"],
        3,
        "has no attribute 'nothing'",
    ),
    "codec's image": (
        "CODECS",
        f"{CODEC}latent[:, :, :2]",
        ["autoencoder.network.class=mine", *PIXELS[1:], "audit.masks=[all]"],
        0,
        "decode: it returns torch.float32 (2, 1, 2, 8), not a tensor of shape (2, 1, 8, 8)",
    ),
    "look": (
        "WATCHERS",
        "class Mine(Watcher):\n    def look(self, *seen):\n        return 3",
        ["watch.mine.class=mine"],
        0,
        "not a Look",
    ),
    "control": (
        "CONTROLS",
        "def mine(case):\n    return Finding('a', WITHOUT_MODEL, score=torch.zeros(3))",
        [],
        0,
        "score: it",
    ),
    "source": (
        "IMAGE_SOURCES",
        "class Mine(ImageSource):\n    def open(self):\n        return [1]",
        ["data.source.class=mine"],
        0,
        "not a datasets.Dataset",
    ),
}


@pytest.mark.parametrize(("registry", "text", "items", "line", "words"), CASES.values(), ids=CASES)
def test_it_is_told_before_a_folder_is_made(tmp_path, capsys, registry, text, items, line, words):
    (tmp_path / "my_plugin.py").write_text(f'{HEAD}@{registry}.register("mine")\n{text}\n')
    overrides = settings("output_dir=runs", "plugins=[my_plugin]", *items)
    with working_in(tmp_path), pytest.raises(SystemExit) as ended:
        run_program(cli.train, ["--config", "digits.yaml", *overrides])
    (told,) = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2
    kind = {"ATTACKS": "attack"}.get(registry, r"[a-z ]+")
    assert re.match(rf"error: {kind} 'mine' \(my_plugin\.py:{FIRST + line}\): \w+", told), told
    assert words in told
    assert ("check_attack" in told) == (registry == "ATTACKS")
    assert not (tmp_path / "runs").exists()


LATE = """
@WATCHERS.register("mine")
class Mine(Watcher):
    def look(self, target, moment):
        return Look() if moment.epoch < 2 else {}


@SECTIONS.register("mine")
def mine(evaluation):
    return "words"
"""


def test_what_shows_itself_late_is_told_alike(tmp_path, capsys):
    (tmp_path / "my_plugin.py").write_text(HEAD + LATE)

    def look(arguments):
        for epoch in range(3):
            look_with({"mine": watcher}, None, Moment(epoch, epoch))
        return 0

    with working_in(tmp_path):
        import_plugins(["my_plugin"])
        watcher = WATCHERS.get("mine")()
        for main, words in (
            (look, rf"watcher 'mine' \(my_plugin\.py:{FIRST + 1}\): TypeError: look: it returns dict, not a Look"),
            (
                lambda arguments: section_of("mine", None),
                rf"report section 'mine' \(my_plugin\.py:{FIRST + 7}\): .* not a Section",
            ),
        ):
            with pytest.raises(SystemExit):
                run_program(main, [])
            assert re.match(f"error: {words}", capsys.readouterr().err)


def test_the_few_images_of_a_rehearsal_are_of_several_patients(tmp_path):
    """Patients of six images that follow each other: the first four of a half are one patient's."""
    rows = ["file_name,patient"]
    for place in range(180):
        rows.append(f"{place:03}.png,{place // 6}")
        Image.fromarray(np.full((8, 8), place, dtype=np.uint8)).save(tmp_path / f"{place:03}.png")
    (tmp_path / "metadata.csv").write_text("\n".join(rows))
    folder = ["data.source.class=folder", f"data.source.path={tmp_path}", "data.group_column=patient"]
    counts = ["data.num_members=60", "data.num_heldout=60", "data.num_public=60"]
    command = ["--config", "digits.yaml", *settings(f"output_dir={tmp_path / 'runs'}", *folder, *counts), "dry_run=true"]
    assert cli.train(command) == 0

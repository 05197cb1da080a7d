"""A pipeline that is fine-tuned, whole or by a LoRA: trained, audited against its base, gone on with, evaluated, saved."""

import dataclasses
import gc
import io
import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from ldm_privacy.config.compose import compose, compose_stored, entry_files
from ldm_privacy.errors import UserError
from ldm_privacy.models.part import AnotherBase
from ldm_privacy.recipes import cli
from ldm_privacy.recipes.audit import audit_checkpoint
from ldm_privacy.recipes.evaluate.evaluate import setup_of
from ldm_privacy.recipes.train import train
from ldm_privacy.recipes.train import tuned as tuning
from ldm_privacy.recipes.train.denoiser_stage import Trained
from ldm_privacy.runs.folder import RunFolder
from ldm_privacy.targets.door import open_target
from ldm_privacy.targets.record import RECORD, Checkpoint
from tests.targets.loras import epsilons
from tests.targets.pipelines import stable_diffusion
from tests.tiny import series

ENTRIES = [path.stem for path in entry_files() if "denoiser/stable_diffusion" in path.read_text()]
SMALL = [
    "data.source.class=parquet",
    "data.num_members=24",
    "data.num_heldout=24",
    "data.resolution=16",
    "denoiser.learning_rate=1e-2",
    "denoiser.condition.memory_mib=1024",
    "audit.attacks={pia: null, clid: {class: clid, timesteps: [450]}}",
    "audit.masks={random60: null, low60: null, std60: null}",
    "audit.keep_fractions=[]",
    "audit.calibrations={history: null, gained: null, calibrated: null, combined: null}",
    "audit.timesteps=[50,150]",
    "audit.every_n_epochs=1",
    "audit.num_bootstrap=20",
    "geometry.influence.num_probes=2",
    "watch={samples: null, quality: null, trajectories: null}",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.max_epochs=2",
    "trainer.figures=false",
    "wandb.mode=disabled",
]
LORA = ["denoiser.adapter.rank=2", "denoiser.adapter.alpha=4"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A tiny base, and captioned pictures in a parquet file."""
    folder = tmp_path_factory.mktemp("finetune")
    stable_diffusion(folder / "sd")
    generator, cells = np.random.default_rng(0), []
    for _ in range(60):
        buffer = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(buffer, "PNG")
        cells.append({"bytes": buffer.getvalue(), "path": None})
    texts = [["a cat", "the end"][number % 2] + f" {number}" for number in range(60)]
    pq.write_table(pa.table({"image": cells, "text": texts, "caption": [[each] for each in texts]}), folder / "images.parquet")
    return folder


def line(place, *overrides, entry="pokemon.yaml"):
    source = f"data.source.files={place}/images.parquet"
    return ["--config", entry, *SMALL, source, f"base={place}/sd", f"output_dir={place}/runs", *overrides]


@pytest.fixture(scope="module", params=[pytest.param("whole", marks=pytest.mark.slow), "lora"])
def tuned(place, request):
    """Which way, and a run from start to end."""
    name, options = request.param, LORA if request.param == "lora" else []
    assert cli.train(line(place, *options, f"name={name}")) == 0
    return name, place / "runs" / name, options


def parts(run):
    return Checkpoint.read(run / "checkpoints" / "last.ckpt").parts


def test_an_evaluation_equals_the_last_audit_and_a_resumed_run_the_one_that_did_not_stop(tuned, place):
    name, run, options = tuned
    curves, ckpt = series(run), run / "checkpoints" / "last.ckpt"
    if name == "lora":
        assert cli.evaluate([f"ckpt={ckpt}"]) == 0
        found = json.loads((run / "evaluation" / "metrics.json").read_text())["series"]
    else:  # the same, without its report
        checkpoint, folder = Checkpoint.read(ckpt), RunFolder.around(ckpt)
        setup = setup_of(checkpoint, compose_stored(checkpoint.config).config, folder)
        found = audit_checkpoint(setup, checkpoint, folder).report.series()
    logged = {key: value for (stage, epoch, key), value in curves.items() if (stage, epoch) == ("denoiser", 2)}
    assert {key: logged[key] for key in found} == found
    assert {"memorization/loss_ratio/all/auroc", "memorization/clid/all/auroc"} <= found.keys()
    assert cli.train(line(place, *options, "trainer.max_epochs=1", f"name={name}-cut")) == 0
    cut = place / "runs" / f"{name}-cut"
    assert cli.train([f"resume={cut}", "trainer.max_epochs=2"]) == 0
    assert series(cut) == curves
    for part in ("state_dict", "current_model_state"):
        mine, other = parts(run)[part], parts(cut)[part]
        assert mine.keys() == other.keys()
        assert all(torch.equal(mine[each], other[each]) for each in mine)


def test_before_the_first_step_it_is_its_base_and_afterwards_it_is_not(tuned):
    curves = series(tuned[1])
    assert curves["denoiser", 0, "memorization/loss_ratio/all/auroc"] == 0.5
    assert curves["denoiser", 2, "memorization/loss_ratio/all/auroc"] != 0.5


def test_a_checkpoint_holds_what_was_trained_and_of_the_base_where_it_lies(tuned, place):
    name, run, _ = tuned
    stored = parts(run)
    base = open_target(place / "sd").modules
    assert stored[RECORD]["codec"].keys() == {"class", "base", "subfolder", "revision", "sha256", "channel_map"}
    assert stored[RECORD]["denoiser"]["condition"]["encoder"].keys() == {"name", "subfolder", "revision", "hash"}
    names = {each.removeprefix("network.") for each in stored["state_dict"]}
    if name == "whole":
        assert names == set(base["unet"].state_dict())
    else:
        assert names
        assert all(re.fullmatch(r"unet\..*\.(to_[qkv]|to_out\.0)\.lora_[AB]\.weight", each) for each in names)
        moments = sum(each.numel() for state in stored["optimizer_states"][0]["state"].values() for each in state.values())
        trained = sum(each.numel() for each in stored["state_dict"].values())
        assert moments == 2 * trained + len(names), "the optimizer knows the adapter alone"
        assert trained < 0.2 * sum(each.numel() for each in base["unet"].parameters())
        size = sum(file.stat().st_size for file in (place / "sd").rglob("*.safetensors"))
        assert (run / "checkpoints" / "last.ckpt").stat().st_size < 0.6 * size, "here of a base of 0.1 million numbers"
    assert not (run / "autoencoder").exists()


def test_what_is_saved_is_opened_here_and_by_diffusers(tuned, place):
    from diffusers import StableDiffusionPipeline

    name, run, _ = tuned
    checkpoint = open_target(run / "checkpoints" / "last.ckpt")
    if name == "lora":
        saved = open_target(run / "lora", base=place / "sd")
        assert "rank 2, alpha 4 (its settings)" in saved.facts["adapter"]
        pipeline = StableDiffusionPipeline.from_pretrained(place / "sd", safety_checker=None, feature_extractor=None)
        pipeline.load_lora_weights(run / "lora")
    else:
        saved = open_target(run / "pipeline")
        pipeline = StableDiffusionPipeline.from_pretrained(run / "pipeline")
    expected, found = epsilons(saved), None
    latent, timestep = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([100, 700])
    told = saved.encoder(["a cat", "the end"], torch.device("cpu"))
    with torch.no_grad():
        found = checkpoint.predictor(latent, timestep, told)
        theirs = pipeline.unet(latent, timestep, **told).sample
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(theirs, expected, rtol=1e-4, atol=1e-5)
    base = epsilons(open_target(place / "sd"))
    assert (found - base).abs().max() > 1e-3
    with torch.no_grad():
        assert torch.equal(checkpoint.reference(latent, timestep, told), base), "the reference is the base"
    facts = checkpoint.facts
    assert facts["base"].startswith(f"{place}/sd, SHA-256")
    assert facts["latents"] == "pretrained, channel map: one scaling factor, 0.1822"


def test_a_resumed_run_lets_its_checkpoint_go_and_reports_before_it_saves(tuned, monkeypatch):
    order = []

    def trained(*given, **named):
        gc.collect()
        order.append(sum(type(each) is Checkpoint for each in gc.get_objects()))
        return Trained(SimpleNamespace(), False, [])

    for name, stands_in in {
        "train_denoiser": trained,
        "_conclude": lambda *given: order.append("reported"),
        "save_tuned": lambda *given: order.append("saved"),
        "ruling_of": lambda *given: None,
        "conclude": lambda *given: 0,
    }.items():
        monkeypatch.setattr(train, name, stands_in)
    assert cli.train([f"resume={tuned[1]}"]) == 0
    assert order == [0, "reported", "saved"]


def test_the_other_parts_are_saved_from_where_they_were_trained_with(tuned, place, tmp_path, monkeypatch):
    name, run, _ = tuned
    if name == "lora":
        return
    checkpoint, asked = Checkpoint.read(run / "checkpoints" / "last.ckpt"), {}
    home = shutil.copytree(place / "sd", tmp_path / "sd")

    def download(base, **how):
        asked.update(how, base=base)
        return str(home)

    monkeypatch.setattr(tuning, "snapshot_download", download)
    of_hub = {**checkpoint.denoiser.network, "base": "a/b", "revision": "v1"}
    assert tuning._base_of(dataclasses.replace(checkpoint.denoiser, network=of_hub))[0] == home
    assert (asked["base"], asked["revision"]) == ("a/b", "v1")
    file = home / "text_encoder" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "layer_norm_eps": 0.1}))
    with pytest.raises(UserError, match=r"^base: no pipeline can be saved .*/text_encoder is not what it was trained on"):
        tuning.save_tuned(dataclasses.replace(checkpoint, base=str(home)), RunFolder(tmp_path))


def test_a_base_is_looked_up_and_another_one_refused(tuned, place, tmp_path):
    name, run, _ = tuned
    home = shutil.copytree(place / "sd", tmp_path / "sd")
    ckpt = run / "checkpoints" / "last.ckpt"
    assert open_target(ckpt, base=home).facts["base"].startswith(f"{home}, SHA-256")

    def changed(part):
        shutil.copytree(place / "sd", home, dirs_exist_ok=True)
        file = home / part / "config.json"
        settings = json.loads(file.read_text())
        file.write_text(json.dumps({**settings, "_diffusers_version": "0.0", "sample_size": settings["sample_size"] + 1}))

    changed("vae")
    other = r"{} is not what it was trained on: SHA-256 \w{{12}}, not \w{{12}}; say where that base lies now: base=FOLDER\.$"
    with pytest.raises(AnotherBase, match=rf"^{ckpt}: base: {other.format(home / 'vae')}"):
        open_target(ckpt, base=home)
    with pytest.raises(AnotherBase, match=rf"^{ckpt}: base: {other.format(home / 'vae')}"):
        cli.train([f"resume={run}", f"base={home}", "trainer.max_epochs=6"])
    changed("unet")
    shutil.copy(place / "sd" / "vae" / "config.json", home / "vae")
    if name == "lora":
        with pytest.raises(AnotherBase, match=rf"^{ckpt}: base: {other.format(home / 'unet')}"):
            open_target(ckpt, base=home)
    else:  # which holds its own weights
        assert open_target(ckpt, base=home)
    with pytest.raises(AnotherBase, match=rf"^{ckpt}: base: {other.format(home / 'unet')}"):  # the other one's steps went on
        cli.train([f"resume={run}", f"base={home}", "trainer.max_epochs=6"])
    shutil.copytree(place / "sd", home, dirs_exist_ok=True)
    (photos := tmp_path / "photos").mkdir()
    for number in range(10):
        Image.new("RGB", (16, 16)).save(photos / f"{number}.png")
    for command, words in (
        (cli.pick, [str(ckpt), "gate.auroc=0.9"]),
        (cli.suspect, [str(photos), f"ckpt={ckpt}"]),
        (cli.evaluate, [f"ckpt={ckpt}", f"reference={run}/checkpoints/before-onset.ckpt"]),
    ):
        with pytest.raises(UserError, match=rf"base: .*{tmp_path}/none.* base=FOLDER\.$"):
            command([*words, f"base={tmp_path}/none"])
    shutil.rmtree(home)
    gone = rf"^base: there is no folder {home}; name a diffusers folder, or its id on the Hub: base=FOLDER\.$"
    for command, first in ((cli.evaluate, [f"ckpt={ckpt}"]), (cli.train, [f"resume={run}", "trainer.max_epochs=6"])):
        with pytest.raises(UserError, match=gone):
            command([*first, f"base={home}"])
    with pytest.raises(UserError, match="what it was trained on is not in"):
        open_target(ckpt, base=str(place / "runs"))


def test_a_part_of_the_base_that_was_lost_or_is_another_one_is_told_at_once(place, tmp_path, monkeypatch):
    def broken(change):
        shutil.rmtree(tmp_path / "sd", ignore_errors=True)
        change(shutil.copytree(place / "sd", tmp_path / "sd"))
        with pytest.raises(UserError) as caught:
            cli.train(line(place, f"base={tmp_path}/sd"))
        assert "\n" not in str(caught.value)
        return str(caught.value).replace(f"{tmp_path}/", "")

    def setting(part, **changes):
        def change(folder):
            file = folder / part / "config.json"
            file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

        return change

    monkeypatch.setattr("ldm_privacy.recipes.train.train", None)  # what follows is known before anything heavy is imported
    mend = "name a diffusers folder, or its id on the Hub: base=FOLDER."
    for change, message in (
        (lambda at: (at / "vae" / "config.json").unlink(), "base: there is no sd/vae/config.json"),
        (
            lambda at: (at / "text_encoder" / "model.safetensors").unlink(),
            "base: there is no sd/text_encoder/model.safetensors",
        ),
        (lambda at: (at / "model_index.json").unlink(), "base: there is no sd/model_index.json"),
        (
            setting("unet", _class_name="UNet2DModel"),
            "base: sd/unet is a UNet2DModel, and of these a UNet2DConditionModel alone can be fine-tuned here",
        ),
    ):
        assert broken(change) == f"{message}; {mend}"
    with pytest.raises(UserError, match=r"^base: missing; name a diffusers folder"):
        cli.train(line(place, "base=null"))
    monkeypatch.undo()
    assert broken(setting("unet", in_channels=9)).startswith("denoiser.network: sd/unet: takes 9 channels and returns 4, but")
    told = setting("unet", addition_embed_type="text_time")
    assert "which a fine-tuning has no input for; it may be a Stable Diffusion XL" in broken(told)
    assert "attends to texts of width 24, but text_encoder gives 16" in broken(setting("unet", cross_attention_dim=24))
    assert "weights don't fit" in broken(setting("unet", layers_per_block=2))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "denoiser.channel_map=none",
            r"^denoiser\.channel_map: none, but a base goes on .* use denoiser\.channel_map=diffusers\.$",
        ),
        ("autoencoder.max_epochs=1", r"^autoencoder\.max_epochs: a base goes on with its own autoencoder"),
        ("denoiser.condition.encoder=tiny", r"^denoiser\.condition: a base goes on with its own text encoder"),
        ("denoiser.adapter={rank: 4, targets: [to_x]}", r"^denoiser\.adapter\.targets: 'to_x' is the end of no linear layer"),
        ("denoiser.adapter.rnk=4", r"^denoiser\.adapter: unknown key 'rnk'\. Did you mean 'rank'"),
        (
            "denoiser.prediction_type=v_prediction",
            r"^denoiser\.prediction_type: v_prediction, but a base goes on with .* 0\.00466; epsilon\); use .*type=null\.$",
        ),
        ("denoiser.beta_end=0.02", r"^denoiser\.beta_end: 0\.02, but a base goes on with"),
        ("denoiser.network={class: pretrained, path: x}", r"^denoiser\.network: unknown key 'path'"),
        (
            "denoiser.schedule=flow",
            r"^denoiser\.schedule: flow with denoiser\.prediction_type=epsilon: a flow has both as flow",
        ),
    ],
)
def test_what_does_not_go_with_a_base_is_refused(place, override, message):
    with pytest.raises(UserError, match=message):
        cli.train(line(place, override))


def test_an_adapter_without_a_base_is_refused(tmp_path):
    with pytest.raises(
        UserError, match=r"^denoiser\.adapter: a LoRA changes a denoiser that was trained before; set .*=null\.$"
    ):
        cli.train(["--config", "digits.yaml", f"output_dir={tmp_path}", "denoiser.adapter.rank=4"])


@pytest.mark.parametrize("entry", ENTRIES)
def test_its_plan_says_what_comes_from_the_base(entry, place, capsys):
    assert len(ENTRIES) == 3
    assert compose(f"{entry}.yaml", []).config.data.group_column in ("caption", "text"), "no caption is on both sides"
    assert cli.train(line(place, "dry_run=true", entry=f"{entry}.yaml")) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "audit of the base, once" in printed
    words = (
        "1000 timesteps, betas scaled_linear, alphas_cumprod 0.9991 to 0.00466; predicts epsilon; latents: one scaling factor"
    )
    assert f"Of the base: {words}, 0.1822." in printed
    assert not (place / "runs" / entry).exists()


@pytest.mark.slow  # bfloat16 is, on a CPU
def test_steps_in_half_precision_train_and_audits_are_of_full(place):
    options = [*LORA, "trainer.max_epochs=1", "watch.loss_gap=null"]
    for name, precision in (("half", "bf16-mixed"), ("full", "32-true")):
        assert cli.train(line(place, *options, f"trainer.precision={precision}", f"name={name}")) == 0
    run = place / "runs" / "half"
    curves, full = series(run), series(place / "runs" / "full")
    assert curves["denoiser", 1, "denoiser/train_loss"] == pytest.approx(full["denoiser", 1, "denoiser/train_loss"], rel=0.05)
    assert curves["denoiser", 1, "denoiser/train_loss"] != full["denoiser", 1, "denoiser/train_loss"]
    for name in ("sima/all", "clid/all"):
        key = "denoiser", 0, f"memorization/{name}/auroc"
        assert curves[key] == full[key], "the base, in full precision"
    assert all(each.dtype == torch.float32 for each in parts(run)["state_dict"].values())

"""evaluate.py on what was trained elsewhere: a folder, adapters on one base, what is refused before anything is read."""

import csv
import json
import shutil

import numpy as np
import pytest
from huggingface_hub import ModelCard
from PIL import Image

from ldm_privacy.errors import UserError
from ldm_privacy.recipes import cli
from ldm_privacy.recipes.suspect import levels as suspect_levels
from ldm_privacy.registry import REQUIREMENTS
from ldm_privacy.targets.lora import Base
from ldm_privacy.targets.parts import Parts
from tests.pages import text_of
from tests.recipes.counting import counted_passes
from tests.targets.loras import ATTENTION, attached, in_every_form
from tests.targets.pipelines import stable_diffusion

SIDE = 24
QUICK = [
    "audit.attacks=[sima,loss]",
    "audit.masks={top60: null, random60: null, std60: null}",
    "audit.keep_fractions=[]",
    "audit.timesteps=[100,400]",
    "audit.num_bootstrap=20",
    "geometry.influence.num_probes=2",
    "watch.quality.num_images=20",
    "watch.quality.num_steps=2",
    "trainer.accelerator=cpu",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of Stable Diffusion, two LoRA files for it, captioned pictures of another size, and who is a member."""
    folder = tmp_path_factory.mktemp("place")
    stable_diffusion(folder / "sd")
    for seed in (0, 1):
        unet = attached(Parts(folder / "sd").network("unet", "UNet2DConditionModel"), ATTENTION, seed=seed)
        in_every_form(folder / f"lora-{seed}", unet)["kohya"].rename(folder / f"lora-{seed}.safetensors")
    (folder / "photos").mkdir()
    generator = np.random.default_rng(0)
    with (folder / "photos" / "metadata.csv").open("w") as file:
        table = csv.writer(file)
        table.writerow(("file_name", "text"))
        for number in range(2 * SIDE):
            coarse = Image.fromarray(generator.integers(0, 256, (4, 4, 3), dtype=np.uint8))
            coarse.resize((20, 20), Image.Resampling.BILINEAR).save(folder / "photos" / f"{number:03}.png")
            table.writerow((f"{number:03}.png", f"cat {number}"))
    shutil.copytree(folder / "photos", folder / "wordless", ignore=shutil.ignore_patterns("*.csv"))
    order = generator.permutation(2 * SIDE)
    np.savez(folder / "split.npz", mia_train_idxs=order[:SIDE], mia_eval_idxs=order[SIDE:])
    return folder


@pytest.fixture
def line(place, tmp_path, monkeypatch):
    """The command line but for the target, from a folder in which nothing is yet."""
    monkeypatch.chdir(tmp_path)
    photos = ["data.source.class=folder", f"data.source.path={place / 'photos'}", "data.source.caption_column=text"]
    return ["--config", "audit.yaml", *photos, f"data.index_file={place / 'split.npz'}", *QUICK]


def test_adapters_of_one_base_are_a_curve_and_the_base_is_read_once(place, line, tmp_path, monkeypatch, capsys):
    opened = []
    once = Base.open.__func__
    monkeypatch.setattr(Base, "open", classmethod(lambda cls, opening: opened.append(opening) or once(cls, opening)))
    files = [place / f"lora-{seed}.safetensors" for seed in (0, 1)]
    words = [f"ckpt=[{files[0]},{files[1]}]", f"base={place / 'sd'}", *line, "gate.auroc=0.99", "gate.who=outsider"]
    assert cli.evaluate(words) == 0
    assert len(opened) == 1
    printed = " ".join(capsys.readouterr().out.split())
    for seed in (0, 1):
        folder = tmp_path / "runs" / f"lora-{seed}" / "evaluation"
        found = json.loads((folder / "metrics.json").read_text())
        assert found["verdict"]["insider"] == "loss_ratio/all"
        assert ModelCard.load(folder / "model_card.md").data.eval_results[0].metric_args["attack"] == "loss_ratio/all"
        assert len(json.loads((folder / "requirements.json").read_text())["requirements"]) == len(list(REQUIREMENTS))
        page = text_of((folder / "report.html").read_text())
        for words in (
            "What was audited",
            "the base with its adapter off",
            "kohya form, rank 4, alpha 2",
            "encoded empty string",
        ):
            assert words in page
        assert str(place / f"lora-{seed}.safetensors") in page, "the command that repeats it"
    assert (tmp_path / "runs" / "lora-0" / "comparison" / "comparison.html").exists()
    assert "Gate: pass (lora-0 pass, lora-1 pass)." in printed


def test_a_folder_has_no_reference_unless_one_is_named_and_the_pictures_are_brought_to_its_size(
    place, line, tmp_path, capsys, caplog
):
    small = ["name=alone", "audit.attacks=[sima]", "audit.calibrated=[]", "target.memory_mib=0.01"]
    assert cli.evaluate([f"ckpt={place / 'sd'}", *line, *small]) == 0
    assert "captions don't fit into target.memory_mib (0.01 MiB; all take" in caplog.text
    found = json.loads((tmp_path / "runs" / "alone" / "evaluation" / "metrics.json").read_text())
    assert found["verdict"]["insider"] == "sima_complexity/all"
    assert found["config"]["data"]["resolution"] == 16, "the model's"
    assert found["epoch"] is None
    assert "Reference: none" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("target", "changes", "message"),
    [
        ("lora-0.safetensors", [], r"lora-0\.safetensors is an adapter \(LoRA\); name .* base=FOLDER\.$"),
        ("nosuch", [], r"^ckpt: .*nosuch does not exist; name a folder or a file here\.$"),
        ("photos", [], r"^ckpt: .*photos holds no model_index\.json"),
        ("split.npz", [], r"split\.npz is no checkpoint of this program \(\.ckpt\) and no \.safetensors file\.$"),
        ("sd", ["name=../x"], r"^name: '\.\./x' can't be a folder's name"),
        ("sd", ["data.index_file=null"], r"^data\.index_file: missing; name an \.npz file that says who is a member"),
        ("sd", ["data.index_file=nosuch.npz"], r"^data\.index_file: nosuch\.npz does not exist\.$"),
        (
            "sd",
            ["data.split=coin", "data.index_file=null", "data.num_members=8", "data.num_heldout=8"],
            r"^data\.split=coin: the target is trained already, .*; name its members with data\.index_file\.$",
        ),
        ("sd", ["data.flip=true"], r"^'data\.flip' can't be changed here"),
        ("sd", ["denoiser.batch_size=3"], r"^'denoiser\.batch_size' can't be changed here: nothing is trained here"),
        ("sd", ["target.dtyp=float32"], r"^target: unknown key 'dtyp'\. Did you mean 'dtype'"),
        ("sd", ["target.dtype=float16"], r"^target\.dtype: float16 is for GPUs"),
        (
            "sd",
            ["data.source.path=WORDLESS", "data.source.caption_column=null"],
            r"^the target is told captions: .captions. needs captions; name their",
        ),
        ("sd", ["data.channels=1"], r"^data\.channels: 1, but the target was made for images of 3"),
        (
            "lora-0.safetensors",
            ["base=BASE", "target.scale=0"],
            r"^target\.scale: 0; an adapter of that strength changes nothing",
        ),
        ("sd", ["target.scale=-1"], r"^target\.scale: .*sd is a .*, which takes none"),
        ("sd", ["target.alpha=2"], r"alpha: .*sd is a .*, which takes none"),
        ("sd", ["target.reference_is=insider"], r"^target\.reference_is: insider, and the target has no reference"),
        ("sd", ["target.reference_is=mine"], r"^target\.reference_is"),
        ("sd", ["base=BASE"], r"base: .*sd is a .*, which takes none"),
    ],
)
def test_what_can_not_be_is_one_line(place, line, target, changes, message):
    given = [each.replace("BASE", str(place / "sd")).replace("WORDLESS", str(place / "wordless")) for each in changes]
    with pytest.raises(UserError, match=message) as caught:
        cli.evaluate([f"ckpt={place / target}", *line, *given])
    assert len(str(caught.value).splitlines()) == 1


def test_a_whole_pipeline_beside_which_an_adapter_lies_is_no_adapter(place, line, tmp_path):
    shutil.copytree(place / "sd", tmp_path / "both")
    shutil.copyfile(place / "lora-0.safetensors", tmp_path / "both" / "pytorch_lora_weights.safetensors")
    with pytest.raises(UserError, match=r"base: .*both is a .*, which takes none"):
        cli.evaluate([f"ckpt={tmp_path / 'both'}", f"base={place / 'sd'}", *line])


def test_a_config_for_targets_trains_nothing():
    with pytest.raises(UserError, match=r"^--config: audit\.yaml is for evaluate\.py"):
        cli.train(["--config", "audit.yaml"])


def test_a_split_without_held_out_images_is_refused(place, line, tmp_path):
    np.savez(tmp_path / "members.npz", mia_train_idxs=np.arange(2 * SIDE), mia_eval_idxs=np.arange(0))
    with pytest.raises(UserError, match=r"members\.npz"):
        cli.evaluate([f"ckpt={place / 'sd'}", *line, f"data.index_file={tmp_path / 'members.npz'}"])


def test_the_last_safe_adapter_is_picked_in_the_order_of_the_numbers_and_images_are_encoded_once(place, line, tmp_path, capsys):
    (tmp_path / "loras").mkdir()
    for number, seed in ((10, 0), (9, 1)):
        shutil.copy(place / f"lora-{seed}.safetensors", tmp_path / "loras" / f"step-{number}.safetensors")
    words = ["pick", str(tmp_path / "loras"), f"base={place / 'sd'}", *line]
    with counted_passes() as found:
        assert cli.main([*words, "gate.auroc=0.99", "gate.who=outsider"]) == 0
    assert found.rows["encoder"] == 2 * SIDE
    assert found.compressed == 2 * SIDE
    told = json.loads((tmp_path / "runs" / "loras" / "pick" / "pick.json").read_text())
    assert [(each["name"], each["epoch"]) for each in told["candidates"]] == [("step-9", None), ("step-10", None)]
    assert told["named"] == str(tmp_path / "loras" / "step-10.safetensors")
    printed = capsys.readouterr().out
    assert f"ckpt={tmp_path / 'loras' / 'step-10.safetensors'} base={place / 'sd'} --config audit.yaml" in printed
    with counted_passes() as found:
        assert cli.main([*words, "gate.auroc=0.98", "gate.who=outsider"]) == 0
    assert not found.rows
    with pytest.raises(UserError, match=r"^gate: there is no limit to pick by"):
        cli.main(words)


def test_a_folder_is_suspected_against_an_adapter_and_its_base_by_its_captions(place, line, tmp_path, monkeypatch):
    monkeypatch.setattr(suspect_levels, "NUM_GENERATED", 20)
    monkeypatch.setattr(suspect_levels, "NUM_STEPS", (2, 2))
    suspects, generator = tmp_path / "suspects", np.random.default_rng(7)
    suspects.mkdir()
    rows = ["file_name,text"]
    for number in range(12):
        coarse = Image.fromarray(generator.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        coarse.resize((20, 20), Image.Resampling.BILINEAR).save(suspects / f"{number}.png")
        rows.append(f"{number}.png,dog {number}")
    (suspects / "metadata.csv").write_text("\n".join(rows))
    words = ["suspect", str(suspects), f"ckpt={place / 'lora-0.safetensors'}", f"base={place / 'sd'}", *line]
    assert cli.main([*words, f"out={tmp_path / 'out'}"]) == 0
    found = json.loads((tmp_path / "out" / "suspect.json").read_text())
    assert found["asked"]["told"] == "the captions of 12 of 12 images"
    assert found["asked"]["scores"] == "audited for this"
    assert found["score"]["key"] in ("sima/all", "loss/all", "sima/top60", "loss/top60")
    assert len(found["scores"]["suspects"]) == 12

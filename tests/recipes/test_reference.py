"""evaluate.py ckpt=... reference=...: whose the reference is, what is stored, what is refused, what is left out without one."""

import json
import re
import shutil
from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch

from ldm_privacy.audit.audit import Audit
from ldm_privacy.errors import UserError
from ldm_privacy.recipes import cli
from ldm_privacy.recipes.evaluate import target as evaluate_target
from ldm_privacy.recipes.reference import compared_with
from ldm_privacy.targets.checkpoint import target_of_checkpoint
from ldm_privacy.targets.record import RECORD, Checkpoint
from tests.pages import text_of
from tests.tiny import arguments

FEW = [
    "audit.attacks=[sima,loss]",
    "audit.masks={top60: null, random60: null, low60: null, std60: null}",
    "audit.keep_fractions=[]",
]


@pytest.fixture
def place(run, tmp_path):
    """The run's last checkpoint in a folder of its own."""
    for name in ("checkpoints", "store"):
        shutil.copytree(run / name, tmp_path / "mine" / name)
    return tmp_path / "mine" / "checkpoints"


def another(path, target, *, epoch=None, change=lambda record: None, noise=0.1):
    """A copy of a checkpoint with other weights of its denoiser, of another epoch or with another record."""
    parts = deepcopy(dict(Checkpoint.read(path).parts))
    generator = torch.Generator().manual_seed(0)
    for name, value in parts["state_dict"].items():
        if value.is_floating_point():
            parts["state_dict"][name] = value + noise * torch.randn(value.shape, generator=generator)
    if epoch is not None:
        parts["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"] = epoch
    change(parts[RECORD])
    target.parent.mkdir(parents=True, exist_ok=True)
    torch.save(parts, target)
    return target


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_an_earlier_checkpoint_is_an_insiders_reference_and_asked_once(place, tmp_path, monkeypatch, capsys):
    earlier = another(place / "last.ckpt", place / "earlier.ckpt", epoch=2)
    line = [f"ckpt={place / 'last.ckpt'}", f"reference={earlier}", *FEW]
    before = len(list((place.parent / "store").glob("*.safetensors")))
    assert cli.evaluate([*line, f"out={tmp_path / 'a'}"]) == 0
    found, printed = metrics(tmp_path / "a"), " ".join(capsys.readouterr().out.split())
    assert (found["verdict"]["insider"], found["verdict"]["outsider"]) == ("sima_ratio/all", "sima_complexity/all")
    words = f"sima_ratio/all compares the model with {earlier}, epoch 2 of the same run, trained on 40 of the 40 members"
    assert words in "".join(found["verdict"]["sentences"])
    assert "for an insider who has the run's checkpoints" in printed
    assert {"the reference alone, sima", "the reference alone, sima over all t"} < found["controls"].keys()
    page = text_of((tmp_path / "a" / "report.html").read_text())
    assert f"reference={earlier}" in page, "the command that repeats it"
    assert "threat model of the reference" in page
    assert len(list((place.parent / "store").glob("*.safetensors"))) == before + 1
    monkeypatch.setattr(Audit, "collect_reference", None)
    assert cli.evaluate([*line, f"out={tmp_path / 'b'}"]) == 0
    assert metrics(tmp_path / "b") == found


def test_without_a_reference_what_compares_with_one_is_left_out_and_said(place, tmp_path, capsys):
    assert cli.evaluate([f"ckpt={place / 'last.ckpt'}", *FEW, "audit.calibrations.ratio.class=ratio", f"out={tmp_path}/a"]) == 0
    assert "Reference: none, so what compares with one is left out (ratio)." in " ".join(capsys.readouterr().out.split())
    assert not any("ratio" in row["attack"] for row in metrics(tmp_path / "a")["rows"])


def test_a_training_leaves_it_out_and_plans_no_pass_for_it(tmp_path, capsys):
    plans = []
    for more in ([], ["audit.calibrations.ratio.class=ratio"]):
        assert cli.train(arguments(tmp_path, "dry_run=true", *more)) == 0
        plans.append(re.findall(r"\d+ audits of .*", capsys.readouterr().out))
    assert plans[0] == plans[1] != []


def test_of_another_run_it_is_an_outsiders_and_how_many_members_it_knows_is_said(place, tmp_path):
    def half_of_them(record):
        index = record["split"]["member_index"], record["split"]["heldout_index"]
        swapped = [torch.cat([index[0][:20], index[1][:20]]), torch.cat([index[0][20:], index[1][20:]])]
        for name, value in zip(("member_index", "heldout_index"), swapped):
            record["split"][name] = value.sort().values

    mine = Checkpoint.read(place / "last.ckpt")
    other = Checkpoint.read(another(mine.path, tmp_path / "other" / "checkpoints" / "last.ckpt", change=half_of_them))
    twin = Checkpoint.read(another(mine.path, tmp_path / "twin" / "checkpoints" / "last.ckpt", epoch=2))
    target = target_of_checkpoint(mine)
    found = compared_with(target, mine, other, torch.device("cpu"))
    assert (target.whose_reference, found.whose_reference) == ("", "outsider")
    assert found.facts["reference"] == f"{other.path}, epoch 4 of another run, trained on 20 of the 40 members"
    assert compared_with(target, mine, twin, torch.device("cpu")).whose_reference == "insider", "moved elsewhere"
    fingerprints = {
        compared_with(target, mine, each, torch.device("cpu")).reference_fingerprint["denoiser"] for each in (mine, other)
    }
    assert len(fingerprints) == 2


def test_what_can_be_no_reference_is_refused_before_anything_is_audited(place, tmp_path, monkeypatch):
    monkeypatch.setattr("ldm_privacy.recipes.evaluate.evaluate.check_audit", None)  # it reads the images
    last = place / "last.ckpt"

    def codec(record):
        weights = record["codec"]["weights"]
        name = next(iter(weights))
        weights[name] = weights[name] + 1

    def noisier(record):
        record["denoiser"]["alphas_cumprod"] = record["denoiser"]["alphas_cumprod"] ** 1.1

    def shorter(record):
        record["denoiser"]["alphas_cumprod"] = record["denoiser"]["alphas_cumprod"][:500]

    def told(record):
        record["denoiser"]["condition"] = {"class": "labels", "num_classes": 10}

    def larger(record):
        record["denoiser"]["network"]["latent_channels"] = 7

    for name, how, message in (
        ("codec", {"change": codec}, "has another autoencoder, or other latents, than the target; name a checkpoint that was"),
        (
            "noisier",
            {"change": noisier},
            "has other noise at its timesteps than the target; name a checkpoint that was",
        ),
        ("shorter", {"change": shorter}, "has other noise at its timesteps than the target"),
        ("told", {"change": told}, "is told something else of each image"),
        ("larger", {"change": larger}, "was built for latents of another shape"),
        ("later", {"epoch": 5}, "is of epoch 5 of the run whose epoch 4 is audited; name an earlier one"),
    ):
        path = another(last, place / f"{name}.ckpt", **how)
        for ckpt in (last, f"[{last},{last}]"):
            with pytest.raises(UserError, match=re.escape(f"reference: {path} {message}")) as caught:
                cli.evaluate([f"ckpt={ckpt}", f"reference={path}", f"out={tmp_path}/out"])
            assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(UserError, match=r"nowhere\.ckpt: does not exist; name a checkpoint file"):
        cli.evaluate([f"ckpt={last}", f"reference={place}/nowhere.ckpt"])
    with pytest.raises(UserError, match="it is from the autoencoder stage"):
        cli.evaluate([f"ckpt={last}", f"reference={place}/autoencoder-last.ckpt"])
    assert not (tmp_path / "out").exists()


OF_ADAPTERS = {"alpha": 2.0, "scale": 0.5}


@pytest.fixture
def asked(monkeypatch):
    """Paths and options of everything that is opened, which is nothing; a base takes adapters with theirs."""
    found = []
    monkeypatch.setattr(evaluate_target, "open_target", lambda path, **how: found.append((path.name, how)))
    adapted = SimpleNamespace(adapted=lambda path, **how: found.append((path.name, how)))
    monkeypatch.setattr(evaluate_target.Base, "open", lambda opening: adapted)
    monkeypatch.setattr(evaluate_target.LoraTarget, "recognises", lambda path: "lora" in path.name)
    return found


@pytest.mark.parametrize(
    ("reference", "kept"),
    [("fp16", {"variant"}), ("plain", set()), ("single.safetensors", {"layout"})],
    ids=["a variant that it has", "a variant that it hasn't", "a single file"],
)
def test_a_reference_is_given_what_it_has_a_use_for(tmp_path, asked, reference, kept):
    for name in ("fp16/unet/model.fp16.safetensors", "plain/unet/model.safetensors"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    tree = {"target": {"variant": "fp16", "dtype": "bfloat16", "self_check": False, "reference_is": "insider", **OF_ADAPTERS}}
    where = {"base": tmp_path / "base", "layout": tmp_path / "layout"}
    _ = evaluate_target.TargetEvaluation(tree, reference=tmp_path / reference, **where).opened_reference
    ((name, how),) = asked
    assert name == reference
    assert how.keys() == {"device", "dtype", *kept}


def test_a_target_that_is_the_reference_too_is_opened_as_one_and_as_the_other(tmp_path, asked):
    one = tmp_path / "lora.safetensors"
    found = evaluate_target.TargetEvaluation({"target": OF_ADAPTERS}, reference=one, base=tmp_path / "base")
    found.opened(one)
    _ = found.opened_reference
    assert asked == [(one.name, OF_ADAPTERS), (one.name, {"alpha": None, "scale": 1.0})]

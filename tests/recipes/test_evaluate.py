"""evaluate.py as a user meets it: comparisons, refusals, and what the end of a training leaves in W&B and TensorBoard."""

import json
import re
import shutil

import pandas as pd
import pytest
import torch
import wandb
import yaml
from huggingface_hub import ModelCard

from ldm_privacy.audit.report import AuditReport
from ldm_privacy.audit.score_file import read_scores, write_scores
from ldm_privacy.errors import UserError
from ldm_privacy.recipes import cli
from ldm_privacy.recipes.publish import component_words
from ldm_privacy.report.figures.attacks import histogram_figure
from ldm_privacy.targets.record import RECORD, Checkpoint
from ldm_privacy.types import Intervals
from tests.desk import working_in
from tests.pages import text_of
from tests.reference.event_files import names_in, pictures_in, scalars_in
from tests.reference.wandb_log import read_records
from tests.tiny import arguments, series

SHORT = ["audit.attacks=[sima,loss]", "trainer.max_epochs=2", "autoencoder.max_epochs=1", "data.seed=5"]


def test_a_source_is_named_in_words():
    assert component_words("folder", {"path": "/tmp/s6", "value_range": None}) == "folder /tmp/s6"
    assert component_words("hub", {"repo_id": "owner/name", "split": "train"}) == "hub owner/name, split train"
    assert component_words("digits", {}) == "digits"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def one_figure(evidence, *arguments, **options):
    return {"histogram": histogram_figure(evidence.report, [evidence.key])}


@pytest.fixture(scope="module")
def run(folder):
    """A training with its report and every logger; of the figures of an audit, one."""
    loggers = [
        "loggers=[csv,wandb,tensorboard]",
        "wandb.mode=offline",
        "watch.samples={class: samples, num_images: 2, num_steps: 2}",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ldm_privacy.recipes.train.baselines.geometry_figures", lambda *arguments, **options: {})
        patch.setattr("ldm_privacy.recipes.publish.evidence_figures", one_figure)
        assert cli.train(arguments(folder, *SHORT, *loggers, "trainer.figures=true")) == 0
    wandb.finish()
    return folder / "digits"


@pytest.fixture(scope="module")
def other(folder):
    """Another seed on the same split, without a report."""
    assert cli.train(arguments(folder, *SHORT, "seed=1", "name=other")) == 0
    return folder / "other"


def last(run):
    return run / "checkpoints" / "last.ckpt"


def altered(path, target, change):
    """A copy of a checkpoint with another record."""
    checkpoint = dict(Checkpoint.read(path).parts)
    change(checkpoint[RECORD])
    target.parent.mkdir(parents=True, exist_ok=True)
    torch.save(checkpoint, target)
    return target


def refused(arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        cli.evaluate(arguments)
    assert len(str(caught.value).splitlines()) == 1


def test_the_end_of_a_training_leaves_the_evaluation_of_its_last_checkpoint(run, tmp_path):
    assert cli.evaluate([f"ckpt={last(run)}", f"out={tmp_path}"]) == 0
    for name in ("report.html", "metrics.json", "scores.parquet", "exposed.csv", "requirements.md"):
        assert (run / "evaluation" / name).stat().st_size > 100, name
    cards = [ModelCard.load(folder / "model_card.md").data for folder in (run / "evaluation", tmp_path)]
    assert cards[0].eval_results == cards[1].eval_results
    assert {each.metric_args["who"] for each in cards[0].eval_results} == {"insider", "outsider"}
    both = [json.loads((folder / "metrics.json").read_text()) for folder in (run / "evaluation", tmp_path)]
    assert both[0] == both[1]
    page = (run / "evaluation" / "report.html").read_text()
    assert both[0]["split_hash"] in page
    assert len(page.encode()) < 5e6
    # The training knows its curves, and when what set in.
    assert 'id="onset"' in page
    text = text_of(page)
    assert "Memorization onset (sima/all)" in text
    own = r"the onset of sima/all( and [\w/ ]+)? was not found by 0\.15 steps a member"
    assert re.search(own, text), "several scores, one sentence"
    # Members' ranks at the audit of the untrained denoiser.
    assert "rank correlation" in text
    assert re.search(r"earlier audits\W.*at epoch 0\b", text, re.DOTALL)
    pd.testing.assert_frame_equal(*(pd.read_parquet(each / "scores.parquet") for each in (run / "evaluation", tmp_path)))


def test_a_forecast_asked_for_at_an_evaluation_needs_its_pilot(run):
    refused([f"ckpt={last(run)}", "audit.forecast=[nowhere]"], r"^audit\.forecast: 'nowhere' is no run")


def test_two_checkpoints_of_one_run_are_audited_and_compared(run, capsys):
    before = run / "checkpoints" / "before-onset.ckpt"
    assert cli.evaluate([f"ckpt=[{last(run)},{before}]"]) == 0
    output = capsys.readouterr().out
    assert "Compared: A = digits/last, B = digits/before-onset" in output
    assert "B - A" in output
    content = json.loads((run / "comparison" / "comparison.json").read_text())
    assert content["audits"] == ["digits/last", "digits/before-onset"]
    assert {(row["attack"], row["mask"]) for row in content["rows"]} == {
        *((attack, mask) for attack in ("sima", "loss") for mask in ("all", "top60", "random60", "low60", "std60", "tuned")),
        *((attack, "all") for attack in ("sima_complexity", "sima_history", "sima_gained", "sima_calibrated", "combined")),
    }
    assert "sima/tuned" in text_of((run / "comparison" / "comparison.html").read_text())
    # Each audit has its own folder.
    assert (run / "evaluation-before-onset" / "report.html").exists()
    scores = [read_scores(run / name / "scores.parquet") for name in ("evaluation", "evaluation-before-onset")]
    assert scores[0].split_hash == scores[1].split_hash


@pytest.mark.slow
def test_two_trainings_of_one_split_and_score_files_give_the_same_comparison(run, other, tmp_path, capsys):
    assert cli.evaluate([f"ckpt=[{last(run)},{last(other)}]", f"out={tmp_path}/a"]) == 0
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == [".lock", ".lock.json", "comparison.html", "comparison.json", "digits-last", "other-last"]
    files = [tmp_path / "a" / name / "scores.parquet" for name in ("digits-last", "other-last")]
    assert cli.evaluate([f"ckpt=[{files[0]}, {files[1]}]", f"out={tmp_path}/b"]) == 0
    first, second = (json.loads((tmp_path / name / "comparison.json").read_text()) for name in "ab")
    row = first["rows"][0]
    difference = row["difference"]["other/last"]["value"]
    areas = [row["auroc"][name]["value"] for name in first["audits"]]
    assert difference == pytest.approx(areas[1] - areas[0], abs=1e-12)
    assert difference != 0
    assert row["spread"]["deviation"] == pytest.approx(abs(difference) / 2**0.5)
    assert [list(each["auroc"].values()) for each in first["rows"]] == [list(each["auroc"].values()) for each in second["rows"]]
    # A score file can stand beside a checkpoint, and the same one twice differs by nothing.
    assert cli.evaluate([f"ckpt={files[0]},{files[0]}", f"out={tmp_path}/c"]) == 0
    content = json.loads((tmp_path / "c" / "comparison.json").read_text())
    assert len(set(content["audits"])) == 2
    assert all(value["value"] == 0 for each in content["rows"] for value in each["difference"].values())


def test_two_splits_are_refused_before_anything_is_audited(run, tmp_path):
    def swap(record):
        split = record["split"]
        member, heldout = split["member_index"].clone(), split["heldout_index"].clone()
        member[0], heldout[0] = heldout[0].item(), member[0].item()
        split["member_index"], split["heldout_index"] = member, heldout

    stranger = altered(last(run), tmp_path / "x" / "checkpoints" / "last.ckpt", swap)
    mine = read_scores(run / "evaluation" / "scores.parquet").split_hash
    with pytest.raises(UserError, match=r"x/last is of another split than digits/last \(split \w{12}, not \w{12}\)") as caught:
        cli.evaluate([f"ckpt=[{last(run)},{stranger}]", f"out={tmp_path}/out"])
    assert mine[:12] in str(caught.value)
    assert len(set(re.findall(r"\b[0-9a-f]{12}\b", str(caught.value)))) == 2
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_beside_another_runs_scores_is_refused_before_anything_is_audited(run, other, tmp_path, monkeypatch):
    monkeypatch.setattr("ldm_privacy.recipes.evaluate.evaluate.check_audit", None)  # it reads the images
    shutil.copytree(other / "scores", tmp_path / "scores")
    path = altered(last(run), tmp_path / "checkpoints" / "last.ckpt", lambda record: None)
    file = re.escape(f"{tmp_path}/scores/epoch-0.safetensors")
    refused(
        [f"ckpt={path}"],
        rf"^{file}: the scores of seed 1 are no history of seed 0\. Leave a checkpoint in the folder of its own",
    )
    assert not (tmp_path / "evaluation").exists()


def test_score_files_of_two_splits_are_refused(run, tmp_path):
    file = read_scores(run / "evaluation" / "scores.parquet")
    report = AuditReport(file.data, [], Intervals(), (0.01,), {}, {})
    write_scores(report, tmp_path / "x.parquet", split_hash="0" * 64)
    refused([f"ckpt=[{run}/evaluation/scores.parquet,{tmp_path}/x.parquet]"], f"000000000000, not {file.split_hash[:12]}")


def test_a_file_that_is_missing_is_named_before_anything_is_audited(run, tmp_path):
    for missing in ("nowhere.ckpt", "nowhere.parquet"):
        refused([f"ckpt=[{last(run)},{tmp_path}/{missing}]", f"out={tmp_path}/out"], re.escape(missing))
    assert not (tmp_path / "out").exists()
    refused([f"ckpt=[{last(run)},{run}/config.yaml]"], re.escape(f"{run}/config.yaml"))


def test_one_score_file_has_nothing_to_be_compared_with(run, tmp_path):
    refused([f"ckpt={run}/evaluation/scores.parquet"], "name two at least")
    (tmp_path / "[a,b].parquet").touch()  # a path like a list is a path where there is such a file
    refused([f"ckpt={tmp_path}/[a,b].parquet"], r"/\[a,b\]\.parquet is compared with others; name two at least")


def with_config(run, target, change):
    def edit(record):
        config = yaml.safe_load(record["config"])
        change(config)
        record["config"] = yaml.safe_dump(config)

    return altered(last(run), target, edit)


def test_networks_come_from_the_weights_record_and_not_from_the_config(run, tmp_path):
    """A config that was edited in the checkpoint changes nothing; a record of other networks is refused."""

    def widen(config):
        config["denoiser"]["network"]["block_out_channels"] = [16, 16]
        config["autoencoder"]["network"]["block_out_channels"] = [16, 16]

    assert cli.evaluate([f"ckpt={with_config(run, tmp_path / 'wide.ckpt', widen)}", f"out={tmp_path}/out"]) == 0
    again, before = (
        json.loads((each / "metrics.json").read_text())["series"] for each in (tmp_path / "out", run / "evaluation")
    )
    assert again == {name: before[name] for name in again}
    for part, settings in (("denoiser", "network"), ("codec", "config")):
        path = altered(
            last(run),
            tmp_path / f"{part}.ckpt",
            lambda record: record[part][settings].update(block_out_channels=[2**20, 2**20]),  # noqa: B023
        )
        refused([f"ckpt={path}", f"out={tmp_path}/other"], r"can't be used: the weights don't fit its settings .*has shape")
    assert not (tmp_path / "other").exists()


STRANGE = """
from pathlib import Path
from ldm_privacy.registry import ATTACKS

ATTACKS.register("strange")(type("Strange", (), {"__module__": __name__}))
Path(__file__).with_suffix(".ran").touch()
"""


def test_plugins_that_the_command_line_does_not_name_are_not_imported(run, tmp_path):
    (tmp_path / "strange_plugin.py").write_text(STRANGE)
    path = with_config(run, tmp_path / "checkpoints" / "x.ckpt", lambda config: config.update(plugins=["strange_plugin"]))
    refused([f"ckpt={path}"], r"its config wants to import strange_plugin; .*plugins=\[strange_plugin\]")
    refused([f"ckpt={path}", "plugins=[json]"], "strange_plugin")
    assert not (tmp_path / "strange_plugin.ran").exists()
    with working_in(tmp_path):
        assert cli.evaluate([f"ckpt={path}", "plugins=[strange_plugin]", "audit.attacks=[sima]"]) == 0
    assert (tmp_path / "strange_plugin.ran").exists()
    # Of a run's folder, the evaluation lies beside the checkpoints.
    assert (tmp_path / "evaluation-x-2" / "report.html").exists()


def test_a_config_that_would_read_the_environment_is_refused(run, tmp_path):
    path = with_config(run, tmp_path / "x.ckpt", lambda config: config.update(name="${oc.env:HOME}"))
    refused([f"ckpt={path}", f"out={tmp_path}/out"], "interpolation")
    assert not (tmp_path / "out").exists()


def test_wandb_holds_the_tables_the_figures_and_the_files(run):
    logged, artifacts = {}, []
    (path,) = (run / "wandb").glob("offline-run-*/*.wandb")
    for record in read_records(path):
        if record.HasField("history"):
            for item in record.history.item:
                logged["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
        if record.HasField("artifact"):
            artifacts.append(record.artifact)
    for name in ("attacks", "exposed"):
        assert logged[f"evaluation/{name}/_type"] == "table-file", name
    assert logged["evaluation/report/_type"] == "html-file"
    assert logged["evaluation/histogram/_type"] == "image-file"
    assert any(name.startswith("evaluation/roc") for name in logged)
    media = next((run / "wandb").glob("offline-run-*/files"))
    table = json.loads((media / logged["evaluation/attacks/path"]).read_text())
    stored = json.loads((run / "evaluation" / "metrics.json").read_text())
    rows = [dict(zip(table["columns"], row)) for row in table["data"]]
    assert [(row["attack"], row["mask"]) for row in rows] == [(row["attack"], row["mask"]) for row in stored["rows"]]
    for row, expected in zip(rows, stored["rows"]):
        assert row["auroc"] == expected["auroc"]["value"]
        assert row["permutation_p"] == expected["permuted_labels"]["band"]["p_value"]
    exposed = json.loads((media / logged["evaluation/exposed/path"]).read_text())
    assert len(exposed["data"]) == 32
    (artifact,) = [each for each in artifacts if each.type == "evaluation"]
    names = {entry.path for entry in artifact.manifest.contents}
    assert names == {"scores.parquet", "exposed.csv", "metrics.json", "report.html"}


def test_the_key_of_the_verdict_is_the_onsets(run):
    content = json.loads((run / "evaluation" / "metrics.json").read_text())
    assert {key: content["verdict"][key] for key in ("insider", "outsider")} == {
        "insider": "sima_calibrated/all",
        "outsider": "sima_complexity/all",
    }


def test_tensorboard_holds_the_curves_and_the_pictures(run):
    events = run / "tensorboard"
    curves = {(epoch, name): value for (stage, epoch, name), value in series(run).items() if stage == "denoiser"}
    assert {name for _, name in curves} <= names_in(events)
    steps = {0: 0, 2: 6}  # epoch -> optimizer steps of 16 of 40 samples
    logged = scalars_in(events, "memorization/sima/top60/auroc")
    assert logged == {steps[epoch]: pytest.approx(curves[epoch, "memorization/sima/top60/auroc"], rel=1e-6) for epoch in steps}
    pictures = pictures_in(events)
    assert pictures["pictures/samples"] == {0: (17, 8), 2: (17, 8)}  # two images side by side, at both looks
    assert list(pictures["pictures/reconstructions"]) == [0]

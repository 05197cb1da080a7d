"""What a whole run leaves in Weights & Biases: the few curves that a person watches, whole after a stop."""

import json
import shlex
from pathlib import Path

import pytest
import wandb

from ldm_privacy.recipes import cli
from ldm_privacy.training.denoiser import DenoiserModule
from tests.reference.wandb_log import curves, media, summary
from tests.tiny import arguments, series

WATCHED = [
    "trainer.figures=true",
    "wandb.mode=offline",
    "geometry.distortion_rank=0",
    # The watchers of digits.yaml, each with as little as it takes.
    "watch={samples: {class: samples, num_steps: 2}, generations: {class: generations, num_steps: 2, every: {epochs: 2}}}",
    "watch={quality: {class: quality, num_steps: 2, num_images: 20}}",
]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run with what digits.yaml looks at, killed after its second audit and gone on with: folder, first part, output."""
    folder = tmp_path_factory.mktemp("a run's place")  # with a space and a quote
    original = DenoiserModule.loss

    def killed(self, indices):
        if self.current_epoch == 3:
            raise KeyError
        return original(self, indices)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ldm_privacy.recipes.train.baselines.geometry_figures", lambda *arguments, **options: {})
        with pytest.MonkeyPatch.context() as kill:
            kill.setattr(DenoiserModule, "loss", killed)
            with pytest.raises(KeyError):
                cli.train(arguments(folder, *WATCHED))
        wandb.teardown()  # returns when all is written
        run = folder / "digits"
        (before,) = (run / "wandb").glob("offline-run-*")
        said = []
        patch.setattr("ldm_privacy.recipes.train.train.console.print", lambda *words, **options: said.extend(map(str, words)))
        assert cli.train([f"resume={run}"]) == 0
        wandb.teardown()
    return run, before.name, "\n".join(said)


@pytest.fixture(scope="module")
def log(stopped) -> Path:
    (path,) = stopped[0].glob("wandb/offline-run-*/*.wandb")
    return path


def test_the_charts_are_few_and_memorization_comes_first(log):
    names = sorted(curves(log))
    assert len(names) == 24, "docs/reference/series.md says so; 24 is the most that a person looks through"
    assert names[:3] == ["auroc/sima/all", "auroc/sima/top60", "auroc/sima/tuned"]
    assert names[3:6] == [f"auroc/sima_{name}/all" for name in ("calibrated", "complexity", "gained")]
    sections = list(dict.fromkeys(name.partition("/")[0] for name in names))
    assert sections == ["auroc", "auroc_other", "copies", "loss", "quality", "tpr", "train", "train_codec"]
    assert names[0] > "attack/sima"
    assert len({name[:14] for name in names if name.startswith("auroc/")}) == 6, "cut titles are told apart"


def test_no_chart_is_a_point_or_an_axis(log):
    drawn = curves(log)
    assert not [name for name in drawn if "epoch" in name or "step" in name]
    assert {name for name, points in drawn.items() if len(points) < 2} == set()
    assert not any(name.startswith(("baseline", "geometry", "evaluation", "tables")) for name in drawn)


def test_a_resumed_run_is_one_whole_curve(stopped, log):
    run, before, _ = stopped
    values, drawn = series(run), curves(log)
    for chart, name, stage in (
        ("auroc/sima/top60", "memorization/sima/top60/auroc", "denoiser"),
        ("tpr/sima/all", "memorization/sima/all/tpr_at_1fpr", "denoiser"),
        ("loss/gap", "denoiser/loss_gap", "denoiser"),
        ("copies/members", "generations/memorized", "denoiser"),
        ("train/loss", "denoiser/train_loss", "denoiser"),
        ("train_codec/kl", "autoencoder/train_kl", "autoencoder"),
    ):
        assert drawn[chart] == [(epoch, value) for (at, epoch, each), value in values.items() if (at, each) == (stage, name)]
    assert [x for x, _ in drawn["auroc/sima/all"]] == [0, 2, 4]
    assert (run / "wandb" / "superseded" / before / log.name).is_file()
    assert len(list(run.glob("wandb/offline-run-*"))) == 1


def test_the_printed_commands_show_and_send_that_run(stopped, log):
    run, _, said = stopped
    assert f"wandb leet {shlex.quote(str(run / 'wandb'))} " in said
    assert f"wandb sync {shlex.quote(str(log.parent))} " in said
    assert f"ckpt={run}" not in said
    assert shlex.quote(f"ckpt={run}/checkpoints/last.ckpt") in said


def test_everything_else_is_a_table_an_audit_and_the_masks_are_one_figure(stopped, log):
    kinds = media(log)
    assert kinds["attack/sima"] == ["plotly-file"], "the audit after the resume; it holds all audits"
    assert kinds["tables/newest"] == ["table-file"]
    assert kinds["evaluation/attacks"] == kinds["evaluation/exposed"] == ["table-file"]
    assert kinds["evaluation/roc_curve"] == ["plotly-file"]
    (table,) = (log.parent / "files" / "media" / "table" / "tables").glob("*.json")
    rows = {name: number for name, *number in json.loads(table.read_text())["data"] if "/train_" not in name}
    values = {name: [value, epoch] for (_, epoch, name), value in series(stopped[0]).items() if "/train_" not in name}
    assert rows == values, "the newest of all"


def test_the_summary_is_the_verdict_the_onsets_and_the_charts(log):
    found = summary(log)
    charts = set(curves(log))
    calibrated = {"sima_calibrated/all", "sima_complexity/all", "sima_gained/all"}
    plain = {f"{attack}/{mask}" for attack in ("sima", "loss", "pia") for mask in ("all", "top60", "tuned")}
    best = {f"best/{key}/{what}" for key in plain | calibrated for what in ("auroc", "epoch")}
    onsets = {
        "onset_epoch",
        "onset_epoch_generations",
        "onset_epoch_loss_gap",
        *(f"onset_epoch/sima_{name}/all" for name in ("complexity", "gained")),
    }
    assert set(found) == charts | best | onsets | {"verdict"}
    assert found["verdict"].startswith(("Undecided", "Members are exposed", "No exposure", "The split leaks"))
    assert found["auroc/sima/all"] == curves(log)["auroc/sima/all"][-1][1]


def test_the_first_figure_of_the_run_is_that_of_the_primary_attack(stopped):
    assert min(path.name for path in (stopped[0] / "figures").iterdir()) == "attack_sima.png"

"""`ldm-privacy suspect` on a tiny run: answers, files, what is reused, what is refused."""

import json
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
import torch

from ldm_privacy.config import compose_stored
from ldm_privacy.data.conditions import ClassLabels, Unconditional
from ldm_privacy.data.images import to_uint8
from ldm_privacy.data.loose import LooseImages
from ldm_privacy.data.sources import Digits
from ldm_privacy.errors import UserError
from ldm_privacy.evidence.suspect_copies import MIN_IMAGES
from ldm_privacy.recipes import cli
from ldm_privacy.recipes.run_setup import RunSetup
from ldm_privacy.recipes.suspect import command as suspect_command
from ldm_privacy.recipes.suspect import levels as suspect_levels
from ldm_privacy.recipes.suspect.told import told_of
from ldm_privacy.runs.folder import RunFolder
from ldm_privacy.sampling import generate_images
from ldm_privacy.targets.checkpoint import target_of_checkpoint
from ldm_privacy.targets.record import Checkpoint
from ldm_privacy.targets.target import Target
from ldm_privacy.types import no_progress
from tests.pages import text_of


@pytest.fixture(autouse=True)
def fewer_generations(monkeypatch):
    monkeypatch.setattr(suspect_levels, "NUM_GENERATED", 40)
    monkeypatch.setattr(suspect_levels, "NUM_STEPS", (10, 5))


@pytest.fixture(scope="module")
def scans():
    """The digits as they are stored."""
    return np.stack([np.asarray(image) for image in Digits().open()["image"]])


def save(folder, pixels):
    folder.mkdir()
    for place, image in enumerate(pixels):
        PIL.Image.fromarray(np.asarray(image, np.uint8)).save(folder / f"{place:03d}.png")
    return folder


def ask(folder, run, *words):
    assert cli.main(["suspect", str(folder), f"ckpt={run / 'checkpoints' / 'last.ckpt'}", f"out={folder}-out", *words]) == 0
    return json.loads((folder.parent / f"{folder.name}-out" / "suspect.json").read_text())


def others(run, scans):
    """Scans that the run has on no side."""
    split = Checkpoint.read(run / "checkpoints" / "last.ckpt").split
    return scans[~np.isin(np.arange(len(scans)), torch.cat([split.audited_index, split.public_index]).numpy())]


def test_images_like_the_held_out_ones_show_no_sign_and_files_say_so(run, scans, tmp_path, capsys):
    heldout = scans[Checkpoint.read(run / "checkpoints" / "last.ckpt").split.heldout_index[:8]]
    folder = save(tmp_path / "photos", [*heldout, *others(run, scans)[:30]])
    (folder / "999.png").write_bytes(b"no image")
    found = ask(folder, run)
    assert found["answer"] in ("no", "yes")  # a test at level .05 on 40 + 40 samples
    assert found["without_model"]["p_value"] > found["level"]  # eight held-out images are in it, and no member
    assert (found["answer"] == "yes") == (found["p_value"] <= found["level"])
    assert found["asked"]["sizes"] == ""
    assert found["without_model"]["of_heldout"] == 8
    assert len(found["scores"]["suspects"]) == found["test"]["num_suspect"] == 38
    assert found["asked"]["scores"] == "kept by the run's own audit"
    printed = " ".join(capsys.readouterr().out.split())
    assert found["sentences"][0] in printed
    assert "Left out because they can't be read: 1 (the first: row 38" in printed
    page = (tmp_path / "photos-out" / "suspect.html").read_text()
    assert "can't be read: 1" in text_of(page)
    assert "<script" not in page


def test_the_models_own_generations_and_images_of_another_kind_are_not_called_members(run, scans, tmp_path):
    target = target_of_checkpoint(Checkpoint.read(run / "checkpoints" / "last.ckpt"))
    shape = target.codec.latent_shape(1, 8)
    made = generate_images(target.predictor, target.codec.decode, shape, num_images=30, num_steps=7, seed=99)
    assert ask(save(tmp_path / "made", to_uint8(made)[:, 0].numpy()), run)["answer"] == "generated"
    found = ask(save(tmp_path / "inverted", 255 - others(run, scans)[:30]), run)
    assert found["answer"] == "differs"
    assert found["without_model"]["auroc"]["value"] > 0.9


def test_members_in_another_size_are_near_duplicates_which_is_the_answer(run, scans, tmp_path, capsys):
    members = scans[Checkpoint.read(run / "checkpoints" / "last.ckpt").split.member_index[:25]]
    folder = tmp_path / "larger"
    folder.mkdir()
    for place, image in enumerate(members):
        PIL.Image.fromarray(np.asarray(image, np.uint8)).resize((32, 32)).save(folder / f"{place}.png")
    found, printed = ask(folder, run), " ".join(capsys.readouterr().out.split())
    assert (found["answer"], found["without_model"]["of_members"]) == ("yes", 0)
    assert found["sentences"][0].startswith(
        f"Yes: 25 of 25 images of {folder} are near-duplicates of images that it was trained on"
    )
    told = "25 of 25 images have another size (the first: 32 x 32 pixels) than the run's 8 x 8, and were brought to it"
    assert told in printed
    assert told in text_of((tmp_path / "larger-out" / "suspect.html").read_text())


def test_scores_that_were_kept_are_those_that_the_checkpoint_has_now(run, tmp_path):
    checkpoint = Checkpoint.read(run / "checkpoints" / "last.ckpt")
    config = compose_stored(checkpoint.config).config
    setup = RunSetup(config, no_progress, split=checkpoint.split, stored=checkpoint.denoiser)
    target, folder = target_of_checkpoint(checkpoint, setup.device), RunFolder(run)
    measuring = setup.measuring(target.codec, folder.store)
    samples = setup.samples(measuring, measuring.means(setup.audited_index))
    keys = suspect_levels.candidates(setup, target)
    assert {key.mask for key in keys} == {"all", "top60"}
    kept, was_kept = suspect_levels.run_levels(setup, target, samples, keys, folder, checkpoint.epoch)
    again, was_kept_again = suspect_levels.run_levels(setup, target, samples, keys, RunFolder(tmp_path), checkpoint.epoch)
    assert (was_kept, was_kept_again) == (True, False)
    for key in keys:  # a level is a logarithm, and scores are kept in single precision
        torch.testing.assert_close(kept.now[key], again.now[key], rtol=1e-4, atol=1e-4)


def test_a_target_that_is_told_classes_is_told_those_of_the_folder_or_nothing():
    labels = ClassLabels(labels=lambda index: index % 2, num_classes=2, class_names=["cat", "dog"])
    target = Target(None, None)
    loose = LooseImages(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), "abc", None, ["dog", "bird", "cat"], [(8, 8)] * 3, [])
    told = told_of(SimpleNamespace(condition=labels), target, loose)
    assert told.condition["class_labels"].tolist() == [1, 2, 0]
    assert (told.is_null, told.note) == (False, "the classes of 2 of 3 images")
    told = told_of(SimpleNamespace(condition=labels), target, LooseImages(loose.pixels, "abc", None, None, loose.sizes, []))
    assert told.condition["class_labels"].tolist() == [2, 2, 2]
    assert told.is_null
    assert "null condition" in told.note
    assert told_of(SimpleNamespace(condition=Unconditional()), target, loose) == (target, {}, False, "")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["ckpt=last.ckpt"], "'ckpt=last.ckpt': name the folder of images first"),
        (["{tmp}/photos"], "ckpt: name a checkpoint"),
        (["{tmp}/nowhere", "ckpt={ckpt}"], r"nowhere: there is no such folder"),
        (["{tmp}/file", "ckpt={ckpt}"], r"file: is a file, not a folder"),
        (["{tmp}/empty", "ckpt={ckpt}"], r"empty: no images in it: no file has"),
        (["{tmp}/texts", "ckpt={ckpt}"], r"texts: no images in it"),
        (["{tmp}/five", "ckpt={ckpt}"], r"five: 5 images; a test of a set needs 10 at least"),
        (["{tmp}/photos", "ckpt={tmp}/no.ckpt"], r"no\.ckpt: does not exist; name a checkpoint file"),
        (["{tmp}/photos", "ckpt={ckpt}", "out={tmp}/file"], r"out: '.*file' is a file, not a folder"),
        (["{tmp}/photos", "ckpt={ckpt}", "base={tmp}"], r"base: .*last\.ckpt was not fine-tuned, so it has none; leave it out"),
        (["{tmp}/photos", "ckpt={ckpt}", "denoiser.seed=1"], r"'denoiser\.seed' can't be changed here"),
    ],
)
def test_mistakes_are_told_in_one_line(run, tmp_path, words, error):
    save(tmp_path / "photos", np.zeros((10, 8, 8)))
    save(tmp_path / "five", np.zeros((5, 8, 8)))
    for name in ("empty", "texts"):
        (tmp_path / name).mkdir()
    for file in (tmp_path / "file", tmp_path / "texts" / "a.txt"):
        file.write_text("no image")
    places = {"tmp": tmp_path, "ckpt": run / "checkpoints" / "last.ckpt"}
    with pytest.raises(UserError, match=error) as caught:
        cli.main(["suspect", *(word.format(**places) for word in words)])
    assert "\n" not in str(caught.value)
    assert "data.source" not in str(caught.value)


def test_too_few_that_can_be_read_are_too_few(run, tmp_path):
    assert suspect_command.FEWEST == MIN_IMAGES
    folder = save(tmp_path / "photos", np.zeros((8, 8, 8)))
    for name in "abc":
        (folder / f"{name}.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"photos: 8 images, and 3 that can't be read; a test of a set needs 10 at least"):
        ask(folder, run)


def test_the_members_themselves_are_refused(run, scans, tmp_path):
    index = Checkpoint.read(run / "checkpoints" / "last.ckpt").split.member_index
    with pytest.raises(UserError, match="photos: is the members' folder itself: all 40 audited"):
        ask(save(tmp_path / "photos", scans[index]), run)

"""Scores of every audit, stored by epoch."""

from dataclasses import replace

import pytest
import torch

import ldm_privacy.runs.history as history_module
from ldm_privacy.attacks.base import Attack
from ldm_privacy.attacks.loss import Loss
from ldm_privacy.attacks.secmi import SecMI
from ldm_privacy.attacks.sima import SimA
from ldm_privacy.audit.kept import KeptScores, kept_of
from ldm_privacy.audit.report import report_of
from ldm_privacy.errors import UserError
from ldm_privacy.geometry.masks import KeepAll, KeepTopInfluence
from ldm_privacy.runs.history import Provenance, ScoreHistory
from ldm_privacy.types import AuditKey
from tests.evidence.synthetic import QUICK, make_scores

KEY, LOSS, COMBINED = AuditKey("sima", "all"), AuditKey("loss", "top60"), AuditKey("combined", "all")
ATTACKS, MASKS = {"sima": SimA(), "loss": Loss()}, {"all": KeepAll(), "top60": KeepTopInfluence(0.6)}
HERE = Provenance.of("ab" * 32, 0, ATTACKS, MASKS, [10, 20])


@pytest.fixture
def history(tmp_path):
    return ScoreHistory(tmp_path / "scores", HERE)


def kept(value=0.5):
    score = torch.tensor([[[value, 1.0], [2.0, 3.0]]])
    standing = {KEY: score[0, 0], LOSS: score[0, 1], COMBINED: torch.tensor([4.0, 5.0])}
    timesteps = {"sima": [10, 20], "loss": [10, 20]}
    return KeptScores(torch.tensor([5, 3]), timesteps, {KEY: score, LOSS: -score}, standing)


def same(mine, theirs):
    parts = [{**vars(each), **vars(each)["scores"], **vars(each)["standing"]} for each in (mine, theirs)]
    return parts[0].keys() == parts[1].keys() and all(
        torch.equal(value, parts[1][name]) for name, value in parts[0].items() if isinstance(value, torch.Tensor)
    )


def test_a_history_gives_back_what_was_stored_up_to_an_epoch(history):
    assert history.read(until=100) == {}
    for epoch in (10, 2, 30):
        history.write(epoch, kept(float(epoch)))
    history.write(2, kept(0.25))
    found = history.read(until=10)
    assert list(found) == [2, 10]
    assert same(found[2], kept(0.25))
    assert found[2].timesteps == kept().timesteps
    assert list(history.read()) == [2, 10, 30]


def test_what_was_made_of_the_scores_is_given_to_whoever_asks_for_all(history):
    made = {COMBINED: torch.rand(2, 1, 2)}
    timesteps = {**kept().timesteps, "combined": []}
    history.write(2, replace(kept(), timesteps=timesteps, made=made, num_fitted={COMBINED: 3}))
    assert torch.equal(history.read()[2].made[COMBINED], made[COMBINED])
    assert history.read()[2].num_fitted == {COMBINED: 3}
    assert history.read(keys=[KEY])[2].made == {}


def test_only_wanted_attacks_are_loaded(history, monkeypatch):
    history.write(2, kept())
    loaded, original = [], history_module.safe_open

    class Watched:
        def __init__(self, *arguments, **options):
            self.file = original(*arguments, **options)

        def __enter__(self):
            self.file.__enter__()
            return self

        def __exit__(self, *error):
            return self.file.__exit__(*error)

        def __getattr__(self, name):
            return getattr(self.file, name)

        def get_tensor(self, name):
            loaded.append(name)
            return self.file.get_tensor(name)

    monkeypatch.setattr(history_module, "safe_open", Watched)
    found = history.read(keys=[LOSS, COMBINED])[2]
    assert sorted(loaded) == ["sample_index", "scores/loss/top60", "standing/combined/all", "standing/loss/top60"]
    assert (list(found.scores), sorted(found.standing)) == ([LOSS], [COMBINED, LOSS])
    assert found.timesteps == {"loss": [10, 20]}
    assert history.read(keys=[AuditKey("pia", "all")]) == {}, "an epoch without them is left out"


def test_equal_audits_have_equal_files_whatever_their_objects_addresses(tmp_path):
    class Custom(Attack):
        def __init__(self):
            self.network = torch.nn.Sequential(torch.nn.ReLU())
            self.rule = object()

    contents = []
    for name in "ab":
        provenance = Provenance.of("ab" * 32, 0, {"sima": Custom()}, {"all": KeepAll()}, [10])
        assert len(provenance.attacks["sima"].splitlines()) == 1
        ScoreHistory(tmp_path / name, provenance).write(3, kept())
        contents += [(tmp_path / name / "epoch-3.safetensors").read_bytes()]
    assert contents[0] == contents[1]


def test_cut_back_leaves_the_audits_up_to_an_epoch_and_nothing_half_written(history):
    history.cut_back(-1)
    for epoch in (0, 9, 10):
        history.write(epoch, kept())
    (history.folder / "11.tmp").write_bytes(b"half")
    history.cut_back(9)
    assert sorted(path.name for path in history.folder.iterdir()) == ["epoch-0.safetensors", "epoch-9.safetensors"]
    history.cut_back(-1)
    assert not any(history.folder.iterdir())


def test_a_write_that_fails_leaves_the_file_that_was_there(history, monkeypatch):
    history.write(2, kept())

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        history.write(2, kept(9.0))
    assert same(history.read()[2], kept())


def damaged(content):
    half, other = content[: len(content) // 2], content.replace(b"scores 1", b"scores 0")
    return {4: half, 5: b"", 6: b"PAR1 nothing", 7: other}


def test_damaged_files_are_named_once_and_the_others_are_read(history, caplog):
    history.write(2, kept())
    for epoch, content in damaged((history.folder / "epoch-2.safetensors").read_bytes()).items():
        (history.folder / f"epoch-{epoch}.safetensors").write_bytes(content)
    for _ in range(2):
        assert list(history.read(until=9)) == [2]
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 4
    for epoch, line in zip((4, 5, 6, 7), lines):
        assert f"epoch-{epoch}.safetensors can't be used (" in line
        assert line.endswith("): that epoch is left out.")
        assert len(line.splitlines()) == 1


def test_what_one_half_alone_chose_is_no_history_where_each_half_chooses_for_the_other(history, caplog):
    alone = ScoreHistory(history.folder, replace(HERE, cross_fit=False))
    alone.write(2, kept())
    assert not history.read()
    assert "epoch-2.safetensors can't be used (it was made with audit.cross_fit=false): that epoch" in caplog.text
    history.write(2, kept())
    assert list(alone.read()) == [2], "the half that chose for the one that reports did so here too"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"split_hash": "cd" * 32}, "split abababababab are no history of split cdcdcdcdcdcd."),
        ({"seed": 3}, "seed 0 are no history of seed 3."),
    ],
    ids=["split", "seed"],
)
def test_another_split_or_seed_is_refused(history, changed, words):
    history.write(2, kept())
    other = ScoreHistory(history.folder, replace(HERE, **changed))
    for look in (other.check, other.read):
        with pytest.raises(UserError) as caught:
            look()
        assert str(caught.value) == (
            f"{history.folder}/epoch-2.safetensors: the scores of {words} Leave a checkpoint in the folder of its own run, or "
            f"move {history.folder} elsewhere: an audit needs no history."
        )


@pytest.mark.parametrize(
    ("attacks", "masks", "timesteps", "left", "words"),
    [
        (ATTACKS | {"sima": SecMI(interval=5)}, MASKS, [10, 20], {LOSS, COMBINED}, "attacks.sima: it is SecMI(interval=5) at"),
        ({"sima": SimA()}, MASKS, [10, 30], {LOSS, COMBINED}, "attacks.sima: it is SimA() at timesteps 10, 30, but earlier"),
        (ATTACKS, {"top60": KeepTopInfluence(0.3)}, [10, 20], {KEY, COMBINED}, "masks.top60: it is KeepTopInfluence(keep_fra"),
    ],
    ids=["attack", "timesteps", "mask"],
)
def test_what_is_called_alike_and_is_another_is_left_out_and_told_once(history, caplog, attacks, masks, timesteps, left, words):
    for epoch in (2, 4):
        history.write(epoch, kept())
    other = ScoreHistory(history.folder, Provenance.of("ab" * 32, 0, attacks, masks, timesteps))
    for _ in range(2):
        found = other.read()
    assert [each.standing.keys() for each in found.values()] == [left, left]
    (record,) = caplog.records
    assert record.getMessage().startswith(f"audit.{words}")
    assert f"earlier audits in {history.folder} were made with " in record.getMessage()
    assert record.getMessage().endswith(": they are no history of it and are left out.")


def test_seven_attacks_five_masks_and_thirty_timesteps_take_ten_kilobytes_a_sample(history):
    attacks, masks = [f"attack{n}" for n in range(7)], ("all", "top60", "random60", "low60", "std60")
    data = make_scores(100, 100, timesteps=range(30), attacks=attacks, masks=masks, fractions=(0.5, 1.0))
    scores = kept_of(report_of(data, intervals=QUICK))
    assert (len(scores.scores), len(scores.standing)) == (35, 42)
    for epoch, folds in ((1, 1), (2, 2)):
        history.write(epoch, replace(scores, scores={key: each.expand(folds, -1, -1) for key, each in scores.scores.items()}))
        assert (history.folder / f"epoch-{epoch}.safetensors").stat().st_size / 200 <= 10_000

"""What belongs to the last audit of a training, wherever it ends, and the other names of its checkpoints."""

from types import SimpleNamespace

import pytest
from callbacks.images import AuditFigures
from ldm_privacy.training.checkpoint import save_checkpoint
from matplotlib.figure import Figure

from callbacks.checkpoints import RunCheckpoint


@pytest.mark.parametrize(("epoch", "should_stop", "is_last"), [(2, False, False), (4, False, True), (2, True, True)])
def test_figures_are_drawn_after_the_last_audit(tmp_path, epoch, should_stop, is_last):
    trainer = SimpleNamespace(max_epochs=4, should_stop=should_stop, loggers=[], sanity_checking=False)
    module = SimpleNamespace(trainer=trainer, current_epoch=epoch - 1)
    figures = AuditFigures(tmp_path, lambda: "the report", lambda report, at: {f"curves-{at}": Figure()}, None)
    figures.on_validation_end(trainer, module)
    assert [path.name for path in tmp_path.iterdir()] == ([f"curves-{epoch}.png"] if is_last else [])


class Disk:
    """A trainer whose checkpoints are a few bytes."""

    def __init__(self):
        self.content = b""
        self.lightning_module = SimpleNamespace(parameters=lambda: [])
        self.current_epoch = 0
        self.global_step = 1

    def save_checkpoint(self, path):
        with open(path, "r+b" if path.exists() else "wb") as file:  # an older file is written into, not replaced
            file.write(self.content)


def test_each_copy_is_the_newest_checkpoint_that_its_rule_wanted(tmp_path):
    disk, wanted = Disk(), {"a": False, "b": False}
    copies = {tmp_path / name: (lambda name=name: wanted[name]) for name in wanted}
    checkpoint = RunCheckpoint(
        tmp_path / "last", {}, every_n_minutes=60, is_due=lambda epoch: epoch != 4, say=print, copies=copies
    )
    for epoch, names in enumerate(("a", "ab", "", "ab", "b"), start=1):
        disk.content, disk.current_epoch = f"epoch {epoch}".encode(), epoch - 1
        wanted.update({name: name in names for name in wanted})
        checkpoint.on_train_epoch_end(disk, None)
    # Epoch 4 was not audited, so nothing is known of it and no copy is made.
    assert (tmp_path / "last").read_bytes() == b"epoch 5"
    assert (tmp_path / "a").read_bytes() == b"epoch 2"
    assert (tmp_path / "b").read_bytes() == b"epoch 5"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "last"]


def test_a_kill_between_the_copy_and_the_checkpoint_harms_neither(tmp_path, monkeypatch):
    disk, last, copy = Disk(), tmp_path / "last.ckpt", tmp_path / "copy.ckpt"
    disk.content = b"old"
    save_checkpoint(disk, last)
    disk.content = b"new"

    class Killed(BaseException):
        pass

    def kill(source, target):
        if target == last:
            raise Killed
        source.rename(target)

    with monkeypatch.context() as patch:
        patch.setattr("ldm_privacy.training.checkpoint.os.replace", kill)
        with pytest.raises(Killed):
            save_checkpoint(disk, last, copies=[copy])
    assert (last.read_bytes(), copy.read_bytes()) == (b"old", b"new")
    # What the kill left behind is another name of the copy's file: the next checkpoint must not write into it.
    disk.content = b"ne2"
    save_checkpoint(disk, last)
    assert (last.read_bytes(), copy.read_bytes()) == (b"ne2", b"new")

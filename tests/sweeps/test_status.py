"""How trials stand."""

from datetime import datetime, timedelta

from ldm_privacy.runs.lock import holder_of, writing
from ldm_privacy.sweeps.cells import lock_folder, run_folder
from ldm_privacy.sweeps.journal import Trial
from ldm_privacy.sweeps.status import standings, time_left, told

NOON = datetime(2026, 1, 1, 12)


def test_the_lock_says_whether_a_taken_trial_runs_and_its_curves_how_far_it_is(tmp_path):
    trials = [
        Trial(0, "a", 0, "done", {"auroc": 0.75}, "", NOON, NOON + timedelta(minutes=10)),
        Trial(1, "a", 1, "taken"),
        Trial(2, "b", 0, "taken"),
        Trial(3, "b", 1, "failed", {}, "error: no"),
        Trial(4, "c", 0, "waiting"),
        Trial(5, "c", 1, "waiting"),
    ]
    run = run_folder(tmp_path, "a", 1)
    run.mkdir(parents=True)
    # The last row is cut short by a kill, or is being written.
    (run / "metrics.csv").write_text("stage,epoch,series,value\ndenoiser,96,denoiser/train_loss,0.5\ndenoiser,9")
    with writing(lock_folder(tmp_path, "a", 1)):
        stands = standings(tmp_path, trials)
    assert [each.state for each in stands] == ["done", "running", "stopped", "failed", "waiting", "waiting"]
    assert stands[1].words.startswith("denoiser, epoch 96, on ")
    assert [stands[2].words, stands[3].words] == ["preparing", "error: no"]
    assert told(stands) == "1 running, 1 stopped, 1 done, 1 failed, 2 waiting"
    assert time_left(stands, 2) == timedelta(minutes=10 * 3.5 / 2)
    assert time_left(stands[1:], 2) is None
    assert holder_of(lock_folder(tmp_path, "a", 1)) is None

"""Workers as jobs, on submitit's local executor."""

import pytest

from ldm_privacy.errors import UserError
from ldm_privacy.sweeps import slurm
from ldm_privacy.sweeps.journal import Journal


@pytest.mark.slow
def test_a_job_is_a_worker(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PYTHONPATH", ".")
    journal = Journal(tmp_path)
    journal.enqueue("mine", {"a": "1", "b": "2"}, [0])
    jobs = slurm.submit(tmp_path, "tests.sweeps.quick_trial", 2, {"timeout_min": 1}, cluster="local")
    assert [job.result() for job in jobs] == [0, 0]
    assert [(trial.state, trial.numbers) for trial in journal.trials()] == [("done", {"auroc": 0.5})] * 2


def test_a_job_is_submitted_again_however_often_its_time_is_up(tmp_path, monkeypatch):
    submitit = pytest.importorskip("submitit")
    made = []

    class SlurmExecutor(submitit.SlurmExecutor):
        @classmethod
        def affinity(cls):
            return 1

        def _internal_process_submissions(self, submissions):
            made.append(self)
            return submissions

    monkeypatch.setattr("submitit.auto.auto.plugins.get_executors", lambda: {"slurm": SlurmExecutor})
    slurm.submit(tmp_path, "module", 1, {"timeout_min": 6})
    assert made[0].max_num_timeout >= 10**6


def test_a_job_that_is_about_to_end_waits_for_its_trial_and_asks_for_another(tmp_path):
    pytest.importorskip("submitit")
    asked = []

    class Worker:
        def stop(self, number):
            asked.append("stop")

        def finish(self, seconds):
            asked.append(seconds < slurm.STOP_SECONDS)

    job = slurm.Job(tmp_path, "module", Worker())
    again = job.checkpoint()
    assert asked == ["stop", True]
    assert again.function == slurm.Job(tmp_path, "module")


def test_the_words_of_slurm_are_checked(monkeypatch):
    monkeypatch.setattr(slurm, "which", lambda name: "/usr/bin/sbatch")
    monkeypatch.setattr(slurm, "find_spec", lambda name: "there")
    assert slurm.read_options("partition=gpu,minutes=240,gpus=1") == {
        "slurm_partition": "gpu",
        "timeout_min": 240,
        "gpus_per_node": 1,
    }
    for text, message in (
        ("partion=gpu", r"^--slurm: unknown 'partion'\. Did you mean 'partition'\? There are: partition, minutes"),
        ("minutes=long", r"^--slurm: minutes=long: expected minutes=NUMBER, 1 or more"),
        ("partition", r"^--slurm: partition: expected partition=NAME"),
        ("minutes=5", r"^--slurm: minutes=5: a job stops 300 s before its time is up; give it more"),
    ):
        with pytest.raises(UserError, match=message):
            slurm.read_options(text)
    monkeypatch.setattr(slurm, "which", lambda name: None)
    with pytest.raises(UserError, match=r"^--slurm: there is no sbatch here"):
        slurm.read_options("partition=gpu")

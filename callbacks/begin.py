"""The beginning of a training: its folder, made or checked, before anything is computed."""

from pathlib import Path

from ldm_privacy.assemble import Experiment
from ldm_privacy.config import Composed
from ldm_privacy.report.terminal import console
from ldm_privacy.training.run_folder import RunFolder


def begin(experiment: Experiment, composed: Composed, resumed: RunFolder | None) -> RunFolder:
    """The folder of a new run, or of the one that goes on, with its config and split in it.

    Raises:
        UserError: The folder can't be made; or the run that goes on began with another split or other images.
    """
    data = experiment.data
    if resumed is None:
        run = RunFolder.create(Path(composed.config.output_dir), composed.config.name)
        console.print(f"This run is {run.path}.", highlight=False)
        data.split.save(run.split)
    else:
        run = resumed
        run.check_split(data.split, data.duplicates.content_hash)
    run.write_config(composed.to_yaml())
    return run

"""A training from its beginning, or from where it stopped, to its report."""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import Logger

from ldm_privacy import __version__
from ldm_privacy.callbacks.checkpoints import Interrupted
from ldm_privacy.commands import called
from ldm_privacy.config import Component, Composed, stored_tree
from ldm_privacy.config.compose import RESUMABLE, differences
from ldm_privacy.data.split import Split
from ldm_privacy.device import explain_out_of_memory
from ldm_privacy.errors import UserError
from ldm_privacy.evidence.verdict import verdict_of
from ldm_privacy.plugins import blamed_on
from ldm_privacy.processes import gather, is_main
from ldm_privacy.recipes.audit import Audited, audit_checkpoint, check_content
from ldm_privacy.recipes.check import check_audit, check_codec, check_training
from ldm_privacy.recipes.gate import Evaluated, conclude
from ldm_privacy.recipes.known import check_trainable, places_of
from ldm_privacy.recipes.launch import together
from ldm_privacy.recipes.publish import evaluation_command, publish, ruling_of
from ldm_privacy.recipes.run_setup import RunSetup
from ldm_privacy.recipes.terminal import console, progress, quiet_libraries, tell, waiting
from ldm_privacy.recipes.train.codec_stage import train_codec
from ldm_privacy.recipes.train.denoiser_network import build_denoiser
from ldm_privacy.recipes.train.denoiser_stage import train_denoiser
from ldm_privacy.recipes.train.fitting import Fitting
from ldm_privacy.recipes.train.tuned import save_tuned
from ldm_privacy.registry import LOGGERS
from ldm_privacy.report.figures.mask_curves import MaskCurves
from ldm_privacy.report.tables import print_audit, print_verdict
from ldm_privacy.runs.folder import RunFolder
from ldm_privacy.runs.history import ScoreHistory
from ldm_privacy.runs.lock import writing
from ldm_privacy.runs.pictures import save_picture
from ldm_privacy.targets.record import FORMAT, Checkpoint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZES = "the number of images, data.resolution, autoencoder.network.* or denoiser.network.*"
REPORT = "{run}/evaluation/          report.html: the verdict, every number and picture; scores, exposed images\n"
NEXT = """
{run}/metrics.csv          every curve
{report}{run}/figures/             memorization curves, samples, geometry
{run}/checkpoints/         last.ckpt, before-onset.ckpt
{tuned}{commands}{evaluation}
"""


def train(composed: Composed, resumed: RunFolder | None, *, dry_run: bool = False) -> int:
    """Train from a config, or go on with a run; returns the exit code, of the main process the gate's.

    Raises:
        UserError: Whatever the config gets wrong, found before a run folder is made; a run that goes on with other data.
    """
    quiet_libraries()  # again: Lightning sets the level of its messages when it is imported
    checkpoint = None if resumed is None else newest_checkpoint(resumed, composed.tree)
    check_trainable(composed.tree)  # again, with what interpolations stand for
    of_denoiser = checkpoint if checkpoint is not None and checkpoint.stage == "denoiser" else None
    setup = RunSetup(
        composed.config,
        progress,
        split=None if resumed is None else _split_of(resumed, checkpoint),
        stored=None if of_denoiser is None else of_denoiser.denoiser,
        is_codec_trained=of_denoiser is not None or (resumed is not None and resumed.autoencoder.is_dir()),
    )
    if resumed is not None and checkpoint is not None:
        _check_same(composed, checkpoint)
        ScoreHistory(resumed.scores, setup.provenance).check()
    with explain_out_of_memory(lambda: f"before anything is trained: lower {SIZES}."):
        codec = setup.codec if of_denoiser is None else of_denoiser.codec()
        check_codec(setup, codec)
        check_audit(setup)
        _ = setup.condition  # which may read data, with a bar of its own
        with nullcontext() if setup.is_tuned else waiting("making the denoiser"):
            network, denoiser = build_denoiser(setup, setup.latent_shape(codec))
        check_training(setup, codec, network, denoiser)
    if checkpoint is not None:
        check_content(setup, checkpoint)
        if of_denoiser is not None:
            of_denoiser.check_weights(network, are_averaged=composed.config.denoiser.ema_decay is not None)
        elif codec.network is not None:
            checkpoint.check_weights(codec.network)
    if of_denoiser is not None and composed.config.trainer.max_epochs < of_denoiser.epoch:
        raise UserError(
            f"trainer.max_epochs: {composed.config.trainer.max_epochs}, but the run has {of_denoiser.epoch} epochs already."
        )
    places, was_trained = places_of(composed.tree), of_denoiser is not None
    checkpoint = of_denoiser = None  # weights and moments of a whole network, which a training reads again
    if dry_run:
        from ldm_privacy.recipes.train.plan import print_plan

        return print_plan(setup, codec, network, denoiser, composed, console)
    folder = _begin(setup, composed, resumed) if is_main() else None
    trainer = composed.config.trainer
    held = nullcontext() if folder is None else writing(folder.path)
    with held, together(trainer.accelerator, trainer.devices, trainer.num_nodes):
        run: RunFolder = gather(folder)[0]  # type: ignore[assignment]
        console.print(setup.describe(), highlight=False)
        loggers = _loggers(setup, composed, run, resume=resumed is not None) if is_main() else []
        fitting = Fitting(trainer, run, loggers, ScoreHistory(run.scores, setup.provenance))
        stored = record(setup, composed)
        try:
            if not was_trained:
                codec = train_codec(setup, fitting, codec, stored)
            trained = train_denoiser(setup, fitting, codec, network, denoiser, stored, is_mapped=was_trained)
        except Interrupted:
            tell(f"Stopped; the checkpoint is stored. Go on with:\n  {called('train', f'resume={run.path}')}")
            return 130 if is_main() else 0
        audited = trained.audited
        if audited is None and trained.was_finished:
            # A run that was finished before is audited again from its checkpoint, by all processes; the rest is the main one's.
            audited = audit_checkpoint(setup, Checkpoint.read(run.last, **places), run)
        if audited is not None:
            _conclude(setup, composed, run, audited, trained.sentences, loggers, trained.figures)
            # After the report, which is there whatever saving runs into.
            tuned = save_tuned(Checkpoint.read(run.last, **places), run) if setup.is_tuned else None
            commands = {
                command: why for each in loggers if hasattr(each, "commands") for command, why in each.commands().items()
            }
            report = REPORT.format(run=run.path) if composed.config.trainer.figures else ""
            words = NEXT.format(
                run=run.path,
                report=report,
                tuned="" if tuned is None else f"{str(tuned) + '/':<26} what was fine-tuned, for diffusers\n",
                commands="".join(f"{command}    # {why}\n" for command, why in commands.items()),
                evaluation=evaluation_command(run.last, composed.config.plugins),
            )
            tell(words)
            return conclude({run.path.name: Evaluated(run.evaluation, ruling_of(setup, audited), composed.config.gate)})
    return 0


def newest_checkpoint(run: RunFolder, tree: Mapping[str, Any]) -> Checkpoint | None:
    """The newest checkpoint of a run: the denoiser's, else the autoencoder's, else None. `tree`: see `places_of`."""
    for path, stage in ((run.last, "denoiser"), (run.autoencoder_last, "autoencoder")):
        if path.exists():
            return Checkpoint.read(path, stage=stage, **places_of(tree))
    return None


def record(setup: RunSetup, composed: Composed) -> dict[str, Any]:
    """What every checkpoint of the run holds beside the weights that Lightning stores."""
    return {
        "format": FORMAT,
        "version": __version__,
        "config": composed.to_yaml(),
        "split": setup.data.split.state_dict(),
        "content_hash": setup.data.duplicates.content_hash,
    }


def _split_of(run: RunFolder, checkpoint: Checkpoint | None) -> Split | None:
    """The split that a run began with: the checkpoint's; split.npz, which must be the same, before there is one."""
    stored = Split.load(run.split) if run.split.exists() else None
    if checkpoint is None:
        return stored
    if stored is not None and stored.hash != checkpoint.split.hash:
        raise UserError(
            f"resume: {run.split} holds split {stored.hash[:12]}, but {checkpoint.path} {checkpoint.split.hash[:12]}: "
            f"{stored.difference(checkpoint.split)}. Put back the file that the run began with, or delete it."
        )
    return checkpoint.split


def _check_same(composed: Composed, checkpoint: Checkpoint) -> None:
    """Refuse to go on with another config than the checkpoint's, but for what a resumed run may change."""
    for key, (now, then) in differences(composed.tree, stored_tree(checkpoint.config)).items():
        if not key.startswith((*RESUMABLE, "name", "output_dir")):
            raise UserError(
                f"resume: config.yaml has {key}={now}, but the run began with {then}; put it back. A resumed run may change "
                f"{', '.join(f'{each}*' for each in RESUMABLE)} alone."
            )


def _begin(setup: RunSetup, composed: Composed, resumed: RunFolder | None) -> RunFolder:
    """The folder of a new run, or of the one that goes on, with its config and split in it."""
    run = resumed
    if run is None:
        run = RunFolder.create(Path(composed.config.output_dir), composed.config.name)
        tell(f"This run is {run.path}.")
    if not run.split.exists():
        setup.data.split.save(run.split)
    run.write_config(composed.to_yaml())
    return run


def _loggers(setup: RunSetup, composed: Composed, run: RunFolder, *, resume: bool) -> list[Logger]:
    """Those of the config, metrics.csv first: it is there in any case."""
    facts = {**composed.tree, "split_hash": setup.data.split.hash}
    provided = {"folder": run.path, "facts": facts, "resume": resume, **vars(composed.config.wandb)}
    names = dict.fromkeys(["csv", *composed.config.loggers])
    loggers = []
    for name in names:
        logger = Component(LOGGERS, name, {}).build(**provided)
        with blamed_on(LOGGERS.get(name)):
            if not isinstance(logger, Logger | None):
                raise TypeError(f"it returns {type(logger).__name__}, not a lightning.pytorch.loggers.Logger")
        loggers += [] if logger is None else [logger]
    return loggers


def _conclude(
    setup: RunSetup,
    composed: Composed,
    run: RunFolder,
    audited: Audited,
    sentences: list[str],
    loggers: list[Logger],
    drawn: "Mapping[str, Figure] | None",
) -> None:
    """Print the last audit and the onsets; gather and publish its evidence, unless `trainer.figures` is off."""
    print_audit(audited.report, console, title=f"{run.path.name}, epoch {audited.epoch}")
    for sentence in sentences:
        console.print(sentence, highlight=False)
    if not composed.config.trainer.figures:
        return
    evaluation = publish(setup, composed, audited, run.evaluation, checkpoint=run.last, onsets=sentences, drawn=drawn)
    for name in (MaskCurves(setup.onset_key.attack, {}).name, "memorization", "onset"):
        if name in evaluation.figures:
            save_picture(run.figures, name, evaluation.figures[name])
    print_verdict(verdict_of(evaluation.evidence), console)
    for logger in loggers:
        if hasattr(logger, "log_evaluation"):
            logger.log_evaluation(evaluation, run.evaluation)

"""The end of a training: its table, its onsets, the evidence on disk and in W&B."""

from lightning.pytorch.loggers import WandbLogger

from callbacks.denoiser_stage import Trained
from ldm_privacy.assemble import Experiment
from ldm_privacy.config import Composed
from ldm_privacy.evidence import verdict_of
from ldm_privacy.measure import evaluate_checkpoint
from ldm_privacy.publish import publish
from ldm_privacy.report import print_audit, print_verdict
from ldm_privacy.report.terminal import console
from ldm_privacy.training.checkpoint import load_checkpoint
from ldm_privacy.training.run_folder import RunFolder
from ldm_privacy.training.wandb_evaluation import log_evaluation


def conclude(experiment: Experiment, composed: Composed, run: RunFolder, trained: Trained, wandb: WandbLogger | None) -> None:
    """Print the last audit and the onsets; gather and publish its evidence, unless `trainer.figures` is off.

    A run that was finished before is audited again from its checkpoint, by all processes; the rest is the main one's.
    """
    evaluation = trained.evaluation
    if not trained.is_audited:
        evaluation = evaluate_checkpoint(experiment, load_checkpoint(run.last), store_folder=run.influence)
    if evaluation is None:  # not the main process
        return
    print_audit(evaluation.report, console, title=f"{run.path.name}, epoch {trained.epoch}")
    for sentence in trained.sentences:
        console.print(sentence, highlight=False)
    if not composed.config.trainer.figures:
        return
    evidence, figures = publish(
        experiment,
        composed,
        evaluation,
        run.evaluation,
        checkpoint=run.last,
        epoch=trained.epoch,
        onsets=trained.sentences,
    )
    print_verdict(verdict_of(evidence), console)
    log_evaluation(wandb, evidence, figures, run.evaluation, experiment.data.images, epoch=trained.epoch)

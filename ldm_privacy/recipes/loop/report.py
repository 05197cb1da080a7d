"""The report of a watched loop: the files of an evaluation, from the newest look."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from ldm_privacy import __version__
from ldm_privacy.errors import UserError
from ldm_privacy.types import Image
from ldm_privacy.watch.watcher import results_of

if TYPE_CHECKING:
    from ldm_privacy.recipes.loop.watch import MemorizationWatch


def write_loop_report(watch: "MemorizationWatch", folder: Path) -> Path:
    """Write the files of an evaluation of a watch's newest look; returns the path of report.html. No denoiser passes.

    Raises:
        UserError: There was no look yet.
    """
    memorization = watch.memorization
    if memorization.report is None or memorization.last is None:
        raise UserError("report: there was no look yet; call the watch in the loop first, as in watch(unet, step=0).")
    from ldm_privacy.evidence.gather import gather_evidence
    from ldm_privacy.report.curves import training_figures
    from ldm_privacy.report.evaluation import Evaluation
    from ldm_privacy.report.folder import evidence_figures, result_facts, result_figures, write_evaluation

    report, samples, audit = memorization.report, watch.samples.to("cpu"), memorization.audit
    key, step = memorization.key, memorization.last.step
    results = results_of(watch.watchers, step)
    earlier = memorization.history.read(until=step - 1)
    evidence = gather_evidence(report, key, samples, watch.images_of, history=earlier, time=step, seed=watch.seed)
    decoder = None if watch.codec.network is None else watch.codec.decode
    figures = {
        **training_figures(watch.curves, audit.keys, evidence.key, report.data.derived, report.data.views, "step"),
        **evidence_figures(evidence, samples, audit.masks, decoder, watch.images_of, seed=watch.seed, unit="step"),
        **result_figures(results),
    }
    evaluation = Evaluation(
        evidence,
        figures,
        watch.images_of,
        folder.absolute().name,
        step,
        {**watch.facts, **_facts(watch), **result_facts(results)},
        onsets=[sentence for each in watch.watchers.values() for sentence in each.sentences()],
        unit="step",
        has_decoder=decoder is not None,
        results=results,
    )
    split_hash = _split_hash(watch.images, samples.is_member)
    return write_evaluation(folder, evaluation, facts={"epoch": step, "version": __version__, "split_hash": split_hash})


def _facts(watch: "MemorizationWatch") -> Mapping[str, str]:
    """Of the audit; those of what is audited are the target's."""
    audit, samples = watch.memorization.audit, watch.samples
    num_members = int(samples.is_member.sum())
    return {
        "images": " x ".join(map(str, watch.images.shape[1:])),
        "split": f"{num_members} members, {len(samples) - num_members} held-out",
        "timesteps": ", ".join(map(str, audit.timesteps)),
        "seed": str(watch.seed),
        "version": __version__,
    }


def _split_hash(images: Image, is_member: Tensor) -> str:
    """Of the images and of who is a member."""
    content = hashlib.sha256(images.numpy().tobytes())
    content.update(is_member.cpu().numpy().tobytes())
    return content.hexdigest()

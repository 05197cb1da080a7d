"""Watching any training loop: an object that is built once and called in the loop."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ldm_privacy import __version__
from ldm_privacy.attacks.base import get_attack
from ldm_privacy.audit.audit import Audit
from ldm_privacy.audit.measure import Measuring
from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.calibrations.base import Calibration, check_halves_suffice
from ldm_privacy.data.conditions import views_of
from ldm_privacy.errors import UserError
from ldm_privacy.geometry.estimate import InfluenceEstimator
from ldm_privacy.geometry.probe import ProbeInfluence
from ldm_privacy.models.codec import Codec
from ldm_privacy.models.identity import IdentityCodec
from ldm_privacy.models.predictor import NetworkPredictor
from ldm_privacy.processes import alone, is_main
from ldm_privacy.recipes.terminal import progress
from ldm_privacy.registry import CALIBRATIONS, MASK_RULES
from ldm_privacy.targets.target import Target, unwrapped
from ldm_privacy.types import Condition, Image, Intervals
from ldm_privacy.watch.loss_gap import LossGap
from ldm_privacy.watch.memorization import Memorization
from ldm_privacy.watch.onset import OnsetDetector
from ldm_privacy.watch.undisturbed import undisturbed
from ldm_privacy.watch.watcher import Every, Look, Moment, Watcher, look_with, results_of

CALIBRATED = ("complexity", "history", "gained", "calibrated", "combined")
"""In the order of `configs/audit/default.yaml`: that decides what a verdict rests on."""


class MemorizationWatch:
    """Audits the denoiser of a loop that knows nothing of this program.

        watch = MemorizationWatch(member_images, heldout_images, scheduler, codec=KLCodec.scaled(vae), every_n_steps=500)
        for step in range(num_steps):
            logger.log(watch(unet, step=step))       # {} where no look is due
            ...
        watch(unet, step=num_steps, is_last=True)
        watch.report("audit")

    Built once: every image is encoded, its complexity measured and its influence estimated here (one encoder pass, one decoder
    pass for the reconstruction, and the estimator's products). A look leaves the training as it was, to the last bit: weights,
    modes, gradients, random states; autocast is off inside. The weights that are in the network are looked at, so call it
    while averaged weights are in, if they are what you ship. How many samples share a pass: `device.limit_memory`.

    Args:
        members: (members, image_channels, height, width) in [-1, 1], images that are trained on, as they are: not flipped.
        heldout: The same for images that are never trained on.
        scheduler: A diffusers scheduler (alphas_cumprod, config.prediction_type), or alphas_cumprod itself.
        codec: Images <-> what the network sees: `KLCodec.scaled(vae)`; None for pixel space. It encodes where it lies.
        prediction_type: What the network outputs; the scheduler's by default.
        condition: Name -> (members + held-out, ...), keyword arguments of the network, members first.
        null: Name -> (1, ...), what stands for "no condition": attacks are then repeated without the condition and with another
            image's, and watchers of guided sampling have what they need.
        attacks: Registered names, or attacks by label.
        masks: Registered names, or rules by label; by default all and, where there is a decoder, top, random and deviation.
        timesteps: That every attack queries.
        calibrations: Registered names, or calibrations by label, of the first attack and mask. The verdict rests on the last of
            them that looks at earlier audits, and names the last that doesn't.
        influence: Estimator; 16 probes by default where there is a decoder.
        every_n_steps: The cadence; step 0, from which onsets count, is a look too, and so is the one with `is_last`.
        watchers: Further ones by label: (samples, every) -> watcher.
        intervals: How intervals are made.
        seed: Of the attacks' noise and the probes.
        main_process_only: Of several processes the main one audits everything, the others return {} at once. False: each has
            its share, and all must call it alike.

    Raises:
        UserError: A cadence below 1, an unknown attack or mask, a mask by influence in pixel space, too few images.
    """

    def __init__(
        self,
        members: Image,
        heldout: Image,
        scheduler: Any,
        *,
        codec: Codec | None = None,
        prediction_type: str | None = None,
        condition: Condition | None = None,
        null: Condition | None = None,
        attacks: Sequence[str] | Mapping[str, Any] = ("sima", "loss"),
        masks: Sequence[str] | Mapping[str, Any] | None = None,
        timesteps: Sequence[int] = (30, 60, 100, 150),
        calibrations: Sequence[str] | Mapping[str, Calibration] = CALIBRATED,
        influence: InfluenceEstimator | None = None,
        every_n_steps: int = 1000,
        watchers: Mapping[str, Callable[[AuditedSamples, Every], Watcher]] | None = None,
        intervals: Intervals | None = None,
        seed: int = 0,
        main_process_only: bool = True,
    ):
        every = Every(steps=every_n_steps)
        self.alphas_cumprod: Tensor = scheduler if isinstance(scheduler, Tensor) else scheduler.alphas_cumprod
        settings = getattr(scheduler, "config", {})
        self.prediction_type: Any = prediction_type or settings.get("prediction_type", "epsilon")
        self.codec = codec or IdentityCodec(image_channels=members.shape[1])
        self.images = torch.cat([members, heldout]).float().cpu()
        self.main_process_only = main_process_only
        self.seed = seed
        self.watchers: dict[str, Watcher] = {}
        self.curves: dict[tuple[int, str], float] = {}
        """(step, name) -> value, of all looks."""
        self.looks: Mapping[str, Look] = {}
        """Of the newest call that looked, by watcher, with their lines and pictures."""
        self.watched: dict[str, float] = {}
        """Chart -> value at the newest look: the few that a person watches; see `Look`."""
        if main_process_only and not is_main():
            return
        if masks is None:
            masks = ("all",) if self.codec.network is None else ("all", "top", "random", "deviation")
        attacks = attacks if isinstance(attacks, Mapping) else {name: get_attack(name) for name in attacks}
        masks = masks if isinstance(masks, Mapping) else {name: MASK_RULES.get(name)() for name in masks}
        with alone():
            self.samples = self._measured(len(members), condition, null, influence or ProbeInfluence(seed=seed))
        samples = self.samples
        samples.check_halves()
        intervals = intervals or Intervals(seed=seed)
        if not isinstance(calibrations, Mapping):
            calibrations = {name: CALIBRATIONS.get(name)() for name in calibrations}
        if calibrations:
            check_halves_suffice(samples.is_calibration, samples.is_member, cross_fit=True)
        audit = Audit(
            samples,
            attacks,
            masks,
            timesteps,
            views=tuple(samples.views),
            calibrations=calibrations,
            seed=seed,
            intervals=intervals,
        )
        onset = OnsetDetector(confidence=intervals.confidence)
        self.memorization = Memorization(audit, every=every)
        self.watchers = {
            "memorization": self.memorization,
            "loss_gap": LossGap(samples, every=every, onset=onset, seed=seed),
            **{label: make(samples, every) for label, make in (watchers or {}).items()},
        }

    def due(self, step: int, *, is_last: bool = False) -> bool:
        """Whether a call would look: averaged weights need to be swapped in only then. False in processes that have no part."""
        return any(watcher.due(self._moment(step, is_last)) for watcher in self.watchers.values())

    def __call__(self, network: nn.Module, *, step: int, is_last: bool = False) -> dict[str, float]:
        """What the watchers see, as curves: name -> value; {} where none is due.

        Args:
            network: (z_t, t, **condition) -> output like z_t; wrappers of DDP, accelerate and torch.compile are taken off.
            step: Finished optimizer steps.
            is_last: Look whatever the cadence says.
        """
        if not self.due(step, is_last=is_last):
            return {}
        inner = unwrapped(network)
        predictor = NetworkPredictor(inner, self.alphas_cumprod, self.prediction_type)
        target = Target(self.codec, predictor, {"target": f"{type(inner).__name__}, step {step}", "latents": str(self.codec)})
        device = next((each.device for each in inner.parameters()), None)
        with alone() if self.main_process_only else nullcontext(), undisturbed(inner):
            looks = look_with(self.watchers, target, self._moment(step, is_last), device)
        self.looks = looks
        series = {name: value for look in looks.values() for name, value in look.series.items()}
        shown = {chart: name for look in looks.values() for chart, name in look.shown().items()}
        self.watched = {chart: series[name] for chart, name in shown.items()}
        self.curves |= {(step, name): value for name, value in series.items()}
        return series

    def report(self, folder: Path | str) -> Path | None:
        """Write the report of the newest look, the files of an evaluation; returns the path of report.html.

        None in processes that write nothing. No network passes.

        Raises:
            UserError: There was no look yet.
        """
        if not is_main():
            return None
        if self.memorization.report is None or self.memorization.last is None:
            raise UserError("report: there was no look yet; call the watch in the loop first, as in watch(unet, step=0).")
        from ldm_privacy.evidence.gather import gather_evidence
        from ldm_privacy.report.curves import training_figures
        from ldm_privacy.report.evaluation import Evaluation
        from ldm_privacy.report.folder import evidence_figures, result_figures, write_evaluation

        report, samples, audit = self.memorization.report, self.samples.to("cpu"), self.memorization.audit
        key, step = self.memorization.key, self.memorization.last.step
        earlier = self.memorization.history.read(until=step - 1)
        evidence = gather_evidence(report, key, samples, self._images_of, history=earlier, time=step, seed=self.seed)
        decoder = None if self.codec.network is None else self.codec.decode
        figures = {
            **training_figures(self.curves, audit.keys, evidence.key, report.data.derived, report.data.views, "step"),
            **evidence_figures(evidence, samples, audit.masks, decoder, self._images_of, seed=self.seed, unit="step"),
            **result_figures(results_of(self.watchers)),
        }
        facts = {"latents": str(self.codec), "timesteps": ", ".join(map(str, audit.timesteps)), "version": __version__}
        stored = {"epoch": step, "version": __version__, "split_hash": self._split_hash()}
        sentences = [sentence for watcher in self.watchers.values() for sentence in watcher.sentences()]
        name = Path(folder).absolute().name
        evaluation = Evaluation(
            evidence,
            figures,
            self._images_of,
            name,
            step,
            facts,
            onsets=sentences,
            unit="step",
            results=results_of(self.watchers),
        )
        return write_evaluation(Path(folder), evaluation, facts=stored)

    def state_dict(self) -> dict[str, Any]:
        """What is remembered (onsets, what they count from, the curves), for a checkpoint of the training."""
        curves = [(step, name, value) for (step, name), value in self.curves.items()]
        return {"curves": curves, **{label: watcher.full_state() for label, watcher in self.watchers.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.curves = {(step, name): value for step, name, value in state["curves"]}
        for label, watcher in self.watchers.items():
            watcher.load_full_state(state[label])

    @staticmethod
    def _moment(step: int, is_last: bool) -> Moment:
        return Moment(step, step, is_epoch_end=step == 0 or is_last, is_last=is_last)

    def _images_of(self, sample_index: Tensor) -> Image:
        return self.images[sample_index.cpu()]

    def _split_hash(self) -> str:
        """Of the images and of who is a member."""
        content = hashlib.sha256(self.images.numpy().tobytes())
        content.update(self.samples.is_member.cpu().numpy().tobytes())
        return content.hexdigest()

    def _measured(
        self,
        num_members: int,
        condition: Condition | None,
        null: Condition | None,
        influence: InfluenceEstimator,
    ) -> AuditedSamples:
        index = torch.arange(len(self.images))
        views = {} if not condition or not null else views_of(("shuffled",), index, condition, null, seed=self.seed)
        measuring = Measuring(self.codec, self._images_of, "", None, self.codec.device, progress)
        means = measuring.means(index)
        is_member = index < num_members
        return measuring.samples(index, means, is_member, condition=condition, views=views, influence=influence)

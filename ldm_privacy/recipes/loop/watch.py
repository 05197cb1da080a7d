"""Watching any training loop: an object that is built once and called in the loop."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ldm_privacy.audit.audit import Audit
from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.calibrations.base import Calibration, check_halves_suffice
from ldm_privacy.diffusion import check_prediction_type, flow_sigma
from ldm_privacy.errors import UserError
from ldm_privacy.geometry.estimate import InfluenceEstimator
from ldm_privacy.models.codec import Codec
from ldm_privacy.models.identity import IdentityCodec
from ldm_privacy.models.schedule import schedule_of
from ldm_privacy.processes import alone, is_main
from ldm_privacy.recipes.loop.asked import attacks_of, calibrations_of, masks_of, timesteps_of
from ldm_privacy.recipes.loop.cost import LookClock, LookCost, measured_cost
from ldm_privacy.recipes.loop.report import write_loop_report
from ldm_privacy.recipes.loop.samples import as_floats, measured_samples, stacked_images
from ldm_privacy.recipes.loop.target import LoopTarget, check_passes, self_checked
from ldm_privacy.recipes.loop.told import Told
from ldm_privacy.targets.script import Predict, codec_of
from ldm_privacy.targets.target import Target, unwrapped
from ldm_privacy.types import Image, Intervals
from ldm_privacy.watch.loss_gap import LossGap
from ldm_privacy.watch.memorization import Memorization
from ldm_privacy.watch.onset import OnsetDetector
from ldm_privacy.watch.undisturbed import undisturbed
from ldm_privacy.watch.watcher import Every, Look, Moment, Watcher, look_with


class MemorizationWatch:
    """Audits the denoiser of a loop that knows nothing of this program.

        watch = MemorizationWatch(member_images, heldout_images, noise_scheduler, vae=vae, captions=captions,
                                  text_encoder=text_encoder, tokenizer=tokenizer, reference="adapter", every_n_steps=500)
        accelerator.log(watch(unet, step=0), step=0)
        for step in ...:
            ...
            accelerator.log(watch(unet, step=step), step=step)  # {} where no look is due
        watch(unet, step=step, is_last=True)
        watch.report("audit")

    Built once: every image is encoded, its complexity measured and its influence estimated here (one encoder pass, one decoder
    pass for the reconstruction, and the estimator's products). A look leaves the training as it was, to the last bit: weights,
    modes, what is trained, gradients, random states, adapters, averages; autocast is off inside, but where accelerate put it
    around the network's own forward. The network is asked in the precision of its weights and answers in float32. How many
    samples share a pass: `device.limit_memory`.

    Args:
        members: Images that are trained on, as they are: not flipped. (members, image_channels, height, width) in [-1, 1], or
            PIL images with a `resolution`.
        heldout: The same of images that are never trained on.
        scheduler: A diffusers scheduler (DDPM's family or a flow's), or alphas_cumprod itself; see `schedule_of`.
        prediction_type: What the network outputs; the scheduler's by default.
        vae: The script's AutoencoderKL, in any precision: a float32 copy of it is kept where it lies. None: `codec`.
        codec: Images <-> what the network sees; None, and no `vae`: pixel space.
        resolution: Of PIL images: the shorter side is resized to it, the centre kept.
        captions, text_encoder, tokenizer, memory_mib, trains_text_encoder, condition, null: What the network is told; see
            `Told`. With captions, or with `null`, attacks are repeated under `views`, and watchers of guided sampling have what
            they need.
        views: Of "null" (no condition) and "shuffled" (another image's); () for a look of half to a third of the passes.
        reference: What attacks are calibrated against, asked once: "adapter" for the network with its adapter of peft off,
            another frozen network, or a function that gives a context in which the network is the base. None: nothing.
        ema: The averages that are shipped, and so are looked at: an `EMAModel` of diffusers, an `AveragedModel` of torch.
        beside: Modules that act in a pass and are no part of the network (kohya's LoRA network, SDXL's text encoders): put in
            evaluation mode in a look too, and their adapters are taken off with the network's.
        attacks: Registered names, or attacks by label; by default sima and loss, of which a reference makes loss the stronger
            one, so then it comes first.
        masks: Registered names, or rules by label; by default all and, where there is a decoder, top, random and deviation.
        timesteps, sigmas: That every attack queries; of a flow by default sigmas, its shares of noise between 0 and 1.
        calibrations: Registered names, or calibrations by label, of the first attack and mask; all of them by default. The
            verdict rests on the last of them that looks at earlier audits, and names the last that doesn't.
        influence: Estimator; 16 probes by default where there is a decoder.
        every_n_steps: The cadence; step 0, from which onsets count, is a look too, and so is the one with `is_last`.
        watchers: Further ones by label: (samples, every) -> watcher.
        predict: (network, state, time, condition) -> output like the state, of a network that is called otherwise than
            network(state, time, **condition). The state is z_t, of a flow x_s; the time the timestep, of a flow 1000 sigma.
        self_check: Whether the first look asks if the network, and the reference, fit what is said here of what they output;
            see `ldm_privacy.targets.self_check`. A network that has learned nothing yet passes.
        intervals: How intervals are made.
        seed: Of the attacks' noise and the probes.
        main_process_only: Of several processes the main one audits everything, the others return {} at once and none waits
            for it before its next step. False: each has its share, and all must call it alike.

    Raises:
        UserError: A cadence below 1; an unknown attack, mask or prediction type; a flow's prediction type with another's
            scheduler; a mask by influence in pixel space, too few images; what is given doesn't go together.
    """

    def __init__(
        self,
        members: Image | Sequence[Any],
        heldout: Image | Sequence[Any],
        scheduler: Any,
        *,
        prediction_type: str | None = None,
        vae: nn.Module | None = None,
        codec: Codec | None = None,
        resolution: int | None = None,
        captions: Sequence[str | Sequence[str]] | None = None,
        text_encoder: nn.Module | Callable[[list[str]], Any] | None = None,
        tokenizer: Any = None,
        memory_mib: float = 1024.0,
        trains_text_encoder: bool = False,
        condition: Mapping[str, Any] | None = None,
        null: Mapping[str, Any] | None = None,
        views: Sequence[str] = ("null", "shuffled"),
        reference: Any = None,
        ema: Any = None,
        beside: Sequence[nn.Module] = (),
        attacks: Sequence[str] | Mapping[str, Any] | None = None,
        masks: Sequence[str] | Mapping[str, Any] | None = None,
        timesteps: Sequence[int] | None = None,
        sigmas: Sequence[float] | None = None,
        calibrations: Sequence[str] | Mapping[str, Calibration] | None = None,
        influence: InfluenceEstimator | None = None,
        every_n_steps: int = 1000,
        watchers: Mapping[str, Callable[[AuditedSamples, Every], Watcher]] | None = None,
        intervals: Intervals | None = None,
        predict: Predict | None = None,
        self_check: bool = True,
        seed: int = 0,
        main_process_only: bool = True,
    ):
        every = Every(steps=every_n_steps)
        abar, kind = schedule_of(scheduler)
        kind = prediction_type or kind  # type: ignore[assignment]
        check_prediction_type(kind, abar)
        asked = timesteps_of(timesteps, sigmas, kind, len(abar))
        self.main_process_only, self.seed = main_process_only, seed
        self.watchers: dict[str, Watcher] = {}
        self.curves: dict[tuple[int, str], float] = {}
        """(step, name) -> value, of all looks."""
        self.looks: Mapping[str, Look] = {}
        """Of the newest call that looked, by watcher, with their lines and pictures."""
        self.watched: dict[str, float] = {}
        """Chart -> value at the newest look: the few that a person watches; see `Look`."""
        self.facts: Mapping[str, str] = {}
        """Of the newest look: what it looked at, in words."""
        self._clock = LookClock()
        self._checked: Mapping[str, str] | None = None if self_check else {}
        """What the self-check found; None where it is still to come."""
        if main_process_only and not is_main():
            return
        if vae is not None and codec is not None:
            raise UserError("vae: there is a codec too; give one of them.")
        attacks = attacks_of(attacks, is_compared=reference is not None)
        calibrations = calibrations_of(calibrations, is_compared=reference is not None)
        of_vae = None if vae is None else codec_of(vae)
        config: Any = {} if of_vae is None or of_vae.network is None else of_vae.network.config
        self.images = stacked_images(members, heldout, resolution=resolution, channels=config.get("in_channels", 3))
        self.codec: Codec = codec or of_vae or IdentityCodec(image_channels=self.images.shape[1])
        masks = masks_of(masks, has_decoder=self.codec.network is not None)
        encoders = [text_encoder] if isinstance(text_encoder, nn.Module) else []
        with alone(), undisturbed(*encoders, *beside):
            told = Told(
                len(members),
                len(heldout),
                captions=captions,
                text_encoder=text_encoder,
                tokenizer=tokenizer,
                memory_mib=memory_mib,
                trains=trains_text_encoder,
                condition=condition,
                null=null,
            )
            self.samples = samples = measured_samples(
                self.codec,
                self.images_of,
                torch.arange(len(self.images)) < len(members),
                told,
                views=views,
                attacks=attacks.values(),
                influence=influence,
                seed=seed,
            )
        self.training = LoopTarget(self.codec, abar, kind, told, reference, ema, tuple(beside), predict)
        samples.check_halves()
        intervals = intervals or Intervals(seed=seed)
        if calibrations:
            check_halves_suffice(samples.is_calibration, samples.is_member, cross_fit=True)
        audit = Audit(
            samples,
            attacks,
            masks,
            asked,
            views=tuple(view for view in samples.views if view in views),
            sigmas={} if self.training.prediction_type != "flow" else dict(zip(asked, flow_sigma(abar)[asked].tolist())),
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
        """Whether a call would look. False in processes that have no part."""
        return any(watcher.due(self._moment(step, is_last)) for watcher in self.watchers.values())

    def __call__(self, network: nn.Module, *, step: int, is_last: bool = False) -> dict[str, float]:
        """What the watchers see, as curves: name -> value; {} where none is due.

        Args:
            network: (z_t, t, **condition) -> output like z_t; wrappers of DDP, accelerate and torch.compile are looked through.
            step: Finished optimizer steps.
            is_last: Look whatever the cadence says.

        Raises:
            UserError: The network can't take the latents, or fits another convention than the declared one; its
                prediction is not finite, its weights are sharded; `ema` or `reference` are none of it.
        """
        if not self.due(step, is_last=is_last):
            return {}
        with self._clock, self._looking(network, step) as (target, device):
            if self._checked is None:
                self._checked = self_checked(target, self.samples.here(device), self.seed)
            self.facts = {**self.facts, **self._checked}
            looks = look_with(self.watchers, target, self._moment(step, is_last), device)
        self.looks = looks
        series = {name: value for look in looks.values() for name, value in look.series.items()}
        shown = {chart: name for look in looks.values() for chart, name in look.shown().items()}
        self.watched = {chart: series[name] for chart, name in shown.items()}
        self.curves |= {(step, name): value for name, value in series.items()}
        return series | self._clock.series

    def cost(self, network: nn.Module, *, step_seconds: float | None = None) -> LookCost:
        """What a look costs: its passes by network, and seconds, measured with two passes and one audit without any.

        Args:
            network: As in a look, which leaves the training as it was; so does this.
            step_seconds: Of a training step, for the share of the training.
        """
        steps = self.memorization.every.steps if self.watchers else None
        if steps is None:  # in a process that has no part
            return LookCost({}, 0, 0, 0.0, 0.0, 1, step_seconds)
        with self._looking(network, 0) as (target, device):
            checks = check_passes(target, self.samples) * (1 + (target.reference is not None)) if self._checked is None else 0
            return measured_cost(self.watchers, self.memorization.audit, target, device, steps, step_seconds, checks)

    def report(self, folder: Path | str) -> Path | None:
        """Write the report of the newest look, the files of an evaluation; returns the path of report.html.

        None in processes that write nothing. No denoiser passes.

        Raises:
            UserError: There was no look yet.
        """
        return write_loop_report(self, Path(folder)) if is_main() else None

    def state_dict(self) -> dict[str, Any]:
        """What is remembered (onsets, what they count from, the curves), for a checkpoint of the training."""
        curves = [(step, name, value) for (step, name), value in self.curves.items()]
        return {"curves": curves, **{label: watcher.full_state() for label, watcher in self.watchers.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.curves = {(step, name): value for step, name, value in state["curves"]}
        for label, watcher in self.watchers.items():
            if label in state:  # one that is new begins here
                watcher.load_full_state(state[label])

    def images_of(self, sample_index: Tensor) -> Image:
        """(samples, image_channels, height, width) in [-1, 1], on the CPU."""
        return as_floats(self.images[sample_index.cpu()])

    @contextmanager
    def _looking(self, network: nn.Module, step: int) -> Iterator[tuple[Target, torch.device | None]]:
        """What is looked at, and where it lies; afterwards the training is as before."""
        inner = unwrapped(network)
        device = next((each.device for each in inner.parameters()), None)
        with alone() if self.main_process_only else nullcontext(), self.training.target(network, step) as target:
            self.facts = target.facts
            yield target, device

    @staticmethod
    def _moment(step: int, is_last: bool) -> Moment:
        return Moment(step, step, is_epoch_end=step == 0 or is_last, is_last=is_last)

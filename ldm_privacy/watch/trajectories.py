"""Trajectories of guided sampling: whose training image comes too early, and which captions replicate it."""

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.device import explain_out_of_memory, lower_memory
from ldm_privacy.errors import UserError
from ldm_privacy.geometry.deviation import latent_sum
from ldm_privacy.models.predictor import rows_per_pass
from ldm_privacy.pictures import image_grid
from ldm_privacy.processes import gather, is_main, share_of, total, world_size
from ldm_privacy.randomness import normal
from ldm_privacy.registry import WATCHERS
from ldm_privacy.targets.target import Target
from ldm_privacy.trajectories.captions import CAPTION_GROUPS, FollowedCaptions, chosen_captions, num_chosen, others_of
from ldm_privacy.trajectories.follow import Followed, follow
from ldm_privacy.trajectories.guided import Guided
from ldm_privacy.trajectories.record import Shown, TrajectoryReport
from ldm_privacy.trajectories.replication import nearest_of, nearest_of_shares, similarity
from ldm_privacy.types import Images, Intervals, Latent, Progress, no_progress, rows_of
from ldm_privacy.watch.onset import OnsetDetector
from ldm_privacy.watch.trajectory_curves import WORDS, charts_of, compared, curves_of, line_of, replication_rise
from ldm_privacy.watch.watcher import Every, GuidanceScale, Look, Moment, Watcher

AT_THE_END = Every(epochs=10**9)
NUM_SHOWN = 3
"""Captions memorized most, and least, that pictures are kept of."""


@WATCHERS.register("trajectories")
@dataclass(eq=False)
class Trajectories(Watcher):
    """Guided trajectories of members', planted duplicates' and held-out captions, measured while they run.

    See `ldm_privacy.trajectories`. The same captions (`captions.choice`: none twice, no held-out one that an audited member has
    as long as that can be) and noise at every look; the noise belongs to (seed, sample, draw) and is shared by the guidance
    scales. Replication is looked for among the audited members. Its onset, of members drawn once and of planted duplicates, is
    that of the mean similarity to the own image above the held-out captions', at the largest scale. The untrained denoiser is
    not looked at: it makes noise.

    Args:
        samples: Of this process; with conditions.
        images: Sample indices -> images.
        num_captions: Of each group at most, chosen by a hash of the sample index.
        num_seeds: Trajectories of each caption and scale.
        guidance_scales: 1, which is no guidance, among them.
        num_steps: DDIM steps of each.
        num_early: First steps that overestimation and errors are means over.
        clean: x, what the states are decomposed into: the latent of the caption's own image ("paired"), or the one that the
            trajectory ends in ("generated"; twice the passes).
        mean_column: Whether the mean latent is a third column of the decomposition.
        every: See `Watcher`. By default a single look, at the end of the training, whatever the audits' cadence: a look costs
            thousands of passes.
        onset: The detector.
        words: Sample indices -> captions in words, or None.
        seed: Of captions and noise.
        intervals: Of the claims.
        progress: Shows how far a look is; see `Progress`.

    Attributes:
        result: The newest look in numbers.

    Raises:
        UserError: The samples have no condition, or members fewer than two; 1 is not among the guidance scales.
    """

    samples: AuditedSamples
    images: Images
    _: KW_ONLY
    num_captions: Annotated[int, Field(ge=2)] = 24
    num_seeds: PositiveInt = 2
    guidance_scales: list[GuidanceScale] = field(default_factory=lambda: [1.0, 7.5])
    num_steps: PositiveInt = 50
    num_early: PositiveInt = 5
    clean: Literal["paired", "generated"] = "paired"
    mean_column: bool = False
    every: Every = AT_THE_END
    onset: OnsetDetector = field(default_factory=OnsetDetector)
    words: Callable[[Tensor], list[str] | None] = lambda sample_index: None
    seed: int = 0
    intervals: Intervals = Intervals()
    progress: Progress = no_progress
    result: TrajectoryReport | None = field(default=None, init=False)
    sees_untrained: ClassVar[bool] = False
    in_evaluation = True
    keeps: ClassVar[tuple[str, ...]] = ("every",)

    def __post_init__(self) -> None:
        if not self.samples.condition:
            raise UserError("trajectories need a condition, and this denoiser has none: leave watch.trajectories out.")
        self.samples.told("null")
        if 1 not in self.guidance_scales:
            given = ",".join(f"{each:g}" for each in sorted({1.0, *self.guidance_scales}))
            lacks = "is empty" if not self.guidance_scales else "has no 1"
            raise UserError(f"guidance_scales: the list {lacks}; add 1, no guidance, to compare the others with: [{given}].")
        self.guidance_scales = sorted({*self.guidance_scales})
        if not self.samples.is_share:
            num_chosen(self.samples, self.num_captions, self.seed)  # what can't be is told before anything is trained
        again = partial(OnsetDetector, self.onset.num_consecutive, self.onset.confidence)
        self.onsets = {"members": self.onset, "repeated": again()}

    def look(self, target: Target, moment: Moment) -> Look:
        """See `passes`; the captions are shared by the processes."""
        captions = chosen_captions(self.samples, self.num_captions, self.seed)
        if len(captions) < world_size():
            raise UserError(f"num_captions: {len(captions)} captions for {world_size()} processes; take more.")
        # Of members and held-out samples alike, so that neither is favoured.
        mean = total(latent_sum(self.samples.latent)) / total(torch.tensor(len(self.samples)))
        guided = {}
        advice = f"while trajectories are followed: {lower_memory(mean.device)}."
        with explain_out_of_memory(lambda: advice):
            for scale in self.guidance_scales:
                followed = Followed.joined(gather(self._followed(target, captions, mean, scale)))
                guided[scale] = self._guided(followed, captions, mean.cpu(), scale)
            if not is_main():
                return Look()
            self.result = self._report(target, moment, captions, followed, guided)
        return self._look(moment, self.result)

    def _followed(self, target: Target, captions: FollowedCaptions, mean: Latent, scale: float) -> Followed:
        """The trajectories of this process's share of the captions, seeds of a caption side by side."""
        chosen, device = captions.samples, self.samples.latent.device
        wrong = chosen.latent[others_of(captions, self.seed)]
        rows = torch.arange(len(captions))[share_of(len(captions))].repeat_interleave(self.num_seeds)
        draw = torch.arange(self.num_seeds).repeat(len(rows) // self.num_seeds)
        parts, num_done = [], 0
        with self.progress(f"Trajectories guided at {scale:g}", len(rows)) as done:
            # Both branches are one pass.
            at_once = max(1, rows_per_pass(target.predictor, self.samples.latent) // 2)
            for batch, seed in zip(rows.split(at_once), draw.split(at_once)):
                own = chosen.latent[batch].to(device)
                start = normal("trajectory", (self.seed, captions.sample_index[batch], seed), own.shape[1:])
                told, null = (
                    {name: value.to(device) for name, value in rows_of(chosen.told(view), batch).items()}
                    for view in ("own", "null")
                )
                parts.append(
                    follow(
                        target.predictor,
                        start.to(device),
                        told,
                        null,
                        scale,
                        num_steps=self.num_steps,
                        num_early=self.num_early,
                        clean=own if self.clean == "paired" else None,
                        wrong=wrong[batch].to(device),
                        mean=mean,
                        has_mean_column=self.mean_column,
                    )
                )
                done(num_done := num_done + len(batch))
        return Followed.joined(parts)

    def _guided(self, followed: Followed, captions: FollowedCaptions, mean: Latent, scale: float) -> Guided:
        """With the nearest of all processes' members. Raises UserError where a generated latent is not finite."""
        if not followed.final.isfinite().all():
            raise UserError(
                f"trajectories guided at {scale:g} end in latents that are not finite: lower denoiser.learning_rate, or leave "
                "that scale out of guidance_scales."
            )
        mine = self.samples
        final = followed.final.to(mine.latent.device)
        nearest = nearest_of(final, mine.latent, mine.sample_index, mean, among=mine.is_member)
        cosine, index = nearest_of_shares(gather((nearest[0].cpu(), nearest[1].cpu())))
        own = captions.samples.latent.repeat_interleave(self.num_seeds, 0)
        found = {"similarity": similarity(followed.final, own, mean), "nearest": index, "nearest_similarity": cosine}
        return Guided.of(followed, self.num_seeds, captions, **found)

    def _report(
        self, target: Target, moment: Moment, captions: FollowedCaptions, followed: Followed, guided: Mapping[float, Guided]
    ) -> TrajectoryReport:
        group, last = captions.group_of(captions.sample_index), guided[self.guidance_scales[-1]]
        is_member, words = captions.samples.is_member, self.words(captions.sample_index)
        ranked = last.similarity.masked_fill(~is_member, -torch.inf).argsort(descending=True)[: int(is_member.sum())].tolist()
        num_shown = min(NUM_SHOWN, len(ranked) // 2)
        device, seeds = self.samples.latent.device, self.num_seeds

        def shown(row: int) -> Shown:
            first, index = row * seeds, captions.sample_index
            latent = torch.cat([followed.early[:, first], followed.final[first : first + seeds]])
            image = target.codec.decode(latent.to(device)).clamp(-1, 1).cpu()
            early, generated = image.tensor_split([len(followed.early)])
            return Shown(row, early, generated, self.images(index[row : row + 1]), self.images(last.nearest[row]))

        return TrajectoryReport(
            time=f"{self.unit} {self.time(moment)}",
            sample_index=captions.sample_index,
            group=tuple(CAPTION_GROUPS[each] for each in group.tolist()),
            words=None if words is None else tuple(words),
            num_members=captions.num_members,
            unit=captions.unit,
            abar=followed.abar,
            num_early=self.num_early,
            x_is=self.clean,
            guided=guided,
            most=tuple(shown(row) for row in ranked[:num_shown]),
            least=tuple(shown(row) for row in ranked[::-1][:num_shown]),
            intervals=self.intervals,
        )

    def _look(self, moment: Moment, report: TrajectoryReport) -> Look:
        """The report as curves, a line and a picture."""
        series = curves_of(report)
        for group in compared(report):
            rise = self.onsets[group].look(self.time(moment), partial(replication_rise, report, group))
            series |= rise.series(f"replication/{group}_")
        pairs = [torch.cat([each.own, each.generated[:1]]) for each in (*report.most, *report.least)]
        pictures = {"replicated": image_grid(torch.cat(pairs), columns=6)} if pairs else {}
        return Look(series, (line_of(report),), pictures, charts_of(report))

    def passes(self) -> dict[str, int]:
        """Denoiser: captions x seeds x guidance scales x steps, of both branches. Decoder: what is shown."""
        captions = num_chosen(self.samples, self.num_captions, self.seed)
        branches = 2 if self.clean == "paired" else 4
        trajectories = sum(captions) * self.num_seeds * len(self.guidance_scales)
        num_shown = 2 * min(NUM_SHOWN, sum(captions[:2]) // 2)
        num_images = min(self.num_early, self.num_steps) + self.num_seeds
        return {"denoiser": trajectories * self.num_steps * branches, "decoder": num_shown * num_images}

    def sentences(self) -> list[str]:
        """From when on generations were more like their caption's own image than held-out captions' are."""
        found = []
        for group, words in WORDS.items():
            if (rise := self.onsets[group].rise) is not None:
                onset = self.onsets[group].onset_epoch
                when = f"none (the rise over held-out captions was {rise.value:+.2f} at the last look, its lower bound "
                when = f"{self.unit} {onset}." if onset is not None else f"{when}{rise.lower:+.2f})."
                found.append(f"Onset of replication, {words}: {when}")
        return found or ["Onset of replication: there was no look."]

    def summary(self) -> dict[str, Any]:
        return {f"onset_epoch_replication_{group}": each.onset_epoch for group, each in self.onsets.items()}

    def state_dict(self) -> dict[str, Any]:
        return {group: each.state_dict() for group, each in self.onsets.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for group, each in self.onsets.items():
            each.load_state_dict(state[group])

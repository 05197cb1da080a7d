"""Quality: how near generated images come to held-out ones, and whether they are nearer to the members."""

from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ldm_privacy.device import ahead
from ldm_privacy.errors import UserError
from ldm_privacy.metrics.neighbours import nearest_two
from ldm_privacy.models.features import FeatureNetwork
from ldm_privacy.processes import gather, gather_on_main
from ldm_privacy.quality.distance import gap
from ldm_privacy.quality.measure import IMAGES_AT_ONCE, Described, described, distances
from ldm_privacy.quality.random_features import RandomFeatures
from ldm_privacy.registry import WATCHERS
from ldm_privacy.targets.target import Target
from ldm_privacy.types import Estimate, Image, Images, Intervals, Latent
from ldm_privacy.watch.generated import Generating
from ldm_privacy.watch.quality_report import QualityReport
from ldm_privacy.watch.quality_sides import FEWEST, Groups, apart, chosen_sides
from ldm_privacy.watch.watcher import Look, Moment

NUM_SHOWN = 8


@WATCHERS.register("quality")
@dataclass(eq=False)
class Quality(Generating):
    """Distances of generated images to held-out images, and to members; see `ldm_privacy.quality`.

    The reference is held-out: a copier of the members has the smallest distance to them. As many members and held-out images
    are chosen by a hash of their index, the same at every look: the gap, members less held-out, is paired over the generations,
    and below 0 where they are nearer to the members than to images of the same kind that were never seen. The row of
    reconstructions is the ceiling that the codec sets: audited held-out images through it, against held-out images of other
    groups, at half the number. Public images have no part. The untrained denoiser is not looked at: it makes noise.

    Args:
        samples, num_steps, guidance_scale, every, generated, progress: See `Generating`; held-out samples are reconstructed.
        images: Sample indices -> images.
        member_index, heldout_index: Everyone that is trained on, and the others.
        num_images: Generations; and images of each side, or as many as the smaller side has.
        feature_network: A local folder of transformers with a vision model, for KID, FID and CMMD; see `FeatureNetwork`.
        sha256: That its files must have; None: any, but the same ones throughout a run.
        groups: Sample indices -> group numbers, or None; intervals take whole groups.
        seed: Of the starting noise and the choice of images. The random features are the same ones in every run.
        intervals: Their confidence.

    Attributes:
        result: The newest look in numbers.

    Raises:
        UserError: A side has fewer than 20 images, or images of fewer than 3 groups; guidance without a condition; the feature
            network is not there, of another kind, or has another hash.
    """

    images: Images
    member_index: Tensor
    heldout_index: Tensor
    _: KW_ONLY
    num_images: Annotated[int, Field(ge=FEWEST)] = 1000
    feature_network: str | None = None
    sha256: str | None = None
    groups: Groups = lambda sample_index: None
    intervals: Intervals = Intervals()
    result: QualityReport | None = field(default=None, init=False)
    sees_untrained: ClassVar[bool] = False
    in_evaluation = True

    def __post_init__(self) -> None:
        super().__post_init__()
        sides = {"members": self.member_index, "held-out images": self.heldout_index}
        self._members, self._heldout = chosen_sides(sides, self.num_images, groups=self.groups, seed=self.seed)
        if self.sha256 is not None and self.feature_network is None:
            raise UserError("sha256: it is that of a feature network, and none is given; add feature_network.")
        self._network: FeatureNetwork | None = None
        if self.feature_network is not None:
            try:
                size = self.images(self.heldout_index[:1]).shape[-1]
                self._network = FeatureNetwork.open(self.feature_network, sha256=self.sha256, resolution=size)
            except UserError as error:
                raise UserError(str(error).replace("path: ", "feature_network: ", 1)) from error
        self._random = RandomFeatures()
        self._sides: tuple[Described, Described] | None = None
        self._is_first = True
        self._unmeasured: tuple[Tensor, Latent, Tensor] | None = None
        self._reconstructions: tuple[int, dict[str, Estimate]] | None = None

    def look(self, target: Target, moment: Moment) -> Look:
        """See `passes`; reconstructions and the features of the two sides at the first look alone."""
        self._unmeasured = self._to_reconstruct() if self._is_first else None
        self._is_first = False  # in every process: the others have no row to tell it by, and would wait for the main one
        return super().look(target, moment)

    def look_at(self, generated: Image, target: Target, moment: Moment) -> Look:
        """Distances to the two sides."""
        if not generated.isfinite().all():
            raise UserError("quality: a generated image is not finite: lower the learning rate, or generate in float32.")
        with self.progress("Quality", 0):
            if self._unmeasured is not None:
                self._reconstructions = self._reconstruction_row(target, *self._unmeasured)
            self.result = self._report(generated, f"{self.unit} {self.time(moment)}")
        report = self.result
        values = {side: report.estimates[f"{report.primary}_{side}"] for side in ("heldout", "gap")}
        line = (
            f"{report.time}: quality {report.primary} {values['heldout']} to held-out images, to members "
            f"{values['gap'].value:+.3f} [{values['gap'].lower:+.3f}, {values['gap'].upper:+.3f}]"
        )
        charts = {f"quality/{report.primary}": f"quality/{report.primary}_heldout"}
        return Look(report.series(), (line,), charts=charts)

    def _report(self, generated: Image, time: str) -> QualityReport:
        heldout, members = self._of_sides()
        found = self._described(self._here(generated))
        group = [self.groups(index) for index in (self._heldout, self._members)]
        to_heldout = distances(found, heldout, group=group[0])
        to_members = distances(found, members, group=group[1])
        confidence = self.intervals.confidence
        assert self._reconstructions is not None
        num_reconstructed, reconstructions = self._reconstructions
        estimates = {}
        for name, distance in to_heldout.items():
            estimates[f"{name}_heldout"] = distance.estimate(confidence)
            estimates[f"{name}_members"] = to_members[name].estimate(confidence)
            estimates[f"{name}_gap"] = gap(to_members[name], distance, confidence)
            if name in reconstructions:
                estimates[f"{name}_reconstructions"] = reconstructions[name]
        features = {name: self._random.name if name == "kid_random" else "patches of 7 x 7 pixels" for name in to_heldout}
        if (network := self._network) is not None:
            words = f"{network.name}, {network.path}, sha256 {network.sha256}"
            features |= dict.fromkeys((name for name in ("kid", "fid", "cmmd") if name in features), words)
        shown = generated[:NUM_SHOWN].clone()  # not a view: that would hold all of them
        nearest = [
            self.images(nearest_two(shown, self.images, each).sample_index[:, 0]) for each in (self._heldout, self._members)
        ]
        guided = "" if self.guidance_scale is None else f", guided at {self.guidance_scale:g}"
        return QualityReport(
            time,
            estimates,
            num_generated=len(generated),
            num_reference=len(self._heldout),
            num_reconstructed=num_reconstructed,
            how=f"by {self.num_steps} DDIM steps{guided}",
            features=features,
            generated=shown,
            heldout=nearest[0],
            members=nearest[1],
        )

    def _of_sides(self) -> tuple[Described, Described]:
        """Held-out images and members, described once."""
        if self._sides is None:
            heldout, members = (self._described(self._stored(index)) for index in (self._heldout, self._members))
            self._sides = heldout, members
        return self._sides

    def _here(self, rows: Tensor) -> Iterator[Tensor]:
        """A few rows a time on the network's device."""
        return (each.to(self.samples.latent.device) for each in rows.split(IMAGES_AT_ONCE))

    def _stored(self, index: Tensor) -> Iterator[Image]:
        return (each.to(self.samples.latent.device) for each in ahead(self.images, index.split(IMAGES_AT_ONCE)))

    def _described(self, images: Iterator[Image]) -> Described:
        if self._network is None:
            return described(images, self._random)
        try:
            return described(images, self._random, self._network.to(self.samples.latent.device))
        finally:
            self._network.to("cpu")

    def _to_reconstruct(self) -> tuple[Tensor, Latent, Tensor]:
        """Sample indices and latents of audited held-out images, and indices of others, all of them in the main process."""
        index = self.samples.sample_index.cpu()
        chosen, others = self._apart(torch.cat(gather(index[~self.samples.is_member.cpu()])))
        rows = torch.isin(index, chosen).nonzero().flatten()
        shards = zip(*gather_on_main((index[rows], self.samples.latent[rows.to(self.samples.latent.device)].cpu())))
        mine, latent = (torch.cat(each) for each in shards)
        return mine, latent, others

    def _reconstruction_row(
        self, target: Target, mine: Tensor, latent: Latent, others: Tensor
    ) -> tuple[int, dict[str, Estimate]]:
        """How many, and their distances to other held-out images; none where there are too few."""
        if not len(mine):
            return 0, {}
        decoded = (target.codec.decode(each).clamp(-1, 1) for each in self._here(latent))
        sides = self._described(decoded), self._described(self._stored(others))
        found = distances(*sides, group=self.groups(others), generated_group=self.groups(mine))
        return len(mine), {name: each.estimate(self.intervals.confidence) for name, each in found.items()}

    def _apart(self, audited: Tensor) -> tuple[Tensor, Tensor]:
        return apart(audited, self.heldout_index, len(self._heldout) // 2, groups=self.groups, seed=self.seed)

    def first_passes(self) -> dict[str, int]:
        """The reconstructions."""
        mine, _ = self._apart(self.samples.sample_index[~self.samples.is_member].cpu())
        return {"decoder": len(mine)}

    def sentences(self) -> list[str]:
        """How good the newest generations are."""
        if (report := self.result) is None:
            return []
        distance, of = report.primary, report.estimates
        ceiling = of.get(f"{distance}_reconstructions")
        beside = "" if ceiling is None else f" (reconstructions: {ceiling})"
        return [f"Quality of generations: {distance} {of[f'{distance}_heldout']} to held-out images{beside}."]

    def state_dict(self) -> dict[str, Any]:
        return {"sha256": None if self._network is None else self._network.sha256}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        known, here = state["sha256"], self.state_dict()["sha256"]
        if None not in (known, here) and known != here:
            raise UserError(
                f"watch.quality.feature_network: '{self.feature_network}' has sha256 {here}, and this run began with {known}: "
                "put the old files back, or begin a new run."
            )

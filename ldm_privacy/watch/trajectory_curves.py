"""A look at trajectories as curves, charts and a line, and the rise that its onset is counted by."""

from ldm_privacy.metrics import mean_difference
from ldm_privacy.trajectories.record import TrajectoryReport
from ldm_privacy.types import Estimate

WORDS = {"repeated": "captions drawn several times", "members": "captions of other members"}


def curves_of(report: TrajectoryReport) -> dict[str, float]:
    """`trajectory/g<scale>/<curve>/<group>`: means over the captions of a group; and similarity at the largest scale.

    `replication/<group>` and `replication/<group>_heldout` are the latter, beside that of the held-out captions.
    """
    series = {
        f"trajectory/g{scale:g}/{name}/{group}": value
        for group, by_scale in report.means.items()
        for scale, means in by_scale.items()
        for name, value in means.items()
    }
    for group in compared(report):
        similarity = f"trajectory/g{report.top:g}/similarity"
        series[f"replication/{group}"] = series[f"{similarity}/{group}"]
        series[f"replication/{group}_heldout"] = series[f"{similarity}/heldout"]
    return series


def charts_of(report: TrajectoryReport) -> dict[str, str]:
    """The few curves that a person watches, at the largest guidance scale."""
    names = [f"{name}/{group}" for name in ("d1", "replicated") for group in report.present]
    return {name: f"trajectory/g{report.top:g}/{name}" for name in names}


def line_of(report: TrajectoryReport) -> str:
    """A look in words."""
    last = {group: by_scale[report.top] for group, by_scale in report.means.items()}
    told = [
        f"{last[group]['replicated']:.0%} for {WORDS[group]}, similarity {last[group]['similarity']:.2f}"
        for group in compared(report)
    ]
    heldout = f"held-out captions' similarity to theirs {last['heldout']['similarity']:.2f}" if "heldout" in last else ""
    return (
        f"{report.time}: guided at {report.top:g}, the nearest audited member is an image of that caption in {'; '.join(told)} "
        f"({heldout}{'; ' * bool(report.shared)}{report.shared})"
    )


def replication_rise(report: TrajectoryReport, group: str, confidence: float) -> Estimate:
    """Mean similarity of a group's captions above the held-out captions', at the largest guidance scale; one-sided.

    Where the denoiser knows nothing of membership, a caption's generations are as much like its image whether it is a member's
    or held out: unlike attacks, this needs no comparison with the untrained denoiser.
    """
    rows, is_member, unit = report.against_heldout(group)
    similarity = report.guided[report.top].similarity[rows]
    return mean_difference(similarity, is_member, confidence=confidence, group=unit, is_one_sided=True)


def compared(report: TrajectoryReport) -> list[str]:
    """Those of members, where there are held-out captions to compare them with."""
    return [each for each in WORDS if {each, "heldout"} <= {*report.group}]

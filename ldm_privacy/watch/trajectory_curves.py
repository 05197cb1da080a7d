"""A look at trajectories as curves, charts and a line, and the rise that its onset is counted by."""

from ldm_privacy.metrics import mean_difference
from ldm_privacy.trajectories.captions import GROUPS
from ldm_privacy.trajectories.record import TrajectoryReport
from ldm_privacy.types import Estimate

CURVES = {
    **{name: name for name in ("d1", "d2", "error", "gap", "gap_mean", "similarity", "replicated")},
    "k": "gain",
}
"""Name of a curve -> attribute of `Guided`."""
WORDS = {"repeated": "captions drawn several times", "members": "captions of other members"}


def curves_of(report: TrajectoryReport) -> dict[str, float]:
    """`trajectory/g<scale>/<curve>/<group>`: means over the captions of a group; and similarity at the largest scale.

    `replication/<group>` and `replication/<group>_heldout` are the latter, beside that of the held-out captions.
    """
    series: dict[str, float] = {}
    for scale, guided in report.guided.items():
        for name, attribute in CURVES.items():
            for group in present(report):
                value = getattr(guided, attribute)[report.of_group(group)]
                series[f"trajectory/g{scale:g}/{name}/{group}"] = float(value.mean())
    for group in compared(report):
        similarity = f"trajectory/g{report.top:g}/similarity"
        series[f"replication/{group}"] = series[f"{similarity}/{group}"]
        series[f"replication/{group}_heldout"] = series[f"{similarity}/heldout"]
    return series


def charts_of(report: TrajectoryReport) -> dict[str, str]:
    """The few curves that a person watches, at the largest guidance scale."""
    names = [f"{name}/{group}" for name in ("d1", "replicated") for group in present(report)]
    return {name: f"trajectory/g{report.top:g}/{name}" for name in names}


def line_of(report: TrajectoryReport) -> str:
    """A look in words."""
    last = report.guided[report.top]
    told = []
    for group in compared(report):
        rows = report.of_group(group)
        share, similarity = float(last.replicated[rows].mean()), float(last.similarity[rows].mean())
        told.append(f"{100 * share:.0f} % for {WORDS[group]}, similarity {similarity:.2f}")
    heldout = float(last.similarity[report.of_group("heldout")].mean())
    return (
        f"{report.time}: guided at {report.top:g}, the nearest member is the caption's own image in {'; '.join(told)} "
        f"(held-out captions' similarity to theirs {heldout:.2f})"
    )


def replication_rise(report: TrajectoryReport, group: str, confidence: float) -> Estimate:
    """Mean similarity of a group's captions above the held-out captions', at the largest guidance scale; one-sided.

    Where the denoiser knows nothing of membership, a caption's generations are as much like its image whether it is a member's
    or held out: unlike attacks, this needs no comparison with the untrained denoiser.
    """
    rows, similarity = report.of_group(group, "heldout"), report.guided[report.top].similarity
    unit = None if report.unit is None else report.unit[rows]
    is_member = report.of_group(group)[rows]
    return mean_difference(similarity[rows], is_member, confidence=confidence, group=unit, is_one_sided=True)


def present(report: TrajectoryReport) -> list[str]:
    """The groups that have captions."""
    return [each for each in GROUPS if each in report.group]


def compared(report: TrajectoryReport) -> list[str]:
    """Those of members, where there are held-out captions to compare them with."""
    return [each for each in WORDS if {each, "heldout"} <= {*report.group}]

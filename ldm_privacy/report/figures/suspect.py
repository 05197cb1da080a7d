"""Picture of a suspect set: its scores beside others, and how large a set is told apart."""

import numpy as np
from matplotlib.figure import Figure

from ldm_privacy.evidence.suspect import SuspectVerdict
from ldm_privacy.pictures import HELDOUT_COLOUR, MEMBER_COLOUR, PALETTE
from ldm_privacy.randomness import derive_seed
from ldm_privacy.report.figures.base import legend_below

PARTS = {
    "suspects": (PALETTE[6], "suspects"),
    "heldout": (HELDOUT_COLOUR, "held-out"),
    "members": (MEMBER_COLOUR, "members"),
    "generations": (PALETTE[3], "generations"),
}


def suspect_figure(verdict: SuspectVerdict) -> Figure:
    """Left: the score of each image, a row for each part with its median; right: shares of sets told apart, by size."""
    figure = Figure(figsize=(8.4, 3.8), layout="constrained")
    axis, shares = figure.subplots(1, 2)
    generator = np.random.default_rng(derive_seed("jitter"))
    for place, (name, (colour, _)) in enumerate(PARTS.items()):
        score = verdict.scores[name].numpy()
        height = -place + generator.uniform(-0.3, 0.3, len(score))
        axis.scatter(score, height, s=6, color=colour, alpha=0.5, linewidths=0)
        axis.vlines(np.median(score), -place - 0.4, -place + 0.4, color=colour, linewidth=2.5)
    axis.set_yticks([-place for place in range(len(PARTS))], [label for _, label in PARTS.values()])
    every = np.concatenate([score.numpy() for score in verdict.scores.values()])
    axis.set(xlabel="score, higher = member (bar: median)", title="scores")
    axis.set_xlim(left=np.quantile(every, 0.002))
    for points, name, label in ((verdict.by_size, "suspects", "suspects"), (verdict.power, "members", "members")):
        style = {"color": PARTS[name][0], "marker": ".", "label": f"sets of {label}"}
        shares.plot([point.size for point in points], [point.power for point in points], **style)
    alarms = verdict.false_alarms
    shares.plot([*alarms], [*alarms.values()], color=HELDOUT_COLOUR, ls="--", marker=".", label="sets of held-out")
    shares.axhline(verdict.level, color="0.5", linewidth=0.8, linestyle=":")
    shares.set(xlabel="images in the set", ylabel=f"share with p < {verdict.level:.2g}", ylim=(-0.02, 1.02))
    shares.set(title="sets that are told apart", xscale="log")
    shares.set_xscale("log", base=2)
    shares.xaxis.set_major_formatter("{x:.0f}")
    legend_below(shares, columns=2)
    figure.suptitle(f"{verdict.choice}")
    return figure

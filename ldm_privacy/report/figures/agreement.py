"""Picture of who is found by which attack: a bar for each set of members that the same attacks find."""

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ldm_privacy.evidence.agreement import AttackAgreement
from ldm_privacy.pictures import PALETTE

MAX_BARS = 12
ALONE, TOGETHER = PALETTE[1], PALETTE[0]


def agreement_figure(agreement: AttackAgreement) -> Figure:
    """Above, how many members are found by exactly the attacks that have a dot below; at the left, how many by each.

    At most `MAX_BARS` bars, the largest. Hatched: those that rest on one attack, be it in several calibrated forms. (After
    Lex et al., UpSet, 2014.)
    """
    keys, shown = agreement.keys, agreement.intersections()[:MAX_BARS]
    figure = Figure(figsize=(3.4 + 0.45 * max(6, len(shown)), 2.9 + 0.28 * len(keys)), layout="constrained")
    ratios = {"width_ratios": (1.4, 0.32 * max(6, len(shown))), "height_ratios": (2.0, 0.28 * len(keys))}
    (corner, bars), (sizes, dots) = figure.subplots(2, 2, gridspec_kw=ratios, sharex="col", sharey="row")
    corner.remove()
    figure.suptitle(f"Members found at a false-positive rate of {100 * agreement.target_fpr:.2g}%, by attack")
    alone = [len({agreement.families[place] for place in places}) == 1 for places, _ in shown]
    drawn = bars.bar(
        range(len(shown)),
        [count for _, count in shown],
        0.7,
        color=[ALONE if each else TOGETHER for each in alone],
        hatch=["///" if each else "" for each in alone],
        edgecolor="white",
        linewidth=0,
    )
    bars.bar_label(drawn, fontsize="small", padding=1)
    bars.margins(y=0.12)
    bars.tick_params(labelleft=True)
    bars.set(ylabel="members", xticks=[], xlim=(-0.6, max(6, len(shown)) - 0.4))
    for column, (places, _) in enumerate(shown):
        dots.plot([column] * len(keys), range(len(keys)), "o", color="0.87", markersize=5)
        dots.plot([column] * len(places), places, "o-", color="0.15", markersize=6, linewidth=1.2)
    dots.set(ylim=(len(keys) - 0.5, -0.5), xticks=[])
    dots.tick_params(left=False, labelleft=False)
    found = [int((row & agreement.is_member).sum()) for row in agreement.is_found]
    sizes.barh(range(len(keys)), found, 0.6, color="0.6")
    for place, count in enumerate(found):
        options = {"textcoords": "offset points", "ha": "right", "va": "center", "fontsize": "small"}
        sizes.annotate(str(count), (count, place), (-3, 0), **options)
    sizes.set(xlabel="found in all", xlim=(1.4 * max([1, *found]), 0))
    sizes.set_yticks(range(len(keys)), [str(key) for key in keys])
    sizes.tick_params(left=False)
    for axis in (bars, dots, sizes):
        for side in ("top", "right", "left" if axis is not bars else "top", "bottom" if axis is dots else "top"):
            axis.spines[side].set_visible(False)
    kinds = (("rests on one attack", ALONE, "///"), ("found by several", TOGETHER, ""))
    handles = [Patch(facecolor=colour, hatch=hatch, edgecolor="white", label=name) for name, colour, hatch in kinds]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize="small")
    return figure

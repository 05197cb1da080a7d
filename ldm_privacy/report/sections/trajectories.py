"""Section: which captions give their image back, and what guidance has to do with it."""

from collections.abc import Iterable, Sequence

from ldm_privacy.registry import SECTIONS
from ldm_privacy.report.evaluation import Evaluation
from ldm_privacy.report.page.blocks import Block, DataTable, Paragraph, Section
from ldm_privacy.report.tables import short
from ldm_privacy.trajectories.captions_file import caption_rows
from ldm_privacy.trajectories.claims import Claim
from ldm_privacy.trajectories.figures import NAMES, ONE
from ldm_privacy.trajectories.record import TrajectoryReport

MOST_LISTED = 20
FIGURES = {
    "trajectory_weights": "The states of guided trajectories taken apart into the training latent (above) and the starting "
    "noise (below). Above the dashed line the training image comes too early, below it randomness is lost early. The ideal "
    "memoriser's clean prediction is the training image whatever the state, times the guidance scale.",
    "trajectory_replication": "Each point is a caption. D1 over all steps ends in the generated image itself, so it goes with "
    "similarity by what it is; the first fifth of the steps, and another member's latent, say how much is left of that.",
    "trajectory_images": "Of captions memorized most and least: the own training image, what the first steps predict of the "
    "clean image, what comes out, and the audited members nearest to that; at the right the similarity to the own image.",
}
QUANTITIES = {
    "error": "error of the clean prediction, first steps",
    "d1": "D1",
    "d2": "D2",
    "gain": "k, overestimation",
    "gap": "branch gap, first step",
    "gap_mean": "branch gap, mean over steps",
    "d1_early": "D1, first fifth of the steps",
    "d2_early": "D2, first fifth of the steps",
    "d1_wrong": "D1, another member's latent",
    "d2_wrong": "D2, another member's latent",
}


@SECTIONS.register("trajectories")
def trajectories(evaluation: Evaluation) -> Section | None:
    """Replication by group, the pictures, the claims with their intervals, the captions; None where none were followed."""
    report = evaluation.result(TrajectoryReport)
    if report is None:
        return None
    claims = report.claims
    first, second, third = FIGURES.items()
    blocks: list[Block] = [
        _groups(report),
        *evaluation.pictures(dict([third])),
        *evaluation.pictures(dict([first])),
        *([Paragraph(_said(report, claims))] if claims else []),
        *evaluation.pictures(dict([second])),
        *([_table(report, claims)] if claims else []),
        _captions(report),
        Paragraph(_how(report)),
    ]
    return Section("Which captions give their image back", _lead(report), blocks, place=30)


def _lead(report: TrajectoryReport) -> str:
    scale, guided = report.top, report.guided[report.top]
    parts = []
    for group, name in NAMES.items():
        if (rows := report.of_group(group)).any() and group != "heldout":
            often, similarity = int((guided.replicated[rows] > 0.5).sum()), report.means[group][scale]["similarity"]
            parts.append(f"{often} of {int(rows.sum())} captions of {name} (similarity {similarity:.2f})")
    heldout = report.means.get("heldout")
    beside = f", held-out captions' generations are {heldout[scale]['similarity']:.2f} like theirs" if heldout else ""
    return (
        f"Guided at {scale:g}, the audited member that is nearest to most of a caption's generations is an image of that "
        f"caption for {' and '.join(parts)}{beside}.{f' But {report.shared}.' if report.shared else ''}"
    )


def _groups(report: TrajectoryReport) -> DataTable:
    """Means of each group at each scale."""
    num_steps, rows = len(report.abar) - 1, []
    for scale in report.guided:
        for group, name in NAMES.items():
            if group in report.means:
                means, count = report.means[group][scale], int(report.of_group(group).sum())
                numbers = [f"{means[each]:.3g}" for each in ("k", "error", "gap", "gap_mean")]
                near = f"{means['similarity']:.2f}", f"{means['nearest']:.2f}"
                shares = f"{means['replicated']:.0%}", f"{means['other_duplicate']:.0%}"
                deviations = _deviations(means["d1"], means["d2"], num_steps)
                rows.append((f"guidance {scale:g}", f"{name} ({count})", *deviations, *numbers, *near, *shares))
        ideal = report.ideal(scale)
        memoriser = *_deviations(float(ideal.d1), float(ideal.d2), num_steps), f"{scale:.3g}"
        rows.append((f"guidance {scale:g}", "ideal memoriser", *memoriser, *[""] * 7))
    measured = ("D1", "a step", "D2", "a step", "k", "error", "branch gap", "mean branch gap")
    columns = ("guidance", "captions of", *measured, "similarity", "nearest", "own nearest", "other duplicate")
    caption = "Means over captions and seeds. k and error: clean predictions of the first steps; gap: the branches' there."
    note = (
        f"D1 and D2 are sums over {num_steps} steps; D2 above 0 is made by guidance, D1 above 0 needs more guidance than 1: "
        "they tell something only beside the held-out captions. Similarity: to the caption's own image; nearest: to the "
        "nearest audited member, whoever it is. Own nearest: share of generations whose nearest audited member is an image of "
        "that caption; other duplicate: is a planted duplicate of another one."
    )
    shared = f" {report.shared[0].upper()}{report.shared[1:]}." if report.shared else ""
    return DataTable(columns, rows, caption, num_texts=2, note=note + shared, is_open=True)


def _deviations(d1: float, d2: float, num_steps: int) -> tuple[str, str, str, str]:
    return f"{d1:+.2f}", f"{d1 / num_steps:+.3f}", f"{d2:+.2f}", f"{d2 / num_steps:+.3f}"


def _table(report: TrajectoryReport, claims: Sequence[Claim]) -> DataTable:
    kinds = {
        "error": "(i) difference of the means",
        "separation": "(ii) AUROC",
        "correlation": "(iii) Pearson's r with similarity",
    }
    ordered = sorted(claims, key=lambda each: list(kinds).index(each.kind))
    rows = [(kinds[each.kind], QUANTITIES[each.quantity], f"{each.guidance_scale:g}", str(each.estimate)) for each in ordered]
    who = NAMES[report.memorized]
    caption = f"The paper's claims as numbers: {who} against held-out captions in (i) and (ii), all captions in (iii)."
    note = (
        "Intervals hold one by one, over captions; those with the same words or of one patient are resampled together. "
        "They leave out the randomness of training."
    )
    return DataTable(("claim", "of", "guidance", "value"), rows, caption, num_texts=2, note=note)


def _said(report: TrajectoryReport, claims: Iterable[Claim]) -> str:
    """Whether each claim holds here, in plain words."""
    found = {(each.kind, each.quantity, each.guidance_scale): each.estimate for each in claims}
    top, who = report.top, NAMES[report.memorized]
    sentences = []
    for scale, direction, sign in ((top, "further from", 1), (1.0, "nearer to", -1)):
        if (error := found.get(("error", "error", scale))) is not None and (scale > 1 or sign < 0):
            holds = error.leaves_out(0) and sign * error.value > 0
            sentences.append(
                f"At guidance {scale:g} the first clean predictions are {'' if holds else 'not surely '}{direction} the "
                f"training image for {who} than for held-out captions ({short(error)})."
            )
    names = {"d1": "D1", "d2": "D2", "gain": "k", "gap": "the branch gap"}
    areas = [f"{word} {short(area)}" for name, word in names.items() if (area := found.get(("separation", name, top)))]
    if areas:
        sentences.append(f"AUROC of {who} against held-out captions at {top:g}: {', '.join(areas)}.")
    if (whole := found.get(("correlation", "d1", top))) is not None:
        others = [
            ("d1_early", "in the first fifth of the steps"),
            ("d1_wrong", "with another member's latent"),
            ("d2", "of D2"),
        ]
        rest = [f"{short(value)} {words}" for name, words in others if (value := found.get(("correlation", name, top)))]
        sentences.append(f"D1 correlates with similarity by {short(whole)}; it is {', '.join(rest)}.")
    return f"What the paper claims of memorized captions: {' '.join(sentences)}"


def _captions(report: TrajectoryReport) -> DataTable:
    listed = caption_rows(report)
    rows = [
        (
            each["caption"] or f"sample {each['sample_index']}",
            ONE[each["group"]],
            *(f"{each[name]:.3g}" for name in ("d1", "k", "gap", "similarity")),
            f"{each['replicated']:.0%}",
            f"{each['other_duplicate']:.0%}",
            str(each["nearest_member"]),
        )
        for each in listed[:MOST_LISTED]
    ]
    columns = ("caption", "group", "D1", "k", "branch gap", "similarity", "own nearest", "other duplicate", "nearest member")
    rest = f"; the {MOST_LISTED} first of {len(listed)}, all are in captions.csv" if len(listed) > MOST_LISTED else ""
    return DataTable(columns, rows, f"Captions by the similarity of their generations to their own image{rest}.", num_texts=2)


def _how(report: TrajectoryReport) -> str:
    guided = report.guided[report.top]
    x = "the latent of the caption's own image" if report.x_is == "paired" else "the latent that the trajectory ends in"
    columns = "training latent and starting noise" + ("" if guided.mean is None else ", with the mean latent beside them")
    every = report.guided.values()
    unexplained, least = (1 - guided.r_squared.mean()).item(), min(float(each.r_squared.min()) for each in every)
    cosine = max(float(each.cosine.abs().max()) for each in every)
    condition = max(float(each.condition_number.max()) for each in every)
    return (
        f"{report.time.capitalize()}, {len(report.group)} captions, no two of a group with the same words, "
        f"{guided.nearest.shape[1]} seeds each, {len(report.abar) - 1} DDIM steps without clipping. Each state is fitted by "
        f"least squares on {columns}; x is {x}. At {report.top:g} the fit leaves {unexplained:.0%} of the states unexplained; "
        f"over all scales R² is at least {least:.2f}, the cosine of x and noise at most {cosine:.2f} in size, and the "
        f"condition number of the columns at most {condition:.3g}. Similarity is the cosine of latents less their mean; "
        "nearest is among the audited members. Source: Kim, Kim, Lee 2025, arXiv 2509.25705."
    )

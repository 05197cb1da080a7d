"""A frontier as a page and in the terminal."""

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from ldm_privacy import __version__
from ldm_privacy.evidence.frontier import Frontier
from ldm_privacy.evidence.frontier_words import headline, sentence
from ldm_privacy.evidence.over_seeds import OverSeeds
from ldm_privacy.evidence.trainings import Training
from ldm_privacy.evidence.verdict import Verdict
from ldm_privacy.report.figures.base import picture
from ldm_privacy.report.figures.frontier import NARROW, frontier_figure
from ldm_privacy.report.page.blocks import Answer, Bullets, Code, DataTable, Head, KeyValues, Paragraph, Section
from ldm_privacy.report.page.page import Page
from ldm_privacy.report.tables import digits, plain_table, short
from ldm_privacy.types import Estimate

HOW = (
    "Attack. At each audit the strongest attack is chosen anew for each training: among all attacks, masks, timesteps and "
    "calibrations each half of the samples chooses by its AUROC there, the other half reports. A defence isn't let off "
    "for being good against one attack.",
    "Equal quality. A training is a line from audit to audit. Two of them are compared at the best quality that both surely "
    "reach (the worse of their least upper bounds), each where it first is as good: at an audit, or between that and the one "
    "before, linearly. So a setting that merely learns less is compared with a baseline that was stopped earlier.",
    "Intervals. Within a seed all settings have the same samples, and differences are paired by sample: the samples are "
    "resampled and the whole reading is repeated, with the attacks that were chosen (AUROC errors are widened by what the "
    "choice adds). A quality has no numbers by sample: it is drawn from a normal law as wide as its interval. Means over seeds "
    "have two intervals, over the samples alone and Student's over the trainings; the wider is shown, and a difference is "
    "claimed only where both leave 0 out. Student's reaches 12.7 standard errors for two seeds, 4.3 for three, 2.8 for five. "
    "Each sentence is for itself: of twenty settings that change nothing one would be claimed.",
    "Dominated. Another setting has a lower AUROC and a better quality at the last audit, in every seed and on average for "
    "certain, by the larger of both p-values over the samples, Holm over all ordered pairs. It is a statement on these "
    "trainings; the randomness of training is not in it.",
)

ALONE = "Each sentence is for itself: of twenty settings that change nothing one would be claimed to."
GAINED = "Take a setting that lowers the AUROC only where its quality still does; the picture shows what each costs."
WAIT = "Train more seeds, or let the sweep go on: a claim needs several seeds of a setting and of the baseline."
NOTHING = "Keep the baseline: at equal quality none of these settings is shown to tell less of its training images."


def frontier_page(name: str, frontier: Frontier, *, made_by: str = "") -> Page:
    """The page of a frontier; `made_by`: the command that makes it again."""
    ended = sum(len(frontier.ended(label)) for label in frontier.trainings)
    left = sum(map(len, frontier.trainings.values())) - ended
    going = f"{left} {'is' if left == 1 else 'are'}"
    figure = picture(frontier_figure(frontier), _caption(frontier), narrow=frontier_figure(frontier, width=NARROW))
    facts = {
        "baseline": frontier.baseline,
        "quality": f"{frontier.quality}: distance of generated images to held-out ones, lower is better",
        "intervals": f"{frontier.intervals.confidence:.0%}, {frontier.intervals.num_bootstrap} resamples",
    }
    said = [sentence(frontier, label) for label in frontier.cells if frontier.ended(label)]
    waiting = [label for label in frontier.cells if not frontier.ended(label)]
    said += [f"No training has ended yet: {', '.join(waiting)}."] if waiting else []
    common = set.intersection(*({*cell.overrides} for cell in frontier.cells.values()))
    apart = {label: [each for each in cell.overrides if each not in common] for label, cell in frontier.cells.items()}
    overrides = [[label, " ".join(each) or "nothing"] for label, each in apart.items()]
    sections = {
        "figure": Section("AUROC against quality", "", (figure,)),
        "settings": Section("Each setting against the baseline", "", (Bullets(said),)),
        "numbers": Section("Numbers", "", (_table(frontier), _trainings(frontier))),
        **({"missing": Section("What is not in it", "", (Bullets(frontier.left_out),))} if frontier.left_out else {}),
        "made": Section(
            "How it was made",
            "",
            (
                *map(Paragraph, HOW),
                KeyValues(facts.items()),
                DataTable(["setting", "overrides"], overrides, "What sets each setting apart.", num_texts=2, is_open=True),
                *([Code(made_by, "Made by")] if made_by else []),
            ),
        ),
    }
    return Page(
        f"What privacy costs: {name}",
        f"{frontier.intervals.confidence:.0%} intervals",
        _head(
            frontier,
            f"{len(frontier.cells)} settings, {ended} trainings have ended, {going} under way.",
        ),
        sections,
        f"ldm_privacy {__version__}",
    )


def _head(frontier: Frontier, counted: str) -> Head:
    """The five answers."""
    asked = (
        "Whether a setting makes a model tell less of its training images, or only makes it learn less: the strongest attack "
        f"against each training, compared with {frontier.baseline} (the baseline) at equal quality of the generated images."
    )
    most = max((len(frontier.ended(label)) for label in frontier.cells), default=0)
    few = [] if most > 1 else ["No setting has more than one training yet: another seed may turn any difference round."]
    missing = [f"Not everything is in it ({len(frontier.left_out)} notes)."] if frontier.left_out else []
    lower = [label for label, each in frontier.compared.items() if each.auroc.is_certain and each.auroc.mean.value < 0]
    return Head(
        Answer((asked,), ("made",)),
        Answer((counted, f"Quality: {frontier.quality}, the distance of generated images to held-out ones; lower is better.")),
        Verdict(headline(frontier), "unclear", "Privacy at equal quality"),
        Answer((*few, ALONE, *missing), ("made", "missing")),
        Answer((GAINED if lower else WAIT if missing or few else NOTHING,), ("settings", "numbers")),
    )


def print_frontier(frontier: Frontier, console: Console) -> None:
    """A row per setting, the headline, a sentence for each."""
    table = plain_table(f"AUROC of the strongest attack; quality: {frontier.quality}, lower is better")
    for place, column in enumerate(("setting", "seeds", "AUROC", "quality", "at equal quality")):
        table.add_column(column, no_wrap=place > 0, overflow="fold")
    for label in frontier.trainings:
        row = _row(frontier, label)
        table.add_row(*map(escape, (*row[:3], *row[5:7])))
    console.print(table)
    lines = [*headline(frontier), *(sentence(frontier, label) for label in frontier.cells)]
    for line in (*lines, *(f"Not in it: {each}." for each in frontier.left_out)):
        console.print(line, highlight=False, markup=False)


def _table(frontier: Frontier) -> DataTable:
    columns = ["setting", "seeds", "AUROC", "quality", "at equal quality", "dominated by"]
    columns += ["AUROC's sd, range", "TPR@1%FPR", "best quality", "strongest attack"]
    rows = []
    for label in frontier.trainings:
        name, count, area, tpr, attack, quality, gap, best, by = _row(frontier, label)
        rows.append([name, count, area, quality, gap, by, _spread(frontier.auroc.get(label)), tpr, best, attack])
    note = (
        "Means over the seeds at the last audit of trainings that have ended, with the wider of the intervals over samples and "
        f"over trainings. Quality: {frontier.quality}. At equal quality: AUROC minus the baseline's. Best quality: minus the "
        "baseline's. Strongest attack: chosen by most halves."
    )
    return DataTable(columns, rows, "Settings.", note=note, is_open=True)


def _row(frontier: Frontier, label: str) -> list[str]:
    """setting, seeds, AUROC, TPR, attack, quality, at equal quality, best quality's difference, dominated by."""
    ended, compared = frontier.ended(label), frontier.compared.get(label)
    begun = len(frontier.trainings[label])
    count = str(begun) if len(ended) == begun else f"{len(ended)} of {begun}"
    by = ", ".join(frontier.dominated.get(label, ()))
    if not ended:
        return [label, count, *[""] * 6, by]
    tpr = sum(each.points[-1].attack.tpr.value for each in ended.values()) / len(ended)
    gap = "baseline" if label == frontier.baseline else "" if compared is None else short(compared.auroc.mean, "+")
    best = "" if compared is None else _plain(compared.best.mean, "+")
    area, quality = frontier.auroc[label].mean, frontier.final_quality[label].mean
    return [label, count, short(area), digits(tpr), _most_chosen(list(ended.values())), _plain(quality), gap, best, by]


def _trainings(frontier: Frontier) -> DataTable:
    columns = ["setting", "seed", "epoch", "AUROC", "TPR@1%FPR", "quality", "at equal quality", "chosen by the halves"]
    rows = []
    for label, trainings in frontier.trainings.items():
        for seed, training in trainings.items():
            compared, last = frontier.compared.get(label), training.points[-1]
            gap = None if compared is None else compared.auroc.by_seed.get(seed)
            state = "" if training.has_ended else ", goes on"
            rows.append(
                [
                    *(label, str(seed), f"{last.epoch}{state}", short(last.attack.auroc), short(last.attack.tpr)),
                    *(_plain(last.quality), "" if gap is None else short(gap, "+"), "; ".join(last.attack.chosen)),
                ]
            )
    return DataTable(columns, rows, "Trainings, at the last audit; intervals over the samples.")


def _caption(frontier: Frontier) -> str:
    return (
        f"AUROC of the strongest attack against {frontier.quality}; lower and further left is better. Large points are means "
        "over the seeds, with the wider of the intervals over samples and over trainings; small ones are seeds. A ring is the "
        "end of a training."
    )


def _most_chosen(trainings: Sequence[Training]) -> str:
    """The attack and mask that most halves chose."""
    chosen = Counter(name.partition(" at ")[0] for each in trainings for name in each.points[-1].attack.chosen)
    (name, count), total = chosen.most_common(1)[0], chosen.total()
    return name if count == total else f"{name} ({count} of {total})"


def _spread(over: OverSeeds | None) -> str:
    """Standard deviation between the trainings, and the least and the greatest of them."""
    if over is None or over.trainings is None:
        return ""
    return f"{digits(over.deviation)}, {digits(over.range[0])} to {digits(over.range[1])}"


def _plain(estimate: Estimate, sign: str = "") -> str:
    """An estimate of any size with its bounds, in three digits."""
    return f"{estimate.value:{sign}.3g} [{estimate.lower:{sign}.2g}, {estimate.upper:{sign}.2g}]"

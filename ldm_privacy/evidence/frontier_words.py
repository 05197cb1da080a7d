"""The frontier in plain words: a headline, a sentence for each setting."""

from collections.abc import Sequence

from ldm_privacy.evidence.frontier import Compared, Frontier
from ldm_privacy.evidence.over_seeds import OverSeeds
from ldm_privacy.types import Estimate

COUNTS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def headline(frontier: Frontier) -> tuple[str, ...]:
    """Which settings lower the AUROC at equal quality, which only seem to, which are dominated."""
    compared, baseline = frontier.compared, frontier.baseline
    if not frontier.ended(baseline):
        return (f"No training of the baseline {baseline} has ended yet, so nothing is compared with it.",)
    if not compared:
        return (f"No training of another setting has ended yet in a seed of the baseline {baseline}.",)
    lower = [label for label, each in compared.items() if each.auroc.is_certain and each.auroc.mean.value < 0]
    higher = [label for label, each in compared.items() if each.auroc.is_certain and each.auroc.mean.value > 0]
    open_ones = [label for label in compared if label not in (*lower, *higher)]
    found = []
    if lower:
        found.append(f"At equal quality {_and(lower)} {_verb('lower', lower)} the strongest attack's AUROC against {baseline}.")
    if open_ones:
        whom = _and(open_ones) if len(open_ones) < max(3, len(compared)) else f"any of the {len(open_ones)} other settings"
        found.append(f"No gain at equal quality is shown for {whom}.")
    if higher:
        found.append(f"At equal quality {_and(higher)} {_verb('raise', higher)} it.")
    for label, others in frontier.dominated.items():
        better = f"{_and(others)} {_verb('have', others)} a lower AUROC and a better quality"
        found.append(f"In these trainings {label} is dominated: {better}.")
    return tuple(found)


def sentence(frontier: Frontier, label: str) -> str:
    """What one setting buys against the baseline."""
    begun = len(frontier.trainings.get(label, {}))
    if not frontier.ended(label):
        return f"{label}: no training has ended yet ({COUNTS[begun] if begun < len(COUNTS) else begun} begun)."
    if label == frontier.baseline:
        area = frontier.auroc[label]
        return f"{label} is the baseline: AUROC {area.mean} at its last audit, {seeds(area)}."
    if (compared := frontier.compared.get(label)) is None:
        return f"{label}: no seed in which the baseline has ended too."
    gap = compared.auroc.mean
    where = f"{_where(compared)} ({frontier.quality} {sum(compared.level.values()) / len(compared.level):.3g})"
    if compared.auroc.is_certain:
        reach = sorted((abs(gap.lower), abs(gap.upper)))
        by = f"{abs(gap.value):.3f} [{reach[0]:.3f}, {reach[1]:.3f}]"
        does = "lowers" if gap.value < 0 else "raises"
        said = f"{where} it {does} the strongest attack's AUROC by {by}, {seeds(compared.auroc)}"
    elif compared.auroc.trainings is None:
        said = (
            f"{where} the strongest attack's AUROC differs by {signed(gap)} in one seed; one training says nothing of another"
        )
    else:
        said = (
            f"no gain at equal quality is shown; {where} the strongest attack's AUROC differs by {signed(gap)}, "
            f"{seeds(compared.auroc)}"
        )
    worse = (
        f" It never reaches the baseline's quality: its best is worse by {compared.best.mean.value:.3g} "
        f"[{compared.best.mean.lower:.3g}, {compared.best.mean.upper:.3g}]."
    )
    return f"{label}: {said}.{worse if compared.is_worse else ''}"


def seeds(over: OverSeeds) -> str:
    """ "over three seeds"."""
    count = len(over.by_seed)
    return f"over {COUNTS[count] if count < len(COUNTS) else count} seed{'s' * (count > 1)}"


def signed(gap: Estimate) -> str:
    """A difference with its bounds."""
    return f"{gap.value:+.3f} [{gap.lower:+.3f}, {gap.upper:+.3f}]"


def _where(compared: Compared) -> str:
    """At whose best quality a setting is compared."""
    if all(compared.is_own):
        return "at the best quality that it reaches"
    return "at the best quality that both reach" if any(compared.is_own) else "at the baseline's quality"


def _verb(verb: str, subjects: Sequence[str]) -> str:
    return verb if len(subjects) > 1 else "has" if verb == "have" else f"{verb}s"


def _and(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + " and " * (len(names) > 1) + names[-1]

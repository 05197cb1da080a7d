"""The gate of a config: its limits, what it says of audits, and the files that tell a CI system."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from ldm_privacy.config.gate_section import GateConfig
from ldm_privacy.evidence.gate import EXIT_CODES, Gate, Ruling
from ldm_privacy.evidence.limits.auroc import AurocLimit
from ldm_privacy.evidence.limits.copies import CopiesLimit
from ldm_privacy.evidence.limits.epsilon import EpsilonLimit
from ldm_privacy.evidence.limits.limit import Limit, worst
from ldm_privacy.evidence.limits.tpr import TprLimit
from ldm_privacy.recipes.terminal import console, tell
from ldm_privacy.report.gate_files import print_rulings, write_junit, write_markdown


class Evaluated(NamedTuple):
    """What an evaluation leaves.

    Attributes:
        scores: Path of its scores, or of the folder that they would be in.
        ruling: What the gate says; None where there are no limits.
        section: Of the config.
    """

    scores: Path
    ruling: Ruling | None
    section: GateConfig


def gate_of(section: GateConfig) -> Gate | None:
    """The limits of a config; None where it has none."""
    limits: list[Limit] = []
    if section.auroc is not None:
        limits.append(AurocLimit(section.auroc, who=section.who))
    limits += [AurocLimit(most, attack=attack) for attack, most in section.attacks.items() if most is not None]
    limits += [TprLimit(most, target_fpr=fpr, who=section.who) for fpr, most in section.tpr.items() if most is not None]
    limits += [
        TprLimit(most, target_fpr=fpr, attack=attack)
        for attack, rates in section.attacks_tpr.items()
        for fpr, most in (rates or {}).items()
        if most is not None
    ]
    if section.copies is not None:
        limits.append(CopiesLimit(section.copies))
    if section.epsilon is not None:
        limits.append(EpsilonLimit(section.epsilon, who=section.who))
    return Gate(limits) if limits else None


def conclude(evaluated: Mapping[str, Evaluated]) -> int:
    """Print what the gate says of these audits, write its files; returns the exit code of the worst, 0 without limits."""
    rulings = {name: each.ruling for name, each in evaluated.items() if each.ruling is not None}
    if not rulings:
        return 0
    print_rulings(rulings, console)
    write_rulings(rulings, [each.section for each in evaluated.values()])
    return EXIT_CODES[worst([each.decision for each in rulings.values()])]


def write_rulings(rulings: Mapping[str, Ruling], sections: Iterable[GateConfig]) -> None:
    """The files that those sections name."""
    for name, write in (("junit", write_junit), ("markdown", write_markdown)):
        for file in dict.fromkeys(getattr(each, name) for each in sections):
            if file is not None:
                write(rulings, Path(file))
                tell(f"Written: {file}")

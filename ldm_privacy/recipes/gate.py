"""The gate of a config: its limits, what it says of audits, and the files that tell a CI system."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ldm_privacy.config import EvaluationConfig
from ldm_privacy.config.gate_section import GateConfig
from ldm_privacy.errors import UserError
from ldm_privacy.evidence.gate import EXIT_CODES, Gate, Ruling
from ldm_privacy.evidence.limits.auroc import AurocLimit, check_is_there
from ldm_privacy.evidence.limits.copies import CopiesLimit
from ldm_privacy.evidence.limits.limit import Limit, worst
from ldm_privacy.evidence.limits.tpr import TprLimit
from ldm_privacy.recipes.terminal import console, tell
from ldm_privacy.report.gate_files import print_rulings, write_junit, write_markdown
from ldm_privacy.types import AuditKey


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


def gate_of(config: EvaluationConfig, known: Sequence[AuditKey]) -> Gate | None:
    """The limits of a config; None where it has none.

    Args:
        config: Checked.
        known: What may have a row in the report.

    Raises:
        UserError: A limit on what the audit doesn't have, or on a TPR no larger than guessing's.
    """
    section, limits = config.gate, list[Limit]()
    if section.auroc is not None:
        limits.append(AurocLimit(section.auroc, who=section.who))
    for attack, most in section.attacks.items():
        if most is not None:
            check_is_there(f"gate.attacks.{attack}", attack, known)
            limits.append(AurocLimit(most, attack=attack))
    for fpr, most in section.tpr.items():
        if most is not None:
            limits.append(_tpr_limit(fpr, most, config))
    if section.copies is not None:
        if not any(each.name == "generations" for each in config.watch.values()):
            raise UserError("gate.copies: nothing counts copies; add watch.generations.class=generations.")
        limits.append(CopiesLimit(section.copies))
    if not limits and (file := next((name for name in ("junit", "markdown") if getattr(section, name) is not None), None)):
        raise UserError(f"gate.{file}: there is no limit to tell of; give one, as in gate.auroc=0.6.")
    return Gate(limits) if limits else None


def _tpr_limit(fpr: float, most: float, config: EvaluationConfig) -> TprLimit:
    limit, reported = TprLimit(most, target_fpr=fpr, who=config.gate.who), config.audit.target_fprs
    if fpr not in reported:
        names = ", ".join(f"{each:g}" for each in reported)
        raise UserError(f"{limit.name}: the audit reports TPRs at {names}; add {fpr:g} to audit.target_fprs.")
    if most <= fpr:
        raise UserError(f"{limit.name}: {most:g} is what guessing finds ({fpr:g}), or less; give a larger share.")
    return limit


def conclude(evaluated: Mapping[str, Evaluated]) -> int:
    """Print what the gate says of each of these audits, write its files; returns the exit code, of the worst. 0 without limits."""
    rulings = {name: each.ruling for name, each in evaluated.items() if each.ruling is not None}
    if not rulings:
        return 0
    print_rulings(rulings, console)
    for name, write in (("junit", write_junit), ("markdown", write_markdown)):
        for file in dict.fromkeys(getattr(each.section, name) for each in evaluated.values()):
            if file is not None:
                write(rulings, Path(file))
                tell(f"Written: {file}")
    return EXIT_CODES[worst([each.decision for each in rulings.values()])]

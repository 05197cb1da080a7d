"""What can be known of a gate before anything is loaded. Nothing heavy is imported here."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldm_privacy.config.audit_sections import TARGET_FPRS
from ldm_privacy.config.check import labelled
from ldm_privacy.errors import UserError
from ldm_privacy.registry import nearest_name
from ldm_privacy.runs.folder import check_file


def check_gate(tree: Mapping[str, Any]) -> None:
    """Raise UserError for a gate that this config's audit can't be held against, or whose files can't be written.

    Args:
        tree: A whole config, whose keys were checked; interpolations aren't looked into.
    """
    section, audit = tree.get("gate") or {}, tree.get("audit") or {}
    check_gate_files(section)
    if "${" in f"{section}{audit}":
        return
    for name in ("attacks", "attacks_tpr"):
        for attack in _given(section.get(name) or {}):
            _check_attack(f"gate.{name}", attack, audit)
    _check_rates("gate.tpr", section.get("tpr") or {}, audit)
    for attack, rates in _given(section.get("attacks_tpr") or {}).items():
        _check_rates(f"gate.attacks_tpr.{attack}", rates, audit)
    watched = labelled(tree.get("watch") or {}, "watch").values()
    classes = [each.get("class") if isinstance(each, Mapping) else each for each in watched]
    if section.get("copies") is not None and "generations" not in classes:
        raise UserError("gate.copies: nothing counts copies; add watch.generations.class=generations.")
    if section.get("epsilon") is not None and (tree.get("data") or {}).get("split") != "coin":
        raise UserError("gate.epsilon: only coins let an audit bound epsilon; train with data.split=coin.")
    for name in ("junit", "markdown"):
        if section.get(name) is not None and not has_limit(section):
            raise UserError(f"gate.{name}: there is no limit to tell of; give one, as in gate.auroc=0.6.")
    if (audit.get("stop") or {}).get("at") is not None and not has_limit(section):
        raise UserError("audit.stop.at: there is no limit to act upon; give one, as in gate.auroc=0.7.")


def has_limit(section: Mapping[str, Any]) -> bool:
    """Whether there is anything in a gate's section that an audit is held against."""
    single = [section.get(name) for name in ("auroc", "copies", "epsilon")]
    of_attacks = (section.get("attacks_tpr") or {}).values()
    return any([*single, *(_given(each or {}) for each in (section.get("attacks"), section.get("tpr"), *of_attacks))])


def check_gate_files(section: Mapping[str, Any]) -> None:
    """Raise UserError for a file of the section that can't be written."""
    for name in ("junit", "markdown"):
        if isinstance(file := section.get(name), str) and "${" not in file:
            check_file(Path(file), f"gate.{name}")


def _check_rates(key: str, rates: Mapping[float, float | None], audit: Mapping[str, Any]) -> None:
    reported = audit.get("target_fprs", TARGET_FPRS)
    for fpr, most in _given(rates).items():
        if fpr not in reported:
            names = ", ".join(f"{each:g}" for each in reported)
            raise UserError(f"{key}: the audit reports TPRs at {names}; add {fpr:g} to audit.target_fprs.")
        if most <= fpr:
            raise UserError(f"{key}: {most:g} at {fpr:g} is no more than guessing finds; allow a larger share.")


def _check_attack(key: str, name: str, audit: Mapping[str, Any]) -> None:
    """`name`: an attack as its scores are called, plain, under another view or calibrated; with its mask or without."""
    attacks, masks, calibrations = (
        list(labelled(audit.get(key) or {}, f"audit.{key}")) for key in ("attacks", "masks", "calibrations")
    )
    more = [str(each) for each in (*(audit.get("views") or ()), *calibrations)]
    known = [*attacks, *calibrations, *(f"{attack}_{each}" for attack in attacks for each in more)]
    attack, _, mask = name.partition("/")
    if attack not in known:
        made = f", calibrated ones as {attacks[0]}_{calibrations[0]}" if attacks and calibrations else ""
        hint = nearest_name(attack, known)
        raise UserError(f"{key}: this audit has no attack '{attack}'.{hint} It has {', '.join(attacks)}{made}.")
    if "/" in name and mask not in (*masks, TUNED):
        raise UserError(f"{key}: this audit has no mask '{mask}'. It has {', '.join(masks)}.")


def _given(limits: Mapping[Any, Any]) -> dict[Any, Any]:
    return {name: most for name, most in limits.items() if most is not None}


TUNED = "tuned"
"""See `audit.scores`, which is heavy."""

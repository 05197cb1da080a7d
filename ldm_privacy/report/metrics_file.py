"""metrics.json: every number of an evaluation."""

import json
import math
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ldm_privacy.audit.row import AuditRow
from ldm_privacy.controls.finding import Finding
from ldm_privacy.evidence.agreement import AttackAgreement
from ldm_privacy.evidence.gate import Ruling
from ldm_privacy.evidence.gather import Evidence
from ldm_privacy.evidence.image_onset import ImageOnsets
from ldm_privacy.evidence.limits.limit import Judgement
from ldm_privacy.evidence.verdict import verdict_of


def write_metrics(
    evidence: Evidence,
    path: Path,
    *,
    facts: dict[str, Any],
    watched: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    ruling: Ruling | None = None,
) -> None:
    """metrics.json: `facts` about the evaluation, the verdict, the gate's `ruling`, the controls, then a row
    per attack and mask.

    Each control has its AUROC, whether it is telling and leaks, the paired difference of what the verdict rests on, its own
    numbers. Each row has attack, mask, keep fractions and timesteps by fold, every metric as {value, lower, upper}, gains over
    other rows, the bound on epsilon where coins decided who is a member, the band under permuted labels, and the oracle's
    choice and AUROC. `epsilon`: the bounds of what the verdict rests on, and what is proven; {} where there is nothing.
    `watched`: the numbers of each watcher's result, by label. Infinite thresholds are null.
    """
    report, verdict, whole = evidence.report, verdict_of(evidence), evidence.dataset
    dataset = None
    if whole is not None:
        sizes = {"by_size": whole.by_size, "false_alarms": whole.false_alarms}
        dataset = {**vars(whole.test), **sizes, "holm": whole.adjusted}
    content = {
        **facts,
        "verdict": {
            "tone": verdict.tone,
            "sentences": verdict.sentences,
            "insider": str(evidence.insider),
            "outsider": str(evidence.outsider),
        },
        "gate": None
        if ruling is None
        else {"decision": ruling.decision, "limits": list(map(judgement_record, ruling.judgements))},
        "controls": {name: _control(each, evidence) for name, each in evidence.findings.items()},
        "dataset": dataset,
        "image_onsets": None if evidence.onsets is None else _onsets(evidence.onsets),
        "agreement": None if evidence.agreement is None else _agreement(evidence.agreement),
        "watched": dict(watched),
        "epsilon": {
            who: {"key": str(key), **vars(bound)}
            for who, key in (("insider", evidence.insider), ("outsider", evidence.outsider))
            if (bound := report.row(key).epsilon) is not None
        }
        | ({} if evidence.proven is None else {"proven": evidence.proven}),
        "sweep": report.sweep,
        "series": report.series(),
        "rows": [_row(row, evidence) for row in report.rows],
    }
    write_json(path, content)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Strict JSON of mappings, lists and records (dataclasses); numbers that JSON doesn't have become null."""
    path.write_text(json.dumps(plain(content), indent=2, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """As mappings, lists and numbers alone; numbers that JSON doesn't have become None."""
    if is_dataclass(value):
        value = vars(value)
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def judgement_record(judgement: Judgement) -> dict[str, Any]:
    """What a limit says, for a file."""
    worst = judgement.worst
    return {**vars(judgement), "worst": None if worst is None else {"of": worst.of, **vars(worst.estimate)}}


def _control(finding: Finding, evidence: Evidence) -> dict[str, Any]:
    return {
        "looks_at": finding.looks_at,
        "auroc": finding.estimate,
        "is_telling": finding.is_telling,
        "leaks": finding.leaks,
        "sentence": finding.sentence,
        "attack_above_it": evidence.over_controls.get(finding.name),
        **finding.numbers,
    }


def _onsets(onsets: ImageOnsets) -> dict[str, Any]:
    """By audit: the share of each side with an onset so far, precision and recall of the list of exposed members."""
    return {
        "times": onsets.times,
        "share": onsets.share,
        "num_consecutive": onsets.num_consecutive,
        "members": onsets.reached(onsets.is_member),
        "heldout": onsets.reached(onsets.is_heldout),
        "false_alarms_if_independent": onsets.false_alarms[0],
        "false_alarms_at_most": onsets.false_alarms[1],
        "precision": onsets.precision,
        "recall": onsets.recall,
    }


def _agreement(agreement: AttackAgreement) -> dict[str, Any]:
    return {
        "target_fpr": agreement.target_fpr,
        "union": {"tpr": agreement.union_tpr, "fpr": agreement.union_fpr},
        "attacks": {
            key: {
                "rests_on": family,
                "tpr": agreement.tpr(key),
                "fpr": agreement.fpr(key),
                "num_alone": agreement.num_alone(key),
                "tpr_at_union_fpr": agreement.tpr_at_union_fpr(key),
            }
            for key, family in zip(agreement.keys, agreement.families)
        },
        "overlaps": [{"attacks": list(map(str, pair)), **overlap._asdict()} for pair, overlap in agreement.overlaps.items()],
    }


def _row(row: AuditRow, evidence: Evidence) -> dict[str, Any]:
    timesteps: list[Any] = evidence.report.data.timesteps[row.key.attack] or ["all"]
    return {
        **vars(row.key),
        "keep_fractions": row.keep_fractions,
        "timesteps": row.timesteps,
        **({"sigmas": [row.sigmas.get(each) for each in row.timesteps if each is not None]} if row.sigmas else {}),
        **vars(row.metrics),
        "carried": row.carried,
        "epsilon": row.epsilon,
        "gains": row.gains,
        "by_repeats": row.by_repeats,
        "permuted_labels": evidence.permuted[row.key],
        "oracle": {"timestep": row.oracle_timestep, "keep_fraction": row.oracle_keep_fraction, "auroc": row.oracle_auroc},
        "auroc_by_timestep": dict(zip(timesteps, row.auroc_by_timestep.tolist())),
    }

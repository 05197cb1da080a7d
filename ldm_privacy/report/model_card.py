"""model_card.md: the privacy section of a model's card, with metadata that Hugging Face reads.

Meant to be published: no paths, no command lines, no names of images.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ldm_privacy import __version__
from ldm_privacy.audit.row import AuditRow
from ldm_privacy.evidence.not_tested import not_tested
from ldm_privacy.evidence.requirements.requirement import NO_ADVICE
from ldm_privacy.evidence.verdict import verdict_of
from ldm_privacy.report.evaluation import Evaluation
from ldm_privacy.report.markdown import plain_text, table_lines
from ldm_privacy.report.metrics_file import plain
from ldm_privacy.report.requirement_files import COLUMNS, requirement_rows
from ldm_privacy.report.sections.limits import LIMITS
from ldm_privacy.report.tables import short

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

CONDITIONS = (
    *("images", "split", "identical images", "halves", "condition", "timesteps", "sigmas", "earlier audits", "bootstrap"),
    "device",
)
"""Of the facts that hold no path and no seed: who knows the split's seed knows the members, and private noise has one too."""
TASK = "membership-inference"


def write_card(evaluation: Evaluation, path: Path, *, split_hash: str) -> None:
    """Write it: metadata as YAML, then the verdict, the numbers of insider and outsider, controls, requirements, conditions.

    Args:
        evaluation: Of the model.
        path: Of the file.
        split_hash: Says who was a member.
    """
    from huggingface_hub import ModelCard, ModelCardData

    data = ModelCardData(
        model_name=evaluation.name,
        tags=["privacy", TASK, "ldm_privacy"],
        eval_results=eval_results(evaluation, split_hash),
        privacy_audit=plain(metadata(evaluation, split_hash)),
    )
    card = ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text(evaluation, split_hash)}")
    path.write_bytes(str(card).encode("utf-8", errors="replace"))


def eval_results(evaluation: Evaluation, split_hash: str) -> "list[EvalResult]":
    """AUROC and TPRs of insider and outsider, each with its interval, as Hugging Face's results of evaluations."""
    from huggingface_hub import EvalResult

    report = evaluation.evidence.report
    source = re.sub(r"[^\w.-]+", "-", evaluation.facts.get("data", "images").split(" ")[0])
    results = []
    for who, row in rests_on(evaluation).items():
        metrics = row.metrics
        numbers = [("roc_auc", "AUROC", metrics.auroc)]
        numbers += [("tpr_at_fpr", f"TPR at {each.target_fpr:.3g} FPR", each) for each in metrics.tpr_at_fpr]
        for kind, name, each in numbers:
            results.append(
                EvalResult(
                    task_type=TASK,
                    task_name="Membership inference (privacy audit)",
                    dataset_type=source,
                    dataset_name=f"{source}: {metrics.num_members} members, {metrics.num_heldout} held-out images",
                    dataset_revision=split_hash,
                    dataset_args={"num_members": metrics.num_members, "num_heldout": metrics.num_heldout},
                    metric_type=kind,
                    metric_name=f"{name} of {row.key} ({who})",
                    metric_value=each.value,
                    metric_args={"attack": str(row.key), "who": who, **_bounds(each), "confidence": report.confidence},
                )
            )
    return results


def metadata(evaluation: Evaluation, split_hash: str) -> dict[str, Any]:
    """What Hugging Face has no field for."""
    evidence, verdict = evaluation.evidence, verdict_of(evaluation.evidence)
    return {
        "date": evaluation.date,
        "split_hash": split_hash,
        "tool": f"ldm_privacy {__version__}",
        "verdict": verdict.label,
        "attacks": {
            who: {
                "attack": str(row.key),
                "auroc": {"value": row.metrics.auroc.value, **_bounds(row.metrics.auroc)},
                "num_members": row.metrics.num_members,
                "num_heldout": row.metrics.num_heldout,
                **({} if row.epsilon is None else {"epsilon_at_least": row.epsilon.value}),
            }
            for who, row in rests_on(evaluation).items()
        },
        "confidence": evidence.report.confidence,
        "controls": {
            name: {"auroc": {"value": each.estimate.value, **_bounds(each.estimate)}, "leaks": each.leaks}
            for name, each in evidence.findings.items()
            if each.estimate is not None
        },
        "requirements": {each.reference: each.decision for each in evaluation.answers},
        "conditions": conditions(evaluation),
        "not_tested": not_tested(evidence, evaluation.results),
    }


def text(evaluation: Evaluation, split_hash: str) -> str:
    """The card below its metadata."""
    evidence, verdict = evaluation.evidence, verdict_of(evaluation.evidence)
    confidence = f"{evidence.report.confidence:.0%}"
    rates = [each.target_fpr for each in evidence.report.row(evidence.key).metrics.tpr_at_fpr]
    attacks = [
        (
            who,
            str(row.key),
            short(row.metrics.auroc),
            *map(short, row.metrics.tpr_at_fpr),
            f"{row.metrics.num_members} + {row.metrics.num_heldout}",
        )
        for who, row in rests_on(evaluation).items()
    ]
    controls = [(each.looks_at, each.name, short(each.estimate)) for each in evidence.findings.values() if each.estimate]
    facts = [*conditions(evaluation).items(), ("split hash", split_hash), ("tool", f"ldm_privacy {__version__}")]
    lines = [
        f"# {plain_text(evaluation.name)}",
        "",
        "## Privacy",
        "",
        f"Membership audit of {evaluation.date}: **{verdict.label}**.",
        "",
        *(line for each in verdict.sentences for line in (plain_text(each), "")),
        f"An insider has the run's checkpoints, an outsider the model; {confidence} intervals, .5 is guessing.",
        "",
        *table_lines(("who", "attack", "AUROC", *(f"TPR at {each:.3g} FPR" for each in rates), "members + held-out"), attacks),
        "",
        "### Controls",
        "",
        "What tells members from held-out images without the denoiser that is audited.",
        "",
        *table_lines(("kind", "control", "AUROC"), controls),
        "",
        "### Requirements",
        "",
        NO_ADVICE,
        "",
        *table_lines(COLUMNS, requirement_rows(evaluation.answers)),
        "",
        "### Conditions",
        "",
        *table_lines(("condition", "of this audit"), facts),
        "",
        *(f"* {each}" for each in LIMITS),
        "",
        "### Not tested",
        "",
        *(f"* {plain_text(each)}" for each in not_tested(evidence, evaluation.results)),
    ]
    return "\n".join(lines) + "\n"


def rests_on(evaluation: Evaluation) -> dict[str, AuditRow]:
    """What the verdict rests on, by whose it is; the outsider alone where an insider has no more."""
    evidence, report = evaluation.evidence, evaluation.evidence.report
    rows = {"outsider": report.row(evidence.outsider)}
    return rows if evidence.insider == evidence.outsider else {"insider": report.row(evidence.insider), **rows}


def conditions(evaluation: Evaluation) -> dict[str, str]:
    """Under which the numbers hold, of what may be published."""
    return {name: evaluation.facts[name] for name in CONDITIONS if name in evaluation.facts}


def _bounds(estimate: Any) -> dict[str, float]:
    return {"lower": estimate.lower, "upper": estimate.upper}

"""An evaluation in Weights & Biases: tables, ROC chart, the report, and an artifact with scores and report."""

from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
import wandb
from torch import Tensor

from ldm_privacy.data.images import to_uint8
from ldm_privacy.evidence.verdict import verdict_of
from ldm_privacy.metrics import roc_curve
from ldm_privacy.report.evaluation import Evaluation
from ldm_privacy.runs.wandb_table import Table
from ldm_privacy.types import Estimate

MAX_ROC_POINTS = 200
NUM_EXPOSED = 32


def log_evaluation(run: Any, evaluation: Evaluation, folder: Path, *, axis: str) -> None:
    """Log the audit's table, the most exposed members with their images, the ROC of the primary key, figures and files.

    The verdict goes into the summary.

    Args:
        run: Of W&B.
        evaluation: Its figures are logged as the PNG files that lie in `folder`/figures.
        folder: What `write_evaluation` wrote; scores.parquet, exposed.csv, metrics.json and report.html become an artifact.
        axis: Name of the epoch.
    """
    evidence, report = evaluation.evidence, evaluation.evidence.report
    rows = [
        [
            row.key.attack,
            row.key.mask,
            row.keep_fraction,
            row.timestep,
            *_numbers(row.metrics.auroc),
            *_numbers(row.metrics.tpr_at_1fpr),
            row.metrics.asr.value,
            row.oracle_auroc,
            evidence.permuted[row.key].band.p_value,
        ]
        for row in report.rows
    ]
    columns: list[str | int] = ["attack", "mask", "kept", "timestep", "auroc", "auroc_lower", "auroc_upper"]
    columns += ["tpr_at_1fpr", "tpr_lower", "tpr_upper", "asr (optimistic)", "oracle_auroc", "permutation_p"]
    exposure = evidence.exposure
    index = exposure.sample_index[:NUM_EXPOSED]
    pictures = [wandb.Image(image.permute(1, 2, 0).squeeze(-1).numpy()) for image in to_uint8(evaluation.images(index))]
    ranked = zip(index.tolist(), pictures, exposure.score.tolist(), exposure.fpr.tolist())
    exposed = [[rank, *values] for rank, values in enumerate(ranked, 1)]
    fpr, tpr, _ = roc_curve(report.reported_scores(evidence.insider), report.reported_membership)
    places = roc_places(len(fpr))
    roc = go.Figure(go.Scatter(x=fpr[places].tolist(), y=tpr[places].tolist()))
    roc.update_layout(title=f"ROC of {evidence.insider}", xaxis_title="false-positive rate", yaxis_title="true-positive rate")
    run.log(
        {
            "evaluation/attacks": Table(columns, rows),
            "evaluation/exposed": Table(["rank", "sample_index", "image", "score", "fpr"], exposed),
            "evaluation/roc_curve": wandb.Plotly(roc),
            "evaluation/report": wandb.Html(str(folder / "report.html")),
            **{f"evaluation/{name}": wandb.Image(str(folder / "figures" / f"{name}.png")) for name in evaluation.figures},
            axis: evaluation.epoch,
        }
    )
    run.summary["verdict"] = " ".join(verdict_of(evidence).sentences)
    artifact = wandb.Artifact(f"evaluation-{run.id}", type="evaluation", metadata={"epoch": evaluation.epoch})
    for name in ("scores.parquet", "exposed.csv", "metrics.json", "report.html"):
        artifact.add_file(str(folder / name))
    run.log_artifact(artifact)


def roc_places(count: int) -> Tensor:
    """Which of `count` points of a ROC curve are drawn: at most `MAX_ROC_POINTS`, rising, the first and the last among them.

    The logarithms of the places are evenly spaced: the curve is read where the FPR is low.
    """
    if count <= MAX_ROC_POINTS:
        return torch.arange(count)
    return torch.from_numpy(np.geomspace(1, count, MAX_ROC_POINTS)).round().long().unique() - 1


def _numbers(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.value, estimate.lower, estimate.upper

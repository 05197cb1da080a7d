"""The folder of an evaluation: report, metrics, scores, exposed members, requirements, model card, what results bring."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ldm_privacy.audit.samples import AuditedSamples, MaskRule
from ldm_privacy.evidence.gather import Evidence
from ldm_privacy.plugins import blamed_on
from ldm_privacy.registry import SECTIONS
from ldm_privacy.report.evaluation import Evaluation
from ldm_privacy.report.exposed_file import write_exposed
from ldm_privacy.report.figures.agreement import agreement_figure
from ldm_privacy.report.figures.attacks import auroc_by_timestep_figure, histogram_figure, keep_fraction_figure, roc_figure
from ldm_privacy.report.figures.distortion import quartile_figure
from ldm_privacy.report.figures.forest import forest_figure
from ldm_privacy.report.figures.image_onset import early_list_figure, image_onset_figure
from ldm_privacy.report.figures.whole_set import p_value_figure
from ldm_privacy.report.geometry_report import geometry_figures
from ldm_privacy.report.head import evaluation_head
from ldm_privacy.report.metrics_file import write_metrics
from ldm_privacy.report.model_card import write_card
from ldm_privacy.report.page.blocks import Section
from ldm_privacy.report.page.page import Page, write_page
from ldm_privacy.report.requirement_files import write_requirements
from ldm_privacy.types import Decoder, Images

FILES = "report.html, metrics.json, scores.parquet, exposed.csv, requirements.md, requirements.json, model_card.md, figures/"


def evidence_figures(
    evidence: Evidence,
    samples: AuditedSamples,
    masks: Mapping[str, MaskRule],
    decoder: Decoder | None,
    images: Images,
    *,
    drawn: Mapping[str, Figure] | None = None,
    seed: int = 0,
    unit: str = "epoch",
) -> dict[str, Figure]:
    """Every figure of an evaluation by name, without those that need the curves of a training.

    Args:
        evidence, images: See `gather_evidence`.
        samples, masks, decoder: See `geometry_figures`.
        drawn: The figures of the geometry, where they are drawn already.
        seed: Of their probes.
        unit: Of the audits' times.
    """
    report, exposure = evidence.report, evidence.exposure
    figures = {
        "forest": forest_figure(evidence),
        "roc": roc_figure(report),
        "auroc_by_timestep": auroc_by_timestep_figure(report),
        "histogram": histogram_figure(report, report.unmasked or [evidence.key]),
        **(geometry_figures(samples, masks, decoder, images, seed=seed) if drawn is None else drawn),
    }
    if samples.distortion is not None:
        for key in (each for each in report.unmasked if each not in report.data.derived):
            quartiles, timesteps = report.quartiles(key, samples.distortion), report.data.timesteps[key.attack]
            figures[f"quartiles_{key.attack}"] = quartile_figure(quartiles, timesteps, title=str(key))
    if evidence.onsets is not None:
        ranked = exposure.sample_index
        figures["image_onset"] = image_onset_figure(evidence.onsets, report.data.sample_index, ranked, images, unit)
        figures["early_list"] = early_list_figure(evidence.onsets, unit)
    if evidence.agreement is not None and len(evidence.agreement.keys) > 1:
        figures["agreement"] = agreement_figure(evidence.agreement)
    if evidence.dataset is not None:
        figures["p_value"] = p_value_figure(evidence.dataset, evidence.insider, alpha=1 - report.confidence)
    if report.sweep:
        figures["keep_fraction"] = keep_fraction_figure(report)
    return figures


def result_figures(results: Mapping[str, object]) -> dict[str, Figure]:
    """Figures of what watchers found, by name; none of what has no pictures. See `Watcher.result`."""
    return {name: figure for each in results.values() for name, figure in getattr(each, "figures", dict)().items()}


def result_facts(results: Mapping[str, object]) -> dict[str, str]:
    """What the protocol says of what watchers found. See `Watcher.result`."""
    return {name: words for each in results.values() for name, words in getattr(each, "facts", dict)().items()}


def evaluation_page(evaluation: Evaluation) -> Page:
    """The page of an evaluation: every registered section that has something to say, by its place."""
    found = {name: section_of(name, evaluation) for name in SECTIONS}
    sections = {name: section for name, section in found.items() if section is not None}
    when = "" if evaluation.epoch is None else f"{evaluation.unit.capitalize()} {evaluation.epoch}; "
    return Page(
        f"Membership audit of {evaluation.name}",
        f"{when}audited on {evaluation.date}; {evaluation.evidence.report.confidence:.0%} intervals",
        evaluation_head(evaluation),
        dict(sorted(sections.items(), key=lambda item: item[1].place)),
        f"ldm_privacy {evaluation.facts.get('version', '')}",
    )


def section_of(name: str, evaluation: Evaluation) -> Section | None:
    """What the section registered under that name says. Raises TypeError where it returns something else."""
    section = SECTIONS.get(name)
    with blamed_on(section):
        written = section(evaluation)
        if written is not None and not isinstance(written, Section):
            raise TypeError(f"it returns {type(written).__name__}, not a Section")
    return written


def write_evaluation(folder: Path, evaluation: Evaluation, *, facts: dict[str, Any]) -> Path:
    """Write all files of an evaluation; returns the path of report.html.

    Args:
        folder: Made where it isn't there; files in it are replaced.
        evaluation: Its figures are also stored as PNG.
        facts: For metrics.json; must hold "split_hash".
    """
    from ldm_privacy.audit.score_file import write_scores

    (folder / "figures").mkdir(parents=True, exist_ok=True)
    evidence = evaluation.evidence
    watched = {label: each.numbers() for label, each in evaluation.results.items() if hasattr(each, "numbers")}
    write_metrics(evidence, folder / "metrics.json", facts=facts, watched=watched, ruling=evaluation.ruling)
    write_scores(evidence.report, folder / "scores.parquet", split_hash=facts["split_hash"])
    write_exposed(evidence, folder / "exposed.csv", files=evaluation.files)
    write_requirements(evaluation, folder, split_hash=facts["split_hash"])
    write_card(evaluation, folder / "model_card.md", split_hash=facts["split_hash"])
    for each in evaluation.results.values():
        if hasattr(each, "write"):
            each.write(folder)
    for name, figure in evaluation.figures.items():
        figure.savefig(folder / "figures" / f"{name}.png", dpi=110)
        figure.set_layout_engine("none")  # it is laid out: half of what a drawing costs
    write_page(evaluation_page(evaluation), folder / "report.html")
    return folder / "report.html"

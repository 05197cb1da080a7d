"""What a verdict, tables and the forest say of scores beyond a reference, and what the reference alone is evidence of."""

from dataclasses import replace

import pytest
import torch

from ldm_privacy.audit.calibrate import derivations, with_calibrated
from ldm_privacy.audit.report import report_of
from ldm_privacy.audit.scores import informed
from ldm_privacy.calibrations.ratio import Ratio
from ldm_privacy.calibrations.reference import Reference
from ldm_privacy.controls.finding import WITHOUT_TARGET
from ldm_privacy.evidence.gather import gather_evidence
from ldm_privacy.evidence.verdict import verdict_of
from ldm_privacy.metrics import auroc_interval
from ldm_privacy.report.figures.forest import LOOKS, forest_figure, forest_marks
from ldm_privacy.report.tables import threats
from ldm_privacy.types import AuditKey
from tests.evidence.synthetic import QUICK, Pictures, make_samples, make_scores

KEY, RATIO = AuditKey("sima", "all"), AuditKey("sima_ratio", "all")
NAMES = ["the reference alone, sima", "the reference alone, sima over all t"]


def report_for(*, whose="outsider", told_by_reference=0.0):
    """Difficulty in both models, which hides what the target learned of members beyond the reference."""
    data = make_scores(80, 80, num_folds=2, masks=("all",))
    hard = 4 * torch.randn(160, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    base = make_scores(80, 80, num_folds=2, masks=("all",), seed=9).scores[KEY] / 4 + hard
    theirs = base + told_by_reference * data.is_member
    mine = (theirs + 0.3 * data.scores[KEY] + 1.5 * data.is_member)[:1].expand(2, -1, -1)
    data = replace(data, scores=data.scores | {KEY: mine}, reference={KEY: theirs})
    found = derivations({"reference": Reference(), "ratio": Ratio()}, [KEY], whose)
    return report_of(with_calibrated(data, found, {"sima": False, "loss": False}, None, {}), intervals=QUICK)


def gather(report, **options):
    samples = make_samples(report.data, error=torch.arange(160.0) % 7)
    return gather_evidence(report, KEY, samples, Pictures(report.data), num_permutations=39, **options)


@pytest.fixture(scope="module")
def clean():
    return gather(report_for(), reference="the base, without the adapter")


def test_the_verdict_rests_on_the_last_and_names_what_it_compares_with(clean):
    assert clean.insider == clean.outsider == RATIO
    verdict = verdict_of(clean)
    assert verdict.tone == "exposed"
    assert verdict.sentences[0].startswith("Members are exposed: sima_ratio/all tells them from held-out images")
    said = "sima_ratio/all compares the model with the base, without the adapter: the same image under the same noise."
    assert verdict.sentences[0].endswith(said)
    assert "run's checkpoints" not in verdict.sentences[0]


def test_the_references_own_auroc_stands_beside_it(clean):
    data = clean.report.data
    assert [each.name for each in clean.findings.values() if each.looks_at == WITHOUT_TARGET] == NAMES
    for name, score in zip(NAMES, clean.report.reference_alone.values()):
        finding = clean.findings[name]
        # Two scores hold together.
        assert finding.estimate == auroc_interval(score, data.is_member, confidence=0.975, num_bootstrap=2, seed=0)
        assert not finding.is_telling
        assert clean.over_controls[name].lower > 0.1
    assert "Without the target no difference was found" in clean.findings[NAMES[0]].sentence
    best = max((clean.findings[name] for name in NAMES), key=lambda each: each.level.lower)
    assert verdict_of(clean).sentences[1].endswith(f"no difference of the sides was found; {best.name}, reaches {best.level}.")


def test_a_reference_that_tells_the_sides_apart_is_said_to_measure_the_split():
    evidence = gather(report_for(told_by_reference=4.0))
    telling = [evidence.findings[name] for name in NAMES]
    assert all(each.is_telling for each in telling)
    sentence = telling[0].sentence
    assert sentence.startswith("Members can be told from held-out without the target: the reference alone, sima has AUROC")
    assert "the split, or what the reference was trained on, is measured up to this, not the target's training" in sentence
    verdict = verdict_of(evidence)
    assert ", so the split, or what the reference was trained on, is measured up to this" in verdict.sentences[1]
    assert "without the denoiser no difference of the sides was found" in verdict.sentences[1], "it is a denoiser's"
    assert verdict.tone == "exposed", "what the target learned since is no less there"


def test_an_earlier_checkpoint_is_the_insiders(clean):
    report = report_for(whose="insider")
    insider, outsider = (informed(report.data.derived, KEY, with_history=known) for known in (True, False))
    assert (insider, outsider) == (RATIO, KEY)
    verdict = verdict_of(replace(clean, report=report, outsider=outsider)).sentences[0]
    assert "That takes the run's checkpoints; with the model alone sima/all reaches" in verdict
    assert "sima_ratio/all compares the model with the base, without the adapter" in verdict
    (said,) = threats(report)
    assert said.endswith("for an insider who has the run's checkpoints.")


def test_who_can_have_them_in_words(clean):
    (said,) = threats(clean.report)
    assert said.startswith(
        "sima_reference and sima_ratio: beyond what the reference has of the same image under the same noise"
    )
    assert said.endswith(", for whoever has the model and its reference.")


def test_in_the_forest_they_have_a_look_of_their_own(clean):
    attacks, controls = forest_marks(clean)
    assert {mark.label: mark.kind for mark in attacks} == {
        "sima": "outsider",
        "loss": "outsider",
        "sima_reference": "reference",
        "sima_ratio": "reference",
    }
    assert {mark.label for mark in controls if mark.kind == "alone"} == {"reference, sima", "reference, sima over all t"}
    legend = [text.get_text() for text in forest_figure(clean).legends[0].get_texts()]
    assert [LOOKS[kind][2] for kind in ("reference", "alone")] == [each for each in legend if "reference" in each]

"""The model card and the table of requirements as files: read back by their public readers, shown and never interpreted."""

import json
from dataclasses import replace

import pytest
from huggingface_hub import ModelCard, metadata_eval_result
from huggingface_hub.repocard import metadata_load

from ldm_privacy.audit.report import report_of
from ldm_privacy.audit.scores import Derived
from ldm_privacy.evidence.gather import gather_evidence
from ldm_privacy.evidence.verdict import verdict_of
from ldm_privacy.registry import REQUIREMENTS
from ldm_privacy.report.evaluation import Evaluation
from ldm_privacy.report.model_card import TASK, write_card
from ldm_privacy.report.requirement_files import write_requirements
from ldm_privacy.report.sections.requirements import requirements
from ldm_privacy.types import AuditKey
from tests.evidence.synthetic import QUICK, Pictures, make_samples, make_scores

KEY, INSIDER = AuditKey("sima", "all"), AuditKey("sima_history", "all")
HOSTILE = "a|b `c` <img src=x> [d](javascript:e)\n---\nlicense: mit"
HASH = "ab" * 32


@pytest.fixture(scope="module")
def evaluation():
    attacks = ("sima", "sima_history", "loss")
    data = make_scores(60, 60, strength=1.0, timesteps=(0,), num_folds=2, masks=("all",), attacks=attacks)
    data = replace(data, derived={INSIDER: Derived(KEY, True)})
    pictures = Pictures(data)
    evidence = gather_evidence(report_of(data, intervals=QUICK), KEY, make_samples(data), pictures, num_permutations=9)
    facts = {
        "data": "folder {'path': '/home/me/photos'}",
        "split": "60 members",
        "seed": "8714",
        "checkpoint": "/home/me/last.ckpt",
    }
    return Evaluation(evidence, {}, pictures, HOSTILE, 7, facts, commands=("evaluate /home/me",), date="2026-01-31")


@pytest.fixture(scope="module")
def folder(evaluation, tmp_path_factory):
    path = tmp_path_factory.mktemp("card")
    write_card(evaluation, path / "model_card.md", split_hash=HASH)
    write_requirements(evaluation, path, split_hash=HASH)
    return path


def test_hugging_face_reads_the_card_back(evaluation, folder):
    card = ModelCard.load(folder / "model_card.md")
    report = evaluation.evidence.report
    found = {(each.metric_args["who"], each.metric_name.split(" of ")[0]): each for each in card.data.eval_results}
    assert set(found) == {
        (who, name) for who in ("insider", "outsider") for name in ("AUROC", "TPR at 0.01 FPR", "TPR at 0.001 FPR")
    }
    for who, key in (("insider", INSIDER), ("outsider", KEY)):
        area, each = report.row(key).metrics.auroc, found[who, "AUROC"]
        assert (each.metric_value, each.metric_args["lower"], each.metric_args["upper"]) == (area.value, area.lower, area.upper)
        assert (each.metric_args["attack"], each.metric_args["confidence"]) == (str(key), 0.95)
        assert (each.task_type, each.dataset_type, each.dataset_revision) == (TASK, "folder", HASH)
        assert each.dataset_args == {"num_members": 60, "num_heldout": 60}
    audit = card.data.to_dict()["privacy_audit"]
    assert (audit["date"], audit["split_hash"], audit["verdict"]) == ("2026-01-31", HASH, verdict_of(evaluation.evidence).label)
    assert set(audit["controls"]) == {name for name, each in evaluation.evidence.findings.items() if each.estimate is not None}
    assert audit["requirements"] == {each.reference: each.decision for each in evaluation.answers}
    assert audit["conditions"] == {"split": "60 members"}
    assert len(audit["not_tested"]) > 3
    for sentence in verdict_of(evaluation.evidence).sentences:
        assert sentence in card.text
    assert str(card) == (folder / "model_card.md").read_text(), "written as it is read"


def test_a_result_is_laid_out_as_hugging_faces_own_writer_does(evaluation, folder):
    (model,) = metadata_load(folder / "model_card.md")["model-index"]
    (result,) = model["results"]
    own = metadata_eval_result(
        model_pretty_name=model["name"],
        task_pretty_name=result["task"]["name"],
        task_id=TASK,
        metrics_pretty_name=result["metrics"][0]["name"],
        metrics_id="roc_auc",
        metrics_value=evaluation.evidence.report.row(INSIDER).metrics.auroc.value,
        dataset_pretty_name=result["dataset"]["name"],
        dataset_id="folder",
        dataset_revision=HASH,
    )["model-index"][0]
    (expected,) = own["results"]
    assert model["name"] == own["name"] == HOSTILE
    assert result["task"] == expected["task"]
    assert {name: each for name, each in result["dataset"].items() if name != "args"} == expected["dataset"]
    first = {name: each for name, each in result["metrics"][0].items() if name != "args"}
    assert first | {"verified": False} == expected["metrics"][0] | {"verified": False}


def test_what_is_published_holds_no_path_and_no_seed_and_interprets_nothing(folder):
    for name in ("model_card.md", "requirements.md"):
        text = (folder / name).read_text()
        assert "/home/me" not in text
        assert "8714" not in text
        body = text.split("\n---\n", 1)[-1]
        assert "<img" not in body
        assert "[d](" not in body
        for line in body.splitlines():
            assert not line.startswith(("---", "license"))
    assert ModelCard.load(folder / "model_card.md").data.license is None


def test_requirements_json_and_markdown_say_the_same(evaluation, folder):
    content = json.loads((folder / "requirements.json").read_text())
    assert (content["date"], content["split_hash"], content["name"]) == ("2026-01-31", HASH, HOSTILE)
    assert len(content["requirements"]) == len(list(REQUIREMENTS))
    text = (folder / "requirements.md").read_text()
    assert content["note"] in text
    for stored, each in zip(content["requirements"], evaluation.answers):
        assert (stored["reference"], stored["decision"]) == (each.reference, each.decision)
        assert f"| {each.reference} | {each.decision} |" in text
        assert each.says in text
        assert [judged["limit"] for judged in stored["judgements"]] == [judged.limit for judged in each.judgements]


def test_the_section_has_a_row_for_each_and_its_words(evaluation):
    said, note, table, words = requirements(evaluation).blocks
    for item, each in zip(said.items, evaluation.answers, strict=True):
        assert item.startswith(f"{each.reference}: {each.decision}")
        assert all(number in item for number in each.found)
    assert note.text.startswith("No legal advice")
    assert [row[0] for row in table.rows] == [each.reference for each in evaluation.answers]
    assert {row[1].text for row in table.rows} <= {"pass", "fail", "undecided"}
    assert [row[2] for row in words.rows if row[1] == "says"] == [each.says for each in evaluation.answers]

"""The gate of commands: exit codes, sentences, files that CI systems read, what is refused."""

import importlib.util
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ldm_privacy.errors import UserError
from ldm_privacy.evidence.gate import Ruling
from ldm_privacy.evidence.limits.limit import Judgement, Reading
from ldm_privacy.recipes import cli
from ldm_privacy.report.gate_files import write_junit, write_markdown
from ldm_privacy.types import Estimate
from tests.tiny import arguments


def evaluate(run, *overrides, name="last"):
    return cli.evaluate([f"ckpt={run / 'checkpoints' / name}.ckpt", *overrides])


def area_of(metrics):
    """AUROC of the plain primary attack and mask."""
    return next(row["auroc"] for row in metrics["rows"] if (row["attack"], row["mask"]) == ("sima", "all"))


def test_an_evaluation_ends_with_the_code_of_its_gate_and_tells_it_everywhere(run, tmp_path, capsys):
    assert evaluate(run, f"out={tmp_path}") == 0
    area = area_of(json.loads((tmp_path / "metrics.json").read_text()))
    assert json.loads((tmp_path / "metrics.json").read_text())["gate"] is None
    assert "Gate:" not in capsys.readouterr().out
    middle = (max(0.5, area["value"]) + area["upper"]) / 2
    files = [f"gate.junit={tmp_path / 'ci' / 'audit.xml'}", f"gate.markdown={tmp_path / 'gate.md'}"]
    for limit, decision, code in ((0.99, "pass", 0), (middle, "undecided", 3), (max(0.501, area["value"] - 0.01), "fail", 1)):
        held = f"gate.attacks={{sima/all: {limit}}}"
        if limit == 0.501 and area["value"] < limit:
            continue
        assert evaluate(run, f"out={tmp_path}", held, *files) == code
        printed = " ".join(capsys.readouterr().out.split())
        assert f"Gate: {decision} (1 limit: 1 {decision}). {decision}: AUROC" in printed
        metrics = json.loads((tmp_path / "metrics.json").read_text())["gate"]
        assert (metrics["decision"], metrics["limits"][0]["most"]) == (decision, limit)
        assert metrics["limits"][0]["worst"] == {"of": "sima/all (outsider)", **area}
        assert metrics["limits"][0]["sentence"] in (tmp_path / "report.html").read_text().replace("&#39;", "'")
        case = ElementTree.parse(tmp_path / "ci" / "audit.xml").find(".//testcase")
        assert case.get("name") == "gate.attacks.sima/all"
        assert [each.tag for each in case] == [{"pass": "system-out", "undecided": "error", "fail": "failure"}[decision]]
        assert case[0].text == metrics["limits"][0]["sentence"]
        assert (tmp_path / "gate.md").read_text().startswith(f"**Membership audit: {decision}**\n")


def test_a_gate_alone_makes_no_new_evaluation(run):
    before = sorted(each.name for each in run.iterdir())
    evaluate(run, "gate.auroc=0.99", name="before-onset")
    evaluate(run, "gate.auroc=0.98", name="before-onset")
    assert sorted(each.name for each in run.iterdir()) == sorted({*before, "evaluation-before-onset"})


def test_of_several_checkpoints_the_worst_counts(run, tmp_path, capsys):
    both = f"ckpt=[{run}/checkpoints/last.ckpt,{run}/checkpoints/before-onset.ckpt]"
    file = tmp_path / "both.xml"
    assert cli.evaluate([both, f"out={tmp_path}", "gate.auroc=0.99", f"gate.junit={file}"]) == 0
    assert "Gate: pass (digits/last pass, digits/before-onset pass)." in " ".join(capsys.readouterr().out.split())
    assert [each.get("name") for each in ElementTree.parse(file).iter("testsuite")] == ["digits/last", "digits/before-onset"]


def test_a_training_ends_with_the_code_of_its_gate_and_so_does_its_resume(run, tmp_path):
    small = ["audit.attacks=[sima]", "audit.calibrations=[]", "audit.keep_fractions=[]", "geometry.distortion_rank=0"]
    copies = ["watch={generations: {class: generations, num_steps: 1}}", "gate.copies=0.9", "gate.auroc=0.501"]
    line = arguments(tmp_path, *small, "autoencoder.max_epochs=1", "trainer.max_epochs=1", *copies)
    assert cli.train(line) in (1, 3)
    assert cli.train([f"resume={tmp_path / 'digits'}"]) in (1, 3)
    assert cli.train([f"resume={tmp_path / 'digits'}", "gate.auroc=0.99"]) == 0
    # Generations are counted where a gate holds them, and not otherwise.
    assert evaluate(tmp_path / "digits") == 0
    metrics = json.loads((tmp_path / "digits" / "evaluation" / "metrics.json").read_text())
    assert metrics["watched"]["generations"]["num_copies"] == 0
    assert [each["limit"] for each in metrics["gate"]["limits"]] == ["gate.auroc", "gate.copies"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gate.auroc=0.5"], r"^gate\.auroc: 0\.5 should be greater than 0\.5"),
        (["gate.auroc=1"], r"^gate\.auroc: 1 should be less than 1"),
        (["gate.attacks={sima: 0.4}"], r"^gate\.attacks: .* should be greater than 0\.5"),
        (["gate.attacks={secmi: 0.6}"], r"^gate\.attacks: this audit has no attack 'secmi'\. .*It has sima, loss, pia, calib"),
        (["gate.attacks={sima/top10: 0.6}"], r"^gate\.attacks: this audit has no mask 'top10'\. It has all, top60, "),
        (["gate.tpr={0.05: 0.1}"], r"^gate\.tpr: the audit reports TPRs at 0\.01, 0\.001; add 0\.05 to audit\.target_fprs"),
        (["gate.tpr={0.01: 0.01}"], r"^gate\.tpr: 0\.01 at 0\.01 is no more than guessing finds"),
        (["gate.copies=0.01"], r"^gate\.copies: nothing counts copies; add watch\.generations\.class=generations"),
        (["gate.copies=1.5"], r"^gate\.copies: 1\.5 should be less than 1"),
        (["gate.auorc=0.6"], r"^gate: unknown key 'auorc'\. Did you mean 'auroc'\?"),
        (["gate.junit=audit.xml"], r"^gate\.junit: there is no limit to tell of"),
        (["gate.auroc=0.6", "gate.junit=."], r"^gate\.junit: '\.' is a folder\. Name a file with gate\.junit=FILE"),
        (["gate.auroc=0.6", "gate.markdown=there.csv/x.md"], r"^gate\.markdown: .*there\.csv' is a file, not a folder"),
        (["audit.stop.at=fail"], r"^audit\.stop\.at: there is no limit to act upon"),
    ],
)
def test_what_is_wrong_of_a_gate_is_told_before_anything_is_loaded(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("there.csv").touch()
    loaded = []
    monkeypatch.setattr("ldm_privacy.recipes.cli.finish", lambda *arguments: loaded.append(arguments))
    with pytest.raises(UserError, match=message) as caught:
        cli.train(arguments(tmp_path, *words))
    assert len(str(caught.value).splitlines()) == 1
    assert not loaded


def rulings():
    """One audit whose name and attack are a trial for any format."""
    read = Reading("a|b/<all> (outsider)", Estimate(0.55, 0.5, 0.62))
    judged = [
        Judgement("gate.auroc", "AUROC", 0.7, "pass", "pass: fine & \x00well", read),
        Judgement("gate.attacks.a|b", "AUROC", 0.6, "undecided", "undecided: <perhaps>", read),
        Judgement("gate.tpr.0.01", "TPR@1%FPR", 0.1, "fail", 'fail: "no"', None),
    ]
    return {"runs/<a>": Ruling(tuple(judged)), "b": Ruling(tuple(judged[:1]))}


def test_junit_has_a_case_a_limit_and_keeps_to_the_schema(tmp_path):
    write_junit(rulings(), tmp_path / "audit.xml")
    root = ElementTree.parse(tmp_path / "audit.xml").getroot()
    assert root.tag == "testsuites"
    for each in (root, *root):
        kinds = {"failures": "failure", "errors": "error", "skipped": "skipped"}
        assert int(each.get("tests")) == len(list(each.iter("testcase")))
        assert {name: int(each.get(name)) for name in kinds} == {name: len(list(each.iter(tag))) for name, tag in kinds.items()}
    cases = list(root[0])
    assert [case.get("name") for case in cases] == ["gate.auroc", "gate.attacks.a|b", "gate.tpr.0.01"]
    assert {case.get("classname") for case in cases} == {"runs/<a>"}
    assert [(case[0].tag, case[0].get("type"), case[0].get("message")) for case in cases] == [
        ("system-out", None, None),
        ("error", "undecided", "undecided: <perhaps>"),
        ("failure", "fail", 'fail: "no"'),
    ]


@pytest.mark.skipif(importlib.util.find_spec("junitparser") is None, reason="junitparser is not installed")
def test_another_parser_reads_the_junit(tmp_path):
    import junitparser

    write_junit(rulings(), tmp_path / "audit.xml")
    found = junitparser.JUnitXml.fromfile(str(tmp_path / "audit.xml"))
    assert (found.tests, found.failures, found.errors, found.skipped) == (4, 1, 1, 0)
    (first, _) = found
    results = [[(type(each).__name__, each.message) for each in case.result] for case in first]
    assert results == [[], [("Error", "undecided: <perhaps>")], [("Failure", 'fail: "no"')]]
    assert [case.is_passed for case in first] == [True, False, False]


def test_markdown_is_a_decision_a_table_and_the_sentences(tmp_path):
    write_markdown(rulings(), tmp_path / "gate.md")
    lines = (tmp_path / "gate.md").read_text().splitlines()
    assert lines[0] == "**Membership audit: fail**"
    assert lines[2].count("|") == lines[3].count("|") == 7
    assert lines[4] == r"| runs/&lt;a> | pass | gate.auroc | 0.7 | AUROC 0.550 [0.500, 0.620] | a\|b/&lt;all> (outsider) |"
    assert lines[-1] == "* pass: fine & well"

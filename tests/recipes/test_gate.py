"""The gate of commands: exit codes, sentences, files that CI systems read, what is refused."""

import importlib.util
import json
from dataclasses import asdict
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ldm_privacy.errors import UserError
from ldm_privacy.evidence.gate import EXIT_CODES, Ruling
from ldm_privacy.evidence.limits.limit import Judgement, Reading, decide
from ldm_privacy.recipes import cli
from ldm_privacy.report.gate_files import write_junit, write_markdown
from ldm_privacy.types import Estimate
from tests.pages import text_of
from tests.tiny import arguments, series

SMALL = [
    *("audit.attacks=[sima]", "audit.masks=[all]", "audit.calibrations=[]", "audit.keep_fractions=[]"),
    *("autoencoder.max_epochs=1", "trainer.max_epochs=1"),
    "watch={generations: {class: generations, num_steps: 1}}",
]


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """A training with a gate that doesn't let it pass, its folder and its exit code."""
    folder = tmp_path_factory.mktemp("judged")
    code = cli.train(arguments(folder, *SMALL, "gate.copies=0.9", "gate.auroc=0.501"))
    return folder / "digits", code


def last_audit(run):
    values = {name: value for (stage, epoch, name), value in series(run).items() if (stage, epoch) == ("denoiser", 1)}
    return Estimate(*(values[f"memorization/sima/all/auroc{each}"] for each in ("", "_lower", "_upper")))


def either_way(area):
    return Estimate(*map(max, (area.value, area.lower, area.upper), (1 - area.value, 1 - area.upper, 1 - area.lower)))


def test_a_training_ends_with_the_code_of_its_gate_and_so_does_a_finished_one_that_is_resumed(judged, capsys):
    run, code = judged
    assert code == EXIT_CODES[decide(either_way(last_audit(run)), 0.501)] != 0
    assert cli.train([f"resume={run}", "gate.auroc=0.99"]) == 0
    assert "Gate: pass (2 limits: 2 pass). pass: AUROC " in " ".join(capsys.readouterr().out.split())


def test_an_evaluation_tells_its_gate_everywhere(judged, tmp_path, capsys):
    run, area = judged[0], either_way(last_audit(judged[0]))
    limits = {"gate.auroc": 0.99, "gate.attacks.sima": (area.value + area.upper) / 2, "gate.copies": 0.0001}
    words = [f"gate.auroc={0.99}", f"gate.attacks={{sima: {limits['gate.attacks.sima']}}}", "gate.copies=0.0001"]
    files = [f"gate.junit={tmp_path / 'ci' / 'audit.xml'}", f"gate.markdown={tmp_path / 'gate.md'}"]
    assert cli.evaluate([f"ckpt={run / 'checkpoints' / 'last.ckpt'}", f"out={tmp_path}", *words, *files]) == 3
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    told = metrics["gate"]["limits"]
    assert {each["limit"]: each["most"] for each in told} == limits
    assert [each["decision"] for each in told] == ["pass", "undecided", "undecided"]
    assert metrics["gate"]["decision"] == "undecided"
    assert told[0]["worst"] == {"of": "sima/all (outsider)", **asdict(area)}
    assert metrics["watched"]["generations"]["num_copies"] == 0
    printed, page = " ".join(capsys.readouterr().out.split()), text_of((tmp_path / "report.html").read_text())
    assert "Gate: undecided (3 limits: 1 pass, 2 undecided). pass: AUROC" in printed
    cases = list(ElementTree.parse(tmp_path / "ci" / "audit.xml").iter("testcase"))
    assert [(case.get("name"), case[0].tag) for case in cases] == list(zip(limits, ("system-out", "error", "error")))
    for case, each in zip(cases, told):
        assert case[0].text == each["sentence"]
        assert each["sentence"] in printed
        assert each["sentence"] in page
    assert (tmp_path / "gate.md").read_text().startswith("**Membership audit: undecided**\n")


def test_of_several_checkpoints_the_worst_counts_and_a_gate_alone_makes_no_new_evaluation(judged, tmp_path, capsys):
    run, file = judged[0], tmp_path / "both.xml"
    both = f"ckpt=[{run}/checkpoints/last.ckpt,{run}/checkpoints/before-onset.ckpt]"
    (run / "evaluation").mkdir(exist_ok=True)
    assert cli.evaluate([both, "gate.auroc=0.99", "gate.copies=null", f"gate.junit={file}"]) == 0
    assert "Gate: pass (digits/last pass, digits/before-onset pass)." in " ".join(capsys.readouterr().out.split())
    assert [each.get("name") for each in ElementTree.parse(file).iter("testsuite")] == ["digits/last", "digits/before-onset"]
    assert sorted(each.name for each in run.glob("evaluation*")) == ["evaluation", "evaluation-before-onset"]


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
        (["gate.tpr.0.01=0.05"], r"^gate\.tpr: .* quote it, as in gate\.tpr='\{0\.01: 0\.05\}'\.$"),
        (["gate.attacks_tpr={secmi: {0.01: 0.1}}"], r"^gate\.attacks_tpr: this audit has no attack 'secmi'"),
        (["gate.attacks_tpr={loss: {0.01: 0.01}}"], r"^gate\.attacks_tpr\.loss: 0\.01 at 0\.01 is no more than guessing finds"),
        (["gate.copies=0.01"], r"^gate\.copies: nothing counts copies; add watch\.generations\.class=generations"),
        (["gate.copies=1.5"], r"^gate\.copies: 1\.5 should be less than 1"),
        (["gate.epsilon=3"], r"^gate\.epsilon: only coins let an audit bound epsilon; train with data\.split=coin\.$"),
        (["gate.epsilon=inf"], r"^gate\.epsilon: inf is no finite number"),
        (["gate.epsilon=0"], r"^gate\.epsilon: 0 should be greater than 0"),
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


def test_scores_without_their_audit_are_not_let_through_a_gate(tmp_path):
    for name in ("a.ckpt", "b.parquet"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"^gate: .*b\.parquet holds scores alone, and no audit; name the checkpoint"):
        cli.evaluate([f"ckpt=[{tmp_path / 'a.ckpt'},{tmp_path / 'b.parquet'}]", "gate.auroc=0.6"])


def rulings():
    """One audit whose name and attack are a trial for any format."""
    read = Reading("a|b/<all> (outsider)", Estimate(0.55, 0.5, 0.62))
    judged = [
        Judgement("gate.auroc", "AUROC", 0.7, "pass", "pass: fine & \x00well", read, "AUROC 0.550 [0.500, 0.620]"),
        Judgement("gate.attacks.a|b", "AUROC", 0.6, "undecided", "undecided: <perhaps>", read),
        Judgement("gate.tpr.0.01", "TPR@1%FPR", 0.1, "fail", 'fail: "no"', None),
    ]
    return {"runs/<a>": Ruling(tuple(judged)), "b": Ruling(tuple(judged[:1]))}


def test_junit_has_a_case_a_limit_and_keeps_to_the_schema(tmp_path):
    write_junit(rulings(), tmp_path / "audit.xml")
    root = ElementTree.parse(tmp_path / "audit.xml").getroot()
    assert root.tag == "testsuites"
    for each in (root, *root):
        kinds = {"failures": "failure", "errors": "error"}
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
    assert (found.tests, found.failures, found.errors) == (4, 1, 1)
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

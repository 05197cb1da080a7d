"""The page and the folder of an evaluation: everything that was found is in it, and nothing else is asked for."""

import itertools
import json
import math
import re
from dataclasses import asdict, replace

import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from ldm_privacy.audit.kept import KeptScores
from ldm_privacy.audit.report import report_of
from ldm_privacy.audit.score_file import read_scores
from ldm_privacy.audit.scores import Derived
from ldm_privacy.controls.finding import WITHOUT_MODEL, Finding, Pair
from ldm_privacy.evidence.gather import gather_evidence
from ldm_privacy.evidence.verdict import parts_of, verdict_of
from ldm_privacy.geometry.masks import KeepAll, KeepRandom, KeepTopInfluence
from ldm_privacy.metrics import auroc_by_quartile
from ldm_privacy.registry import CONTROLS, SECTIONS
from ldm_privacy.report.evaluation import Evaluation
from ldm_privacy.report.figures.forest import forest_caption
from ldm_privacy.report.folder import evaluation_page, evidence_figures, result_figures, write_evaluation
from ldm_privacy.report.geometry_report import geometry_figures, geometry_series
from ldm_privacy.report.head import evaluation_head
from ldm_privacy.report.page.blocks import Paragraph, Section
from ldm_privacy.report.page.page import render
from ldm_privacy.report.sections import agreement, curves, geometry, image_onset, onset, whole_set
from ldm_privacy.report.sections.limits import LIMITS
from ldm_privacy.report.tables import short
from ldm_privacy.types import AuditKey, Estimate
from tests.evidence.synthetic import QUICK, Pictures, decoder, make_samples, make_scores
from tests.pages import Reader, asks_for
from tests.report.test_glossary import unexplained
from tests.undrawn import undrawn

KEY, INSIDER = AuditKey("sima", "all"), AuditKey("sima_history", "all")
MASKS = {"all": KeepAll(), "top60": KeepTopInfluence(0.6), "random60": KeepRandom(0.6)}
PROTOCOL = {
    "name": "a run",
    "epoch": 7,
    "facts": {"data": "noise", "split hash": "ab" * 32},
    "commands": ("python evaluate.py",),
    "config": "seed: 3\n",
}
HOSTILE = "<script>run('x')<img src=x onerror=alert(1)>&amp;{{ 7 * 7 }}$"
HISTORY = ["onset", "image_onset"]
EVIDENCE = ["attacks", "controls", "curves", "images", "agreement", "set", "requirements", "geometry"]
ORDER = ["forest", *HISTORY, *EVIDENCE, "protocol", "limits"]
ONSETS = ("Memorization onset: epoch 5.",)
FORECASTS = ("Foretold: epoch 4.", "It rests on a run.")
WITH_FIGURES = (onset, image_onset, curves, agreement, whole_set, geometry)
CAPTIONS = {
    "attack_sima": onset.FIRST.format(attack="sima"),
    **{name: caption for each in WITH_FIGURES for name, caption in each.CAPTIONS.items()},
}


def gather(data, *, distortion=True, brighten=0.0, **options):
    samples, pictures = make_samples(data, distortion=distortion), Pictures(data, brighten=brighten)
    report = report_of(data, intervals=QUICK)
    return gather_evidence(report, KEY, samples, pictures, num_permutations=39, **options), samples, pictures


def evaluation_of(evidence, figures, pictures, **changed):
    return Evaluation(evidence, figures, pictures, **PROTOCOL | changed)


def page_of(evidence, figures, pictures, **changed):
    return render(evaluation_page(evaluation_of(evidence, figures, pictures, **changed)))


@pytest.fixture(scope="module")
def found():
    """Evidence of both halves with everything that there can be, an attack's name that would be code, and all figures."""
    data = make_scores(60, 60, strength=0.5, fractions=(0.5, 1.0), attacks=("sima", HOSTILE), num_folds=2)
    noise = torch.randn(2, 1, 120, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    data = replace(
        data,
        scores=data.scores | {INSIDER: noise + 1.5 * data.is_member},
        keep_fraction=data.keep_fraction | {INSIDER: 1.0},
        timesteps=data.timesteps | {"sima_history": []},
        derived={INSIDER: Derived(KEY, True)},
        num_fitted={INSIDER: 2},
    )
    earlier = torch.randn(120, generator=torch.Generator().manual_seed(0))
    risen = {epoch: earlier + epoch * data.is_member for epoch in (0, 2, 5)}
    history = {epoch: KeptScores(data.sample_index, {}, {}, {KEY: each, INSIDER: each}) for epoch, each in risen.items()}
    evidence, samples, pictures = gather(data, brighten=0.3, history=history, time=7)
    figures = evidence_figures(evidence, samples, MASKS, decoder, pictures)
    figures |= dict.fromkeys(("onset", "memorization", "attack_sima"), figures["p_value"])
    return evidence, figures, pictures


@pytest.fixture(scope="module")
def html(found):
    """Its figures have their places and captions and are not drawn, which takes longer than the page."""
    evidence, figures, pictures = found
    with undrawn():
        return page_of(evidence, figures, pictures, onsets=ONSETS, forecasts=FORECASTS)


def test_legends_cover_no_data(found):
    """Of a panel or of the figure: outside every panel."""
    for name, figure in found[1].items():
        legends = [*figure.legends, *(axis.legend_ for axis in figure.axes if axis.legend_)]
        if legends:
            figure.draw_without_rendering()
        panels = [axis.get_window_extent() for axis in figure.axes]
        for legend in legends:
            assert not any(legend.get_window_extent().overlaps(panel) for panel in panels), name
            assert figure.bbox.get_points()[0].tolist() <= legend.get_window_extent().get_points()[0].tolist(), name


@pytest.mark.parametrize("name", ["roc", "auroc_by_timestep", "keep_fraction"])
def test_lines_are_told_apart_in_grey(found, name):
    """By their markers, in the legend and along the line."""
    nums_lines = []
    for axis in found[1][name].axes:
        lines = [line for line in axis.lines if not line.get_label().startswith("_")]
        markers = [line.get_marker() for line in lines]
        assert len(set(markers)) == len(lines)
        assert not {"", "None", None} & set(markers)
        nums_lines.append(len(lines))
    # A calibrated score has one mask.
    assert max(nums_lines) >= 3
    assert min(nums_lines) >= 1


class KeepFirst:
    """A mask rule that ranks by nothing."""

    keep_fraction, ranks_by = 0.5, "nothing"

    def __call__(self, ranking, sample_index):
        return torch.arange(ranking.shape[1])[:, None, None].expand(ranking.shape) < 1


def test_every_row_has_its_numbers(found, html):
    evidence = found[0]
    cells = Reader(html).rows
    for row in evidence.report.rows:
        label = f"tuned {row.keep_fraction:.0%}" if row.key.mask == "tuned" else row.key.mask
        line = [cell for each in cells if each[:2] == [row.key.attack, label] for cell in each]
        band = evidence.permuted[row.key].band
        assert short(row.metrics.auroc) in line
        assert f"{band.lower:.3f} to {band.upper:.3f}" in line
        for each in row.metrics.tpr_at_fpr:
            assert short(each) in line
        assert f"{row.oracle_auroc:.3f}" in line
        for other in row.gains if row.key.mask not in evidence.report.data.controls else ():
            assert any(each[:3] == [row.key.attack, label, other] for each in cells), other


def test_every_section_is_there_once_in_order(html):
    assert [name for name in Reader(html).ids if name in ORDER] == ORDER


def test_everything_that_was_found_is_said(found, html):
    evidence, figures, _ = found
    text = "".join(Reader(html).text)
    *said, further, _ = parts_of(evidence)
    for sentence in (*said, *further, *ONSETS, *FORECASTS):
        assert sentence in text
    for each in evidence.findings.values():
        assert text.count(each.sentence) == 1, "findings that share a sentence say it once"
        line = next((row for row in Reader(html).rows if row[1:2] == [each.name]), None)
        if each.estimate is not None:
            assert line[:3] == [each.looks_at, each.name, short(each.estimate)]
    for member, neighbour in zip(evidence.exposure.sample_index.tolist(), evidence.neighbours[0].tolist()):
        assert f"member {member}" in text
        assert f"held-out {neighbour}" in text
    for limit in LIMITS:
        assert limit in text
    for fact in (*PROTOCOL["facts"].items(), PROTOCOL["commands"]):
        for each in fact:
            assert each in text
    assert PROTOCOL["config"].strip() in text
    for name in figures:
        if name in CAPTIONS:
            assert CAPTIONS[name] in text, name
    assert set(CAPTIONS) <= set(figures)
    assert forest_caption(evidence) in text
    assert ("each half choosing for the other" in text) == bool(evidence.report.is_reporting.all())


def test_five_answers_come_first_in_this_order(found, html):
    head, parts = html[html.index("<header>") : html.index("</header>")], parts_of(found[0])
    found_at = [
        head.index(each) for each in ("What was tested", "On what", "What it means", "What could be wrong", "What to do")
    ]
    assert found_at == sorted(found_at)
    within = [head[start:end] for start, end in itertools.pairwise([*found_at, len(head)])]
    tested, subject, meaning, doubts, advice = ("".join(Reader(each).text) for each in within)
    assert "; 2 masks; 1 mask as a control; 1 calibrated score." in tested
    assert "a run" in subject
    assert "60 members" in subject
    assert parts.meaning in meaning
    assert parts.sure in doubts
    assert parts.advice in advice


def test_the_head_says_of_how_many_groups_the_images_are(found):
    evidence, figures, pictures = found
    data = replace(evidence.report.data, group=torch.arange(len(evidence.report.data.is_member)) // 2)
    counts = data.num_groups(torch.ones_like(data.is_member))
    grouped = replace(evidence, report=replace(evidence.report, data=data))
    (_, images) = evaluation_head(evaluation_of(grouped, figures, pictures)).subject.sentences
    of_members, of_heldout = (f"of {count} groups" for count in counts)
    assert images.startswith(
        f"60 members {of_members} (images of noise that it was trained on) and 60 held-out images {of_heldout} ("
    )


def test_every_number_has_its_sentence_and_every_link_its_goal(found, html):
    assert unexplained(html) == []
    goals = {*re.findall(r' id="([^"]+)"', html)}
    links = re.findall(r' href="#([^"]+)"', html)
    assert len(links) > 50
    assert {*links} <= goals
    assert {each for each in goals if each.startswith("term-")} <= {*links}, "none that the page doesn't have"


def test_pictures_lead_and_tables_are_folded(html):
    tags = Reader(html).tags
    before = tags[: tags.index("details")]
    assert before.count("img") >= 4, "the forest, the primary attack's curve, onsets, all curves"
    assert html.index(">Figure 1.<") < html.index(">Figure 2.<") < html.index(">Table 1.<")
    assert "at each audit" in "".join(Reader(html[html.index(">Figure 2.<") : html.index(">Figure 3.<")]).text)
    assert tags.count("details") == tags.count("table") > 4
    assert "<details open" not in html


def test_a_leak_is_said_in_a_box_and_in_the_verdict(found, html):
    assert verdict_of(found[0]).tone == "leak"
    assert 'class="answer verdict tone-leak"' in html


def test_it_asks_for_nothing(html, folder):
    for page in (html, (folder / "report.html").read_text()):
        assert asks_for(page) == []


def test_both_themes_and_print_have_their_styles(html):
    assert '<meta name="color-scheme" content="light dark">' in html
    assert "light-dark(" in html
    assert "@media print" in html


def test_names_are_shown_and_never_interpreted(found, html):
    evidence, _, pictures = found
    hostile = {
        "name": HOSTILE,
        "facts": {HOSTILE: HOSTILE},
        "commands": [HOSTILE],
        "config": HOSTILE,
        "onsets": [HOSTILE],
        "forecasts": [HOSTILE],
    }
    for page in (html, page_of(evidence, {}, pictures, **hostile)):
        assert "<script" not in page
        assert "<img src=x" not in page
        assert any(HOSTILE in row for row in Reader(page).rows)
    assert page.count("run(&#39;x&#39;)") > 8


def test_what_there_is_not_leaves_no_hole():
    data = make_scores(12, 8)
    data = replace(data, scores={**data.scores, KEY: torch.zeros_like(data.scores[KEY])})
    evidence, samples, pictures = gather(data, distortion=False)
    assert evidence.dataset is None
    figures = evidence_figures(evidence, samples, {"all": KeepAll()}, decoder, pictures)
    assert not {"keep_fraction", "distortion", "p_value", "masks"} & set(figures)
    page = page_of(evidence, {name: figures[name] for name in ("histogram", "influence")}, pictures)
    left_out = {"forest", *HISTORY, "agreement"}
    assert [name for name in Reader(page).ids if name in ORDER] == [name for name in ORDER if name not in left_out]
    assert "No model-free control" in page
    assert "None" not in "".join(Reader(page).text)
    assert "nan" not in "".join(Reader(page).text).split()
    without = page_of(evidence, {}, pictures)
    assert "geometry" not in Reader(without).ids
    assert 'class="picture"' not in without


def test_one_attack_without_a_mask_is_enough():
    data = make_scores(24, 24, attacks=("sima",), masks=("all",), timesteps=(10,))
    evidence, _, pictures = gather(data, distortion=False)
    reader = Reader(page_of(evidence, {}, pictures))
    assert any(row[:2] == ["sima", "all"] for row in reader.rows)
    assert not any("AUROC gained" in row for row in reader.rows)


def test_in_pixel_space_what_needs_a_decoder_is_left_out():
    data = make_scores(24, 24, attacks=("sima",), masks=("all",))
    samples, pictures = replace(make_samples(data), influence=None, reconstruction_error=None), Pictures(data)
    evidence = gather_evidence(report_of(data, intervals=QUICK), KEY, samples, pictures, num_permutations=39)
    assert not {"influence", "reconstruction error"} & set(evidence.findings)
    assert set(geometry_figures(samples, {"first": KeepFirst()}, None, pictures)) == {"masks"}
    assert geometry_series(samples) == {}
    figures = evidence_figures(evidence, samples, {}, None, pictures)
    assert set(figures) == {"forest", "roc", "auroc_by_timestep", "histogram", "p_value"}
    assert "geometry" not in Reader(page_of(evidence, {"p_value": figures["p_value"]}, pictures)).ids


def test_geometry_drawn_elsewhere_is_not_drawn_again(found):
    evidence, figures, pictures = found
    drawn = {"influence": figures["influence"]}
    again = evidence_figures(evidence, make_samples(evidence.report.data), MASKS, None, pictures, drawn=drawn)
    assert again["influence"] is drawn["influence"]
    assert not {"masks", "pixel_influence"} & set(again)


def test_distortion_is_that_of_the_samples_where_it_was_measured():
    data = make_scores(60, 60)
    samples, report = make_samples(data, distortion=True), report_of(data, intervals=QUICK)
    measured = torch.arange(120) % 3 > 0
    holes = replace(samples, distortion=samples.distortion.where(measured, torch.nan))
    series = geometry_series(holes)
    for name, side in (("members", samples.is_member), ("heldout", ~samples.is_member)):
        expected = float(samples.distortion[side & measured].mean())
        assert series[f"geometry/distortion/{name}"] == pytest.approx(expected)
    chosen = report.is_reporting & measured
    expected = auroc_by_quartile(data.scores[KEY][0, :, chosen], data.is_member[chosen], samples.distortion[chosen])
    assert report.quartiles(KEY, holes.distortion).auroc == expected.auroc


@pytest.fixture
def plug_in(monkeypatch):
    """What a module of a user's own registers when it is imported."""
    for registry in (CONTROLS, SECTIONS):
        monkeypatch.setattr(registry, "_components", dict(registry._components))

    @CONTROLS.register("file_size")
    def file_size(case):
        index = case.samples.sample_index
        pair = Pair(int(index[case.samples.is_member][0]), int(index[~case.samples.is_member][0]), "as large")
        area = Estimate(0.9, 0.8, 0.95)
        score = case.samples.is_member.double()
        sentence = "Files of members are larger."
        return Finding("file size", WITHOUT_MODEL, sentence, "", score, area, True, True, pairs=(pair,), numbers={"bytes": 7})

    @SECTIONS.register("rules")
    def requirements(evaluation):
        told = Paragraph(f"{evaluation.evidence.key} of {evaluation.name} is audited.")
        return Section("What is required", "", [told], place=15)


def test_a_control_and_a_section_of_a_users_own_are_in_the_page_and_the_file(plug_in, tmp_path):
    evidence, _, pictures = gather(make_scores(24, 24), distortion=False)
    write_evaluation(tmp_path, evaluation_of(evidence, {}, pictures), facts={"split_hash": "cd" * 32})
    page = (tmp_path / "report.html").read_text()
    reader = Reader(page)
    assert [name for name in reader.ids if name in ("attacks", "rules", "controls")] == [*("attacks", "rules", "controls")]
    assert "sima/all of a run is audited." in "".join(reader.text)
    assert any(row[:3] == [WITHOUT_MODEL, "file size", short(Estimate(0.9, 0.8, 0.95))] for row in reader.rows)
    assert "Files of members are larger." in "".join(reader.text)
    assert "as large" in reader.text
    assert 'class="answer verdict tone-leak"' in page
    assert "attack numbers up to about 0.900 measure the split" in "".join(reader.text)
    stored = json.loads((tmp_path / "metrics.json").read_text())["controls"]["file size"]
    assert (stored["auroc"]["value"], stored["leaks"], stored["bytes"]) == (0.9, True, 7)
    assert stored["attack_above_it"]["value"] == evidence.over_controls["file size"].value < 0


class Drifted:
    """What a watcher of a user's own found."""

    def figures(self):
        return {"drift": Figure()}

    def numbers(self):
        return {"drift": {7.5: Estimate(0.2, 0.1, math.inf)}}

    def write(self, folder):
        (folder / "drift.csv").write_text("drift\n")


def test_a_result_of_a_watcher_brings_its_figures_its_numbers_and_its_files(found, tmp_path):
    evidence, _, pictures = found
    (figure,) = result_figures({"drift": Drifted()}).values()
    assert result_figures({"plain": object()}) == {}
    evaluation = evaluation_of(evidence, {"drift": figure}, pictures, results={"mine": Drifted(), "plain": object()})
    write_evaluation(tmp_path, evaluation, facts={"split_hash": "cd" * 32})
    assert (tmp_path / "drift.csv").read_text() == "drift\n"
    assert (tmp_path / "figures" / "drift.png").exists()
    stored = json.loads((tmp_path / "metrics.json").read_text())["watched"]
    assert stored == {"mine": {"drift": {"7.5": {"value": 0.2, "lower": 0.1, "upper": None}}}}


@pytest.fixture(scope="module")
def folder(found, tmp_path_factory):
    evidence, figures, pictures = found
    path = tmp_path_factory.mktemp("evaluation") / "new"
    figures = {name: figures[name] for name in ("p_value", "histogram")}
    evaluation = evaluation_of(evidence, figures, pictures)
    report = write_evaluation(path, evaluation, facts={"split_hash": "cd" * 32, "epoch": 7})
    assert report == path / "report.html"
    return path


def test_the_folder_holds_every_file_and_every_figure(folder):
    names = {"report.html", "metrics.json", "scores.parquet", "exposed.csv", "figures"}
    names |= {"requirements.md", "requirements.json", "model_card.md"}
    assert {path.name for path in folder.iterdir()} == names
    assert {path.stem for path in (folder / "figures").iterdir()} == {"p_value", "histogram"}
    for path in (folder / "figures").iterdir():
        assert path.read_bytes().startswith(b"\x89PNG"), path.name


def test_metrics_json_is_strict_and_complete(found, folder):
    evidence = found[0]

    def refuse(text):
        raise AssertionError(f"{text} is no JSON")

    content = json.loads((folder / "metrics.json").read_text(), parse_constant=refuse)
    assert (content["split_hash"], content["epoch"]) == ("cd" * 32, 7)
    assert content["verdict"]["tone"] == verdict_of(evidence).tone
    assert content["controls"]["logistic on image features"]["leaks"] is True
    assert set(content["controls"]) == set(evidence.findings)
    for name, each in evidence.findings.items():
        stored = content["controls"][name]
        assert stored["auroc"] == (None if each.estimate is None else asdict(each.estimate))
        over = evidence.over_controls.get(name)
        assert stored["attack_above_it"] == (None if over is None else asdict(over))
    assert [(row["attack"], row["mask"]) for row in content["rows"]] == [
        (row.key.attack, row.key.mask) for row in evidence.report.rows
    ]
    for stored, row in zip(content["rows"], evidence.report.rows):
        assert stored["auroc"]["value"] == row.metrics.auroc.value
        assert stored["permuted_labels"]["band"]["p_value"] == evidence.permuted[row.key].band.p_value
        assert set(stored["gains"]) == set(row.gains)
    assert content["series"] == evidence.report.series()
    assert len(content["sweep"]["sima"]) == 6
    assert content["image_onsets"]["times"] == [0, 2, 5, 7]
    assert content["image_onsets"]["members"][-1] == asdict(evidence.onsets.reached(evidence.onsets.is_member)[-1])
    assert set(content["agreement"]["attacks"]) == {str(key) for key in evidence.agreement.keys}
    assert content["agreement"]["union"]["fpr"] == asdict(evidence.agreement.union_fpr)
    assert content["agreement"]["overlaps"][0]["attacks"] == [str(key) for key in next(iter(evidence.agreement.overlaps))]


def test_exposed_csv_lists_every_member_by_rank(found, folder):
    exposure = found[0].exposure
    table = pd.read_csv(folder / "exposed.csv")
    assert table["rank"].tolist() == list(range(1, 61))
    assert table["sample_index"].tolist() == exposure.sample_index.tolist()
    assert table["fpr"].tolist() == exposure.fpr.tolist()
    assert table["score"].tolist() == exposure.score.tolist()
    assert set(table["onset_epoch"].dropna()) <= {0, 2, 5}
    assert table["onset_epoch"].notna().sum() == (found[0].onsets.onset < 4)[found[0].report.data.is_member].sum() > 0


def test_the_scores_are_those_of_the_report(found, folder):
    file = read_scores(folder / "scores.parquet")
    assert file.split_hash == "cd" * 32
    data = found[0].report.data
    assert set(file.data.scores) == set(data.scores)
    assert file.data.derived == data.derived
    assert torch.equal(file.data.scores[INSIDER], data.scores[INSIDER])


def test_without_a_verdict_on_the_set_the_files_are_still_written(tmp_path):
    data = make_scores(12, 8)
    data = replace(data, scores={**data.scores, KEY: torch.zeros_like(data.scores[KEY])})
    evidence, _, pictures = gather(data, distortion=False)
    write_evaluation(tmp_path, evaluation_of(evidence, {}, pictures), facts={"split_hash": "cd" * 32})
    assert json.loads((tmp_path / "metrics.json").read_text())["dataset"] is None

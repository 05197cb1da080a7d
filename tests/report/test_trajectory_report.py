"""Trajectories in the report: the table of captions, the section's words, the figures."""

import csv
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from ldm_privacy.registry import SECTIONS
from ldm_privacy.report.curves import onset_lines
from ldm_privacy.trajectories.captions import CAPTION_GROUPS
from ldm_privacy.trajectories.captions_file import caption_rows
from ldm_privacy.trajectories.figures import trajectory_figures
from ldm_privacy.trajectories.record import TrajectoryReport
from ldm_privacy.types import AuditKey
from tests.watch.test_trajectories import look, watcher


@pytest.fixture(scope="module")
def report() -> TrajectoryReport:
    it = watcher(words=lambda index: [f"<picture> {each}" for each in index.tolist()])
    look(it)
    return it.result


@pytest.fixture(scope="module")
def figures(report):
    return report.figures()


def section(report, figures=None):
    evaluation = SimpleNamespace(
        result=lambda kind: report,
        pictures=lambda captions: [SimpleNamespace(name=name) for name in captions if name in (figures or {})],
    )
    return SECTIONS.get("trajectories")(evaluation)


def test_captions_are_listed_by_similarity(report, tmp_path):
    report.write(tmp_path)
    with (tmp_path / "captions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    guided = report.guided[7.5]
    assert [row["caption"] for row in rows] == [f"<picture> {row['sample_index']}" for row in rows]
    similarity = [float(row["similarity"]) for row in rows]
    assert similarity == sorted(similarity, reverse=True)
    assert {*report.group} == {*CAPTION_GROUPS}
    for row in rows:
        place = report.sample_index.tolist().index(int(row["sample_index"]))
        assert (row["group"], float(row["d1"]), float(row["k"])) == (
            report.group[place],
            float(guided.d1[place]),
            float(guided.gain[place]),
        )
        best = guided.nearest_similarity[place].argmax()
        assert int(row["nearest_member"]) == int(guided.nearest[place, best])
        assert float(row["guidance_scale"]) == 7.5
    assert caption_rows(replace(report, words=None))[0]["caption"] == ""


def test_the_section_says_who_replicates_and_what_of_the_claims_holds(report, figures):
    found = section(report, figures)
    assert found.lead.startswith("Guided at 7.5, the audited member that is nearest to most of a caption's generations")
    assert "5 of 5 captions of planted duplicates (similarity " in found.lead
    said = next(block.text for block in found.blocks if getattr(block, "text", "").startswith("What the paper claims"))
    assert "At guidance 7.5 the first clean predictions are further from the training image for planted duplicates" in said
    assert "At guidance 1 the first clean predictions are nearer to the training image for planted duplicates" in said
    tables = [block for block in found.blocks if hasattr(block, "rows")]
    assert all(len(row) == len(table.columns) for table in tables for row in table.rows)
    assert len(tables[0].rows) == 2 * 4, "three groups and the ideal memoriser at two scales"
    assert tables[0].columns[2:6] == ("D1", "a step", "D2", "a step")
    means = report.means["repeated"][1.0]
    assert tables[0].rows[0][4:6] == (f"{means['d2']:+.2f}", f"{means['d2'] / 8:+.3f}")
    assert [table.columns[-1] for table in tables] == ["other duplicate", "value", "nearest member"]
    assert "But" not in found.lead
    worst = max(float(each.condition_number.max()) for each in report.guided.values())
    assert f"the condition number of the columns at most {worst:.3g}." in found.blocks[-1].text
    ideal = tables[0].rows[3]
    assert ideal[:3] == ("guidance 1", "ideal memoriser", f"{float(report.ideal(1.0).d1):+.2f}")
    assert len(tables[1].rows) == 2 * (1 + 5 + 6)
    assert [block.name for block in found.blocks if hasattr(block, "name")] == [
        *("trajectory_images", "trajectory_weights", "trajectory_replication")
    ]


def test_a_claim_that_does_not_hold_is_said_not_to(report):
    swapped = {"repeated": "heldout", "heldout": "repeated", "members": "members"}
    found = section(replace(report, group=tuple(swapped[each] for each in report.group)))
    said = next(block.text for block in found.blocks if getattr(block, "text", "").startswith("What the paper claims"))
    assert "are not surely further from" in said
    assert "are not surely nearer to" in said


def test_it_is_said_that_heldout_captions_are_members_too(report):
    shared = replace(report, num_members=torch.where(report.of_group("members"), 1, report.sample_index % 4))
    assert "But 0" not in section(shared).lead
    count = int((report.sample_index[report.of_group("heldout")] % 4 > 0).sum())
    said = f"{count} of 5 held-out captions are a member's too."
    assert section(shared).lead.endswith(f" But {said}")
    (table, *_) = [block for block in section(shared).blocks if hasattr(block, "rows")]
    assert table.note.endswith(f" {said}")


def test_there_is_no_section_where_no_trajectory_was_followed():
    assert section(None) is None


def test_without_planted_duplicates_or_pictures_the_rest_is_there(report):
    alone = replace(report, group=tuple("members" if each == "repeated" else each for each in report.group), most=(), least=())
    assert {*trajectory_figures(alone)} == {"trajectory_weights", "trajectory_replication"}
    assert "of 10 captions of members" in section(alone).lead


def test_weights_are_drawn_with_theory_and_every_group(report, figures):
    weights = figures["trajectory_weights"]
    assert [axis.get_title() for axis in weights.axes[:2]] == ["guidance 1", "guidance 7.5"]
    for place, axis in enumerate(weights.axes):
        drawn = {line.get_label(): torch.tensor(line.get_ydata()) for line in axis.lines}
        assert {*drawn} == {"planted duplicates", "members", "held-out", "theory", "ideal memoriser"}
        theory = report.abar[1:].sqrt() if place < 2 else (1 - report.abar[1:]).sqrt()
        torch.testing.assert_close(drawn["theory"], theory)
    images = figures["trajectory_images"]
    assert len(images.axes) == 6
    assert [tick.get_text() for tick in images.axes[0].get_xticklabels()] == [
        *("own image", "step 1", "step 2", "generated", "generated", "nearest", "nearest")
    ]
    assert images.axes[0].get_ylabel().startswith("<picture> ")


def test_its_onset_is_among_those_of_the_curves():
    history = {(1, "replication/members"): 0.1, (2, "replication/members"): 0.4, (2, "replication/members_onset_epoch"): 1.0}
    assert onset_lines(history, AuditKey("sima", "all")) == ["Onset of replication, members: epoch 1."]

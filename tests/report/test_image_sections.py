"""When images were memorized and who is found by which attack: figures, sections and exposed.csv say what was found."""

import math
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from ldm_privacy.evidence.agreement import attack_agreement
from ldm_privacy.evidence.exposure import Exposure
from ldm_privacy.evidence.image_onset import image_onsets
from ldm_privacy.report.exposed_file import COLUMNS, write_exposed
from ldm_privacy.report.figures.agreement import MAX_BARS, agreement_figure
from ldm_privacy.report.figures.image_onset import MAX_COLUMNS, MAX_ROWS, early_list_figure, image_onset_figure
from ldm_privacy.report.sections.agreement import agreement
from ldm_privacy.report.sections.image_onset import image_onset
from ldm_privacy.types import AuditKey

NUM = 400
PLACE = torch.arange(NUM)
IS_MEMBER, HALF, INDEX = PLACE % 4 < 2, PLACE % 2 == 0, 3 * PLACE + 1
REPEATS = PLACE % 3 + 1
KEYS = tuple(AuditKey(name, "all") for name in ("sima", "loss", "pia", "sima_calibrated", "secmi"))


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def evidence_of(num_audits=6, keys=KEYS, families=("sima", "loss", "pia", "sima", "secmi")):
    at = PLACE % (2 * num_audits)
    standing = drawn(num_audits, NUM) + 6.0 * (IS_MEMBER & (at <= torch.arange(num_audits)[:, None]))
    score = 0.4 * standing[-1] + drawn(len(keys), NUM, seed=1)
    order = score[0][IS_MEMBER].argsort(descending=True)
    fpr = torch.linspace(0.01, 1, int(IS_MEMBER.sum()))
    exposure = Exposure(keys[0], INDEX[IS_MEMBER][order], score[0][IS_MEMBER][order], fpr, HALF[IS_MEMBER][order], 3)
    return SimpleNamespace(
        exposure=exposure,
        onsets=image_onsets(range(0, 10 * num_audits, 10), standing, IS_MEMBER, HALF),
        agreement=attack_agreement(keys, score, IS_MEMBER, HALF, families=families),
        report=SimpleNamespace(data=SimpleNamespace(sample_index=INDEX, repeats=REPEATS)),
    )


@pytest.fixture(scope="module")
def evidence():
    return evidence_of()


def said(section):
    texts = [section.lead, *(block.text for block in section.blocks if hasattr(block, "text"))]
    return " ".join(texts)


def page(evidence, unit="epoch"):
    return SimpleNamespace(evidence=evidence, unit=unit, pictures=lambda captions: ())


def asked_for():
    indices = []

    def images(sample_index):
        indices.extend(sample_index.tolist())
        return torch.zeros(len(sample_index), 1, 4, 4)

    return indices, images


@pytest.mark.parametrize("num_audits", [3, 6, 40])
def test_each_column_has_the_members_of_its_audits_the_most_exposed_first(num_audits):
    evidence = evidence_of(num_audits)
    onsets, (indices, images) = evidence.onsets, asked_for()
    figure = image_onset_figure(onsets, INDEX, evidence.exposure.sample_index, images, "step")
    _, bars, strip = figure.axes
    heights = [int(bar.get_height()) for bar in bars.patches]
    assert len(heights) <= MAX_COLUMNS
    assert sum(heights) == int((onsets.onset[IS_MEMBER] < num_audits).sum())
    assert strip.get_xlabel() == "step of the onset"
    assert len(indices) == len(strip.images)
    onset_of = dict(zip(INDEX.tolist(), onsets.onset.tolist()))
    rank = {index: place for place, index in enumerate(evidence.exposure.sample_index.tolist())}
    first = [index for index in rank if onset_of[index] < math.ceil((num_audits - 1) / MAX_COLUMNS)]
    shown = indices[: min(len(first), MAX_ROWS)]
    assert shown == sorted(first, key=rank.get)[: len(shown)]


def test_legends_cover_no_data_and_a_list_without_members_can_be_drawn(evidence):
    nobody = image_onsets(range(4), drawn(4, NUM) - 20.0 * IS_MEMBER, IS_MEMBER, HALF)
    figures = [image_onset_figure(each, INDEX, INDEX[IS_MEMBER], asked_for()[1], "epoch") for each in (evidence.onsets, nobody)]
    figures += [early_list_figure(each, "epoch") for each in (evidence.onsets, nobody)] + [agreement_figure(evidence.agreement)]
    for figure in figures:
        legends = [*figure.legends, *(axis.legend_ for axis in figure.axes if axis.legend_)]
        assert legends
        figure.draw_without_rendering()
        for legend in legends:
            assert not any(legend.get_window_extent().overlaps(axis.get_window_extent()) for axis in figure.axes)


def test_the_largest_sets_are_drawn(evidence):
    figure = agreement_figure(evidence.agreement)
    sets = evidence.agreement.intersections()
    assert len(sets) > MAX_BARS
    bars, sizes, dots = figure.axes
    assert [int(bar.get_height()) for bar in bars.patches] == [count for _, count in sets[:MAX_BARS]]
    assert [round(200 * evidence.agreement.tpr(key).value) for key in KEYS] == [int(bar.get_width()) for bar in sizes.patches]
    hatched = [bar.get_hatch() == "///" for bar in bars.patches]
    assert hatched == [len({evidence.agreement.families[place] for place in places}) == 1 for places, _ in sets[:MAX_BARS]]
    assert len(dots.lines) == 2 * MAX_BARS


def test_the_section_says_how_many_when_and_how_often_held_out_images(evidence):
    onsets = evidence.onsets
    found = int((onsets.onset[IS_MEMBER] < 6).sum())
    text = said(image_onset(page(evidence)))
    assert f"By epoch 50, {found / 200:.0%} of the members ({found} of 200)" in text
    assert f"{float((onsets.onset[~IS_MEMBER] < 6).double().mean()):.0%} of the held-out images do" in text
    assert f"{int(onsets.ends_exposed[IS_MEMBER].sum())} of 200 members end exposed" in text
    assert "no image is shown" not in text
    assert "by step" in said(image_onset(page(evidence, "step"))).lower()
    assert image_onset(page(SimpleNamespace(onsets=None))) is None
    blind = SimpleNamespace(onsets=image_onsets(range(5), drawn(5, NUM), IS_MEMBER, HALF), exposure=evidence.exposure)
    assert "no image is shown to be memorized" in said(image_onset(page(blind)))


def test_the_section_says_how_many_rest_on_one_attack(evidence):
    num_found, num_alone = evidence.agreement.rests_on_one(KEYS[0])
    text = said(agreement(page(evidence)))
    assert (
        f"at a false-positive rate of 1%, sima/all finds {num_found} of 200 members. {num_alone} of them rest" in text.lower()
    )
    assert 0 < num_alone < num_found
    alone = evidence_of(keys=KEYS[:2], families=("sima", "sima"))
    assert "All rest on one attack, sima" in said(agreement(page(alone)))
    assert agreement(page(evidence_of(keys=KEYS[:1], families=("sima",)))) is None
    assert agreement(page(SimpleNamespace(agreement=None, exposure=evidence.exposure))) is None


def test_exposed_csv_has_each_members_onset_and_attacks(evidence, tmp_path):
    write_exposed(evidence, tmp_path / "exposed.csv", files=lambda index: [f"{number}.png" for number in index.tolist()])
    table = pd.read_csv(tmp_path / "exposed.csv", keep_default_na=False)
    assert (table["file"] == table["sample_index"].astype(str) + ".png").all()
    assert tuple(table.columns) == COLUMNS
    assert table["rank"].tolist() == list(range(1, 201))
    place = {index: at for at, index in enumerate(INDEX.tolist())}
    for row in table.itertuples():
        at = place[row.sample_index]
        bounds = (evidence.onsets.onset[at], evidence.onsets.earliest[at], evidence.onsets.latest[at])
        times = [evidence.onsets.time(int(each)) for each in bounds]
        assert [row.onset_epoch, row.onset_earliest, row.onset_latest] == ["" if each is None else str(each) for each in times]
        names = [key.attack for key, found in zip(KEYS, evidence.agreement.is_found[:, at]) if found]
        assert row.found_by == ";".join(names)
        assert row.repeats == int(REPEATS[at])
        assert row.num_attacks == len({name.removesuffix("_calibrated") for name in names})


def test_exposed_csv_without_a_history_has_empty_columns(evidence, tmp_path):
    bare = SimpleNamespace(exposure=evidence.exposure, report=evidence.report, onsets=None, agreement=None)
    write_exposed(bare, tmp_path / "exposed.csv")
    table = pd.read_csv(tmp_path / "exposed.csv")
    assert table[["file", *COLUMNS[6:11]]].isna().all(axis=None)
    assert len(table) == 200

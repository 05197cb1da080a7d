"""The page of a report: one file, escaped, well formed; figures as images in it."""

import base64
import functools
import io
import itertools
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import matplotlib
import numpy as np
import PIL.Image
import pytest
import torch
from matplotlib.figure import Figure

from ldm_privacy.evidence.verdict import Verdict
from ldm_privacy.pictures import PALETTE, image_grid
from ldm_privacy.randomness import normal
from ldm_privacy.report.curves import mask_curves, memorization_figure
from ldm_privacy.report.figures.base import picture
from ldm_privacy.report.figures.distortion import distortion_figure
from ldm_privacy.report.figures.influence import influence_map_figure
from ldm_privacy.report.page.blocks import (
    Answer,
    Bullets,
    Cell,
    Code,
    DataTable,
    Head,
    ImagePair,
    ImagePairs,
    KeyValues,
    Note,
    Paragraph,
    Picture,
    Section,
)
from ldm_privacy.report.page.page import Page, render, write_page
from ldm_privacy.types import AuditKey

HOSTILE = "<script>document.title='run'</script><img src=x onerror=\"document.title='run'\">'\"}}</style>{{ 7 * 7 }}&amp;"
ATTACKS = ("sima", "loss", "pia", "pian", "secmi")
MASKS = ("none", "influence 0.6", "random 0.6", "lowest 0.6", "std 0.6", "influence 0.3")


def head_of(verdict):
    """A head with that verdict."""
    answers = [Answer((f"{what} of the page.",)) for what in ("Question", "Subject", "Doubts", "Advice")]
    return Head(*answers[:2], verdict, *answers[2:])


def numbers(*shape, draw=0):
    return normal("test page", (draw,), shape)


def image(draw, side=32):
    """A smooth random image."""
    return torch.nn.functional.interpolate(numbers(1, 3, 5, 5, draw=draw), size=(side, side), mode="bicubic")[0].tanh() / 2


def png(draw):
    """The bytes of one."""
    buffer = io.BytesIO()
    PIL.Image.fromarray(image_grid(image(draw)[None])).save(buffer, format="png")
    return buffer.getvalue()


def roc():
    """ROC curves in log-log, as wide as three panels of the report's own."""
    figure = Figure(figsize=(12.6, 3.8), layout="constrained")
    fpr = np.geomspace(1e-3, 1, 200)
    axis = figure.subplots()
    for place, mask in enumerate(MASKS):
        axis.plot(fpr, fpr ** (0.35 + 0.1 * place), color=PALETTE[place], label=mask)
    axis.set(xscale="log", yscale="log", title=ATTACKS[0], xlabel="false-positive rate", ylabel="true-positive rate")
    axis.legend(title="mask", loc="lower right", fontsize="small")
    figure.suptitle("ROC of the reporting half")
    return figure


def curves():
    """Memorization over epochs, two attacks."""
    keys = [AuditKey(attack, mask) for attack in ATTACKS[:2] for mask in MASKS[:3]]
    history = {}
    for place, key in enumerate(keys):
        for epoch in range(0, 401, 20):
            value = 0.5 + 0.4 / (1 + np.exp((180 + 20 * place - epoch) / 40))
            for bound, shift in (("", 0), ("_lower", -0.03), ("_upper", 0.03)):
                history[epoch, f"memorization/{key}/auroc{bound}"] = value + shift
    return memorization_figure(mask_curves(history | {(140, f"memorization/{keys[0]}/onset_epoch"): 120.0}, keys, keys[0], {}))


def violins(count=100):
    """Violins beside images."""
    return distortion_figure(
        numbers(count) * 3, torch.arange(count) % 2 == 0, numbers(count, 3, 8, 8, draw=1).tanh().__getitem__
    )


@functools.cache
def sample_page():
    """A page as long as a real report, from made-up numbers; it can't be changed, so one is enough."""
    auroc = numbers(len(ATTACKS), len(MASKS), draw=2).mul(0.05).add(0.78).clamp(0.5, 0.99)
    rows: list[tuple[str | Cell, ...]] = []
    for attack, values in zip(ATTACKS, auroc.tolist()):
        for mask, value in zip(MASKS, values):
            rows.append(
                (
                    attack,
                    mask,
                    Cell(f"{value:.3f}", tone="exposed" if value > 0.82 else ""),
                    f"[{value - 0.03:.3f}, {value + 0.03:.3f}]",
                    f"{value - 0.74:+.3f} [{value - 0.77:+.3f}, {value - 0.71:+.3f}]",
                    f"{value / 6:.3f}",
                    f"[{value / 9:.3f}, {value / 4:.3f}]",
                    "0.008",
                    "140",
                    Cell(f"{value + 0.01:.3f}", tone="muted"),
                )
            )
    table = DataTable(
        ("attack", "mask", "AUROC", "95 % interval", "gain over none", "TPR@1%FPR", "95 % interval", "FPR", "t", "oracle"),
        tuple(rows),
        "Every attack with every mask and control, on the reporting half: 1,250 members and 1,250 held-out images.",
        num_texts=2,
        emphasised={1},
        note="Intervals are over the audited samples; they leave out the randomness of training. 'oracle' picks the timestep "
        "on the reported half and is optimistic.",
    )
    pairs = [
        ImagePair(
            image(2 * rank),
            image(2 * rank + 1),
            ("member", "nearest held-out"),
            f"Rank {rank + 1} · score {4.2 - 0.3 * rank:.2f} · image {1009 * (rank + 3)}",
        )
        for rank in range(8)
    ]
    return Page(
        "Membership audit of cifar10-ldm, epoch 400",
        "CIFAR-10, 2,500 members and 2,500 held-out images · 19 March 2026",
        head_of(
            Verdict(
                (
                    "An outsider with the weights can tell members from held-out images: AUROC 0.861 [0.842, 0.878].",
                    "At a false-positive rate of 1 % the attack names 17.2 % [12.9, 22.0] of the members.",
                    "The model-free control stays at chance (0.507 [0.486, 0.528]), so the split does not explain it.",
                ),
                "exposed",
                "Members are exposed",
            )
        ),
        {
            "attacks": Section(
                "Attacks, masks and controls",
                "SimA with the influence mask is the strongest attack; its gain over a random mask of the same count is clear.",
                (
                    table,
                    Paragraph("A masked gain counts only where the paired interval of the difference leaves out zero. " * 3),
                    Note("Controls", "The random and the lowest mask keep as many dimensions as the influence mask.", "safe"),
                ),
            ),
            "memorization": Section(
                "Memorization over epochs",
                "Memorization sets in at epoch 120.",
                (picture(curves(), "AUROC by epoch."),),
            ),
            "roc": Section(
                "ROC curves",
                "",
                (picture(roc(), "ROC on logarithmic axes; grey: chance."),),
            ),
            "distortion": Section(
                "Geometry of the decoder",
                "Members with high distortion are the most exposed.",
                (
                    picture(violins(), "Local distortion."),
                    picture(influence_map_figure(numbers(9, 4, 8, 8).exp().double().mean(0), 9), "Mean influence."),
                ),
            ),
            "exposed": Section(
                "Exposed images",
                "The members with the highest score, each beside the held-out image that is nearest in feature space.",
                (ImagePairs(pairs, "The eight most exposed members."),),
            ),
            "protocol": Section(
                "Protocol",
                "",
                (
                    KeyValues(
                        (
                            ("data", "CIFAR-10, train split, columns img"),
                            ("split", "sha256 " + "9f86d081884c7d65" * 4),
                            ("seeds", "data 0, training 0, audit 0"),
                            ("versions", "ldm-privacy 0.1.0, torch 2.13.0, diffusers 0.42.1"),
                        )
                    ),
                    Code("\n".join(f"line: {each}" for each in range(20)), "Config"),
                    Code(
                        "python evaluate.py ckpt=runs/cifar10/checkpoints/best.ckpt audit.num_bootstrap=1000 seed=3",
                        "Commands",
                    ),
                ),
            ),
            "limits": Section(
                "What these numbers don't mean",
                "",
                (
                    Bullets(
                        (
                            "No attack succeeding is no proof that none can.",
                            "An interval says nothing about a second training run with another seed.",
                            "The held-out images come from the same source as the members; other data are another question.",
                        )
                    ),
                ),
            ),
        },
        "Written by ldm-privacy 0.1.0.",
    )


@functools.cache
def hostile_page():
    """A page whose every text tries to be markup."""
    cell = Cell(HOSTILE, tone="leak")
    pair = ImagePair(image(0), image(0), (HOSTILE, HOSTILE), HOSTILE)
    figure = Figure()
    figure.subplots().set(title=HOSTILE.replace("$", ""), xlabel="<b>")
    return Page(
        "Title " + HOSTILE,
        HOSTILE,
        Head(*2 * [Answer((HOSTILE,), (HOSTILE, "all"))], Verdict((HOSTILE,), "leak", HOSTILE), *2 * [Answer((HOSTILE,))]),
        {
            "all": Section(
                HOSTILE,
                HOSTILE,
                (
                    Paragraph(HOSTILE),
                    Bullets((HOSTILE,)),
                    Note(HOSTILE, HOSTILE),
                    DataTable((HOSTILE, "x" * 80), ((HOSTILE, cell),), HOSTILE, note=HOSTILE),
                    picture(figure, HOSTILE),
                    Picture(png(1), HOSTILE, 32),
                    ImagePairs((pair,), HOSTILE),
                    KeyValues(((HOSTILE, HOSTILE + "x" * 200),)),
                    Code(HOSTILE + "x" * 200, label=HOSTILE),
                ),
            ),
        },
        HOSTILE,
    )


class Reader(HTMLParser):
    """What a browser reads: elements with their attributes, text; unbalanced tags fail."""

    VOID = ("meta", "link", "img", "br", "source")

    def __init__(self, html):
        super().__init__()
        self.elements, self.text, self._open = [], [], []
        self.feed(html)
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag, attributes):
        assert len(dict(attributes)) == len(attributes), f"an attribute twice in {tag}"
        self.elements.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag, tag

    def handle_data(self, data):
        self.text.append(data)

    def of(self, *tags):
        return [attributes for tag, attributes in self.elements if tag in tags]


@pytest.fixture(scope="module")
def html():
    return render(sample_page())


@pytest.mark.parametrize("page", [sample_page, hostile_page])
def test_the_page_is_well_formed_and_complete_in_itself(page):
    read = Reader(render(page()))
    ids = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert not read.of("script", "iframe", "object", "form", "base")
    assert all(re.match("data:image/(png|svg[+]xml);base64,", attributes["src"]) for attributes in read.of("img"))
    for _, attributes in read.elements:
        for name in ("href", "xlink:href"):
            link = attributes.get(name, f"#{ids[0]}")
            assert link.startswith("data:") or link[1:] in ids, link
        assert not [name for name in attributes if name.startswith("on")]
        assert attributes.get("aria-labelledby", ids[0]) in ids


def test_the_page_can_be_read_without_eyes(html):
    read = Reader(html)
    levels = [int(tag[1]) for tag, _ in read.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert [attributes["lang"] for attributes in read.of("html")] == ["en"]
    assert all(attributes["alt"] for attributes in read.of("img"))
    assert all(attributes["scope"] in ("col", "row") for attributes in read.of("th"))
    tags = [tag for tag, _ in read.elements]
    assert [tags.count(landmark) for landmark in ("header", "nav", "main", "footer")] == [1, 1, 1, 1]


def test_scripts_and_requests_are_forbidden_by_the_page_itself(html):
    policy = next(attributes["content"] for attributes in Reader(html).of("meta") if "http-equiv" in attributes)
    assert policy.split("; ") == [
        *("default-src 'none'", "style-src 'unsafe-inline'", "img-src data:", "base-uri 'none'", "form-action 'none'")
    ]
    assert "http://" not in html
    assert "https://" not in html


def test_text_is_never_markup():
    read = Reader(render(hostile_page()))
    expected = [
        "document title",
        "title",
        "subtitle",
        "tested",
        "link",
        "subject",
        "link",
        "label",
        "sentence",
        "doubts",
        "advice",
    ]
    expected += ["contents", "heading", "lead", "footer"]
    expected += ["paragraph", "bullet", "note", "note", "column", "row", "cell", "caption", "below"]
    expected += ["svg", "png", "label", "label", "card", "cards", "key", "value", "code", "code label"]
    assert sum(HOSTILE in text for text in read.text) == len(expected)
    alts = [attributes.get("alt", "") for attributes in read.of("img")]
    assert f"{HOSTILE}: {HOSTILE}" in alts


def test_the_same_page_gives_the_same_bytes(html):
    assert render(sample_page()) == html


def test_the_sample_is_small(html):
    assert len(html.encode()) < 600_000


def test_a_broken_file_name_can_be_written(tmp_path):
    path = tmp_path / "report.html"
    write_page(sample_page()._replace(footer="name \udcff\N{GREEK SMALL LETTER MU}"), path)
    assert "name ?\N{GREEK SMALL LETTER MU}" in path.read_text(encoding="utf-8")


def test_tables_and_figures_are_numbered_in_reading_order():
    table, picture = DataTable(("a",), (("1",),), "t"), Picture(png(0), "u", 32)
    pairs = ImagePairs((ImagePair(image(0), image(1), ("x", "x"), "y"),), "c")
    sections = {"a": Section("A", "", (picture, table, table)), "b": Section("B", "", (pairs, table, picture))}
    html = render(Page("t", "", head_of(Verdict(("v.",), "safe", "Safe")), sections))
    found = re.findall(r"<b>(\w+ \d)\.</b> (\w)", html)
    assert found == [
        *(("Figure 1", "u"), ("Table 1", "t"), ("Table 2", "t")),
        *(("Figure 2", "c"), ("Table 3", "t"), ("Figure 3", "u")),
    ]


def test_a_verdict_says_in_words_what_its_colour_says():
    html = render(Page("t", "", head_of(Verdict(("First.", "Second."), "leak", "The split leaks")), {}))
    assert "<b>The split leaks</b></h2>" in html
    assert 'class="answer verdict tone-leak"' in html


def test_a_table_marks_what_it_is_told():
    rows = (("a", "1", Cell("2", tone="muted")), ("a", "3", "x" * 50), ("b", "4", "5"))
    read = Reader(render_blocks(DataTable(("k", "n", "m"), rows, "c", num_texts=2, emphasised=[1])))
    assert [attributes.get("class") for attributes in read.of("tr")] == [None, "group", "emphasised", "group"]
    classes = [attributes.get("class") for attributes in read.of("td")]
    assert classes == [None, "numeric tone-muted", None, "numeric wraps", None, "numeric"]
    assert [attributes.get("class") for attributes in read.of("th")[:3]] == [None, None, "numeric"]


def test_a_table_is_folded_under_its_caption_unless_it_is_told_otherwise():
    html = render_blocks(*(DataTable(("a",), [("1",)] * (1 + is_open), "c", is_open=is_open) for is_open in (False, True)))
    assert [each.get("open", "no") for each in Reader(html).of("details")] == ["no", None]
    assert re.findall(r"<summary>(.*)</summary>", html) == [
        *("<b>Table 1.</b> c <span>(1 row)</span>", "<b>Table 2.</b> c <span>(2 rows)</span>"),
    ]


@pytest.mark.parametrize(("names", "lines"), [("abc", []), ("", []), ("aac", [2]), ("aabb", [2]), ("aba", [1, 2])])
def test_rows_of_one_name_that_follow_each_other_are_a_group(names, lines):
    rows = Reader(render_blocks(DataTable(("k",), [(name,) for name in names], ""))).of("tr")[1:]
    # A line is drawn above each row that begins a group; above the first there is none to be drawn.
    assert [place for place, row in enumerate(rows) if row.get("class") == "group" and place] == lines


def test_an_image_is_drawn_pixel_by_pixel_under_its_label():
    pair = ImagePair(image(0), image(1, side=128), ("member 3", "held-out 5"), "alike")
    drawn = Reader(render_blocks(ImagePairs((pair,), ""))).of("img")
    assert [(each["alt"], each["width"], each.get("class")) for each in drawn] == [
        *(("member 3: alike", "32", "pixels"), ("held-out 5: alike", "128", None)),
    ]
    content = base64.b64decode(drawn[0]["src"].removeprefix("data:image/png;base64,"))
    np.testing.assert_array_equal(PIL.Image.open(io.BytesIO(content)), image_grid(pair.member[None]))


def render_blocks(*blocks):
    return render(Page("t", "", head_of(Verdict(("v.",), "safe", "Safe")), {"s": Section("S", "", blocks)}))


def drawn(draw):
    """A small figure of a line, as a picture of the page."""
    figure = Figure(figsize=(3, 2), layout="constrained")
    draw(figure.subplots())
    return picture(figure, "a line")


def test_a_figure_is_an_svg_as_wide_as_it_was_drawn():
    found = drawn(lambda axis: axis.plot([0, 1], label="kept"))
    root = ElementTree.fromstring(found.content)
    assert root.tag.endswith("svg")
    assert found.width == 3 * 96
    image = Reader(render_blocks(found)).of("img")[0]
    assert (image["width"], image["alt"]) == ("288", "a line")
    assert base64.b64decode(image["src"].removeprefix("data:image/svg+xml;base64,")) == found.content


def test_a_narrow_screen_gets_the_drawing_that_is_made_for_it():
    wide, narrow = Figure(figsize=(9, 2)), Figure(figsize=(3, 4))
    found = picture(wide, "x", narrow=narrow)
    assert found.width == 9 * 96
    assert found.narrow == picture(narrow, "x").content
    read = Reader(render_blocks(found))
    (source,), (image,) = read.of("source"), read.of("img")
    assert source["media"] == "screen and (max-width: 40rem)"
    assert base64.b64decode(source["srcset"].removeprefix("data:image/svg+xml;base64,")) == found.narrow
    assert base64.b64decode(image["src"].removeprefix("data:image/svg+xml;base64,")) == found.content
    assert not Reader(render_blocks(found._replace(narrow=b""))).of("source", "picture")


def test_the_same_figure_gives_the_same_bytes_and_nothing_global_changes():
    before = dict(matplotlib.rcParams)
    figure = violins(4)
    colours = figure.get_facecolor(), figure.axes[0].get_facecolor()
    first = picture(figure, "x")
    assert first == picture(violins(4), "x")
    assert b"<dc:date>" not in first.content
    assert dict(matplotlib.rcParams) == before
    assert (figure.get_facecolor(), figure.axes[0].get_facecolor()) == colours


def test_a_figure_stands_on_white_whatever_its_own_ground():
    figure = Figure(figsize=(3, 2), facecolor="black")
    for limit in (400_000, 0):
        content = picture(figure, "x", max_bytes=limit).content
        assert (b"#000000" not in content) if limit else png_pixel(content) == (255, 255, 255)


def png_pixel(content):
    return PIL.Image.open(io.BytesIO(content)).convert("RGB").getpixel((0, 0))


def test_a_drawing_too_large_becomes_pixels_at_twice_the_size():
    figure = Figure(figsize=(3, 2))
    points = numbers(2, 400)
    figure.subplots().scatter(*points, s=points[0].exp(), c=points[1])
    found = picture(figure, "x", max_bytes=20_000)
    assert PIL.Image.open(io.BytesIO(found.content)).size == (576, 384)
    assert found.width == 288
    assert picture(figure, "x").content.startswith(b"<?xml")

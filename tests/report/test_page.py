"""The page of a report: one file, escaped, well formed; figures as SVG in the colours of the page."""

import base64
import functools
import io
import itertools
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import matplotlib
import numpy as np
import PIL.Image
import pytest
import torch
from markupsafe import Markup
from matplotlib.figure import Figure

from ldm_privacy.randomness import normal
from ldm_privacy.report.blocks import (
    Bullets,
    Cell,
    Code,
    DataTable,
    ImageCard,
    ImageCards,
    KeyValues,
    Note,
    Paragraph,
    Picture,
    Subheading,
    Thumbnail,
    Verdict,
)
from ldm_privacy.report.figures import PALETTE, memorization_figure
from ldm_privacy.report.geometry_figures import distortion_figure, influence_map_figure
from ldm_privacy.report.page import Page, Section, render, write_page
from ldm_privacy.report.svg import figure_svg
from ldm_privacy.types import AuditKey

HOSTILE = "<script>document.title='run'</script><img src=x onerror=\"document.title='run'\">'\"}}</style>{{ 7 * 7 }}&amp;"
ATTACKS = ("sima", "loss", "pia", "pian", "secmi")
MASKS = ("none", "influence 0.6", "random 0.6", "lowest 0.6", "std 0.6", "influence 0.3")


def numbers(*shape, draw=0):
    return normal("test page", (draw,), shape)


def png(draw, side=32):
    """A smooth random image, as bytes."""
    coarse = numbers(1, 3, 5, 5, draw=draw)
    image = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")[0].mul(0.6).sigmoid()
    buffer = io.BytesIO()
    PIL.Image.fromarray((image * 255).byte().permute(1, 2, 0).numpy()).save(buffer, format="png")
    return buffer.getvalue()


def roc():
    """ROC curves in log-log, three panels wide, in the manner of the report's own."""
    figure = Figure(figsize=(12.6, 3.8), layout="constrained")
    fpr = np.geomspace(1e-3, 1, 400)
    for panel, axis in enumerate(figure.subplots(1, 3)):
        for place, mask in enumerate(MASKS):
            power = 0.35 + 0.1 * place + 0.05 * panel
            axis.plot(fpr, fpr**power, color=PALETTE[place], linestyle=("-", "--", ":", "-.")[place % 4], label=mask)
        axis.plot(fpr, fpr, color="0.7", linewidth=0.8)
        axis.set(xscale="log", yscale="log", title=ATTACKS[panel], xlabel="false-positive rate", ylabel="true-positive rate")
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
    return memorization_figure(history, keys, (keys[0], 120))


def violins():
    """Violins beside images."""
    return distortion_figure(numbers(200) * 3, torch.arange(200) % 2 == 0, numbers(200, 3, 8, 8, draw=1).tanh())


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
                    Cell("0.008", title="threshold carried over from the calibration half"),
                    "140",
                    Cell(f"{value + 0.01:.3f}", tone="muted"),
                )
            )
    table = DataTable(
        ("attack", "mask", "AUROC", "95 % interval", "gain over none", "TPR@1%FPR", "95 % interval", "FPR", "t", "oracle"),
        tuple(rows),
        "Every attack with every mask and control, on the reporting half: 1,250 members and 1,250 held-out images.",
        numeric=frozenset(range(2, 10)),
        emphasised=frozenset({1}),
        note="Intervals are over the audited samples; they leave out the randomness of training. 'oracle' picks the timestep "
        "on the reported half and is optimistic.",
    )
    cards = tuple(
        ImageCard(
            (
                Thumbnail(png(2 * rank), "member", is_member=True),
                Thumbnail(png(2 * rank + 1), "nearest held-out", is_member=False),
            ),
            f"Rank {rank + 1} · score {4.2 - 0.3 * rank:.2f} · image {1009 * (rank + 3)}",
        )
        for rank in range(8)
    )
    return Page(
        "Membership audit of cifar10-ldm, epoch 400",
        "CIFAR-10, 2,500 members and 2,500 held-out images · 19 March 2026",
        Verdict(
            (
                "An outsider with the weights can tell members from held-out images: AUROC 0.861 [0.842, 0.878].",
                "At a false-positive rate of 1 % the attack names 17.2 % [12.9, 22.0] of the members.",
                "The model-free control stays at chance (0.507 [0.486, 0.528]), so the split does not explain it.",
            ),
            "exposed",
        ),
        (
            Section(
                "attacks",
                "Attacks, masks and controls",
                "SimA with the influence mask is the strongest attack; its gain over a random mask of the same count is clear.",
                (
                    table,
                    Paragraph("A masked gain counts only where the paired interval of the difference leaves out zero. " * 3),
                    Note("Controls", "The random and the lowest mask keep as many dimensions as the influence mask.", "safe"),
                ),
            ),
            Section(
                "memorization",
                "Memorization over epochs",
                "Memorization sets in at epoch 120.",
                (
                    Picture(
                        figure_svg(curves()), "AUROC of two attacks over 400 epochs, rising from 0.5 to 0.9", "AUROC by epoch."
                    ),
                ),
            ),
            Section(
                "roc",
                "ROC curves",
                "",
                (Picture(figure_svg(roc()), "ROC curves of three attacks", "ROC on logarithmic axes; grey: chance."),),
            ),
            Section(
                "distortion",
                "Geometry of the decoder",
                "Members with high distortion are the most exposed.",
                (
                    Picture(figure_svg(violins()), "Violins of local distortion for both sets", "Local distortion."),
                    Subheading("Influence"),
                    Picture(
                        figure_svg(influence_map_figure(numbers(9, 4, 8, 8).exp())), "Four maps of influence", "Mean influence."
                    ),
                ),
            ),
            Section(
                "exposed",
                "Exposed images",
                "The members with the highest score, each beside the held-out image that is nearest in feature space.",
                (ImageCards(cards, "The eight most exposed members."),),
            ),
            Section(
                "protocol",
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
                    Code(
                        "python evaluate.py ckpt=runs/cifar10/checkpoints/best.ckpt audit.num_probes=16 audit.keep_fraction=0.6"
                    ),
                ),
            ),
            Section(
                "limits",
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
        ),
        "Written by ldm-privacy 0.1.0.",
    )


@functools.cache
def hostile_page():
    """A page whose every text tries to be markup."""
    cell = Cell(HOSTILE, title=HOSTILE, tone="leak")
    image = Thumbnail(png(0), HOSTILE)
    figure = Figure()
    figure.subplots().set(title=HOSTILE.replace("$", ""), xlabel="<b>")
    return Page(
        "Title " + HOSTILE,
        HOSTILE,
        Verdict((HOSTILE,), "leak", label=HOSTILE),
        (
            Section(
                "all",
                HOSTILE,
                HOSTILE,
                (
                    Paragraph(HOSTILE),
                    Subheading(HOSTILE),
                    Bullets((HOSTILE,)),
                    Note(HOSTILE, HOSTILE),
                    DataTable((HOSTILE, "x" * 80), ((HOSTILE, cell),), HOSTILE, note=HOSTILE),
                    Picture(figure_svg(figure), HOSTILE, HOSTILE),
                    Picture(png(1), HOSTILE, HOSTILE),
                    ImageCards((ImageCard((image, image), HOSTILE),), HOSTILE),
                    KeyValues(((HOSTILE, HOSTILE + "x" * 200),)),
                    Code(HOSTILE + "x" * 200, label=HOSTILE),
                ),
            ),
        ),
        HOSTILE,
    )


class Reader(HTMLParser):
    """What a browser reads: elements with their attributes, text; unbalanced tags fail."""

    VOID = ("meta", "link", "img", "br")

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
    assert all(attributes["src"].startswith("data:image/png;base64,") for attributes in read.of("img"))
    for _, attributes in read.elements:
        for name in ("href", "xlink:href"):
            link = attributes.get(name, "#content")
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
    assert all("alt" in attributes for attributes in read.of("img"))
    assert all(attributes["aria-label"] for attributes in read.of("div") if attributes.get("role") == "img")
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
    expected = ["document title", "title", "subtitle", "label", "sentence", "contents", "heading", "lead", "footer"]
    expected += ["paragraph", "subheading", "bullet", "note", "note", "column", "row", "cell", "caption", "below", "svg"]
    expected += ["figure", "png", "label", "label", "card", "cards", "key", "value", "code", "code label"]
    assert sum(HOSTILE in text for text in read.text) == len(expected)
    alts = [attributes.get("alt", "") for attributes in read.of("img")]
    assert f"{HOSTILE}: {HOSTILE}" in alts


def test_the_same_page_gives_the_same_bytes(html):
    assert render(sample_page()) == html


def test_the_sample_is_small(html):
    assert len(html.encode()) < 500_000


def test_a_broken_file_name_can_be_written(tmp_path):
    path = tmp_path / "report.html"
    write_page(replace(sample_page(), footer="name \udcff\N{GREEK SMALL LETTER MU}"), path)
    assert "name ?\N{GREEK SMALL LETTER MU}" in path.read_text(encoding="utf-8")


def test_tables_and_figures_are_numbered_in_reading_order():
    table, picture = DataTable(("a",), (("1",),), "t"), Picture(png(0), "alt", "p")
    cards = ImageCards((ImageCard((Thumbnail(png(0), "x"),), "y"),), "c")
    sections = (Section("a", "A", "", (picture, table, table)), Section("b", "B", "", (cards, table, picture)))
    html = render(Page("t", "", Verdict(("v.",), "safe"), sections))
    found = re.findall(r"<b>(\w+ \d)\.</b> (\w)", html)
    assert found == [
        *(("Figure 1", "p"), ("Table 1", "t"), ("Table 2", "t")),
        *(("Figure 2", "c"), ("Table 3", "t"), ("Figure 3", "p")),
    ]


@pytest.mark.parametrize(
    ("tone", "label", "shown"), [("leak", "", "The split leaks"), ("safe", "", "No exposure found"), ("safe", "Fine", "Fine")]
)
def test_a_verdict_says_in_words_what_its_colour_says(tone, label, shown):
    html = render(Page("t", "", Verdict(("First.", "Second."), tone, label), ()))
    assert f"</span>{shown}</h2>" in html
    assert f'class="verdict tone-{tone}"' in html


def test_a_table_marks_what_it_is_told():
    rows = (("a", "1", Cell("2", title="why", tone="muted")), ("a", "3", "x" * 50), ("b", "4", "5"))
    read = Reader(render_blocks(DataTable(("k", "n", "m"), rows, "c", numeric=[1], emphasised=[1])))
    assert [attributes.get("class") for attributes in read.of("tr")] == [None, None, "emphasised", "group"]
    assert [attributes.get("class") for attributes in read.of("td")] == [
        "numeric",
        "tone-muted",
        "numeric",
        "wraps",
        "numeric",
        None,
    ]
    assert [attributes.get("class") for attributes in read.of("th")[:3]] == [None, "numeric", None]
    assert [attributes["title"] for attributes in read.of("span") if "title" in attributes] == ["why"]


def test_rows_with_names_of_their_own_are_no_groups():
    assert DataTable(("k",), (("a",), ("b",), ("c",)), "").group_starts == frozenset()
    assert DataTable(("k",), (), "").group_starts == frozenset()
    assert DataTable(("k",), (("a",), ("a",), ("c",)), "").group_starts == {2}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: DataTable(("a", "b"), (("1", "2"), ("1",)), "scores"), "row 1 of 'scores' has 1 cells for 2 columns"),
        (lambda: DataTable(("a",), (("1",),), "scores", numeric={1}), "'scores' has no column 1"),
        (lambda: DataTable(("a",), (("1",),), "scores", emphasised={-1}), "'scores' has no row -1"),
        (lambda: Picture("<svg onload=x>", "", ""), "what figure_svg returns"),
        (lambda: Picture(b"<svg>", "", ""), "no PNG"),
        (lambda: Thumbnail(b"GIF89a" + b"0" * 40, ""), "no PNG"),
        (lambda: Section("Two words", "", ""), "lower-case"),
        (
            lambda: Page("", "", Verdict(("v",), "safe"), (Section("a", "", ""), Section("a", "", ""))),
            "2 sections have the id 'a'",
        ),
        (lambda: Verdict((), "safe"), "needs a sentence"),
    ],
)
def test_what_is_wrong_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


def render_blocks(*blocks):
    return render(Page("t", "", Verdict(("v.",), "safe"), (Section("s", "S", "", blocks),)))


def drawn(draw, **settings):
    """A small figure of a line, and its SVG as a tree."""
    figure = Figure(figsize=(3, 2), layout="constrained")
    draw(figure.subplots())
    return ElementTree.fromstring(figure_svg(figure, **settings))


def styles(root, tag):
    return [element.get("style", "") for element in root.iter(tag)]


def test_black_grey_and_white_follow_the_page_and_other_colours_stay():
    def draw(axis):
        axis.plot([0, 1], [0, 1], color="0.7")
        axis.plot([0, 1], [1, 0], color=PALETTE[1], label="kept")
        axis.plot([0.5], [0.5], "o", color="white", markeredgecolor=PALETTE[0])
        axis.text(0.1, 0.1, "white", color="white")
        axis.text(0.1, 0.1, "coloured", color=PALETTE[0])
        axis.legend()

    root = drawn(draw)
    text = ElementTree.tostring(root, encoding="unicode")
    assert root.get("fill") == "currentColor"
    assert not re.search("#000000", text)
    assert "stroke: var(--grey-b2)" in text
    assert "--grey-b2: color-mix(in srgb, currentColor 30.2%, var(--paper, #fff))" in root.get("style")
    assert any("stroke: #d55e00" in style for style in styles(root, "path"))
    assert any("fill: var(--paper, #fff); stroke: #0072b2" in style for style in styles(root, "use"))
    letters = {element.text: element.get("style", "") for element in root.iter("text")}
    assert "fill: #ffffff" in letters["white"]
    assert "fill: color-mix(in srgb, #0072b2 60%, currentColor)" in letters["coloured"]
    assert "fill" not in letters["kept"]
    assert all("font-family" not in style for style in letters.values())


@pytest.mark.parametrize("grey", [0x33, 0x7F, 0xB2, 0xCC])
def test_a_grey_is_the_same_grey_on_white(grey):
    style = drawn(lambda axis: axis.plot([0, 1], color=f"#{grey:02x}{grey:02x}{grey:02x}")).get("style")
    share = float(re.search(rf"--grey-{grey:02x}: color-mix\(in srgb, currentColor ([\d.]+)%", style)[1]) / 100
    assert round(255 * (1 - share)) == grey


def test_an_svg_is_plain_and_small():
    figure = roc()
    text = figure_svg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    assert text.startswith("<svg viewBox=")
    for unwanted in ("<?xml", "<!DOCTYPE", "metadata", "<style", "xmlns", "http", "xlink", "\n", "Date"):
        assert unwanted not in text
    assert not re.search(r' d="[^"]*\d\.\d{3}', text)
    assert len(text) < len(buffer.getvalue()) / 2
    assert f"--natural-width: {round(12.6 * 96)}px" in text


def test_text_stays_text_and_words_of_formulas_stay_whole():
    root = drawn(lambda axis: axis.set(title="plain words", ylabel=r"sum of $\ln\,\sigma_k(J)$ over <k>"))
    found = ["".join(element.itertext()) for element in root.iter("text")]
    assert "plain words" in found
    words = [element.text for element in root.iter("tspan")]
    assert {"sum", "of", "ln", "over"} <= set(words)
    # Letters of a formula keep the places that were computed for them.
    assert {"\N{GREEK SMALL LETTER SIGMA}", "k", "J", "(", ")"} <= set(words)


def test_drawings_on_one_page_share_no_id():
    trees = [drawn(lambda axis, end=end: axis.plot([0, end], ".-", [end, 0])) for end in (1, 2, 3)]
    ids = [element.get("id") for tree in trees for element in tree.iter() if element.get("id")]
    assert ids
    assert len(ids) == len(set(ids))
    for tree in trees:
        own = {element.get("id") for element in tree.iter()}
        text = ElementTree.tostring(tree, encoding="unicode")
        references = set(re.findall(r"url\(#([^)]+)\)", text)) | set(re.findall(r'href="#([^"]+)"', text))
        assert references
        assert references <= own


def test_the_same_figure_gives_the_same_svg_and_nothing_global_changes():
    before = dict(matplotlib.rcParams)
    figure = violins()
    colours = figure.get_facecolor(), figure.axes[0].get_facecolor()
    first = figure_svg(figure)
    assert first == figure_svg(violins())
    assert isinstance(first, Markup)
    assert dict(matplotlib.rcParams) == before
    assert (figure.get_facecolor(), figure.axes[0].get_facecolor()) == colours


def test_panels_of_pixels_are_pictures_inside():
    root = drawn(lambda axis: axis.imshow(np.arange(16).reshape(4, 4)))
    images = [element.get("href") for element in root.iter("image")]
    assert len(images) == 1
    assert images[0].startswith("data:image/png;base64,")


def test_links_are_not_carried_over():
    root = drawn(lambda axis: axis.scatter([0], [0]).set_urls(["https://example.org"]))
    assert list(root.iter("a"))
    assert "example" not in ElementTree.tostring(root, encoding="unicode")


def test_a_drawing_too_large_becomes_a_picture_at_twice_the_size():
    figure = Figure(figsize=(3, 2))
    points = numbers(2, 400)
    figure.subplots().scatter(*points, s=points[0].exp(), c=points[1])
    found = Reader(figure_svg(figure, max_bytes=20_000)).elements
    assert [tag for tag, _ in found] == ["img"]
    assert found[0][1]["width"] == "288"
    assert "--natural-width: 288px" in found[0][1]["style"]
    picture = PIL.Image.open(io.BytesIO(base64.b64decode(found[0][1]["src"].partition(",")[2])))
    assert picture.size == (576, 384)
    assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    assert figure_svg(figure).startswith("<svg")

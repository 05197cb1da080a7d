"""Figures as inline SVG that follows the theme of the page around it."""

import base64
import hashlib
import io
import re
from typing import Any
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

MAX_BYTES = 400_000
"""A drawing above this size is sent as a picture instead: a report of a dozen figures stays under 5 MB."""

CSS_PIXELS = 96
"""CSS pixels in an inch."""

SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ldm-privacy",
    "path.simplify": True,
    "path.simplify_threshold": 0.2,
}
TEXT_TAGS = ("text", "tspan", "g")
"""Where a fill is the colour of letters: white letters stay white, white areas are the paper."""

_NUMBER = re.compile(r"-?\d+\.\d+")
_REFERENCE = re.compile(r"#([\w.-]+)")


def figure_svg(figure: Figure, *, max_bytes: int = MAX_BYTES) -> Markup:
    """A figure as `<svg>` to be put inline into HTML, in the colours and the font of the page.

    * Black and missing colours become `currentColor`; a grey becomes the mix of `currentColor` and `--paper` with the same
      contrast; white areas become `--paper`; the ground is transparent. Coloured letters are mixed with `currentColor`, or
      they would be too faint to read. Every other colour stays. Panels of pixels (imshow) keep theirs, so a grey colour
      map belongs there and not on lines or markers.
    * Text stays text, in the font of the page.
    * Every id that is used is prefixed by a hash of the drawing, the others are dropped: figures on one page don't clash.
    * No date, no prolog, no links, coordinates to 1/100 point: a figure newly drawn from the same data gives
      the same bytes. (A constrained layout settles a little further each time that one figure is saved.)
    * As wide as its container, at most its own size: `--natural-width` in its style tells the page.

    Args:
        figure: Any figure; it and the global settings of matplotlib are left as they were.
        max_bytes: Where the SVG would be larger, an `<img>` holds the figure as PNG on white, at two pixels per CSS pixel.

    Returns:
        Markup, safe to be put into HTML: text in the figure is escaped, scripts and links are not carried over.
    """
    buffer = io.BytesIO()
    with matplotlib.rc_context(SETTINGS):
        # Pixels of image panels are drawn at 1.5 times the size of the page: sharp on most screens, small in the file.
        figure.savefig(buffer, format="svg", transparent=True, dpi=1.5 * CSS_PIXELS, metadata={"Date": None})
    width = round(figure.get_figwidth() * CSS_PIXELS)
    markup = _themed(ElementTree.fromstring(buffer.getvalue()), width)
    return Markup(markup) if len(markup.encode()) <= max_bytes else _picture(figure, width)


def _picture(figure: Figure, width: int) -> Markup:
    buffer = io.BytesIO()
    with matplotlib.rc_context(SETTINGS):
        figure.savefig(buffer, format="png", facecolor="white", dpi=2 * CSS_PIXELS, metadata={"Software": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    template = Markup(
        '<img class="on-white" alt="" width="{0}" style="--natural-width: {0}px" src="data:image/png;base64,{1}">'
    )
    return template.format(width, data)


def _themed(root: ElementTree.Element, width: int) -> str:
    greys: set[int] = set()
    _clean(root)
    for element in root.iter():
        if element.tag == "text" and len(element):
            _join_letters(element)
        style = _restyle(element, greys)
        element.attrib.pop("style", None)
        if style:
            element.set("style", _css(style))
    _prefix_ids(root)
    view_box = root.get("viewBox", "")
    root.attrib.clear()
    theme = {"--natural-width": f"{width}px"}
    for grey in sorted(greys):
        theme[f"--grey-{grey:02x}"] = f"color-mix(in srgb, currentColor {_ink(grey)}%, var(--paper, #fff))"
    # What matplotlib says in a style sheet for the whole document; here it is inherited inside this drawing alone.
    joints = {"stroke-linejoin": "round", "stroke-linecap": "butt", "fill": "currentColor"}
    for name, value in {"viewBox": view_box, "width": "100%", **joints, "style": _css(theme)}.items():
        root.set(name, value)
    return ElementTree.tostring(root, encoding="unicode")


def _clean(parent: ElementTree.Element) -> None:
    """Drop namespaces, metadata, style sheets, scripts, links and layout whitespace; round coordinates."""
    parent.tag = _local(parent.tag)
    parent.tail = None
    if parent.tag not in ("text", "tspan"):
        parent.text = None
    for name, value in list(parent.attrib.items()):
        del parent.attrib[name]
        name = _local(name)
        if name.startswith("on") or (name == "href" and not value.startswith(("#", "data:image/"))):
            continue
        if name in ("d", "x", "y", "width", "height"):
            value = " ".join(_NUMBER.sub(_two_places, value).split())
        if not (name == "transform" and value.startswith(("rotate(-0 ", "rotate(0 "))):
            parent.set(name, value)
    for child in list(parent):
        if _local(child.tag) in ("metadata", "style", "script", "foreignObject"):
            parent.remove(child)
        else:
            _clean(child)


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _two_places(match: re.Match[str]) -> str:
    short = f"{float(match[0]):.2f}".rstrip("0").rstrip(".")
    return "0" if short == "-0" else short


def _join_letters(text: ElementTree.Element) -> None:
    """Make words of mathtext's single letters: their places are those of another font than the page's."""
    text.text = None
    letters = sorted(text, key=lambda letter: (float(letter.get("y", 0)), float(letter.get("x", 0))))
    for letter in letters:
        text.remove(letter)
    end: tuple[tuple[str | None, str], float] | None = None
    for letter in letters:
        if not (letter.text or "").strip():
            end = None
            continue
        style = letter.get("style", "")
        size = re.search(r"font-size: ([\d.]+)px", style)
        reach = float(letter.get("x", 0)) + (float(size[1]) if size else 0)
        same = end is not None and end[0] == (letter.get("y"), style) and float(letter.get("x", 0)) < end[1]
        if same and letter.text and letter.text.isalpha():
            text[-1].text = (text[-1].text or "") + letter.text
        else:
            text.append(letter)
        end = ((letter.get("y"), style), reach) if letter.text and letter.text.isalpha() else None


def _restyle(element: ElementTree.Element, greys: set[int]) -> dict[str, str]:
    declarations = (part.partition(":") for part in element.get("style", "").split(";") if part.strip())
    style = {name.strip(): value.strip() for name, _, value in declarations}
    letters = element.tag in TEXT_TAGS
    for name in ("fill", "stroke"):
        colour = style.get(name, "")
        if not re.fullmatch("#[0-9a-f]{6}", colour):
            continue
        grey = int(colour[1:3], 16)
        if colour == "#000000":
            style[name] = "currentColor"
        elif colour == "#ffffff":
            style[name] = "#ffffff" if letters else "var(--paper, #fff)"
        elif colour[1:3] == colour[3:5] == colour[5:7]:
            greys.add(grey)
            style[name] = f"var(--grey-{grey:02x})"
        elif letters:
            style[name] = f"color-mix(in srgb, {colour} 60%, currentColor)"
    # Other families are of symbols that the page's font doesn't have.
    if "'DejaVu Sans'" in style.get("font-family", ""):
        del style["font-family"]
    return style


def _css(style: dict[str, str]) -> str:
    return "; ".join(f"{name}: {value}" for name, value in style.items())


def _ink(grey: int) -> str:
    return f"{100 * (255 - grey) / 255:.1f}"


def _prefix_ids(root: ElementTree.Element) -> None:
    prefix = "f" + hashlib.sha256(ElementTree.tostring(root)).hexdigest()[:10]
    used = set()
    for element in root.iter():
        for name, value in element.attrib.items():
            if name == "href" and value.startswith("#"):
                used.add(value[1:])
                element.set(name, f"#{prefix}-{value[1:]}")
            elif "url(#" in value:
                used.update(_REFERENCE.findall(value))
                element.set(name, value.replace("url(#", f"url(#{prefix}-"))
    for element in root.iter():
        own = element.attrib.pop("id", None)
        if own in used:
            element.set("id", f"{prefix}-{own}")

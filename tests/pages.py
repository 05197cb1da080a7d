"""Pages as a reader sees them."""

import html
import re


def text_of(page):
    """The text of a page: names of numbers are links in it."""
    return html.unescape(re.sub(r"<[^>]+>", "", page))

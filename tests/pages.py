"""Pages as a reader sees them."""

import html
import re
from html.parser import HTMLParser


def text_of(page):
    """The text of a page: names of numbers are links in it."""
    return html.unescape(re.sub(r"<[^>]+>", "", page))


class Reader(HTMLParser):
    """Text of every table cell by row, ids of sections, tags, addresses."""

    def __init__(self, html):
        super().__init__()
        self.rows, self.ids, self.tags, self.addresses, self.text = [], [], [], [], []
        self._in_cell = False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action", "xlink:href")]
        if tag == "section" and "id" in attributes:
            self.ids.append(attributes["id"])
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self._in_cell = True
            if self.rows:
                self.rows[-1].append("")

    def handle_endtag(self, tag):
        if tag in ("td", "th") and self.rows:
            self.rows[-1][-1] = self.rows[-1][-1].strip()
        self._in_cell = self._in_cell and tag not in ("td", "th")

    def handle_data(self, text):
        self.text.append(text)
        if self._in_cell and self.rows:
            self.rows[-1][-1] += text


def asks_for(page):
    """What the page would load or run: addresses outside it, tags that fetch, imports of styles."""
    reader = Reader(page)
    outside = [address for address in reader.addresses if not address.startswith(("#", "data:"))]
    # Names of XML vocabularies are no addresses.
    plain = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", page)
    return [
        *outside,
        *({"script", "iframe", "object", "embed", "form", "base"} & set(reader.tags)),
        *re.findall(r"url\(\s*['\"]?(?!#|data:).{20}|@import|https?://.{20}", plain),
    ]

"""Links from the names of numbers to the sentences that explain them."""

import re

from markupsafe import Markup

from ldm_privacy.report.glossary import GLOSSARY
from ldm_privacy.report.spelling import SPELT

_SPELT = {term: SPELT.get(term) or rf"\b{re.escape(term)}\b" for term in GLOSSARY}
# Of two terms that begin at the same place the one of the longer expression is the more particular.
_ORDERED = sorted(_SPELT, key=lambda term: -len(_SPELT[term]))
# "seed-0" and "loss_2" are names that somebody gave.
_ANY = re.compile(rf"(?:{'|'.join(f'({_SPELT[term]})' for term in _ORDERED)})(?![-_]\w)")
_SLUGS = {term: "term-" + re.sub(r"\W+", "-", term).strip("-") for term in GLOSSARY}


class Links:
    """Turns the terms of the glossary in a page's texts into links, each once in a block, and knows which the page has."""

    def __init__(self) -> None:
        self._met, self._in_block = set[str](), set[str]()

    def begin(self) -> None:
        """Another block: in it every term is linked again."""
        self._in_block.clear()

    def __call__(self, text: str) -> Markup:
        """The text, escaped, with its links."""
        parts, end = [], 0
        for match in _ANY.finditer(text):
            term = _ORDERED[(match.lastindex or 1) - 1]
            if term not in self._in_block:
                self._in_block.add(term)
                link = Markup('<a class="term" href="#{}" title="{}">{}</a>')
                parts += [Markup.escape(text[end : match.start()]), link.format(_SLUGS[term], GLOSSARY[term], match[0])]
                end = match.end()
        self._met |= self._in_block
        return Markup("").join([*parts, Markup.escape(text[end:])])

    @property
    def words(self) -> list[tuple[str, str, str]]:
        """Anchor, term and sentence of every term that was linked to, by the alphabet."""
        return [(_SLUGS[term], term, GLOSSARY[term]) for term in sorted(self._met, key=str.lower)]

"""The glossary: one sentence a term, and links to it from the names of numbers."""

import re

import pytest

from ldm_privacy.report.glossary import GLOSSARY
from ldm_privacy.report.page.links import Links
from ldm_privacy.report.spelling import SPELT

WRITTEN = {
    **{form: f"sima_{form}" for form in ("complexity", "history", "gained")},
    **{"reference": "loss_ratio", "half": "each half", "compared audit": "B - A", "told apart": "suspects told apart"},
}
"""How texts write what they don't call by its name."""


def unexplained(html):
    """The headings of columns of numbers, in a page's tables, that lead to no sentence."""
    headings = re.findall(r'<th scope="col" class="numeric">(.*?)</th>', html)
    assert headings
    return [each for each in headings if '<a class="term"' not in each]


@pytest.mark.parametrize("term", GLOSSARY)
def test_a_term_is_explained_in_one_sentence_and_led_to_by_its_name(term):
    assert re.fullmatch(r"[A-Z][^.]*(\.\d[^.]*)*\.", GLOSSARY[term]), "one sentence"
    links = Links()
    html = links(WRITTEN.get(term, term))
    assert [each for _, each, _ in links.words] == [term]
    ((anchor, _, sentence),) = links.words
    assert f'href="#{anchor}"' in html
    assert sentence == GLOSSARY[term]


def test_spellings_are_of_terms_and_have_no_groups():
    assert SPELT.keys() <= GLOSSARY.keys()
    assert not any(re.compile(each).groups for each in SPELT.values())
    every = Links()
    for term in GLOSSARY:
        every.begin()
        every(WRITTEN.get(term, term))
    anchors = [anchor for anchor, _, _ in every.words]
    assert len(set(anchors)) == len(anchors) == len(GLOSSARY)
    assert all(re.fullmatch(r"[\w-]+", anchor) for anchor in anchors)


def test_a_term_is_linked_once_in_a_block_and_nothing_is_markup():
    links = Links()
    html = str(links("<b>AUROC</b> and AUROC & p = 0.1"))
    assert html.count("<a ") == 2
    assert html.startswith("&lt;b&gt;<a ")
    assert html.endswith("&amp; " + html[html.rindex("<a ") :])
    assert "<a " not in links("AUROC")
    links.begin()
    assert "<a " in links("AUROC")
    assert "<a " not in links("AUROCK, kappa")

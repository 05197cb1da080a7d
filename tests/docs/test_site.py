"""The pages that are made from the code, and the site as a whole."""

import ast
import importlib.util
import re
import subprocess
import sys
import xml.etree.ElementTree

import pytest

from ldm_privacy import metrics
from ldm_privacy.config.command_line import key_rows
from ldm_privacy.config.schema import Config
from ldm_privacy.plugins import REGISTRIES
from ldm_privacy.registry import ATTACKS
from tests.docs.pages import DOCS, ROOT


@pytest.fixture(scope="module")
def site():
    """docs/site.py, which lies in no package."""
    spec = importlib.util.spec_from_file_location("site_of_the_docs", DOCS / "site.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_key_is_in_the_reference_with_its_help(site):
    page = site.configuration()
    for key, _, _, meaning in key_rows(Config):
        assert f"| `{key}` |" in page
        assert meaning.replace("|", "\\|") in page


def test_a_default_that_is_made_is_shown(site):
    rows = {key: default for key, _, default, _ in key_rows(Config)}
    made = {"loggers": '["csv", "wandb"]', "denoiser.timestep_sampling": "uniform", "watch": "{}", "data.resolution": ""}
    assert {key: rows[key] for key in made} == made


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda each: each.variable)
def test_every_component_is_found_where_it_is(site, registry):
    found = {name: place for name, place, _ in site.built_in(registry)}
    assert {name: place.rpartition(".")[0] for name, place in found.items()} == registry._built_in
    for name, place in found.items():
        module, _, component = place.rpartition(".")
        tree = ast.parse((ROOT / module.replace(".", "/")).with_suffix(".py").read_text())
        (defined,) = [each for each in tree.body if getattr(each, "name", None) == component]
        assert f"{registry.variable}.register('{name}')" in map(ast.unparse, defined.decorator_list)


def test_every_attack_has_a_formula_that_is_drawn(site):
    pytest.importorskip("latex2mathml", reason="a part of the extra [docs]")
    page = site.attacks()
    assert page.count("<math") == len(ATTACKS._built_in)
    for drawn in re.findall(r"<math.*?</math>", page):
        xml.etree.ElementTree.fromstring(drawn)
    words = {"abar", "zhat", "sqrt", "epsilon", "eps", "mean_n", "^", "||"}
    drawn = " ".join(re.findall(r">([^<>]+)</m", "".join(re.findall(r"<math.*?</math>", page)))).split()
    assert not words & {*drawn}


def test_every_exported_metric_is_on_the_page(site):
    page = site.metrics()
    for name in (name for name, value in vars(metrics).items() if callable(value)):
        assert re.search(rf"^::: ldm_privacy\.metrics\.\w+\.{name}$", page, re.MULTILINE), name


def test_links_out_of_docs_lead_to_pages_of_the_site(site):
    assert site.place_in_site(site.repository_path("../../examples/plain_loop.py", "tutorials/your_script.md")) == (
        "source/examples/plain_loop.py.md"
    )
    assert site.place_in_site(site.repository_path("docs/howto/attack.md", "about/contributing.md")) == "howto/attack.md"
    assert site.place_in_site(site.repository_path("../../SECURITY.md", "concepts/trust.md")) == "about/security.md"
    assert site.place_in_site(site.repository_path("../images/report.png", "concepts/controls.md")) == "images/report.png"


@pytest.mark.slow
def test_the_site_is_built_strictly_and_asks_no_network(tmp_path):
    for name in ("mkdocs", "material", "mkdocstrings", "latex2mathml"):
        pytest.importorskip(name, reason="a part of the extra [docs]")
    subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", "-d", tmp_path], cwd=ROOT, check=True)
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 80
    for page in pages:
        fetched = re.findall(r'<(?:script|link|img|iframe)[^>]*(?:src|href)="(https?:[^"]*)"', page.read_text())
        assert not fetched, page

"""What mkdocs doesn't do by itself: pages made from the code, links that leave docs/, formulas without a script.

`mkdocs.yml` names this file under `hooks`. Nothing is fetched, and no page needs a network or a script to be read.
"""

import ast
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ldm_privacy.config.command_line import first_sentence, key_rows
from ldm_privacy.config.compose import entry_files
from ldm_privacy.config.schema import Config, TargetConfig
from ldm_privacy.plugins import REGISTRIES
from ldm_privacy.registry import ATTACKS, Registry

ROOT = Path(__file__).resolve().parents[1]
TAKEN = {f"about/{name.lower()}": name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")}
"""Pages of the site that are files beside docs/."""
LINK = re.compile(r"\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)")
MATH = re.compile(r"^```math\n(.*?)\n```$", re.MULTILINE | re.DOTALL)
LATEX = {
    r"\bepsilon\b": r"\\varepsilon",
    r"\babar_(\w)": r"\\bar\\alpha_{\1}",
    r"\b(alpha|gamma|phi|sigma)\b": r"\\\1",
    r"\b(sin|cos)\b": r"\\\1",
    r"\bzhat_": r"\\hat z_",
    r"\bsqrt\(([^()]*)\)": r"\\sqrt{\1}",
    r"\b([a-zA-Z])(\d)\b": r"\1_\2",
    r"_\{(\w+) (\w)": r"_{\\text{\1}\\,\2",
    r"(?<![a-z])(mean over crops of|mean|null|robust|back|power|interval|crop)(?![a-z])": r"\\text{\1 }",
    r"\^(\w|\\text\{\w+ \})": r"^{\1}",
    r"\|\|": r"\\Vert ",
    "1/2": r"\\tfrac12 ",
}
"""The plain formulas of docstrings as LaTeX, in this order."""


def formula(latex: str) -> str:
    """A formula as MathML, which browsers draw by themselves."""
    from latex2mathml.converter import convert

    return f'<div class="formula">{convert(latex, display="block")}</div>'


def latex_of(plain: str) -> str:
    """`mean_n e_n^4` and its like, as docstrings have them."""
    for pattern, replacement in LATEX.items():
        plain = re.sub(pattern, replacement, plain)
    return plain


def built_in(registry: Registry) -> Iterator[tuple[str, str, str]]:
    """Name, place in the code and docstring's first paragraph of everything built in; nothing is imported."""
    line = r'^@{}\.register\("([^"]+)"\)\n(?:@[^\n]*\n)*(?:class|def) (\w+)[^\n]*\n(?:    """(.*?)(?:\n\n|"""))?'
    for path in sorted((ROOT / "ldm_privacy" / registry.room).rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for name, component, text in re.findall(line.format(registry.variable), path.read_text(), re.MULTILINE | re.DOTALL):
            yield name, f"{module}.{component}", text


def configuration() -> str:
    """Every key, by section, with what `--help` says of it."""
    parts = [
        "# Configuration\n",
        "Made from the schema, with the texts of `python train.py --help`. An entry file in `configs/` names group files "
        "(`defaults:`) and adds its own keys; `key=value` on the command line wins. A key without a default must be given by "
        "the entry file. A *component* is `class: name` and its constructor's arguments ([components](components.md)); of "
        "several, each has a label of its own, and `label=null` takes one out.\n",
        "```\n$ python train.py --config digits.yaml trainer.max_epoch=3\nerror: trainer: unknown key 'max_epoch'. Did you "
        "mean 'max_epochs'? Valid keys: max_epochs, accelerator, ...\n```\n",
        "## Entry files\n\n| file | what it is |\n|---|---|",
        *(f"| `{path.name}` | {first_sentence(path.read_text())} |" for path in entry_files()),
    ]
    rows = [*key_rows(Config), *(row for row in key_rows(TargetConfig) if row[0].startswith("target."))]
    sections = dict.fromkeys(key.split(".")[0] if "." in key else "" for key, *_ in rows)
    for section in sections:
        parts.append(f"\n## {section or 'The top level'}\n\n| key | type | default | meaning |\n|---|---|---|---|")
        for row in rows:
            if row[0].startswith(f"{section}.") if section else "." not in row[0]:
                key, kind, default, meaning = (cell.replace("|", "\\|") for cell in row)
                parts.append(f"| `{key}` | {kind} | {f'`{default}`' if default else ''} | {meaning} |")
    return "\n".join(parts)


def attacks() -> str:
    """Each attack with its formula and docstring."""
    parts = [
        "# Attacks\n",
        "Made from the docstrings. `z0` is the clean latent, `z_t` the noisy one at timestep t, `n` normal noise, `epsilon` "
        "the noise that the denoiser predicts, `abar_t` the share of signal left. An attack returns one term for each latent "
        "dimension; a mask keeps some of them, and the sum is the statistic. Which to take, and the passes of each: "
        "[choosing an attack](choosing.md).\n",
    ]
    for name, place, text in built_in(ATTACKS):
        plain = re.match(r"`([^`]+)`", text)
        parts += [f"## {name}\n", formula(latex_of(plain[1])) if plain else "", f"\n::: {place}\n"]
    return "\n".join(parts)


def components() -> str:
    """Every other component, by kind."""
    parts = [
        "# Components\n",
        "Made from the docstrings. Arguments are keys of the config: `class: name`, and these beside it.\n",
    ]
    for registry in REGISTRIES:
        if registry is not ATTACKS:
            parts.append(f"## {registry.kind[0].upper()}{registry.kind[1:]}\n")
            parts += [f"### {registry.kind} {name}\n\n::: {place}\n" for name, place, _ in built_in(registry)]
    return "\n".join(parts)


def metrics() -> str:
    """What `ldm_privacy.metrics` exports, by file."""
    parts = [
        "# Metrics\n",
        "Made from the docstrings. Each is tested against a slower, more obvious computation.\n",
        "```python\nimport torch\nfrom ldm_privacy.metrics import auroc_interval\n\nscore, is_member = torch.randn(200), "
        "torch.arange(200) < 100\nauroc_interval(score, is_member)  # value, lower, upper\n```\n",
        "::: ldm_privacy.metrics\n",
    ]
    exported = ast.parse((ROOT / "ldm_privacy" / "metrics" / "__init__.py").read_text())
    for each in exported.body:
        if isinstance(each, ast.ImportFrom) and each.module:
            parts.append(f"## {each.module.rpartition('.')[2].replace('_', ' ')}\n")
            parts += [f"### {alias.name}\n\n::: {each.module}.{alias.name}\n" for alias in each.names]
    return "\n".join(parts)


GENERATED = {f"reference/{make.__name__}.md": make for make in (configuration, attacks, metrics, components)}


def repository_path(link: str, page: str) -> str:
    """What a link on a page of the site means, from the top of the repository."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(TAKEN.get(page, f"docs/{page}")), link))


def place_in_site(path: str) -> str:
    """Where a file of the repository stands in the site."""
    for page, taken in TAKEN.items():
        if taken == path:
            return page
    return (
        path.removeprefix("docs/") if path.startswith("docs/") else "index.md" if path == "README.md" else f"source/{path}.md"
    )


def linked_files(text: str, page: str) -> Iterator[str]:
    """Files of the repository that a page links to and that have no page: programs, settings."""
    for link, _ in LINK.findall(text):
        path = repository_path(link, page)
        if place_in_site(path).startswith("source/"):
            yield path


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made."""
    from mkdocs.structure.files import File, InclusionLevel

    for page, make in GENERATED.items():
        files.append(File.generated(config, page, content=make()))
    for page, taken in TAKEN.items():
        files.append(File.generated(config, page, content=(ROOT / taken).read_text()))
    linked = {path for file in files.documentation_pages() for path in linked_files(file.content_string, file.src_uri)}
    for path in sorted(linked):
        language = {".py": "python", ".yaml": "yaml"}.get(Path(path).suffix, "text")
        text = f"# {path}\n\n````{language}\n{(ROOT / path).read_text()}````\n"
        files.append(File.generated(config, f"source/{path}.md", content=text, inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Links from the site's side, and formulas drawn."""
    here = page.file.src_uri

    def mended(found: re.Match[str]) -> str:
        there = place_in_site(repository_path(found[1], here))
        return f"]({posixpath.relpath(there, posixpath.dirname(here) or '.')}{found[2] or ''})"

    return MATH.sub(lambda found: formula(found[1]), LINK.sub(mended, markdown))

"""Section: what it takes to repeat the evaluation."""

from ldm_privacy.evidence.gather import Evidence
from ldm_privacy.registry import SECTIONS
from ldm_privacy.report.context import Context
from ldm_privacy.report.page.blocks import Code, KeyValues, Section, Subheading


@SECTIONS.register("protocol")
def protocol(evidence: Evidence, context: Context) -> Section:
    """Facts, commands and config."""
    found = context.protocol
    blocks = (
        KeyValues(tuple(found.facts.items())),
        Code("\n".join(found.commands), "commands"),
        Subheading("Config"),
        Code(found.config, "config.yaml"),
    )
    return Section("protocol", "Protocol", "What it takes to repeat this.", blocks, place=80)

"""The evidence laid out as one page."""

from ldm_privacy.evidence.gather import Evidence
from ldm_privacy.evidence.verdict import verdict_of
from ldm_privacy.registry import SECTIONS
from ldm_privacy.report.context import Context
from ldm_privacy.report.page.blocks import Verdict
from ldm_privacy.report.page.page import Page


def evidence_page(evidence: Evidence, context: Context) -> Page:
    """The page of an evaluation: every registered section that has something to say, by its place."""
    verdict, data, protocol = verdict_of(evidence), evidence.report.data, context.protocol
    found = [SECTIONS.get(name)(evidence, context) for name in SECTIONS]
    num_members = int(data.is_member.sum())
    return Page(
        f"Membership audit of {protocol.name}",
        f"{protocol.unit.capitalize()} {protocol.epoch}; {num_members} members and {len(data.is_member) - num_members} held-out images audited, half "
        f"of them to choose, half to report; {evidence.report.confidence:.0%} intervals",
        Verdict(verdict.sentences, verdict.tone),
        tuple(sorted((section for section in found if section is not None), key=lambda section: section.place)),
        f"ldm_privacy {protocol.facts.get('version', '')}",
    )

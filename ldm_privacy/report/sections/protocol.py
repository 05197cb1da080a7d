"""Section: what it takes to repeat the evaluation."""

from ldm_privacy.registry import SECTIONS
from ldm_privacy.report.evaluation import Evaluation
from ldm_privacy.report.page.blocks import Block, Code, KeyValues, Section


@SECTIONS.register("protocol")
def protocol(evaluation: Evaluation) -> Section:
    """Facts, commands and config, as far as there are any."""
    texts = {"Commands": "\n".join(evaluation.commands), "Config (config.yaml)": evaluation.config}
    blocks: list[Block] = [KeyValues(evaluation.facts.items())]
    blocks += [Code(text, label) for label, text in texts.items() if text]
    return Section("Protocol", "What it takes to repeat this.", blocks, place=80)

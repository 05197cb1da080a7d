"""The section of a config that says what an audit may find at most."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat

from ldm_privacy.config.fields import Share, option

AboveGuessing = Annotated[float, Field(gt=0.5, lt=1)]


@dataclass
class GateConfig:
    """Limits that an audit is held against. Exit code 0: all pass; 1: one fails; 3: none fails, one is undecided."""

    auroc: AboveGuessing | None = option(
        "that the upper bound of the AUROC may be, of the onset's attack and mask, plain and calibrated; null = no limit",
        None,
    )
    attacks: dict[str, AboveGuessing | None] = option(
        "the same by attack (all of its masks) or attack/mask, as {loss: 0.6, sima/all: 0.55}", {}
    )
    tpr: dict[Share, Share | None] = option("false positive rate: upper bound of the TPR there, as {0.01: 0.05}", {})
    who: Literal["insider", "outsider"] = option(
        "whose scores auroc, tpr and epsilon hold: an outsider has the model, an insider the run's checkpoints as well",
        "insider",
    )
    copies: Share | None = option(
        "upper bound of the share of generations that copy a member; needs watch.generations; null = no limit", None
    )
    epsilon: PositiveFloat | None = option(
        "that an audit may not refute, of a split by coins (data.split=coin); null = no limit", None
    )
    junit: str | None = option("XML file for a CI system, a test case a limit", None)
    markdown: str | None = option("file with the decision as a table, for a pull request", None)

"""The section of a config that says what an audit may find at most."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveFloat
from pydantic_core import PydanticCustomError

from ldm_privacy.config.fields import Share, option

AboveGuessing = Annotated[float, Field(gt=0.5, lt=1)]


def _by_rate(value: Any) -> Any:
    """Of `gate.tpr.0.01=0.05` every point begins a section."""
    if isinstance(value, Mapping) and any(isinstance(each, Mapping) for each in value.values()):
        raise PydanticCustomError("rates", "is what a rate becomes in a key; quote it, as in gate.tpr='{0.01: 0.05}'")
    return value


Rates = Annotated[dict[Share, Share | None], BeforeValidator(_by_rate)]


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
    tpr: Rates = option("false positive rate: upper bound of the TPR there, as {0.01: 0.05}", {})
    attacks_tpr: dict[str, Rates | None] = option("the same by attack or attack/mask, as {loss: {0.01: 0.05}}", {})
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

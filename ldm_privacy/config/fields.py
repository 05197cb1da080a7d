"""Types and helpers of config fields: every field has its help text in its metadata, `--help` prints them."""

from dataclasses import MISSING, field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from ldm_privacy import registry
from ldm_privacy.config.check import Component

Share = Annotated[float, Field(gt=0, lt=1)]
Confidence = Annotated[float, Field(ge=0.5, le=0.999999)]
Rate = Annotated[float, Field(gt=0, le=1)]
"""AdamW moves a weight by about this much in a step."""
Decay = Annotated[float, Field(ge=0, le=100)]
View = Annotated[Literal["null", "shuffled"], BeforeValidator(lambda value: "null" if value is None else value)]
"""YAML reads a bare null as nothing, and nothing is what it means here."""
KeepFraction = Annotated[float, Field(gt=0, le=1)]


def option(text: str, default: Any = MISSING) -> Any:
    if isinstance(default, list | dict):
        return field(default_factory=default.copy, metadata={"help": text})
    return field(default=default, metadata={"help": text})


def component(text: str, of: registry.Registry, *, provided: str = "", many: bool = False, default: str | None = None) -> Any:
    metadata = {"help": text, "registry": of, "provided": provided.split(), "many": many}
    if default is None:
        return field(metadata=metadata)
    return field(default_factory=dict if many else lambda: Component(of, default, {}), metadata=metadata)

"""Configuration: compose YAML and the command line, check it against what it builds."""

from ldm_privacy.config.check import Component
from ldm_privacy.config.compose import Composed, compose, compose_stored, finish, stored_tree
from ldm_privacy.config.schema import Config, EvaluationConfig, TargetConfig

__all__ = [
    "Component",
    "Composed",
    "Config",
    "EvaluationConfig",
    "TargetConfig",
    "compose",
    "compose_stored",
    "finish",
    "stored_tree",
]

"""What a model is, as one frozen value: exactly the TOML, checked, and nothing that runs."""

from spatialclusters.spec.distributions import Prior
from spatialclusters.spec.model import (
    Cells,
    EffectKind,
    Family,
    GroupEffect,
    Growth,
    Likelihood,
    ModelSpec,
    OutcomeProcess,
    Scale,
    Structure,
    ZeroRule,
)
from spatialclusters.spec.text import json_schema, override, parse_spec, spec_to_toml

__all__ = [
    "Cells",
    "EffectKind",
    "Family",
    "GroupEffect",
    "Growth",
    "Likelihood",
    "ModelSpec",
    "OutcomeProcess",
    "Prior",
    "Scale",
    "Structure",
    "ZeroRule",
    "json_schema",
    "override",
    "parse_spec",
    "spec_to_toml",
]

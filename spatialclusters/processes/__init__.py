"""Spatial processes: of the outcome, and of the effects of regions."""

from spatialclusters.processes.dependence import check_dependence, dependence_names, supports
from spatialclusters.processes.fields import FIELDS, Field
from spatialclusters.processes.outcome import OUTCOMES, Outcome, outcome_process

__all__ = [
    "FIELDS",
    "OUTCOMES",
    "Field",
    "Outcome",
    "check_dependence",
    "dependence_names",
    "outcome_process",
    "supports",
]

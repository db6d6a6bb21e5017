"""The sections of a report, in reading order: findings, checks, and what both rest on."""

from collections.abc import Callable
from typing import Final

from spatialclusters.reporting.blocks import Section
from spatialclusters.reporting.results import Results
from spatialclusters.reporting.sections.computation import computation_section
from spatialclusters.reporting.sections.convergence import (
    convergence_section,
    specialization_section,
)
from spatialclusters.reporting.sections.data import data_section
from spatialclusters.reporting.sections.estimates import coefficient_section
from spatialclusters.reporting.sections.fit import criticism_section, fit_section
from spatialclusters.reporting.sections.frequentist import frequentist_section
from spatialclusters.reporting.sections.groups import group_section, region_section
from spatialclusters.reporting.sections.guidelines import guidelines_section
from spatialclusters.reporting.sections.impacts import impact_section
from spatialclusters.reporting.sections.ladder import ladder_section
from spatialclusters.reporting.sections.model import model_section
from spatialclusters.reporting.sections.priors import prior_section
from spatialclusters.reporting.sections.reproduction import reproduction_section
from spatialclusters.reporting.sections.sensitivity import sensitivity_section
from spatialclusters.reporting.sections.weights import weights_section

__all__ = ["SECTIONS"]

SECTIONS: Final[tuple[tuple[str, Callable[[Results], Section]], ...]] = (
    ("coefficients", coefficient_section),
    ("convergence", convergence_section),
    ("specialization", specialization_section),
    ("impacts", impact_section),
    ("groups", group_section),
    ("regions", region_section),
    ("checks", criticism_section),
    ("fit", fit_section),
    ("ladder", ladder_section),
    ("frequentist", frequentist_section),
    ("sensitivity", sensitivity_section),
    ("data", data_section),
    ("weights", weights_section),
    ("model", model_section),
    ("priors", prior_section),
    ("computation", computation_section),
    ("reproduction", reproduction_section),
    ("guidelines", guidelines_section),
)
"""Name, for progress, and what makes each section."""

"""A fit and everything a report says of it, each computed once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd

from spatialclusters.comparison import Result
from spatialclusters.criticism import Criticism, criticize, leave_one_out
from spatialclusters.design import Design
from spatialclusters.diagnostics import Check, check
from spatialclusters.effects import coefficients, convergence, specialization
from spatialclusters.errors import FitError
from spatialclusters.frequentist import Frequentist
from spatialclusters.loo import Loo, compare_loo
from spatialclusters.result import Fit
from spatialclusters.sensitivity import power_scaling, prior_and_posterior
from spatialclusters.spillovers import impacts

__all__ = ["Results", "row_name"]


@dataclass(frozen=True, eq=False)
class Results:
    """A fit and its tidy frames; a frame is None where it means nothing.

    Attributes
    ----------
    fit, frequentist
        The posterior, and estimates on the same rows.
    others
        Further fits of the same rows, by the name they are shown under.
    beside
        Further estimates: mixed models, spatial models by maximum likelihood or by moments.
    name
        What the fit itself is shown under beside them.
    """

    fit: Fit
    frequentist: Frequentist
    others: Mapping[str, Fit] = field(default_factory=dict)
    beside: Sequence[Result] = ()

    @property
    def name(self) -> str:
        """The name of the model."""
        return self.fit.spec.name

    @cached_property
    def coefficients(self) -> pd.DataFrame:
        """All fixed effects and hyperparameters."""
        return coefficients(self.fit)

    @cached_property
    def convergence(self) -> pd.DataFrame | None:
        """Change, speed and half-life, or None."""
        named = self.fit.spec.roles.convergence and self.fit.design.years is not None
        return convergence(self.fit) if named else None

    @cached_property
    def specialization(self) -> pd.DataFrame | None:
        """Effects of the strength terms, or None."""
        return specialization(self.fit) if self.fit.spec.roles.specialization else None

    @cached_property
    def impacts(self) -> pd.DataFrame | None:
        """Direct, indirect and total impacts, or None where there are none beside coefficients."""
        return _or_none(impacts, self.fit)

    @cached_property
    def check(self) -> Check:
        """The verdict on the sampling."""
        return check(self.fit)

    @cached_property
    def loo(self) -> Loo | None:
        """Leave-one-out by row, or None."""
        return leave_one_out(self.fit)

    @cached_property
    def criticism(self) -> Criticism:
        """The verdict on the model."""
        return criticize(self.fit, self.loo)

    @cached_property
    def ladder(self) -> pd.DataFrame | None:
        """The models compared by leave-one-out, or None if there are no others.

        Raises
        ------
        FitError
            Effects of one of them cannot be integrated out, or rows differ.
        """
        if not self.others:
            return None
        loos = {self.name: self.loo} | {n: leave_one_out(f) for n, f in self.others.items()}
        known = {name: loo for name, loo in loos.items() if loo is not None}
        if len(known) < len(loos):
            wrong = ", ".join(name for name in loos if name not in known)
            msg = f"report: got {wrong}, whose effects cannot be integrated out; expected models"
            raise FitError(f"{msg} with Gaussian noise. Leave them out.")
        return compare_loo(known)

    @cached_property
    def power_scaling(self) -> pd.DataFrame:
        """Sensitivity to priors and likelihood."""
        return power_scaling(self.fit)

    @cached_property
    def priors(self) -> pd.DataFrame:
        """Priors beside the posterior."""
        return prior_and_posterior(self.fit)


def row_name(design: Design) -> str:
    """Return what one row is: a region, a region-cluster or a region-industry."""
    if "row_industry" in design.data:
        return "region-industry"
    return "region-cluster" if "row_cluster" in design.data else "region"


def _or_none(function: Callable[[Fit], pd.DataFrame], fit: Fit) -> pd.DataFrame | None:
    try:
        return function(fit)
    except FitError:
        return None

"""A frequentist coefficient -> its rows in the tidy frame, with Wald intervals.

What a model file calls convergence and specialization is derived from it as from draws of
a posterior: change, speed, half-life, and effects per standard deviation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from spatialclusters.design import Design
from spatialclusters.effects import annual_points, half_life, speed

if TYPE_CHECKING:
    from spatialclusters.spec import ModelSpec

__all__ = ["CI_PROB", "Coefficient", "coefficient_rows", "from_standardized"]

CI_PROB: Final = 0.95
"""Probability of all frequentist intervals."""


@dataclass(frozen=True)
class Coefficient:
    """A coefficient in raw units, and the t or normal quantile of its interval.

    Examples
    --------
    >>> Coefficient("x", 2.0, 1.0, 1.96).interval(10.0)["ci_low"].__round__(2)
    0.4
    """

    term: str
    estimate: float
    std_error: float
    critical: float

    def interval(self, factor: float = 1.0) -> dict[str, Any]:
        """Return estimate, error and interval of the coefficient times a factor."""
        b, se = self.estimate * factor, self.std_error * abs(factor)
        reach = self.critical * se
        return {"estimate": b, "std_error": se, "ci_low": b - reach, "ci_high": b + reach}


def from_standardized(
    terms: list[str], center: np.ndarray, scale: np.ndarray, *, intercept: bool
) -> tuple[list[str], np.ndarray]:
    """Return names in raw units, and the matrix to them from standardized coefficients.

    With an intercept it comes first, at the means, and once more last, at zero.

    Examples
    --------
    >>> from_standardized(["x"], np.array([3.0]), np.array([2.0]), intercept=True)[1].tolist()
    [[1.0, 0.0], [0.0, 0.5], [1.0, -1.5]]
    """
    names = ["intercept"] * intercept + list(terms)
    back = np.diag([*np.ones(int(intercept)), *(1.0 / scale)])
    if intercept and terms:
        names.append("intercept at zero")
        back = np.vstack([back, [1.0, *(-center / scale)]])
    return names, back


def coefficient_rows(
    design: Design, spec: ModelSpec | None, estimator: str, c: Coefficient, *, point: str
) -> Iterator[dict[str, Any]]:
    """Yield the coefficient and, where the model's roles name its term, what follows from it."""
    unit = str(design.data.attrs["unit"])
    base: dict[str, Any] = {
        "model": spec.name if spec else "model",
        "estimator": estimator,
        "term": c.term,
    }
    base |= {"point": point, "group": "", "ci_prob": CI_PROB, "ci_kind": "confidence"}
    per_unit = (
        unit if c.term in ("intercept", "intercept at zero") else f"{unit} per unit of the term"
    )
    yield base | {"effect": "coefficient", "unit": per_unit} | c.interval()
    base["group"] = "overall"
    if spec is None:
        return
    if c.term in {design.label(role) for role in spec.roles.specialization}:
        points, unit = annual_points(design)
        deviation = float(design.data["scale"].values[design.terms.index(c.term)])
        yield base | {"effect": "per_sd", "unit": unit} | c.interval(points * deviation)
    role, years = spec.roles.convergence, design.years
    if role is not None and years is not None and c.term == design.label(role):
        change = c.interval(years if design.annualized else 1.0)
        unit = f"log points over {years:g} {'year' if years == 1 else 'years'} per log point"
        yield base | {"effect": "change", "unit": unit} | change
        for row in _convergence(change, c.critical, years):
            yield base | row


def _convergence(
    change: dict[str, float], critical: float, years: float
) -> Iterator[dict[str, Any]]:
    """Yield the speed by the delta method, and the half-life with the speed's interval."""
    B = np.array([change["estimate"]])
    rate = float(speed(B, years)[0])
    error = change["std_error"] / ((1.0 + B[0]) * years) if rate < math.inf else math.nan
    low, high = rate - critical * error, rate + critical * error
    bounds = {"std_error": error, "ci_low": low, "ci_high": high}
    yield {"effect": "speed", "unit": "per year", "estimate": rate} | bounds
    short, long = (math.log(2.0) / end if end > 0.0 else math.inf for end in (high, low))
    bounds = {"ci_low": short, "ci_high": long} if rate < math.inf else {}
    life = float(half_life(B, years)[0])
    yield {"effect": "half_life", "unit": "years", "estimate": life} | bounds

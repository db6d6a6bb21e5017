"""The collapsed likelihood at fixed theta against lme4's ML and REML criteria.

Criteria and data come from ``lme4/criteria.R``; InstEval has 2,972 x 1,128 crossed levels. REML integrates coefficients under a
flat prior; ML is the density at the estimate, here under a prior too narrow to matter.
CRITERION is the relative agreement asked of the criterion; it holds with digits to spare.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

jax = pytest.importorskip("jax")
jax.config.update("jax_enable_x64", True)

from spatialclusters.collapsed.density import log_marginal_likelihood  # noqa: E402
from spatialclusters.collapsed.layout import Problem, Theta, lay_out  # noqa: E402
from spatialclusters.collapsed.plan import Factor  # noqa: E402
from spatialclusters.collapsed.statistics import statistics  # noqa: E402

CRITERION = 1e-6
NARROW = 1e-7  # of a coefficient of order 1 to 1,000

FOLDER = Path(__file__).with_name("lme4")
MODELS = json.loads((FOLDER / "criteria.json").read_text(encoding="utf-8"))["models"]
# InstEval takes seconds a point: one of its three, lme4's optimum
CASES = [(n, k) for n in MODELS for k in range(1 if n.startswith("InstEval") else 3)]


def read(name):
    """Read a data set: InstEval, 73,421 rows, is Parquet."""
    if name == "InstEval":
        return pd.read_parquet(FOLDER / "InstEval.parquet")
    return pd.read_csv(FOLDER / f"{name}.csv", keep_default_na=False)


def matrices(model, table):
    """Return X and the factors; (Intercept) is the constant column."""
    ones = pd.Series(1.0, index=table.index)

    def column(name):
        return (ones if name == "(Intercept)" else table[name]).to_numpy(float)

    factors = []
    for term in model["terms"]:
        keys = [table[part].astype(str) for part in term["group"].split(":")]
        codes, levels = pd.factorize(pd.Series(list(zip(*keys, strict=True))))
        assert len(levels) == term["levels"]
        values = np.column_stack([column(name) for name in term["columns"]])
        factors.append(Factor(term["group"], codes, len(levels), values))
    return np.column_stack([column(name) for name in model["beta_names"]]), tuple(factors)


def roots(factors, theta, sigma):
    """Cut lme4's theta, columns of lower triangles, into roots; zero becomes a tiny number."""
    out, rest = {}, list(theta)
    for factor in factors:
        root = np.zeros((factor.width, factor.width))
        for j in range(factor.width):
            for i in range(j, factor.width):
                root[i, j] = rest.pop(0)
        out[factor.name] = sigma * (root + np.diag(1e-8 * (np.diag(root) == 0.0)))
    assert not rest
    return out


@pytest.mark.parametrize("kind", ["ml", "reml"])
@pytest.mark.parametrize(("name", "point"), CASES)
def test_criterion(name, point, kind):
    model = MODELS[name]
    table = read(model["data"])
    X, factors = matrices(model, table)
    theta, expected = model["points"][point]["theta"], model["points"][point][kind]
    n, p = X.shape
    assert n == model["rows"]
    y = table[model["formula"].split("~")[0].strip()].to_numpy(float)
    proper = np.full(p, kind == "ml")
    scale, shift = (NARROW, X @ expected["beta"]) if kind == "ml" else (1.0, np.zeros(n))
    problem = Problem(X * scale, shift, proper, factors, np.zeros(n, dtype=int), 1)
    layout = lay_out(problem)
    sums, sigma = statistics(layout, y), expected["sigma"]
    at = Theta(np.array([sigma]), roots(factors, theta, sigma))
    value = -2.0 * float(jax.jit(lambda t: log_marginal_likelihood(layout, sums, t))(at))
    assert value == pytest.approx(expected["criterion"], rel=CRITERION)

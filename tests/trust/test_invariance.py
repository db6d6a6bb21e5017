"""What must not matter does not: row order, units, origins, the scale of W.

The likelihood is compared as a function of its standardized parameters, which leaves rounding
alone; the posterior by its draws, within their Monte Carlo error.
"""

from collections.abc import Callable

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from libpysal.examples import get_path

import spatialclusters as sc
from spatialclusters.repeated import RepeatedSampler
from spatialclusters.run import choose_settings
from spatialclusters.spec import parse_spec

ML = 1e-8  # relative change of the maximum likelihood column
HUGE = 1e9
MCSE = 4.0  # Monte Carlo errors: one false alarm in 16,000 comparisons

SPEC = 'formula = "CRIME ~ INC + HOVAL"\n[spatial]\noutcome = "{}"\n'


def shapes() -> gpd.GeoDataFrame:
    frame = gpd.read_file(get_path("columbus.shp"))
    frame["region"] = [f"{i:02d}" for i in range(len(frame))]
    return frame[["region", "CRIME", "INC", "HOVAL", "geometry"]]


def same(frame: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    return frame


def other_order(frame: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Name the regions anew, so that they come in another order everywhere."""
    order = np.random.default_rng(1).permutation(len(frame))
    return frame.assign(region=[f"{i:02d}" for i in order])


def other_unit(frame: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    return frame.assign(INC=frame["INC"] * HUGE)


def other_origin(frame: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    return frame.assign(HOVAL=frame["HOVAL"] + 1000.0)


CHANGES: dict[str, Callable[[gpd.GeoDataFrame], gpd.GeoDataFrame]] = {
    "row order": other_order,
    "unit of a covariate": other_unit,
    "origin of a covariate": other_origin,
}


def design_of(
    change: Callable = same, process: str = "none", scale: float | None = None
) -> sc.Design:
    """Build a design, by default with standardized weights; else ones of this size."""
    frame = change(shapes())
    panel = sc.read_panel(pd.DataFrame(frame.drop(columns="geometry")), frame)
    weights = sc.contiguity(panel)
    if scale is not None:
        row, column = weights.matrix.tocoo().coords
        ids = np.array(weights.regions)
        links = pd.DataFrame({"region_i": ids[row], "region_j": ids[column], "weight": scale})
        weights = sc.read_weights(links, row_standardize=False)
    return sc.build_design(parse_spec(SPEC.format(process)), panel, weights)


def maximum_likelihood(design: sc.Design) -> pd.DataFrame:
    frame = sc.fit_spatial_ml(design, draws=200).estimates
    # the intercept at zero moves with the origin, as it must
    return frame[frame["term"] != "intercept at zero"].set_index(["estimator", "term", "effect"])


@pytest.mark.parametrize("name", CHANGES)
def test_maximum_likelihood(name: str) -> None:
    plain, changed = maximum_likelihood(design_of()), maximum_likelihood(design_of(CHANGES[name]))
    assert plain.index.equals(changed.index)
    income = plain.index.get_level_values("term").str.contains("INC")
    factor = np.where(income & (name == "unit of a covariate"), HUGE, 1.0)
    np.testing.assert_allclose(changed["estimate"] * factor, plain["estimate"], rtol=ML)
    # errors of impacts come from draws, which another origin of the covariates moves
    exact = plain.index.get_level_values("effect").isin(["coefficient", "spatial"])
    errors = changed["std_error"] * factor, plain["std_error"]
    np.testing.assert_allclose(*(each[exact] for each in errors), rtol=ML)


def test_scale_of_weights_in_maximum_likelihood() -> None:
    plain, scaled = (maximum_likelihood(design_of(scale=s)) for s in (1.0, HUGE))
    term = plain.index.get_level_values("term")
    of_w = term.isin(["rho", "lambda"]) | (
        term.str.startswith("lag(") & (plain.index.get_level_values("effect") == "coefficient")
    )
    factor = np.where(of_w, HUGE, 1.0)
    np.testing.assert_allclose(scaled["estimate"] * factor, plain["estimate"], rtol=ML)


def posterior(design: sc.Design, process: str) -> dict[str, np.ndarray]:
    """Draw two chains with default priors; the intercept is at the covariates' means."""
    spec = parse_spec(SPEC.format(process))
    sampler = RepeatedSampler(spec, design, choose_settings(spec, seed=1, draws=1000))
    chains = [sampler.sample(seed=seed).posterior for seed in (1, 2)]
    draws = {name: np.concatenate([chain[name] for chain in chains]) for name in chains[0]}
    income, value = np.moveaxis(draws.pop("coefficient"), -1, 0)
    return draws | {"INC": income, "HOVAL": value}


@pytest.fixture(scope="module")
def plain() -> dict[str, np.ndarray]:
    return posterior(design_of(process="sar"), "sar")


@pytest.mark.parametrize("name", [*CHANGES, "scale of W"])
def test_posterior(name: str, plain: dict[str, np.ndarray]) -> None:
    from arviz_stats.base import array_stats

    if name == "scale of W":
        plain = posterior(design_of(process="sar", scale=1.0), "sar")
        changed = posterior(design_of(process="sar", scale=HUGE), "sar")
        changed["rho"] = changed["rho"] * HUGE
    else:
        changed = posterior(design_of(CHANGES[name], "sar"), "sar")
    if name == "unit of a covariate":
        changed["INC"] = changed["INC"] * HUGE
    for parameter, values in plain.items():
        for method, statistic in (("mean", np.mean), ("sd", np.std)):
            both = (values, changed[parameter])
            errors = [array_stats.mcse(each, method=method) for each in both]
            gap = statistic(both[0]) - statistic(both[1])
            assert abs(gap) < MCSE * np.hypot(*errors), (parameter, method)

"""Published numbers: the check regressions on real data, Columbus, and income of the states."""

import numpy as np
import pandas as pd
import pytest

from spatialclusters.design import build_design
from spatialclusters.frequentist import fit_frequentist
from spatialclusters.neighbors import contiguity
from spatialclusters.panel import read_panel
from spatialclusters.spec import parse_spec

PRINTED = 5.1e-5  # the check regressions are printed to four decimals
DIGITS = 5.1e-7  # the reference values of Columbus and the states are printed to six decimals
MORAN = 5.1e-6  # and this one to five

CHECK = """
name = "check"
formula = "growth ~ log(employment) + log1p(rest_of_cluster) + (1 | region) + (1 | industry)"
[growth]
variable = "employment"
from = {}
to = {}
[cells]
absent = "zero"
withheld = "zero"
[groups.region]
effect = "fixed"
[groups.industry]
effect = "fixed"
"""
CASES = {
    "Economic Areas": (
        "us_ea/industries_2018_2021.parquet",
        (2018, 2021),
        30_008,
        ((-0.1077, 0.0044), (0.0225, 0.0029)),
    ),
    "Component areas": (
        "us_cea/industries_2018_2021.parquet",
        (2018, 2021),
        47_477,
        ((-0.1097, 0.0037), (0.0214, 0.0024)),
    ),
    "commuting zones": (
        "us_cz/industries_1980_1990.parquet",
        (1980, 1990),
        123_265,
        ((-0.3901, 0.0057), (0.1001, 0.0041)),
    ),
}


def estimates(result, estimator, effect="coefficient"):
    frame = result.estimates.query("estimator == @estimator and effect == @effect")
    return frame.set_index("term")[["estimate", "std_error"]]


@pytest.mark.parametrize("case", CASES)
def test_check_regression(data_folder, case):
    file, years, rows, expected = CASES[case]
    table = pd.read_parquet(data_folder / file)
    if "broken_code" in table:
        table = table[~table["broken_code"]]
    design = build_design(parse_spec(CHECK.format(*years)), read_panel(table))
    result = fit_frequentist(design)
    assert design.n_rows == rows
    assert result.absorbed == ("region", "industry")
    found = estimates(result, "fixed effects")
    assert list(found.index) == ["log(employment)", "log1p(rest_of_cluster)"]
    np.testing.assert_allclose(found.to_numpy(), expected, rtol=0, atol=PRINTED)


def test_columbus():
    """Anselin's Columbus with queen contiguity from the polygons, rows standardized."""
    import geopandas as gpd
    from libpysal.examples import get_path

    shapes = gpd.read_file(get_path("columbus.shp"))
    shapes["region"] = [f"{i:02d}" for i in range(len(shapes))]
    panel = read_panel(
        pd.DataFrame(shapes[["region", "CRIME", "INC", "HOVAL"]]), shapes[["region", "geometry"]]
    )
    spec = parse_spec('formula = "CRIME ~ INC + HOVAL"')
    result = fit_frequentist(build_design(spec, panel, contiguity(panel)))
    found = estimates(result, "OLS").loc[["intercept at zero", "INC", "HOVAL"]]
    expected = [(68.618961, 4.735486), (-1.597311, 0.334131), (-0.273931, 0.103199)]
    np.testing.assert_allclose(found.to_numpy(), expected, rtol=0, atol=DIGITS)
    assert result.moran["statistic"] == pytest.approx(0.22211, abs=MORAN)


@pytest.mark.parametrize("annualized", [False, True])
def test_income_of_the_states(annualized):
    """Growth of income per head of 48 states, 1929 to 1994, on its log in 1929."""
    from libpysal.examples import get_path

    wide = pd.read_csv(get_path("usjoin.csv"))
    table = pd.DataFrame(
        {"region": wide["Name"], "income_start": wide["1929"], "income_end": wide["1994"]}
    )
    spec = parse_spec(
        'formula = "growth ~ log(income)"\nroles = { convergence = "log(income)" }\n'
        '[growth]\nvariable = "income"\nfrom = 1929\nto = 1994\n'
        f"annualized = {str(annualized).lower()}"
    )
    result = fit_frequentist(build_design(spec, read_panel(table)), spec=spec)
    change = estimates(result, "OLS", "change").loc["log(income)", "estimate"]
    assert change == pytest.approx(-0.718685, abs=DIGITS)
    b = estimates(result, "OLS").loc["log(income)", "estimate"]
    assert b == pytest.approx(change / (65 if annualized else 1), rel=1e-12)
    rate = estimates(result, "OLS", "speed").loc["log(income)", "estimate"]
    assert rate == pytest.approx(-np.log(1 - 0.718685) / 65, abs=DIGITS)

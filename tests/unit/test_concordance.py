"""Concordances keep the mass: what is split adds up again, bounds included."""

import math

import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatialclusters.errors import PanelError
from spatialclusters.sources import (
    combine_cells,
    convert_cells,
    read_cell_table,
    read_clusters,
    read_concordance,
    to_panel,
)

OLD, NEW = ["311811", "311812", "312120"], ["311813", "311814", "312130"]


def shares(rows, name="made up, v1", weight="share"):
    table = pd.DataFrame(rows, columns=["old", "new", "share"])
    return read_concordance(table, name=name, code="old", target="new", weight=weight)


def cells(rows, year=2016, classification="NAICS 2012"):
    table = pd.DataFrame(rows, columns=["region", "industry", "employment"])
    bounds = table["employment"].isna()
    table["employment_lower"] = bounds * 5.0
    table["employment_upper"] = 19.0
    return read_cell_table(table.assign(year=year), classification=classification)


@st.composite
def problems(draw):
    weights = {}
    for code in OLD:
        raw = draw(st.lists(st.integers(0, 9), min_size=3, max_size=3).filter(any))
        weights |= {(code, new): part / sum(raw) for new, part in zip(NEW, raw, strict=True)}
    values = st.one_of(st.none(), st.integers(0, 5_000).map(float))
    rows = [
        (r, code, draw(values)) for r in ("01001", "06001") for code in OLD if draw(st.booleans())
    ]
    return [(*pair, share) for pair, share in weights.items()], rows or [("01001", OLD[0], 7.0)]


@settings(max_examples=60, deadline=None)
@given(problems())
def test_mass_and_bounds_are_kept(problem):
    weights, rows = problem
    before = cells(rows)
    after = convert_cells(before, shares(weights), along="industry", classification="NAICS 2017")
    for column in ("lower", "upper"):
        for region in before.frame["region"].unique():
            then, now = (c.frame.filter(region=region)[column].sum() for c in (before, after))
            assert now == pytest.approx(then, rel=1e-12)
    if before.counts["withheld"] == 0:
        assert after.frame["value"].sum() == pytest.approx(before.frame["value"].sum(), rel=1e-12)
    assert after.frame["industry"].dtype == pl.String
    assert {*after.frame["industry"]} <= {*NEW}


def test_a_target_with_a_withheld_part_is_withheld():
    weights = shares([(OLD[0], NEW[0], 1.0), (OLD[1], NEW[0], 0.5), (OLD[1], NEW[1], 0.5)])
    before = cells([("01001", OLD[0], 10.0), ("01001", OLD[1], math.nan)])
    after = convert_cells(before, weights, along="industry", classification="NAICS 2017")
    found = after.frame.select("industry", "value", "lower", "upper", "status").rows()
    assert found == [
        (NEW[0], None, 12.5, 19.5, "withheld"),
        (NEW[1], None, 2.5, 9.5, "withheld"),
    ]
    (origin,) = after.origins
    assert origin.classification == "NAICS 2017"
    assert "made up, v1" in origin.notes[-1]


def test_a_break_is_crossed_by_a_named_concordance_only():
    older, newer = (
        cells([("01001", OLD[0], 10.0)]),
        cells([("01001", NEW[0], 12.0)], 2018, "NAICS 2017"),
    )
    food = read_clusters(pd.DataFrame({"industry": [*OLD, *NEW], "cluster": "Food"}))
    with pytest.raises(PanelError, match="named concordance"):
        to_panel(combine_cells([older, newer]), food)
    bridge = shares([(OLD[0], NEW[0], 1.0)])
    older = convert_cells(older, bridge, along="industry", classification="NAICS 2017")
    table = to_panel(combine_cells([older, newer]), food, ends=(2016, 2018))
    assert table[["employment_start", "employment_end"]].values.tolist() == [[10.0, 12.0]]
    assert "made up, v1" in str(table.attrs["spatialclusters"]["origins"])


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([("1", "a", 0.5), ("1", "b", 0.4)], "sum to other than 1"),
        ([("1", "a", -0.5), ("1", "b", 1.5)], "at least 0"),
        ([("1", "a", math.nan)], "at least 0"),
        ([("1", "a", 0.5), ("1", "a", 0.5)], "pairs twice"),
        ([(1, "a", 1.0)], "as text"),
        ([("1", None, 1.0)], "without old or new"),
    ],
)
def test_concordances_that_lose_or_make_jobs_are_refused(rows, told):
    with pytest.raises(PanelError, match=told):
        shares(rows)


def test_what_is_not_named_or_not_covered_is_refused():
    one = [("311811", "311813", 1.0)]
    with pytest.raises(PanelError, match="name"):
        shares(one, name=" ")
    with pytest.raises(PanelError, match="'weight'"):
        shares(one, weight="weight")
    given_cells = cells([("01001", "311811", 4.0), ("01001", "312120", 4.0)])
    with pytest.raises(PanelError, match="'312120'"):
        convert_cells(given_cells, shares(one), along="industry", classification="NAICS 2017")
    with pytest.raises(PanelError, match="new classification"):
        convert_cells(given_cells, shares(one), along="industry")
    single = shares(one, weight=None)
    assert single.frame.rows() == [("311811", "311813", 1.0)]

"""Concordances keep the mass: what is split adds up again, bounds included."""

import math

import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatialclusters.errors import PanelError
from spatialclusters.sources import (
    IndustryBridge,
    combine_cells,
    convert_cells,
    convertible_cells,
    prepare_cells,
    read_cell_table,
    read_clusters,
    read_concordance,
    recode_regions,
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


def test_codes_that_a_concordance_does_not_name_may_be_kept():
    rows = [("09110", OLD[0], 8.0), ("09001", OLD[0], 2.0), ("01001", OLD[0], math.nan)]
    back = shares([("09110", "09001", 0.25), ("09110", "09003", 0.75)])
    after = convert_cells(cells(rows), back, along="region", unlisted="keep")
    found = after.frame.select("region", "value", "lower", "upper").rows()
    assert found == [("01001", None, 5.0, 19.0), ("09001", 4.0, 4.0, 4.0), ("09003", 6.0, 6.0, 6.0)]
    assert after.origins[0].notes[-1].endswith("; 2 of 3 codes kept")


def test_only_the_deepest_industries_that_are_listed_are_converted():
    rows = [
        ("01001", "31----", 40.0), ("01001", OLD[0], 25.0), ("01001", OLD[2], 10.0),
        ("01003", "31----", 7.0),  # its parts are not published
    ]  # fmt: skip
    bridge = shares([(old, new, 1.0) for old, new in zip(OLD, NEW, strict=True)])
    kept = convertible_cells(cells(rows), bridge)
    assert kept.frame["industry"].to_list() == [OLD[0], OLD[2]]
    assert "7 employees in 1 cells" in kept.origins[0].notes[-1]
    with pytest.raises(PanelError, match="same classification and level"):
        convertible_cells(cells(rows), shares([("2011", "311611", 1.0)]))
    # a code of a listed level that is not listed is an error, not a loss
    with pytest.raises(PanelError, match=f"'{OLD[2]}'"):
        convert_cells(
            convertible_cells(cells(rows), shares([(OLD[0], NEW[0], 1.0)])),
            shares([(OLD[0], NEW[0], 1.0)]), along="industry", classification="NAICS 2017",
        )  # fmt: skip


def test_counties_with_new_codes_neither_enter_nor_exit():
    before = cells([("46113", OLD[0], 5.0), ("51515", OLD[0], 3.0), ("51019", OLD[0], 4.0)])
    after = recode_regions(before)
    assert after.frame.select("region", "value").rows() == [("46102", 5.0), ("51019", 7.0)]
    assert "46113 is 46102 (Shannon" in after.origins[0].notes[-1]
    same = cells([("46102", OLD[0], 5.0)])
    assert recode_regions(same) is same


def test_steps_are_taken_file_by_file_and_leave_their_notes():
    older = cells([
        ("46113", "3118//", 30.0), ("46113", OLD[0], 20.0), ("46113", OLD[1], math.nan),
    ])  # fmt: skip
    newer = cells([("46102", NEW[0], 26.0)], 2018, "NAICS 2017")
    bridge = shares([(OLD[0], NEW[0], 1.0), (OLD[1], NEW[0], 1.0)])
    both = prepare_cells(
        [older, newer], tighten=True, complete=True, recode=True,
        industries=IndustryBridge(bridge, "NAICS 2012", "NAICS 2017"),
    )  # fmt: skip
    found = both.frame.sort("year").select("region", "industry", "value", "lower", "upper").rows()
    # 20 of 30 are published, so that the other part has 10
    assert found == [("46102", NEW[0], None, 30.0, 30.0), ("46102", NEW[0], 26.0, 26.0, 26.0)]
    assert {o.classification for o in both.origins} == {"NAICS 2017"}
    told = " | ".join(both.origins[0].notes)
    for step in ("tightened", "46113 is 46102", "industry converted by made up, v1"):
        assert step in told
    assert "converted" not in " ".join(both.origins[1].notes)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"complete": True}, "without tighten"),
        ({"fill": "midpoint"}, "expected 'dorn'"),
        ({"industries": ("SIC 1987", "NAICS 2017")}, "'NAICS 2012'"),
    ],
)
def test_steps_that_cannot_be_meant_are_refused(options, told):
    bridge = shares([(OLD[0], NEW[0], 1.0)])
    if "industries" in options:
        options = {"industries": IndustryBridge(bridge, *options["industries"])}
    with pytest.raises(PanelError, match=told):
        prepare_cells([cells([("01001", OLD[0], 4.0)])], **options)


def test_a_file_of_two_classifications_is_not_converted_in_part():
    mixed = combine_cells(
        [cells([("01001", OLD[0], 4.0)]), cells([("01001", NEW[0], 4.0)], 2018, "NAICS 2017")]
    )
    bridge = IndustryBridge(shares([(OLD[0], NEW[0], 1.0)]), "NAICS 2012", "NAICS 2017")
    with pytest.raises(PanelError, match="one classification a file"):
        prepare_cells([mixed], industries=bridge)

"""What must hold for any economy: nothing counted twice, the truth inside its bounds."""

import tempfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatialclusters.errors import PanelError
from spatialclusters.sources import (
    Cells,
    Origin,
    at_level,
    industry_level,
    leaves,
    proportional_fill,
    read_cbp,
    tighten_bounds,
)
from spatialclusters.sources.levels import ancestors, keyed_cells
from spatialclusters.sources.regimes import LARGE, RANGES, regime_for
from spatialclusters.sources.suppression import parents_of

SYSTEMS = {
    "naics": ["311811", "311812", "311821", "312111", "332710", "445110", "451110", "113310", "481111"],
    "sic": ["2011", "2013", "2021", "2111", "5411", "0711", "399/", "5211", "8011"],
    "nace": ["C1011", "C1012", "C1020", "C1101", "G4711", "G4721", "J6201"],
}  # fmt: skip
NAMES = {"naics": "NAICS 2017", "sic": "SIC 1987", "nace": "NACE Rev. 2"}


def published(system, level, key):
    """A code as the agency writes it, from level and key."""
    if system == "naics":
        return f"{key}{'-' * (6 - len(key)) if len(key) < 3 else '/' * (6 - len(key))}"
    if system == "sic":
        return {
            0: "----",
            1: f"{key}--",
            2: key if key.endswith("/") else f"{key}00",
            3: f"{key}0",
        }.get(level, key)
    return key or "TOTAL"


def cells_of(rows, system):
    frame = pl.DataFrame(
        [
            {"region": region, "industry": code, "year": 2012, "value": value, "lower": low, "upper": high,
             "status": "withheld" if value is None else "observed", "flag_raw": "",
             "establishments": None, "payroll": None}
            for region, code, value, low, high in rows
        ],
        infer_schema_length=None,
    )  # fmt: skip
    return Cells(frame, (Origin("cbp", "x", "x", "0" * 64, NAMES[system], ""),))


@st.composite
def economies(draw):
    """Published tables of two regions: any levels left out, any cells withheld."""
    system = draw(st.sampled_from(sorted(SYSTEMS)))
    rows, truth = [], {}
    for region in ("01001", "09001"):
        jobs = {c: draw(st.integers(0, 900)) for c in SYSTEMS[system] if draw(st.booleans())}
        totals = {}
        for code, count in jobs.items():
            for level, key in ancestors(code, system):
                name = published(system, level, key)
                totals[name] = totals.get(name, 0) + count
        truth[region] = sum(jobs.values())
        for name, count in (totals | jobs).items():
            shown = draw(st.sampled_from(["shown", "shown", "withheld", "left out"]))
            if shown == "shown":
                rows.append((region, name, float(count), float(count), float(count)))
            elif shown == "withheld":
                rows.append((region, name, None, 0.0, count + 5.0))
    return system, rows, truth


@settings(max_examples=80, deadline=None)
@given(economies())
def test_no_level_is_counted_twice(economy):
    system, rows, truth = economy
    if not rows:
        return
    kept = leaves(cells_of(rows, system)).frame
    for region, total in truth.items():
        mine = kept.filter(region=region)
        codes = mine["industry"].to_list()
        above = {published(system, *path) for code in codes for path in ancestors(code, system)}
        assert not above & {*codes}
        assert mine["value"].sum() <= total
        assert mine["lower"].sum() <= total
        # and nothing that is not part of a kept row is lost
        given_codes = {code for place, code, *_ in rows if place == region}
        assert given_codes <= above | {*codes}


@st.composite
def hierarchies(draw):
    """Every level of an economy, each cell withheld or not, with bounds around the truth."""
    system = draw(st.sampled_from(sorted(SYSTEMS)))
    rows, truth, left_out = [], {}, draw(st.booleans())
    for region in ("01001", "09001"):
        jobs = {c: draw(st.integers(0, 900)) for c in SYSTEMS[system] if draw(st.booleans())}
        totals = {}
        for code, count in jobs.items():
            for path in ancestors(code, system):
                name = published(system, *path)
                totals[name] = totals.get(name, 0) + count
        for name, count in (totals | jobs).items():
            truth[region, name] = count
            if left_out and name in jobs and draw(st.booleans()):
                continue
            if draw(st.booleans()):
                rows.append((region, name, float(count), float(count), float(count)))
            else:
                low, high = (
                    draw(st.integers(0, 50)),
                    draw(st.one_of(st.integers(0, 50), st.just(float("inf")))),
                )
                rows.append((region, name, None, max(0.0, count - low), float(count + high)))
    return system, rows, truth, left_out


@settings(max_examples=80, deadline=None)
@given(hierarchies(), st.booleans())
def test_tightened_bounds_hold_the_truth_and_are_nowhere_wider(economy, complete):
    system, rows, truth, left_out = economy
    if not rows:
        return
    before = cells_of(rows, system)
    after = tighten_bounds(before, complete=complete and not left_out)
    assert after.frame.drop("lower", "upper").equals(before.frame.drop("lower", "upper"))
    for old, new in zip(
        before.frame.iter_rows(named=True), after.frame.iter_rows(named=True), strict=True
    ):
        count = truth[old["region"], old["industry"]]
        assert old["lower"] <= new["lower"] <= count <= new["upper"] <= old["upper"]
    assert "contradict" not in str(after.origins)


ADDS_UP = 1e-6  # relative: the fill stops at a billionth of what it distributes, level by level


@settings(max_examples=80, deadline=None)
@given(hierarchies(), st.booleans())
def test_filled_cells_are_inside_their_bounds_and_add_up(economy, complete):
    system, rows, _, left_out = economy
    if not rows:
        return
    complete = complete and not left_out
    before = cells_of(rows, system)
    filled = proportional_fill(before, complete=complete)
    for old, new in zip(
        before.frame.iter_rows(named=True), filled.frame.iter_rows(named=True), strict=True
    ):
        if old["status"] == "observed":
            assert new == old
        elif new["status"] == "filled":
            assert old["lower"] <= new["lower"] <= new["value"] <= new["upper"] <= old["upper"]
        else:  # nothing is known of it: no bound, no establishments
            assert new["upper"] == float("inf")
            assert new["lower"] == 0.0
    keyed = keyed_cells(filled).with_row_index("row")
    value = keyed["value"].to_numpy()
    sums = {}
    for child, parent in zip(*parents_of(keyed), strict=True):
        sums.setdefault(parent, []).append(value[child])
    for parent, parts in sums.items():
        if not np.isfinite(value[parent]):
            continue
        known = np.isfinite(parts)
        limit = value[parent] + ADDS_UP * (1.0 + value[parent])
        assert np.sum(np.array(parts)[known]) <= limit
        if complete and known.all():
            assert sum(parts) == pytest.approx(value[parent], rel=ADDS_UP, abs=ADDS_UP)
    assert "cannot add up" not in str(filled.origins)


def test_bounds_that_contradict_each_other_are_left_alone():
    rows = [("01001", "311///", 10.0, 10.0, 10.0), ("01001", "311811", None, 20.0, 49.0),
            ("09001", "311///", 10.0, 10.0, 10.0), ("09001", "311811", None, 0.0, 49.0)]  # fmt: skip
    after = tighten_bounds(cells_of(rows, "naics"), complete=False)
    assert after.frame["upper"].to_list() == [10.0, 49.0, 10.0, 10.0]
    assert "1 regions and years contradict" in after.origins[0].notes[-1]
    with pytest.raises(PanelError, match="two codes"):
        tighten_bounds(cells_of([*rows, ("01001", "311", None, 0.0, 9.0)], "naics"), complete=False)


@settings(max_examples=40, deadline=None)
@given(economies(), st.randoms())
def test_the_order_of_rows_does_not_matter_and_leaves_are_their_own_leaves(economy, random):
    system, rows, _ = economy
    if not rows:
        return
    kept = leaves(cells_of(rows, system))
    random.shuffle(rows)
    assert leaves(cells_of(rows, system)).frame.equals(kept.frame)
    assert leaves(kept).frame.equals(kept.frame)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="0123456789-/ABCXT_", max_size=8), st.sampled_from(sorted(SYSTEMS)))
def test_levels_increase_down_the_path_or_there_is_none(code, system):
    level = industry_level(code, system)
    if level is not None:
        above = [depth for depth, _ in ancestors(code, system)]
        assert above == sorted(above)
        assert all(depth < level for depth in above) or level == 0


LOW = {"n<5": 0, "n5_9": 5, "n10_19": 10, "n20_49": 20, "n50_99": 50, "n100_249": 100, "n250_499": 250,
       "n500_999": 500, "n1000": 1000}  # fmt: skip
SIZES = st.lists(
    st.sampled_from([0, 1, 4, 5, 12, 30, 70, 200, 400, 999, 1000, 1499, 1500, 6000]), max_size=8
)


def class_counts(sizes, smallest):
    lows = list(LOW.values())
    counts = dict.fromkeys([smallest, *list(LOW)[1:], *LARGE], 0)
    for size in sizes:
        name = list(LOW)[max(i for i, low in enumerate(lows) if size >= low)]
        counts[smallest if name == "n<5" else name] += 1
        for part, (low, high) in LARGE.items():
            counts[part] += low <= size <= high
    return counts


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(SIZES, st.lists(st.integers(0, 12), max_size=5)), min_size=1, max_size=12),
    st.sampled_from([2001, 2010, 2017, 2018]),
)
def test_bounds_hold_the_truth_when_it_is_revealed(economy, year):
    regime = regime_for("cbp", year)
    smallest = next(iter(regime.sizes))
    columns = [smallest, *list(LOW)[1:], *LARGE]
    noisy = "emp_nf" in regime.requires
    head = ["fipstate", "fipscty", "naics", *(["empflag"] if regime.ranges else [])]
    head += ["emp_nf"] if noisy else []
    lines = [",".join([*head, "emp", "ap", "est", *columns])]
    for number, (sizes, missing) in enumerate(economy):
        counts = class_counts(sizes, smallest)
        if year >= 2017:  # N: the class is not available; n1000 goes with its parts
            for index in missing:
                counts[columns[index]] = "N"
        jobs = sum(sizes)
        letter = next(k for k, (low, high) in RANGES.items() if low <= jobs <= high)
        flags = ([letter] if regime.ranges else []) + (["S"] if noisy else [])
        values = [str(counts[column]) for column in columns]
        lines.append(
            ",".join(
                ["01", "001", str(311811 + number), *flags, "0", "0", str(len(sizes)), *values]
            )
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        frame = read_cbp(path, year=year).frame
    assert frame["status"].unique().to_list() == ["withheld"]
    for (sizes, _), lower, upper in zip(economy, frame["lower"], frame["upper"], strict=True):
        assert lower <= sum(sizes) <= upper
    assert frame["region"].dtype == frame["industry"].dtype == pl.String
    assert frame["region"].str.len_chars().unique().to_list() == [5]


def test_parts_with_all_establishments_of_their_parent_are_complete():
    rows = [("01001", "311///", 50.0, 50.0, 50.0), ("01001", "311811", 38.0, 38.0, 38.0),
            ("01001", "311812", None, 0.0, 99.0)]  # fmt: skip
    for mine, lower in ((2.0, 12.0), (1.0, 0.0)):  # all of five, or one of them is nowhere
        cells = cells_of(rows, "naics")
        counts = pl.Series("establishments", [5.0, 3.0, mine])
        cells = Cells(cells.frame.with_columns(counts), cells.origins)
        after = tighten_bounds(cells, complete=False).frame
        assert after.select("lower", "upper").rows()[-1] == (lower, 12.0)


def test_files_that_leave_out_small_cells_are_not_complete():
    rows = [("01001", "311///", 50.0, 50.0, 50.0), ("01001", "311811", None, 0.0, 99.0)]
    older = cells_of(rows, "naics")
    newer = Cells(older.frame.with_columns(year=pl.lit(2018)), older.origins)
    assert tighten_bounds(newer, complete=False).frame["upper"].to_list() == [50.0, 50.0]
    with pytest.raises(PanelError, match="fewer than 3 establishments"):
        tighten_bounds(newer, complete=True)
    assert tighten_bounds(older, complete=True).frame["lower"].to_list() == [50.0, 50.0]


def test_one_level_and_files_that_do_not_go_together():
    rows = [("01001", code, 5.0, 5.0, 5.0) for code in ("------", "31----", "311811")]
    cells = cells_of(rows, "naics")
    assert at_level(cells, 2).frame["industry"].to_list() == ["31----"]
    with pytest.raises(PanelError, match="'0', '2', '6'"):
        at_level(cells, 4)
    with pytest.raises(PanelError, match="by themselves"):
        leaves(Cells(cells.frame, (*cells.origins, Origin("cbp", "", "", "", "SIC 1987", ""))))
    with pytest.raises(PanelError, match="two codes"):
        leaves(cells_of([*rows, ("01001", "31-33", 5.0, 5.0, 5.0)], "naics"))

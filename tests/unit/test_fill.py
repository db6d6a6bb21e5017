"""Dorn's proportional fill: worked by hand, and beside a slow transcription of the published steps."""

import math

import numpy as np
import pandas as pd
import polars as pl
import pytest

from spatialclusters.cli import main
from spatialclusters.errors import PanelError
from spatialclusters.panel import read_panel
from spatialclusters.sources import (
    SIZES,
    Cells,
    Origin,
    combine_cells,
    convert_cells,
    leaves,
    prepare_cells,
    proportional_fill,
    read_cbp,
    read_cell_table,
    read_cells,
    read_clusters,
    read_concordance,
    read_region_map,
    summarize_cells,
    to_panel,
)
from spatialclusters.sources.fill import _proportional
from spatialclusters.sources.levels import ancestors
from spatialclusters.sources.tidy import FILLED_CELL, WITHHELD_CELL

HAND = 1e-9  # arithmetic on numbers of this size
FIXED_POINT = 2e-4  # both stop where mean sizes change by less than a millionth of an employee


def cells(rows, classification="NAICS 2007", year=2010, region="01001"):
    """Rows of (industry, value or None, lower, upper, establishments, {size class: count})."""
    frame = pl.DataFrame(
        [
            {"region": region, "industry": code, "year": year, "value": value,
             "lower": low if value is None else value, "upper": high if value is None else value,
             "status": "observed" if value is not None else "withheld", "flag_raw": "",
             "establishments": count, "payroll": None,
             **({} if sizes is None else dict.fromkeys(SIZES, 0.0) | sizes)}
            for code, value, low, high, count, sizes in rows
        ],
        infer_schema_length=None,
    )  # fmt: skip
    return Cells(frame, (Origin("table", "x", "x", "0" * 64, classification, ""),))


def values(filled):
    return dict(filled.frame.select("industry", "value").rows())


# --- by hand --------------------------------------------------------------------------------


def test_parts_are_changed_in_proportion_until_they_add_up():
    # 80 = A + B + C: the bounds become 10-20, 20-30, 30-40, their middles 15, 25, 35 sum to 75
    rows = [("3118//", 80.0, 0, 0, None, None), ("311811", None, 10.0, 20.0, None, None),
            ("311812", None, 10.0, 30.0, None, None), ("311821", None, 0.0, 40.0, None, None)]  # fmt: skip
    filled = proportional_fill(cells(rows), complete=True)
    found = values(filled)
    assert found["3118//"] == 80.0
    for code, middle in (("311811", 15), ("311812", 25), ("311821", 35)):
        assert found[code] == pytest.approx(middle * 80 / 75, abs=HAND)
    assert filled.counts == {"observed": 1, "withheld": 0, "filled": 3}


def test_what_reaches_a_bound_stays_there_and_the_others_take_the_rest():
    # the first step doubles everything; the second gives the 8 that are missing to the others
    parts, gap = _proportional(
        np.array([10.0, 10.0, 10.0]), np.zeros(3), np.array([12.0, 100.0, 100.0]),
        np.zeros(3, dtype=int), np.array([60.0]),
    )  # fmt: skip
    assert parts.tolist() == pytest.approx([12.0, 24.0, 24.0], abs=HAND)
    assert gap[0] == pytest.approx(0.0, abs=HAND)
    parts, gap = _proportional(
        np.array([10.0, 30.0]), np.array([8.0, 5.0]), np.array([90.0, 90.0]),
        np.zeros(2, dtype=int), np.array([20.0]),
    )  # fmt: skip
    assert parts.tolist() == pytest.approx([8.0, 12.0], abs=HAND)  # a half of 10 would be below 8
    parts, gap = _proportional(
        np.array([10.0]),
        np.array([0.0]),
        np.array([12.0]),
        np.zeros(1, dtype=int),
        np.array([20.0]),
    )
    assert (parts[0], gap[0]) == (12.0, 8.0)


@pytest.mark.parametrize(
    ("low", "high", "means", "value"),
    [
        (15.0, 28.0, (6.0, 16.0), 22.0),  # one of 5 to 9 and one of 10 to 19: the two that are seen
        # it has at least 25: least squares of 6, 16 and 25 on the counts gives 7 and 17
        (25.0, 28.0, (7.0, 17.0), 25.0),
    ],
)
def test_mean_sizes_are_the_fixed_point_of_regression_and_bounds(low, high, means, value):
    rows = [("311811", 6.0, 0, 0, 1.0, {"size_5": 1.0}), ("311812", 16.0, 0, 0, 1.0, {"size_10": 1.0}),
            ("311821", None, low, high, 2.0, {"size_5": 1.0, "size_10": 1.0}),
            ("311830", None, 0.0, 99.0, 1.0, {"size_10": 1.0})]  # fmt: skip
    found = values(proportional_fill(cells(rows)))
    assert found["311821"] == pytest.approx(value, abs=1e-4)
    assert found["311830"] == pytest.approx(means[1], abs=1e-4)
    assert found["311811"] == 6.0


def test_a_withheld_parent_has_what_its_parts_and_the_rest_have():
    # two of the parent's five establishments are in no published part, at the mean of the leaves
    rows = [("3118//", None, 0.0, 99.0, 5.0, None), ("311811", 20.0, 0, 0, 2.0, None),
            ("311812", 10.0, 0, 0, 1.0, None)]  # fmt: skip
    assert values(proportional_fill(cells(rows)))["3118//"] == pytest.approx(50.0, abs=HAND)
    assert values(proportional_fill(cells(rows), complete=True))["3118//"] == 30.0


def test_open_bounds_start_from_the_establishments():
    rows = [("311811", 30.0, 0, 0, 3.0, None), ("311812", None, 0.0, math.inf, 2.0, None)]
    assert values(proportional_fill(cells(rows)))["311812"] == pytest.approx(20.0, abs=FIXED_POINT)


def test_cells_of_which_nothing_is_known_stay_withheld(caplog):
    rows = [("3118//", None, 0.0, math.inf, None, None), ("311811", None, 0.0, math.inf, None, None),
            ("311911", None, 2.0, 9.0, None, None)]  # fmt: skip
    filled = proportional_fill(cells(rows))
    assert filled.counts == {"observed": 0, "withheld": 2, "filled": 1}
    notes = filled.origins[0].notes
    assert "carry no uncertainty" in notes[-2]
    assert "2 withheld cells" in notes[-1]
    assert "carry no uncertainty" in caplog.text


def test_parts_that_cannot_add_up_are_counted():
    # noise: the published parts exceed their parent, and the withheld one is at its least
    rows = [("3118//", 50.0, 0, 0, 3.0, None), ("311811", 52.0, 0, 0, 2.0, None),
            ("311812", None, 1.0, 4.0, 1.0, None)]  # fmt: skip
    filled = proportional_fill(cells(rows))
    assert values(filled)["311812"] == 1.0
    assert "1 industries whose parts cannot add up" in filled.origins[0].notes[-1]


# --- beside a transcription -------------------------------------------------------------------


def economy(rng, industries=("311811", "311812", "311821", "312111", "332710", "332721", "441110")):
    """All levels of 12 counties with bounds from size classes; a part of the cells withheld."""
    lows, names = np.array([low for low, _ in SIZES.values()]), list(SIZES)
    parts = []
    for number in range(12):
        jobs, counts = {}, {}
        for code in industries:
            sizes = np.floor(rng.lognormal(2.5, 1.2, size=rng.integers(0, 7))) + 1
            if not sizes.size:
                continue
            classes = np.bincount(
                np.searchsorted(lows, sizes, side="right") - 1, minlength=len(lows)
            )
            for key in (*(key for _, key in ancestors(code, "naics")), code):
                jobs[key] = jobs.get(key, 0.0) + sizes.sum()
                counts[key] = counts.get(key, 0) + classes
        rows = []
        for key, total in jobs.items():
            n = counts[key]
            lower = sum(c * low for c, (low, _) in zip(n, SIZES.values(), strict=True))
            upper = sum(c * high for c, (_, high) in zip(n, SIZES.values(), strict=True) if c)
            code = key.ljust(6, "-" if len(key) < 3 else "/")
            hidden = rng.uniform() < (0.6 if len(key) == 6 else 0.3)
            rows.append((code, None if hidden else total, float(lower), float(upper), float(n.sum()),
                         dict(zip(names, n.astype(float), strict=True))))  # fmt: skip
        parts.append(cells(rows, region=f"01{number:03d}"))
    return combine_cells(parts)


def transcribed(tight, complete_levels):
    """The steps of the published code, cell by cell, on tightened bounds; all parts have rows."""
    rows = {(r["region"], r["industry"].rstrip("-/")): r for r in tight.frame.to_dicts()}
    low = {key: r["lower"] for key, r in rows.items()}
    high = {key: r["upper"] for key, r in rows.items()}
    size = {key: np.array([r[name] for name in SIZES]) for key, r in rows.items()}
    leaf = [key for key in rows if len(key[1]) == 6]
    X = np.array([size[key] for key in leaf])
    b = np.array([(lo + hi) / 2 if math.isfinite(hi) else 1.5 * lo for lo, hi in SIZES.values()])
    while True:
        fitted = np.array([min(max(size[k] @ b, low[k]), high[k]) for k in leaf])
        new = np.linalg.lstsq(X, fitted)[0]
        new = np.array(
            [min(max(v, lo), hi) for v, (lo, hi) in zip(new, SIZES.values(), strict=True)]
        )
        new = np.where(X.any(axis=0), new, b)
        if np.abs(new - b).max() < 1e-7:
            break
        b = new
    value = {k: min(max(size[k] @ b, low[k]), high[k]) for k in leaf}
    below = {}
    for region, code in rows:
        path = [key for _, key in ancestors(code, "naics") if len(key) < len(code)] if code else []
        if path:
            below.setdefault((region, path[-1]), []).append((region, code))
    for level in complete_levels[::-1]:
        for key in [k for k in rows if len(k[1]) == level]:
            total = sum(value[part] for part in below[key])
            value[key] = min(max(total, low[key]), high[key])
    for level in complete_levels:
        for key in [k for k in rows if len(k[1]) == level]:
            for _ in range(500):
                excess = sum(value[part] for part in below[key]) - value[key]
                free = [
                    p
                    for p in below[key]
                    if (value[p] > low[p] if excess > 0 else value[p] < high[p])
                ]
                base = sum(value[part] for part in free)
                if abs(excess) < 1e-12 * value[key] or not base:
                    break
                for part in free:
                    moved = value[part] - excess * value[part] / base
                    value[part] = min(max(moved, low[part]), high[part])
    return value


@pytest.mark.parametrize("seed", range(4))
def test_the_fill_is_that_of_the_published_steps(seed):
    given = economy(np.random.default_rng(seed))
    filled = proportional_fill(given, complete=True)
    assert filled.counts["filled"] > 60
    expected = transcribed(filled, (0, 2, 3, 4, 5))
    found = {
        (r, i.rstrip("-/")): v
        for r, i, v in filled.frame.select("region", "industry", "value").rows()
    }
    assert {*found} == {*expected}
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, abs=FIXED_POINT * max(1.0, value)), key


# --- where filled cells go ----------------------------------------------------------------------


def test_filled_cells_stay_marked_on_their_way(tmp_path):
    given = economy(np.random.default_rng(9))
    filled = proportional_fill(given, complete=True)
    again = combine_cells([filled, cells([("311811", 5.0, 0, 0, 1.0, None)], region="99001")])
    assert again.counts["filled"] == filled.counts["filled"]
    table = summarize_cells(filled).set_index("level")
    six = filled.frame.filter(pl.col("industry").str.contains(r"^\d{6}$"))
    marked = six.filter(pl.col("status") == FILLED_CELL)
    assert table.loc[6, ["filled", "filled_employees"]].tolist() == pytest.approx(
        [marked.height, marked["value"].sum()]
    )
    bridge = read_concordance(
        pl.DataFrame({"code": six["industry"].unique().sort(), "target": "311999"}), name="one",
        code="code", target="target",
    )  # fmt: skip
    one = convert_cells(leaves(filled), bridge, along="industry", classification="NAICS 2012")
    assert one.frame["value"].sum() == pytest.approx(six["value"].sum())
    assert {*one.frame["status"]} <= {"filled", "observed"}


def test_a_panel_says_which_part_of_it_is_filled():
    rows = [
        ("------", 100.0, 0, 0, 9.0, None),
        ("311811", 40.0, 0, 0, 2.0, None),
        ("311812", None, 10.0, 30.0, 3.0, None),
    ]
    both = combine_cells([cells(rows), cells(rows[1:], region="01003")])
    food = read_clusters(pl.DataFrame({"industry": ["311811", "311812"], "cluster": "Food"}))
    area = read_region(["01001", "01003"])
    plain = to_panel(both, food, area)
    assert "employment_filled" not in plain
    table = to_panel(prepare_cells([both], fill="dorn"), food, area).set_index("industry")
    # the total's 4 other establishments have 12 each, as the 10 of the leaves: 108, and 8 of 68 go
    one = 20.0 - 8.0 * 20.0 / 68.0
    assert table["employment_filled"].tolist() == pytest.approx([0.0, one + 20.0], abs=HAND)
    assert table["employment"].tolist() == pytest.approx([80.0, one + 20.0], abs=HAND)
    assert table.loc["311812", ["employment_lower", "employment_upper"]].tolist() == [20.0, 60.0]
    year = table.attrs["spatialclusters"]["withheld"]["2010"]
    assert year == {
        "cells": 4, "withheld": 0, "filled": 2, "employees": 80.0, "withheld_lower": 20.0,
        "withheld_upper": 60.0, "filled_employees": pytest.approx(one + 20.0), "covered": 0.4,
    }  # fmt: skip
    notes = " ".join(table.attrs["spatialclusters"]["notes"])
    assert "2 of 4 published cells were withheld and are filled" in notes
    assert "hold 40.0% of the published totals" in notes
    ends = combine_cells([both, cells(rows[1:], year=2012)])
    wide = to_panel(prepare_cells([ends], fill="dorn"), food, ends=(2010, 2012))
    assert float(read_panel(wide).values("employment_filled", "start").sum()) > 30.0


def read_region(codes):
    return read_region_map(pl.DataFrame({"r": codes, "a": "1"}), region="r", area="a")


CBP = """fipstate,fipscty,naics,empflag,emp_nf,emp,qp1_nf,qp1,ap_nf,ap,est,n1_4,n5_9,n10_19,n20_49,n50_99,\
n100_249,n250_499,n500_999,n1000,n1000_1,n1000_2,n1000_3,n1000_4,censtate,cencty
01,001,------,,G,52,G,9,G,90,5,2,1,2,0,0,0,0,0,0,0,0,0,0,46,113
01,001,311811,,G,30,G,9,G,90,2,0,0,2,0,0,0,0,0,0,0,0,0,0,46,113
01,001,311812,B,D,0,D,0,D,0,3,2,1,0,0,0,0,0,0,0,0,0,0,0,46,113
01,003,311811,K,D,0,D,0,D,0,7,0,0,0,0,0,0,0,0,7,2,2,2,1,46,113
01,005,311811,K,D,0,D,0,D,0,7,0,0,0,0,0,0,0,0,7,2,2,2,2,46,113
"""


def test_files_keep_establishments_by_size_if_asked(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cbp10co.txt").write_text(CBP)
    found = read_cbp(tmp_path / "cbp10co.txt", sizes=True).frame
    assert found.select("size_0", "size_5", "size_10", "size_1000").rows()[:4] == [
        (2, 1, 2, 0), (0, 0, 2, 0), (2, 1, 0, 0), (0, 0, 0, 2)]  # fmt: skip
    assert found["size_5000"].to_list() == [0, 0, 0, 1, None]  # the last do not add up to n1000
    assert "size_0" not in read_cbp(tmp_path / "cbp10co.txt").frame.columns
    assert main(["data", "cbp", "cbp10co.txt", "--sizes", "-o", "cells.parquet"]) == 0
    assert read_cells("cells.parquet").frame["size_1000"].to_list() == [0, 0, 0, 2, None]
    (tmp_path / "clusters.csv").write_text("industry,cluster\n311811,Food\n311812,Food\n")
    words = ["data", "build", "cells.parquet", "--clusters", "clusters.csv", "-o", "panel.parquet"]
    assert main([*words, "--fill", "dorn", "--complete"]) == 0
    err = capsys.readouterr().err
    assert "carry no uncertainty" in err
    panel = read_panel(tmp_path / "panel.parquet")
    assert float(panel.values("employment", "2010").sel(region="01001").sum()) == pytest.approx(
        52.0
    )
    assert WITHHELD_CELL not in {
        *read_cells("cells.parquet").frame.filter(region="01001", industry="311811")["status"]
    }


def test_a_table_with_some_of_the_size_classes_is_refused():
    frame = cells([("311811", 5.0, 0, 0, 1.0, None)]).frame.with_columns(size_0=pl.lit(1.0))
    with pytest.raises(PanelError, match="size_5"):
        Cells(frame, ())


def test_a_value_outside_its_bounds_is_refused():
    frame = cells([("311811", None, 2.0, 5.0, 1.0, None)]).frame
    frame = frame.with_columns(value=pl.lit(6.0), status=pl.lit("filled"))
    with pytest.raises(PanelError, match="outside its bounds"):
        Cells(frame, ())


def test_tables_without_establishments_can_be_filled():
    table = pd.DataFrame({"region": "a", "industry": ["31----", "311811", "312120"], "year": 2010,
                          "employment": [30.0, 12.0, None]})  # fmt: skip
    given = read_cell_table(table, classification="NAICS 2007")
    assert values(proportional_fill(given, complete=True))["312120"] == pytest.approx(
        18.0, abs=HAND
    )

"""From the agency's file to the report: where numbers come from, and what of them nobody published."""

import json

import pandas as pd
import polars as pl
import pytest

from spatialclusters.design import build_design
from spatialclusters.panel import read_panel
from spatialclusters.reporting.origins import origin_blocks
from spatialclusters.reporting.results import Results
from spatialclusters.reporting.sections import data_section
from spatialclusters.result import Fit
from spatialclusters.sources import prepare_cells, read_cell_table, read_clusters, to_panel
from spatialclusters.spec import parse_spec

SPEC = parse_spec("""
name = "growth"
formula = "growth ~ log(cluster_strength)"
[growth]
variable = "employment"
from = 2010
to = 2012
[cells]
absent = "zero"
withheld = "lower"
[zeros]
cluster_strength = "log1p"
""")
NAN = float("nan")
ROWS = [
    # region, industry, 2010, 2012: the last two of the first region are withheld in 2010
    ("01001", "------", 200.0, 220.0), ("01001", "311811", 60.0, 66.0), ("01001", "311812", 50.0, 52.0),
    ("01001", "311821", NAN, 40.0), ("01001", "311830", NAN, 62.0),
    ("01003", "------", 100.0, 90.0), ("01003", "311811", 55.0, 50.0), ("01003", "311812", 45.0, 40.0),
]  # fmt: skip
CODES = ["311811", "311812", "311821", "311830"]


def panel(fill=None, bounds=True):
    table = pd.DataFrame(
        [
            {"region": region, "industry": code, "year": year, "employment": value,
             "employment_lower": 10.0, "employment_upper": 70.0}
            for region, code, *both in ROWS
            for year, value in zip((2010, 2012), both, strict=True)
        ]
    )  # fmt: skip
    table = table if bounds else table.drop(columns=["employment_lower", "employment_upper"])
    cells = read_cell_table(table, classification="NAICS 2007")
    clusters = read_clusters(pl.DataFrame({"industry": CODES, "cluster": "Food"}))
    return read_panel(to_panel(prepare_cells([cells], fill=fill), clusters))


def record(**options):
    return build_design(SPEC, panel(**options)).record


def text(blocks):
    return " | ".join(
        " ".join(map(str, block.items))
        if block.kind == "notes"
        else " ".join(str(cell) for row in block.rows for cell in row)
        for block in blocks
    )


def test_the_design_records_what_is_withheld():
    found = record()
    assert found["withheld"]["2010"] == {
        "published": 210.0, "withheld_lower": 20.0, "withheld_upper": 140.0, "unbounded": 0, "filled": 0.0,
        "filled_cells": 0,
    }  # fmt: skip
    assert found["withheld"]["2012"]["withheld_upper"] == 0.0
    assert found["panel"]["withheld"]["2010"]["covered"] == pytest.approx(210.0 / 300.0)
    assert found["panel"]["withheld"]["2012"]["covered"] == 1.0
    assert record(bounds=False)["withheld"]["2010"]["unbounded"] == 2
    assert json.loads(json.dumps(found)) == found


def test_the_design_records_what_is_filled():
    found = record(fill="dorn")["withheld"]["2010"]
    # the two are 90 together, what the published cells leave of 200
    assert found["filled"] == pytest.approx(90.0)
    assert found["published"] == pytest.approx(210.0)
    assert (found["filled_cells"], found["withheld_upper"]) == (2, 0.0)


def test_the_report_says_it():
    told = text(origin_blocks(record()))
    assert "2010: 210 are published; cells without a number hold between 20 and 140." in told
    assert "2012: " not in told  # nothing is withheld then
    assert "70.0 %" in told
    assert "data frame" in told  # the file that it was made from
    open_ended = text(origin_blocks(record(bounds=False)))
    assert "hold at least 0; 2 of them have no upper bound, the others hold at most 0" in open_ended
    assert "∞" in open_ended
    filled = text(origin_blocks(record(fill="dorn")))
    assert "no cell is without a number; 90 in 2 cells are filled in" in filled
    assert "carry no uncertainty" in filled
    assert "is in no interval of this report" in filled


def test_a_table_that_hides_nothing_has_no_such_blocks():
    table = pd.DataFrame(
        {
            "region": list("abc"),
            "employment_start": [3.0, 2.0, 9.0],
            "employment_end": [3.0, 4.0, 8.0],
        }
    )
    spec = parse_spec(
        'name = "x"\nformula = "growth ~ employment"\n'
        '[growth]\nvariable = "employment"\nfrom = 2010\nto = 2012'
    )
    assert origin_blocks(build_design(spec, read_panel(table)).record) == []


def test_the_data_section_holds_it(synthetic_fit):
    fit = synthetic_fit("clusters")
    tree = fit.tree.copy()
    known = json.loads(tree["constant_data"].attrs["record"])
    known["panel"] |= {
        "origins": [{"file": "cbp18co.zip", "source": "cbp", "vintage": "2018 county", "rule": "noise",
                     "classification": "NAICS 2017", "digest": "ab" * 32, "notes": ["region 46113 is 46102"]}]
    }  # fmt: skip
    tree["constant_data"].attrs["record"] = json.dumps(known)
    section = data_section(Results(Fit(tree), None))
    told = text([block for block in section.blocks if block.kind in ("notes", "table")])
    assert "cbp18co.zip: region 46113 is 46102" in told
    assert "ab" * 32 in told
    assert (
        "hold at least 0; 1 of them have no upper bound" in told
    )  # one is withheld, without bounds

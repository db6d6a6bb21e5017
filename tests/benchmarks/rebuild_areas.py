"""From county files to Economic Areas: time, memory, and equality with the tables that are known.

    python tests/benchmarks/rebuild_areas.py --output docs/records

Reads the folder of real data from SPATIALCLUSTERS_DATA. Each step runs in a process of its own,
whose peak memory is recorded with the time of the step (without the start of Python). The county table has lost its
flags and its aggregate industries; files in the Bureau's layout are made from it, with all
levels as sums of what is published and cells withheld at random, to measure the reader
and what else is done to cells.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from spatialclusters.sources import (
    proportional_fill,
    read_cbp,
    read_cell_table,
    read_cells,
    read_clusters,
    read_region_map,
    tighten_bounds,
    to_panel,
    write_cells,
)

ALLOWED = (20.0, 2.0)  # seconds and GB for the Economic Areas from the county table
CLASSES = ["n5_9", "n10_19", "n20_49", "n50_99", "n100_249", "n250_499", "n500_999", "n1000",
           "n1000_1", "n1000_2", "n1000_3", "n1000_4"]  # fmt: skip
SHARE = 0.4  # of the cells that are withheld, drawn at random


def definitions(data):
    """Benchmark clusters, and Economic Areas of 1995."""
    concordance = data / "concordance"
    areas = concordance / "county_to_ea1995.csv"
    return (
        read_clusters(concordance / "naics6_to_bcd_cluster.csv"),
        read_region_map(areas, region="county", area="economic_area"),
    )


def economic_areas(data, work):
    """The county table of five years to Economic Areas, and how it compares."""
    cells = read_cell_table(
        data / "cbp" / "county_naics6_2017_2021.parquet",
        classification="NAICS 2017", withheld_zeros=[2017], rename={"region": "county"},
    )  # fmt: skip
    table = to_panel(cells, *definitions(data))
    table.to_parquet(work / "areas.parquet", index=False)
    until, used = time.perf_counter(), time.process_time()
    mine = pl.from_pandas(table)
    known = pl.read_parquet(data / "us_ea" / "industry_years_2017_2021.parquet")
    keys = ["region", "industry", "year"]
    columns = [*keys, "employment", "establishments", "payroll", "cluster", "subcluster"]
    later = [f.filter(pl.col("year") > 2017).select(columns).sort(keys) for f in (mine, known)]
    first = [f.filter(pl.col("year") == 2017).select(columns).sort(keys) for f in (mine, known)]
    zero = first[1]["employment"] == 0
    return {
        "until": until,
        "used": used,
        "rows": cells.frame.height,
        "areas": len(table),
        "equal": later[0].equals(later[1]),
        "same keys": first[0].select(keys).equals(first[1].select(keys)),
        "zeros": int(zero.sum()),
        "withheld": int(first[0].filter(zero)["employment"].is_null().sum()),
        "notes": [n for n in table.attrs["spatialclusters"]["notes"] if "read as" in n],
    }


def layout(data, work, year):
    """Write a year in the Bureau's layout of 2018 on, all levels, cells withheld at random."""
    table = pl.read_parquet(data / "cbp" / "county_naics6_2017_2021.parquet")
    leaves = table.filter(pl.col("year") == year)
    sector = (
        pl.col("industry").str.head(2).replace({"32": "31", "33": "31", "45": "44", "49": "48"})
    )
    parts = []
    for level in (0, 2, 3, 4, 5, 6):
        key = sector if level == 2 else pl.col("industry").str.head(level)
        sums = leaves.group_by("county", naics=key).agg(
            pl.col("employment", "establishments", "payroll").sum()
        )
        code = pl.col("naics").str.pad_end(6, "-" if level < 3 else "/")
        parts.append(sums.with_columns(naics=code))
    rows = pl.concat(parts).sort("county", "naics")
    drawn = pl.Series(np.random.default_rng(1).uniform(size=rows.height) < SHARE)
    rows = rows.with_columns(hidden=drawn & (rows["naics"] != "------"))
    hide = pl.col("hidden")
    number = {
        name: pl.when(hide).then(0).otherwise(pl.col(column)).cast(pl.Int64)
        for name, column in (("emp", "employment"), ("ap", "payroll"))
    }
    flag = pl.when(hide).then(pl.lit("S")).otherwise(pl.lit("G"))
    rows.select(
        fipstate=pl.col("county").str.head(2), fipscty=pl.col("county").str.tail(3), naics="naics",
        emp_nf=flag, emp=number["emp"], qp1_nf=flag, qp1=(number["ap"] / 4).cast(pl.Int64), ap_nf=flag,
        ap=number["ap"], est=pl.col("establishments").cast(pl.Int64),
        **{name: pl.lit("N") for name in ("n<5", *CLASSES)},
    ).write_csv(work / f"cbp{year % 100}co.txt", quote_style="non_numeric")  # fmt: skip
    return {"rows": rows.height}


def read(data, work, year):
    """Read a file in the Bureau's layout into cells."""
    cells = read_cbp(work / f"cbp{year % 100}co.txt")
    write_cells(cells, work / f"{year}.parquet")
    return {"rows": cells.frame.height, **cells.counts}


def tighten(data, work, year):
    """Tighten the bounds of a year's withheld cells."""
    cells = read_cells(work / f"{year}.parquet")
    tight = tighten_bounds(cells, complete=False)
    closed = pl.col("upper").is_finite() & (pl.col("status") == "withheld")
    return {
        "rows": cells.frame.height,
        "closed before": int(cells.frame.select(closed.sum()).item()),
        "closed after": int(tight.frame.select(closed.sum()).item()),
    }


def fill(data, work, year):
    """Fill a year's withheld cells; how far from the truth, which is known here."""
    filled = proportional_fill(read_cells(work / f"{year}.parquet"))
    truth = pl.read_parquet(data / "cbp" / "county_naics6_2017_2021.parquet")
    truth = truth.filter(pl.col("year") == year).rename({"county": "region"})
    mine = filled.frame.filter(pl.col("status") == "filled")
    pairs = mine.join(truth, on=["region", "industry"])
    error = (pl.col("value") - pl.col("employment")).abs().sum() / pl.col("employment").sum()
    return {"rows": filled.frame.height, **filled.counts, "error": pairs.select(error).item()}


STEPS = {
    "county table of five years to Economic Areas": (economic_areas, ()),
    "write a file in the Bureau's layout": (layout, (2018,)),
    "read it into cells": (read, (2018,)),
    "tighten its bounds": (tighten, (2018,)),
    "fill its withheld cells": (fill, (2018,)),
}


def run(name, data, work):
    """Run one step here; return what it found, took and needed."""
    started, used = time.perf_counter(), time.process_time()
    step, extra = STEPS[name]
    found = step(data, work, *extra)
    seconds = found.pop("until", time.perf_counter()) - started
    used = found.pop("used", time.process_time()) - used
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {"seconds": seconds, "cpu": used, "gigabytes": memory, **found}


def report(results):
    """The record, in Markdown."""
    areas = results["county table of five years to Economic Areas"]
    lines = [
        "# From county files to Economic Areas", "", "`python tests/benchmarks/rebuild_areas.py`", "",
        "| step | rows | seconds | CPU seconds | GB |", "|---|---|---|---|---|",
        *(f"| {name} | {r['rows']:,} | {r['seconds']:.1f} | {r['cpu']:.1f} | {r['gigabytes']:.2f} |" for name, r in results.items()),
        "",
        "Wall time and CPU time (both cores) of the step without the start of Python, peak memory of its process. The "
        f"first is allowed {ALLOWED[0]:.0f} s and {ALLOWED[1]:.0f} GB.", "",
        f"{areas['areas']:,} rows of region, industry and year. 2018 to 2021 are equal value for value to the known "
        f"table: {'yes' if areas['equal'] else 'NO'}. 2017 has the same keys: {'yes' if areas['same keys'] else 'NO'}; of its "
        f"{areas['zeros']:,} zeros {areas['withheld']:,} are recognized as withheld.", "",
        *(f"- {note}" for note in areas["notes"]),
        "",
        "The file in the Bureau's layout is made from the county table (all levels as sums of the published "
        f"industries, {SHARE:.0%} of the cells withheld at random, without a bound or size class). Upper bounds known before "
        f"tightening: {results['tighten its bounds']['closed before']:,}, after: "
        f"{results['tighten its bounds']['closed after']:,}. Dorn's fill misses the withheld employment of "
        f"detailed industries by {results['fill its withheld cells']['error']:.1%} (sum of absolute errors by sum of "
        "employment): here all levels add up exactly, which they do not in files with noise.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="folder of the record")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    data = Path(os.environ["SPATIALCLUSTERS_DATA"])
    if given.step:
        print(json.dumps(run(given.step, data, given.work)))
        return
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in STEPS:
            words = [sys.executable, __file__, "--step", name, "--work", folder]
            done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
            results[name] = json.loads(done.stdout)
            print(name, results[name])
    areas = results["county table of five years to Economic Areas"]
    assert areas["equal"]
    assert areas["same keys"]
    assert areas["seconds"] < ALLOWED[0]
    assert areas["gigabytes"] < ALLOWED[1]
    if given.output:
        (given.output / "rebuild-areas.md").write_text(report(results), encoding="utf-8")


if __name__ == "__main__":
    main()

"""Bad tables, regions, weights and linkages."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
from shapely.geometry import Point, Polygon, box

from tests.trust.cases import Case, validated
from tests.trust.made import GROWTH, PLAIN, REGIONS, SAR, economy, ring, squares, table

LONG = 10**6
ICAR = PLAIN.replace("x + z", "x + z + (1 | region)") + '[groups.region]\nstructure = "icar"\n'
LINKED = GROWTH.replace("log(cluster_level)", "log(linked_strength)")
FILLED = GROWTH.replace('withheld = "zero"', 'withheld = "filled", fill = "midpoint"')
MISSING = GROWTH.replace('withheld = "zero"', 'withheld = "missing"')

T, E, G = table(), economy(), squares()
START, END = "employment_start", "employment_end"


def _table(name, says, data, *words, **more) -> Case:
    return validated("Table", name, says, *words, data=data, **more)


def _economy(name, says, data, spec=GROWTH, words=(), **more) -> Case:
    return validated("Table", name, says, *words, data=data, spec=spec, **more)


def _rows(*lines: str) -> str:
    return "\n".join(["region,y,x,z", *lines]) + "\n"


def _long_years(year) -> pd.DataFrame:
    return E[["region", "cluster"]].assign(year=year, employment=E[START])


TABLES = [
    _table("an empty file", "No columns to parse", ""),
    _table("a header without rows", "got an empty table", _rows()),
    _table("no column of regions", "expected an id column 'region'", T.drop(columns="region")),
    _table("the regions in the index of a data frame", "expected an id column", T.set_index("region")),
    _table("a web page", "expected an id column 'region'", "<html><body>404</body></html>\n"),
    _table("UTF-16", "Save it as UTF-8", T.to_csv(index=False).encode("utf-16")),
    _table("Latin-1", "Save it as UTF-8", _rows("Zürich,1,2,3").encode("latin-1")),
    _table("a spreadsheet's CSV file with semicolons and decimal commas", "Sample: 12 rows in 12 regions",
           T.to_csv(index=False, sep=";", decimal=","), fits=True),
    _table("the same with points that group thousands", "as 1234 if the sign groups thousands",
           T.assign(x=["1.234", *map(str, range(2, 13))]).to_csv(index=False, sep=";")),
    _table("a spreadsheet", "read_excel(", b"PK", panel="panel.xlsx"),
    _table("a Stata file", "Sample: 12 rows in 12 regions",
           lambda path: T.to_stata(path, write_index=False), panel="panel.dta", fits=True),
    _table("a Stata file whose ids are numbers", "tostring region",
           lambda path: T.assign(region=range(12)).to_stata(path, write_index=False), panel="panel.dta"),
    _table("a Stata file that ends early", "cannot be read", b"<stata_dta><header>", panel="panel.dta"),
    _table("a quote that is never closed", "EOF inside string", _rows('"a,1,2,3', "b,1,2,3")),
    _table("rows longer than the header", "more values than its header", _rows("a,1,2,3,4", "b,1,2,3,4")),
    _table("one row longer than the others", "Expected 4 fields", _rows("a,1,2,3", "b,1,2,3,4,5")),
    _table("a column name twice", "it has the columns 'x' twice", "region,y,x,x\na,1,2,3\n"),
    _table("5,000 columns", "expected at most 2000",
           "region," + ",".join(f"v{i}" for i in range(5000)) + "\na" + ",1" * 5000 + "\n"),
    _table("Parquet that ends early", "cannot be read", T.to_parquet()[:-40],
           panel="panel.parquet"),
    _table("one region", "do not vary in the sample", table(REGIONS[:1])),
    _table("as many coefficients as rows", "got 3 rows for 3 coefficients", table(REGIONS[:3])),
    _table("a region in two rows", "cells must be unique", pd.concat([T, T[:1]])),
    _table("the same region with a space behind it, in a CSV file", "cells must be unique",
           T.assign(region=["r01 ", *REGIONS[1:]]).to_csv(index=False)),
    _table("an empty region id", "ids must be strings that are not empty",
           T.assign(region=["", *REGIONS[1:]])),
    _table("region ids that are numbers", "06 and 6 are different", T.assign(region=range(12))),
    _table("region ids that are dates", "ids must be strings",
           T.assign(region=pd.date_range("2000-01-01", periods=12))),
    _table("region ids that are lists", "ids must be strings", T.assign(region=[[r] for r in REGIONS])),
    _table("region ids that are bytes", "ids must be strings",
           T.assign(region=[r.encode() for r in REGIONS])),
    _table("regions 06 and 6", "differ by leading zeros only count as several: '06', '6'",
           table(("06", "6", *REGIONS[2:])), fits=True),
    _table("a region id with a NUL character", "ids must not hold NUL",
           table(("a\0b", *REGIONS[1:]))),
    _table("a region id of 10^6 characters", "Sample: 12 rows in 12 regions",
           table(("x" * LONG, *REGIONS[1:])), fits=True),
    _table("a region id of 10^6 characters, twice", "cells must be unique",
           table(("x" * LONG, "x" * LONG, *REGIONS[2:]))),
    _table("a column name of 10^6 characters", "got no variable 'x'",
           T.rename(columns={"x": "x" * LONG})),
    _table("30,000 regions by 30,000 industries in 30,000 rows", "expected at most 2e+08 cells",
           pd.DataFrame({"region": [f"r{i}" for i in range(30_000)],
                         "industry": [f"i{i}" for i in range(30_000)], "y": 1.0, "x": 1.0, "z": 2.0})),
    _table("infinity among the numbers", "numbers must be finite", T.assign(x=[math.inf, *T["x"][1:]])),
    _table("1e999 in a CSV file", "numbers must be finite", _rows("a,1e999,1,2", "b,2,3,4")),
    _table("1e300 among the numbers", "of a size from 1e-50 to 1e+50", T.assign(x=T["x"] * 1e300)),
    _table("1e-300 among the numbers", "of a size from 1e-50 to 1e+50", T.assign(y=T["y"] * 1e-300)),
    _table("nothing but NaN in a covariate", "got no complete row", T.assign(x=np.nan)),
    _table("NaN in five rows of a covariate", "dropped 5: x unknown",
           T.assign(x=[np.nan] * 5 + [*T["x"][5:]]), fits=True),
    _table("NaN in the response", "dropped 1: y unknown", T.assign(y=[np.nan, *T["y"][1:]]), fits=True),
    _table("one text among the numbers", "'line 2: abc'",
           T.assign(x=["abc", *map(str, T["x"][1:])]).to_csv(index=False)),
    _table("numbers such as 0x1 and 1,000", "got text in column 'x'",
           _rows(*(f'r{i},{i * i},"1,00{i}",{i}' for i in range(9)))),
    _table("a covariate of dates", "got text in column 'x'",
           T.assign(x=pd.date_range("2000-01-01", periods=12))),
    _table("a constant covariate", "do not vary in the sample: 'x'", T.assign(x=3.5)),
    _table("a covariate that is constant but for rounding", "do not vary in the sample: 'x'",
           T.assign(x=1e12 + 1e-4 * T["x"])),
    _table("a constant response", "a response that does not vary", T.assign(y=2.0)),
    _table("a covariate 1e8 away from zero", "Sample: 12 rows", T.assign(x=T["x"] + 1e8), fits=True),
    _table("a covariate twice", "collinear columns 'x', 'z'", T.assign(z=2.0 * T["x"] + 1.0)),
    _table("nearly collinear covariates", "nearly collinear (condition number",
           T.assign(z=T["x"] + 1e-6 * T["z"]), fits=True),
    _table("a covariate that two others add up to", "collinear columns", T.assign(w=T["x"] - T["z"]),
           spec=PLAIN.replace("x + z", "x + z + w")),
    _table("a column with the name of a parameter", "expected no parameter's name",
           T.rename(columns={"x": "sigma"}), spec=PLAIN.replace("x", "sigma")),
    _table("a start year without the end", "without 'income_end'", T.assign(income_start=1.0)),
    _table("years beside start and end", "beside x_start/x_end", T.assign(year=2000, e_start=1.0, e_end=2.0)),
    _table("--map of a column that is not there", "got no column 'emp'", T, "--map", "x=emp"),
    _economy("an industry in two clusters", "an industry must be in one cluster",
             pd.DataFrame({"region": ["a", "b"], "industry": ["i", "i"], "cluster": ["c", "d"],
                           START: [1.0, 2.0], END: [2.0, 3.0]})),
    _economy("negative employment", "counts must not be negative", E.assign(**{START: -E[START]})),
    _economy("zero employment everywhere", "got no row with a known response", E.assign(**{START: 0.0})),
    _economy("an all-zero industry", "dropped 12: employment zero in 2018",
             E.assign(**{START: E[START].where(E["cluster"] != "c0", 0.0)}), fits=True),
    _economy("an all-zero region", "dropped 6: employment zero in 2018",
             E.assign(**{START: E[START].where(E["region"] != "r00", 0.0)}), fits=True),
    _economy("one cluster", "got one row in each of its 12 levels", E[E["cluster"] == "c0"]),
    _economy("one region of many clusters", "got a single level", E[E["region"] == "r00"]),
    _economy("a cluster in one region only", "Group cluster: random effects of 6 levels, 1 with a single row",
             E[(E["cluster"] != "c0") | (E["region"] == "r00")], fits=True),
    _economy("a cluster in one region only, with noise by cluster", "Sample: 61 rows",
             E[(E["cluster"] != "c0") | (E["region"] == "r00")],
             GROWTH + '[likelihood]\nscale = "by-cluster"\n', fits=True),
    _economy("growth that is the same everywhere", "a response that does not vary",
             E.assign(**{END: 2.0 * E[START]})),
    _economy("years that are text", "column 'year': got text", _long_years("long ago")),
    _economy("years that are fractions", "years must be whole numbers", _long_years(2000.5)),
    _economy("the year 1e300", "years must be whole numbers", _long_years(1e300)),
    _economy("one year for a model of growth", "expected one of them for growth.to", _long_years(2018)),
    _economy("years that are dates", "dt.year", _long_years(pd.Timestamp("2018-01-01"))),
    _economy("other years in the names of columns than in the model",
             "got 2019 as the end of the period", E.rename(columns={START: "e_2018", END: "e_2019"}),
             words=("--map", f"{START}=e_2018", "--map", f"{END}=e_2019")),
    _economy("withheld cells without bounds, to be filled", "without an upper bound",
             E.assign(**{START: E[START].where(E["cluster"] != "c0")}), FILLED),
    _economy("a lower bound above the upper", "whose lower bound exceeds the upper",
             E.assign(**{START: E[START].where(E["cluster"] != "c0"),
                         "employment_lower_start": 9.0, "employment_lower_end": 9.0,
                         "employment_upper_start": 5.0, "employment_upper_end": 5.0}), FILLED),
    _economy("sums that are all unknown", "'60 to cluster_level unknown'",
             E.assign(**{START: E[START].where(E["cluster"] != "c0")}), MISSING),
]  # fmt: skip


def _regions(name, says, shapes, spec=SAR, file="regions_geojson", **more) -> Case:
    return validated("Regions", name, says, spec=spec, **{file: shapes}, **more)


def _moved(*first) -> object:
    return G.set_geometry([*first, *G.geometry[len(first) :]], crs=3857)


def _not_a_number() -> str:
    ring = [[0, 0], [math.nan, 0], [1, 1], [0, 0]]
    shape = {"type": "Polygon", "coordinates": [ring]}
    return json.dumps({"type": "FeatureCollection", "features": [
        {"type": "Feature", "properties": {"region": r}, "geometry": shape} for r in REGIONS
    ]})  # fmt: skip


VRT = (
    '<OGRVRTDataSource><OGRVRTLayer name="secret"><SrcDataSource>secret.csv</SrcDataSource>'
    '<GeometryType>wkbPoint</GeometryType><GeometryField encoding="PointFromColumns" x="x" y="y"/>'
    "</OGRVRTLayer></OGRVRTDataSource>"
)
SECRET = "region,x,y\n" + "".join(f"{r},{i},{i}\n" for i, r in enumerate(REGIONS))

SHAPES = [
    _regions("regions that touch nobody", "weights without a link",
             G.set_geometry([box(3 * i, 0, 3 * i + 1, 1) for i in range(12)], crs=3857)),
    _regions("an island", "1 region without neighbors", _moved(box(90, 90, 91, 91)), fits=True),
    _regions("two groups of regions that do not meet", "2 components",
             G.set_geometry([s if i < 4 else box(90 + i, 0, 91 + i, 1)
                             for i, s in enumerate(G.geometry)], crs=3857), fits=True),
    _regions("a region of the table without a shape", "got no geometry for 'r11'", G[:11]),
    _regions("shapes for 6, a table for 06", "The ids differ in leading zeros",
             squares([str(i) for i in range(12)]), data=table([f"{i:02d}" for i in range(12)])),
    _regions("ids in another column", "--map region=EA", G.rename(columns={"region": "EA"})),
    _regions("a region with two shapes", "got 'r00' twice", pd.concat([G, G[:1]])),
    _regions("ids that are numbers", "ids that are not strings", G.assign(region=range(12))),
    _regions("a shape that is missing", "got empty geometry for 'r00'", _moved(None)),
    _regions("NaN among the coordinates, in GeoJSON", "coordinate or property NaN", _not_a_number()),
    _regions("infinity among the coordinates, in GeoParquet", "got infinite geometry for 'r00'",
             _moved(Point(math.inf, 0.0)), file="regions_parquet"),
    _regions("a polygon that crosses itself", "lines cross themselves: 'r00'",
             _moved(Polygon([(0, 0), (1, 1), (1, 0), (0, 1)])), fits=True),
    _regions("points for contiguity", "expected polygons",
             G.set_geometry([Point(i, 0) for i in range(12)], crs=3857)),
    _regions("GeoJSON that is cut off", "cannot be read", '{"type": "FeatureCollection", "feat'),
    _regions("GeoJSON nested 100,000 deep", "nested too deeply", "[" * 100_000),
    _regions("GeoJSON without features", "it has no features", '{"type":"FeatureCollection","features":[]}'),
    _regions("a virtual data source of GDAL that reads another file, called .geojson", "cannot be read",
             VRT, PLAIN, secret_csv=SECRET),
    _regions("the same, called .gpkg", "does not start as a .gpkg file", VRT, PLAIN, "regions_gpkg",
             secret_csv=SECRET),
    _regions("the same, under its own name", "got a file ending in '.vrt'", VRT, PLAIN, "regions_vrt",
             secret_csv=SECRET),
    _regions("a web service of GDAL, called .json", "cannot be read",
             "<OGRWFSDataSource><URL>http://127.0.0.1:9/</URL></OGRWFSDataSource>", PLAIN, "regions_json"),
    _regions("GeoPackage of nothing but its first bytes", "cannot be read",
             b"SQLite format 3\0" + bytes(200), PLAIN, "regions_gpkg"),
    _regions("a zip file that is none", "not a zip file", b"PK\x03\x04junk", PLAIN, "regions_zip"),
]  # fmt: skip


def _weights(name, says, links, spec=SAR, *words, file="weights_csv", **more) -> Case:
    return validated("Weights", name, says, *words, spec=spec, **{file: links}, **more)


def _edges(*rows) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["region_i", "region_j", "weight"])


def _option(value: str, says: str, **more) -> Case:
    return validated("Weights", f"--weights {value[:20]}", says, "--weights", value, spec=SAR,
                     regions_geojson=G, **more)  # fmt: skip


RING, ALONE = ring(), [(r, r, 0.0) for r in REGIONS]
BOTH_WAYS = _edges(*((REGIONS[i], REGIONS[i ^ 1], 1.0) for i in range(12)))
GAL = "12\n" + "".join(
    f"{REGIONS[i]} 2\n{REGIONS[i - 1]} {REGIONS[(i + 1) % 12]}\n" for i in range(12)
)

LINKS = [
    _weights("islands", "7 regions without neighbors", _edges(*RING.to_numpy()[:5], *ALONE), fits=True),
    _weights("nothing but islands", "weights without a link", _edges(*ALONE)),
    _weights("six components", "6 components", BOTH_WAYS, fits=True),
    _weights("links in one direction only", "12 of 12 links have no counterpart", RING[:12], fits=True),
    _weights("links in one direction only, for effects that neighbors share", "expected symmetric ones",
             RING[:12], ICAR),
    _weights("a region as its own neighbor", "regions as their own neighbors ('row 25: r00 -> r00')",
             _edges(*RING.to_numpy(), ("r00", "r00", 1.0))),
    _weights("negative weights", "negative weights", ring(weight=-1.0)),
    _weights("NaN as weight", "NaN, infinite or negative weights", ring(weight=math.nan)),
    _weights("infinite weights", "NaN, infinite or negative weights", ring(weight=math.inf)),
    _weights("text as weight", "NaN, infinite or negative weights", RING.assign(weight="near")),
    _weights("weights of 1e308", "of a size that cannot be added up", ring(weight=1e308)),
    _weights("weights of 1e-320", "of a size that cannot be added up", ring(weight=1e-320)),
    _weights("weights for other regions", "got no row for 12 of 12 regions",
             ring([f"s{r}" for r in REGIONS])),
    _weights("weights of another geography", "have 24 regions, of which 13 are not in the data",
             ring([*REGIONS[1:], *(f"z{i}" for i in range(13))])),
    _weights("weights for more regions", "Dropped 1 region that the data lack",
             _edges(*RING.to_numpy(), ("r00", "zz", 1.0), ("zz", "r00", 1.0)), fits=True),
    _weights("weights for 6, a table for 06", "differ only by leading zeros", ring([str(i) for i in range(12)]),
             data=table([f"{i:02d}" for i in range(12)])),
    _weights("a link twice", "links more than once", pd.concat([RING, RING[:1]])),
    _weights("no links", "got 0 rows", "region_i,region_j\n"),
    _weights("other columns", "expected rows with columns region_i, region_j", "a,b\nr00,r01\n"),
    _weights("an empty id", "got '' as ids", "region_i,region_j\nr00,\n"),
    _weights("ids that are numbers", "as text such as '06'",
             pd.DataFrame({"region_i": [1, 2], "region_j": [2, 1]}), file="weights_parquet"),
    _weights("ids that are lists", "as text such as '06'",
             pd.DataFrame({"region_i": [["a"], ["b"]], "region_j": [["b"], ["a"]]}), file="weights_parquet"),
    _weights(".gal with a number of 5,000 digits", "line 1: got '999", "9" * 5000 + "\n", file="weights_gal"),
    _weights(".gal whose region has 5,000 digits of neighbors", "line 2: got",
             "1\nr00 " + "9" * 5000 + "\nr01\n", file="weights_gal"),
    _weights(".gal that ends early", "got '11 regions'; expected 12",
             GAL[: GAL.index("r11 2")], file="weights_gal"),
    _weights(".gal of bytes", "cannot be read", b"\xff\xfe\x00", file="weights_gal"),
    _option("knn:0", "got k = 0"),
    _option("knn:12", "got k = 12 for 12 regions"),
    _option("knn:" + "9" * 4000, "expected 1 <= k"),
    _option("distance:nan", "got threshold nan"),
    _option("distance:1e400", "got threshold inf"),
    _option("distance:-1", "got threshold -1"),
    _option("decay-power:1e-9", "got cutoff 1e-09"),
    _option("quen", "Did you mean 'queen'?"),
    _option("../../etc/passwd", "expected queen, rook, knn:K"),
    _option("x" * 300 + ".csv", "cannot be read"),
    validated("Weights", "a spatial lag without weights", "'sar' and no weights", spec=SAR),
    validated("Weights", "lag(x) without weights", "lag(): got no weights",
              spec=PLAIN.replace("z", "lag(x)")),
]  # fmt: skip


def _links(name, says, content) -> Case:
    return validated("Linkages", name, says, data=E, spec=LINKED, linkages_csv=content)


LINKAGES = [
    validated("Linkages", "none, where the model needs them", "got no linkage table", data=E, spec=LINKED),
    _links("of other clusters", "0 of 2 clusters of the linkages occur in the table", "cluster,linked_cluster\nq,w\n"),
    _links("of clusters to themselves", "'72 to linked_strength unknown'", "cluster,linked_cluster\nc0,c0\n"),
    _links("a negative weight", "or negative in rows '0'", "cluster,linked_cluster,weight\nc0,c1,-1\n"),
    _links("a weight of 1e308", "too large or negative in rows '0'",
           "cluster,linked_cluster,weight\nc0,c1,1e308\nc1,c0,1\n"),
    _links("text as weight", "got text in column 'weight'", "cluster,linked_cluster,weight\nc0,c1,strong\n"),
]  # fmt: skip

"""Panel + spec + weights -> Design: rows, columns and groups, counted and compared by hand."""

import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest

from spatialclusters.columns import within
from spatialclusters.design import Design, absorbed_groups, build_design
from spatialclusters.errors import PanelError, SpecError, WeightsError
from spatialclusters.panel import read_panel
from spatialclusters.spec import parse_spec
from spatialclusters.weights import read_weights

RELATIVE = 1e-12  # sums of at most some hundred terms
PROJECTION = 1e-9  # of a unit column: least squares by LSMR, stopped at 1e-13, against dense
ROUNDED = 0.5e-4  # the reference regressions are printed to four decimals


def spec(formula, *, growth=None, cells=False, zeros=None, groups=None, **tables):
    """A model from its parts."""
    lines = [f"formula = {json.dumps(formula)}"]
    if growth:
        lines += ["[growth]", f'variable = "{growth}"', "from = 2018", "to = 2021"]
        lines += ["annualized = true"] if tables.pop("annualized", False) else []
    if cells:
        lines += ["[cells]", 'absent = "zero"', 'withheld = "zero"']
    if zeros:
        lines += ["[zeros]", *(f'"{name}" = "{rule}"' for name, rule in zeros.items())]
    for name, effect in (groups or {}).items():
        lines += [f'[groups."{name}"]', f'effect = "{effect}"']
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    return parse_spec("\n".join(lines))


def section(n_regions=8, n_industries=6, seed=1, share=0.8):
    """A cross-section of region-industries with two covariates; industries sit in three clusters."""
    rng = np.random.default_rng(seed)
    pairs = list(itertools.product(range(n_regions), range(n_industries)))
    table = pd.DataFrame(pairs, columns=["region", "industry"])
    table = table[rng.random(len(table)) < share].reset_index(drop=True)
    table["cluster"] = [f"c{k % 3}" for k in table["industry"]]
    table["region"] = [f"r{k}" for k in table["region"]]
    table["industry"] = [f"i{k}" for k in table["industry"]]
    for name in ("y", "x", "z"):
        table[name] = rng.normal(size=len(table))
    return table


def by_cluster(n_regions=9, n_clusters=3, seed=2, share=0.6):
    """A cross-section of region-clusters."""
    table = section(n_regions, n_clusters, seed, share).drop(columns="cluster")
    table = table.rename(columns={"industry": "cluster"})
    return table.assign(x=np.exp(table["x"]))


def rows(design, *dims):
    """Row ids as tuples."""
    return list(zip(*(design.data[f"row_{dim}"].values for dim in dims), strict=True))


def column(design, label):
    return design.X[:, design.terms.index(label)]


def refused(error, *args, **kwargs):
    with pytest.raises(error) as caught:
        build_design(*args, **kwargs)
    assert len(str(caught.value)) < 5_000
    return str(caught.value)


# --- rows, columns, shapes --------------------------------------------------------------------


def test_shapes_labels_and_values():
    table = section()
    design = build_design(spec("y ~ x + z + x:z"), read_panel(table))
    assert design.terms == ("x", "z", "x:z")
    assert design.n_rows == len(table)
    assert design.X.shape == design.standardized.shape == (len(table), 3)
    assert design.y.shape == (len(table),)
    indexed = table.set_index(["region", "industry"])
    for n, cell in enumerate(rows(design, "region", "industry")):
        row = indexed.loc[cell]
        assert design.y[n] == row["y"]
        assert design.X[n].tolist() == [row["x"], row["z"], row["x"] * row["z"]]
        assert design.data["row_cluster"].values[n] == row["cluster"]
    assert design.intercept
    assert design.years is None
    assert not design.annualized
    assert design.data.attrs["unit"] == design.data.attrs["response"] == "y"
    assert design.groups == ()
    assert "size" not in design.data


def test_no_covariates_and_no_intercept():
    table = section()
    panel = read_panel(table)
    empty = build_design(spec("y ~ 1 + (1 | region)"), panel)
    assert empty.X.shape == (len(table), 0)
    assert empty.terms == ()
    assert empty.intercept
    through_origin = build_design(spec("y ~ 0 + x + (1 + x | region)"), panel)
    assert not through_origin.intercept
    # centered columns would be another line than one through the origin
    assert (through_origin.data["center"] == 0.0).all()
    x = through_origin.X[:, 0]
    np.testing.assert_allclose(through_origin.standardized[:, 0], x / x.std(ddof=1), rtol=RELATIVE)


def test_columns_are_standardized_in_the_sample():
    table = section()
    table.loc[3, "y"] = np.nan
    design = build_design(spec("y ~ x + z"), read_panel(table))
    kept = table.drop(index=3)
    assert design.n_rows == len(kept)
    np.testing.assert_allclose(design.data["center"], kept[["x", "z"]].mean(), rtol=RELATIVE)
    np.testing.assert_allclose(design.data["scale"], kept[["x", "z"]].std(), rtol=RELATIVE)
    np.testing.assert_allclose(design.standardized.mean(axis=0), 0.0, atol=RELATIVE)
    np.testing.assert_allclose(design.standardized.std(axis=0, ddof=1), 1.0, rtol=RELATIVE)


def test_the_order_of_the_rows_of_the_table_changes_nothing():
    table = section()
    model = spec("y ~ x + z + (1 | region) + (1 + x | cluster)", groups={"region": "correlated"})
    first = build_design(model, read_panel(table))
    second = build_design(model, read_panel(table.sample(frac=1.0, random_state=5)))
    assert first.data.drop_attrs().identical(second.data.drop_attrs())
    assert first.digest == second.digest
    assert first.rows_digest == second.rows_digest


def test_the_panel_is_not_changed():
    panel = read_panel(section())
    before = panel.data.copy(deep=True)
    design = build_design(spec("y ~ x + center(z)"), panel)
    design.y[:] += 1.0
    design.X[:] += 1.0
    assert panel.data.identical(before)


# --- which rows, and where the others went ----------------------------------------------------

YEARS = pd.DataFrame(
    [
        ("a", "i", 2018, 10.0, 1.0),
        ("a", "i", 2021, 20.0, 9.0),
        ("b", "i", 2018, 40.0, 2.0),
        ("b", "i", 2021, 30.0, 9.0),
        ("c", "i", 2018, 0.0, 3.0),  # zero at the start
        ("c", "i", 2021, 30.0, 9.0),
        ("d", "i", 2018, np.nan, 4.0),  # withheld at the start
        ("d", "i", 2021, 30.0, 9.0),
        ("e", "i", 2018, 50.0, 5.0),  # zero at the end
        ("e", "i", 2021, 0.0, 9.0),
        ("f", "i", 2018, 50.0, 6.0),  # withheld at the end
        ("f", "i", 2021, np.nan, 9.0),
        ("g", "i", 2018, 60.0, np.nan),  # a covariate unknown
        ("g", "i", 2021, 61.0, 9.0),
        ("h", "i", 2018, 70.0, 0.0),  # a covariate zero
        ("h", "i", 2021, 71.0, 9.0),
        ("a", "j", 2018, 80.0, 7.0),
        ("a", "j", 2021, 88.0, 9.0),
        ("b", "j", 2021, 12.0, 9.0),  # absent at the start
        ("c", "j", 2018, 12.0, 8.0),  # absent at the end
    ],
    columns=["region", "industry", "year", "employment", "x"],
)


def test_every_cell_is_a_row_or_counted_once():
    design = build_design(
        spec("growth ~ log(x)", growth="employment", zeros={"x": "drop"}), read_panel(YEARS)
    )
    assert rows(design, "region", "industry") == [("a", "i"), ("a", "j"), ("b", "i")]
    expected = [math.log(2.0), math.log(1.1), math.log(0.75)]
    np.testing.assert_allclose(design.y, expected, rtol=RELATIVE)
    np.testing.assert_allclose(design.X[:, 0], [0.0, math.log(7.0), math.log(2.0)], rtol=RELATIVE)
    assert design.data["size"].values.tolist() == [10.0, 80.0, 40.0]
    record = design.record
    assert record["dropped"] == {
        "employment absent in 2018": 6,  # b-j and d-j to h-j
        "employment withheld in 2018": 1,  # d
        "employment zero in 2018": 1,
        "employment absent in 2021": 1,  # c-j
        "employment withheld in 2021": 1,  # f
        "employment zero in 2021": 1,
        "x unknown": 1,
        "x zero": 1,
    }
    assert record["rows"] + sum(record["dropped"].values()) == 8 * 2
    assert record["cells"]["2018"] == {
        "cells": 16, "observed": 9, "zero": 1, "withheld": 1, "absent": 6}  # fmt: skip
    assert record["cells"]["2021"] == {
        "cells": 16, "observed": 9, "zero": 1, "withheld": 1, "absent": 6}  # fmt: skip
    published = 10 + 40 + 50 + 50 + 60 + 70 + 80 + 12
    assert record["share_of_base_in_sample"] == pytest.approx(130 / published, rel=RELATIVE)
    assert record["regions"] == 2


def test_negative_values_of_a_growth_variable_are_counted_too():
    table = pd.DataFrame(
        {
            "region": list("abcdef"),
            "income_start": [1.0, 2.0, -3.0, 4.0, 5.0, 6.0],
            "income_end": [2.0, 3.0, 4.0, -5.0, 9.0, 8.0],
        }
    )
    design = build_design(spec("growth ~ income", growth="income"), read_panel(table))
    assert design.record["dropped"] == {"income negative in 2018": 1, "income negative in 2021": 1}
    assert design.n_rows == 4


@pytest.mark.parametrize("seed", range(4))
def test_cells_are_rows_and_dropped_ones(seed):
    rng = np.random.default_rng(seed)
    table = section(12, 9, seed)
    for name in ("employment_start", "employment_end", "x"):
        values = rng.integers(0, 6, len(table)).astype(float)
        table[name] = np.where(rng.random(len(table)) < 0.2, np.nan, values)
    model = spec("growth ~ log(x) + z", growth="employment", zeros={"x": "drop"})
    design = build_design(model, read_panel(table))
    cells = table["region"].nunique() * table["industry"].nunique()
    assert design.n_rows + sum(design.record["dropped"].values()) == cells
    kept = (table[["employment_start", "employment_end", "x"]] > 0).all(axis=1)
    assert design.n_rows == int(kept.sum())
    kept_cells = zip(table["region"][kept], table["industry"][kept], strict=True)
    assert set(rows(design, "region", "industry")) == set(kept_cells)


def test_annualized_growth():
    table = pd.DataFrame(
        {"region": list("abc"), "jobs_start": [10.0, 40.0, 50.0], "jobs_end": [20.0, 30.0, 5.0]}
    ).assign(x=[1.0, 2.0, 4.0])
    design = build_design(spec("growth ~ x", growth="jobs", annualized=True), read_panel(table))
    expected = [math.log(2.0) / 3, math.log(0.75) / 3, math.log(0.1) / 3]
    np.testing.assert_allclose(design.y, expected, rtol=RELATIVE)
    assert (design.years, design.annualized) == (3.0, True)
    assert design.data.attrs["unit"] == "log change per year"
    total = build_design(spec("growth ~ x", growth="jobs"), read_panel(table))
    np.testing.assert_allclose(total.y, 3 * np.array(expected), rtol=RELATIVE)
    assert (total.years, total.annualized) == (3.0, False)
    assert total.data.attrs["unit"] == "log change over 3 years"


def test_zero_rules_in_a_design():
    table = pd.DataFrame(
        {
            "region": list("abcdefgh"),
            "y": [1.0, 4.0, 2.0, 6.0, 3.0, 5.0, np.nan, 9.0],
            "x": [0.0, 0.5, 2.0, 0.0, 4.0, 8.0, 0.25, 3.0],  # 0.25 is not in the sample
            "z": [1.0, 3.0, 2.0, 5.0, 3.0, 1.0, 2.0, 2.0],
        }
    )
    panel = read_panel(table)
    sample = [0.0, 0.5, 2.0, 0.0, 4.0, 8.0, 3.0]
    dropped = build_design(spec("y ~ log(x) + z", zeros={"x": "drop"}), panel)
    expected = [math.log(v) for v in sample if v]
    np.testing.assert_allclose(column(dropped, "log(x)"), expected, rtol=RELATIVE)
    assert dropped.record["dropped"] == {"y unknown": 1, "x zero": 2}
    assert dropped.data["row_region"].values.tolist() == list("bcefh")
    least = build_design(spec("y ~ log(x) + z", zeros={"x": "minimum-and-dummy"}), panel)
    assert least.terms == ("log(x)", "z", "zero(x)")
    expected = [math.log(v or 0.5) for v in sample]
    np.testing.assert_allclose(column(least, "log(x)"), expected, rtol=RELATIVE)
    assert column(least, "zero(x)").tolist() == [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]
    for rule, function in {"asinh": math.asinh, "log1p": math.log1p}.items():
        design = build_design(spec("y ~ log(x) + z", zeros={"x": rule}), panel)
        assert design.terms == (f"{rule}(x)", "z")
        assert design.label("log(x)") == f"{rule}(x)"
        assert design.label("z") == "z"
        expected = [function(v) for v in sample]
        np.testing.assert_allclose(column(design, f"{rule}(x)"), expected, rtol=RELATIVE)
    message = refused(SpecError, spec("y ~ log(x) + z"), panel)
    assert "log(x): got 2 zeros in 7 rows" in message


# --- lags in blocks ---------------------------------------------------------------------------


def weights_of(regions, seed, standardize, share=0.3):
    """Random directed weights as a dense dict, and as Weights."""
    rng = np.random.default_rng(seed)
    raw = {
        (r, s): float(rng.integers(1, 5))
        for r, s in itertools.permutations(regions, 2)
        if rng.random() < share
    }
    table = pd.DataFrame([(*pair, w) for pair, w in raw.items()] + [(r, r, 0.0) for r in regions],
                         columns=["region_i", "region_j", "weight"])  # fmt: skip
    total = {r: sum(w for (a, _), w in raw.items() if a == r) for r in regions}
    dense = {(r, s): w / total[r] if standardize else w for (r, s), w in raw.items()}
    return dense, read_weights(table, row_standardize=standardize)


def lagged(dense, cells, values, *, restandardize):
    """W x, one block per cluster, from the definition."""
    result = []
    for region, *cluster in cells:
        near = {
            n: dense[region, other]
            for n, (other, *its) in enumerate(cells)
            if its == cluster and (region, other) in dense
        }
        total = math.fsum(near.values()) if restandardize else 1.0
        result.append(math.fsum(w / total * values[n] for n, w in near.items()) if near else 0.0)
    return result


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("blocks", ["restandardize", "subset"])
@pytest.mark.parametrize("kind", ["regions", "region-clusters"])
def test_lags_are_taken_within_blocks(kind, blocks, standardize):
    alone = 0
    for seed in range(4):
        table = by_cluster(seed=seed)
        table.loc[table.index[::5], "y"] = np.nan  # rows that are not in the sample
        if kind == "regions":
            table = table.drop_duplicates("region").drop(columns="cluster")
        dims = ["region"] if kind == "regions" else ["region", "cluster"]
        regions = sorted({*table["region"], "r0"})
        dense, weights = weights_of(regions[::-1], seed, standardize)
        model = spec("y ~ x + lag(x) + lag(z)", spatial={"blocks": blocks})
        design = build_design(model, read_panel(table), weights)
        cells = rows(design, *dims)
        known = table.dropna()
        assert set(cells) == set(zip(*(known[dim] for dim in dims), strict=True))
        for name in ("x", "z"):
            values = table.set_index(dims)[name]
            given = [values[cell if len(cell) > 1 else cell[0]] for cell in cells]
            expected = lagged(
                dense, cells, given, restandardize=standardize and blocks == "restandardize"
            )
            np.testing.assert_allclose(
                column(design, f"lag({name})"), expected, rtol=RELATIVE, atol=RELATIVE
            )
        alone += expected.count(0.0)
    assert alone > 2  # isolates within blocks were among them


@pytest.mark.parametrize("blocks", ["restandardize", "subset"])
@pytest.mark.parametrize("table", [section(), by_cluster()], ids=["industries", "clusters"])
def test_the_lag_of_a_design_is_what_its_data_say(table, blocks):
    weights = weights_of(sorted(set(table["region"])), 1, True)[1]
    model = spec("y ~ x + lag(x)", spatial={"blocks": blocks})
    design = build_design(model, read_panel(table), weights)
    found, again = design.lag, Design(design.data, design.weights).lag
    assert found.cell.tolist() == again.cell.tolist()
    assert found.weights.toarray().tolist() == again.weights.toarray().tolist()


def test_a_log_of_a_lag_meets_isolates_within_blocks():
    table = by_cluster(seed=0)
    regions = sorted(set(table["region"]))
    dense, weights = weights_of(regions, 0, True, share=0.25)
    panel = read_panel(table)
    assert "log(lag(x)): got " in refused(SpecError, spec("y ~ x + log(lag(x))"), panel, weights)
    model = spec("y ~ x + log(lag(x))", zeros={"lag(x)": "minimum-and-dummy"})
    design = build_design(model, panel, weights)
    cells = rows(design, "region", "cluster")
    values = table.set_index(["region", "cluster"])["x"]
    lag = lagged(dense, cells, [values[cell] for cell in cells], restandardize=True)
    least = min(v for v in lag if v)
    expected = [math.log(v or least) for v in lag]
    np.testing.assert_allclose(column(design, "log(lag(x))"), expected, rtol=RELATIVE)
    dummy = [float(v == 0.0) for v in lag]
    assert column(design, "zero(lag(x))").tolist() == dummy
    assert 0 < sum(dummy) < len(dummy)


def test_a_lag_of_several_industries_goes_through_the_means_of_cells():
    table = section()
    weights = weights_of(sorted(set(table["region"])), 1, True)[1]
    design = build_design(spec("y ~ x + lag(x)"), read_panel(table), weights)
    rows = design.data[["row_region", "row_cluster"]].to_dataframe().assign(x=design.X[:, 0])
    means = rows.groupby(["row_region", "row_cluster"])["x"].mean()
    matrix = weights.matrix.toarray()
    for row, found in zip(rows.itertuples(), design.X[:, 1], strict=True):
        linked = dict(
            zip(weights.regions, matrix[weights.regions.index(row.row_region)], strict=True)
        )
        inside = {r: w for r, w in linked.items() if w and (r, row.row_cluster) in means.index}
        total = sum(w * means[r, row.row_cluster] for r, w in inside.items())
        assert found == pytest.approx(total / sum(inside.values()) if inside else 0.0, rel=1e-12)


def test_a_lag_without_weights_is_an_error():
    assert "no weights" in refused(SpecError, spec("y ~ lag(x)"), read_panel(by_cluster()))


def test_weights_are_aligned_to_the_panel():
    table = by_cluster()
    regions = sorted(set(table["region"]))
    weights = weights_of([*regions, "elsewhere"][::-1], 3, True)[1]
    design = build_design(spec("y ~ x"), read_panel(table), weights)
    assert design.weights.regions == tuple(regions)
    assert design.record["weights"]["regions"] == len(regions)
    fewer = weights_of(["r1", "r2"], 3, True)[1]
    assert "'r0'" in refused(WeightsError, spec("y ~ x"), read_panel(table), fewer)


# --- groups -----------------------------------------------------------------------------------


def test_codes_and_levels_of_groups():
    table = section()
    design = build_design(
        spec(
            "y ~ x + (1 | region) + (1 | region:cluster) + (1 + x | cluster) + (0 + x | industry)"
        ),
        read_panel(table),
    )
    assert [group.name for group in design.groups] == [
        "region", "region:cluster", "cluster", "industry"]  # fmt: skip
    dims = {"region": ["region"], "region:cluster": ["region", "cluster"],
            "cluster": ["cluster"], "industry": ["industry"]}  # fmt: skip
    for group in design.groups:
        names = [" : ".join(cell) for cell in rows(design, *dims[group.name])]
        assert [group.levels[code] for code in group.codes] == names
        assert group.levels.tolist() == sorted(set(names))
        assert group.effect == "random"
    columns = {group.name: (group.columns, group.labels) for group in design.groups}
    assert columns == {
        "region": ((-1,), ("1",)),
        "region:cluster": ((-1,), ("1",)),
        "cluster": ((-1, 0), ("1", "x")),
        "industry": ((0,), ("x",)),
    }
    singles = table.groupby(["region", "cluster"]).size()
    assert design.record["groups"]["region:cluster"] == {
        "levels": len(singles),
        "singletons": int((singles == 1).sum()),
        "effect": "random",
        "structure": "iid",
    }


def test_interactions_keep_levels_apart_whose_names_run_together():
    table = pd.DataFrame(
        {
            "region": ["a", "a", "a : b", "a : b", "a", "a : b"],
            "industry": ["i", "j", "i", "j", "k", "k"],
            "cluster": ["b : c", "b : c", "c", "c", "c", "c"],
            "y": [1.0, 3.0, 2.0, 5.0, 4.0, 1.0],
        }
    ).drop(index=[4, 5])
    table["industry"] = ["i", "j", "k", "l"]
    design = build_design(spec("y ~ 1 + (1 | region:cluster)"), read_panel(table))
    assert len(set(design.groups[0].codes.tolist())) == 2


def test_slopes_follow_the_label_that_a_zero_rule_gives():
    table = section().assign(x=lambda t: t["x"].clip(lower=0.0))
    model = spec("y ~ z + log(x) + (1 + log(x) | cluster)", zeros={"x": "asinh"})
    design = build_design(model, read_panel(table))
    assert design.groups[0].columns == (-1, 1)
    assert design.groups[0].labels == ("1", "asinh(x)")


def test_group_means_of_correlated_effects():
    table = section().assign(x=lambda t: t["x"].clip(lower=0.0))
    table["w"] = table.groupby("region")["z"].transform("first")  # constant in a region
    model = spec(
        "y ~ log(x) + z + w + (1 | region) + (1 | industry)",
        zeros={"x": "minimum-and-dummy"},
        groups={"region": "correlated", "industry": "correlated"},
    )
    design = build_design(model, read_panel(table))
    least = table["x"][table["x"] > 0].min()
    table["log(x)"] = np.log(table["x"].where(table["x"] > 0, least))
    assert design.terms == (
        "log(x)",
        "z",
        "w",
        "zero(x)",
        "mean(log(x) | region)",
        "mean(z | region)",
        "mean(log(x) | industry)",
        "mean(z | industry)",
        "mean(w | industry)",
    )
    keys = pd.MultiIndex.from_tuples(rows(design, "region", "industry"))
    for label in design.terms[4:]:
        name, group = label.removeprefix("mean(").removesuffix(")").split(" | ")
        means = table.groupby(group)[name].transform("mean")
        expected = means.set_axis(pd.MultiIndex.from_frame(table[["region", "industry"]])).loc[keys]
        np.testing.assert_allclose(column(design, label), expected, rtol=RELATIVE, atol=RELATIVE)
    assert [group.effect for group in design.groups] == ["correlated", "correlated"]
    assert design.record["notes"] == []  # w has no mean by region to leave out


def test_a_group_mean_that_says_nothing_new_is_left_out_and_noted():
    table = section(share=1.1)  # balanced: the means by region of w are a combination
    table["w"] = table.groupby("region")["x"].transform("mean") + table["industry"].map(
        {f"i{k}": float(k) for k in range(6)}
    )
    model = spec("y ~ x + w + (1 | region)", groups={"region": "correlated"})
    design = build_design(model, read_panel(table))
    assert design.terms == ("x", "w", "mean(x | region)")
    assert "mean(w | region) is a combination of other columns; left out" in design.record["notes"]


def test_random_and_fixed_effects_add_no_columns():
    table = section()
    for effect in ("random", "fixed"):
        model = spec("y ~ x + (1 | region)", groups={"region": effect})
        design = build_design(model, read_panel(table))
        assert design.terms == ("x",)
        assert design.groups[0].effect == effect
        assert design.record["groups"]["region"]["effect"] == effect


def test_absorbed_groups():
    table = section()
    table["w"] = table.groupby("region")["z"].transform("first")
    model = spec("y ~ x + w + (1 | region) + (1 | industry) + (0 + x | cluster)")
    design = build_design(model, read_panel(table))
    assert absorbed_groups(design, ("x",)) == (["region", "industry"], [])
    assert absorbed_groups(design, ("x", "w")) == (["industry"], ["region"])
    assert absorbed_groups(design, ()) == (["region", "industry"], [])


# --- within -----------------------------------------------------------------------------------


def dense_within(values, codes):
    """Residuals on explicit dummies by dense least squares."""
    dummies = [np.ones((len(values), 1))]
    dummies += [(code[:, None] == np.unique(code)[None, :]).astype(float) for code in codes]
    design = np.hstack(dummies)
    return values - design @ np.linalg.lstsq(design, values, rcond=None)[0]


@pytest.mark.parametrize("factors", [0, 1, 2, 3])
def test_within_is_least_squares_on_dummies(factors):
    rng = np.random.default_rng(factors)
    values = rng.normal(5.0, 1.0, size=(200, 3))
    codes = [rng.integers(0, size, 200) for size in (20, 7, 40)[:factors]]
    codes = [np.unique(code, return_inverse=True)[1] for code in codes]
    before = values.copy()
    expected = dense_within(values, codes)
    np.testing.assert_allclose(within(values, codes), expected, atol=PROJECTION)
    np.testing.assert_allclose(within(values[:, 0], codes), expected[:, 0], atol=PROJECTION)
    np.testing.assert_array_equal(values, before)


def test_within_reaches_the_end_of_a_long_chain():
    """Two factors that overlap one row at a time: the slowest case for alternating means."""
    first, second = np.repeat(np.arange(60), 2), np.repeat(np.arange(61), 2)[1:-1]
    values = np.random.default_rng(1).normal(size=(120, 2))
    values = np.vstack([values, np.random.default_rng(2).normal(size=(120, 2))])
    codes = [np.tile(first, 2), np.tile(second, 2)]
    np.testing.assert_allclose(within(values, codes), dense_within(values, codes), atol=PROJECTION)


# --- digests and responses --------------------------------------------------------------------


def digests(table, formula="y ~ x + (1 | region)", **tables):
    design = build_design(spec(formula, **tables), read_panel(table))
    return design.digest, design.rows_digest


def test_digests_change_with_what_they_cover_and_with_nothing_else():
    table = section()
    digest, rows_digest = digests(table)
    assert digests(table.assign(unused=1.0).sample(frac=1.0, random_state=1)) == (
        digest,
        rows_digest,
    )
    one_off = table.copy()
    one_off.loc[5, "y"] += 1e-9
    assert digests(one_off)[0] != digest
    assert digests(one_off)[1] != rows_digest
    one_off = table.copy()
    one_off.loc[5, "x"] += 1e-9
    assert digests(one_off)[0] != digest
    assert digests(one_off)[1] == rows_digest
    for formula in (
        "y ~ x + z + (1 | region)",
        "y ~ z + (1 | region)",
        "y ~ 0 + x + (1 | region)",
        "y ~ x + (1 | industry)",
        "y ~ x + (1 + x | region)",
        "y ~ x",
    ):
        assert digests(table, formula)[0] != digest, formula
        assert digests(table, formula)[1] == rows_digest, formula
    fewer = table.drop(index=4)
    assert digests(fewer)[0] != digest
    assert digests(fewer)[1] != rows_digest
    renamed = table.assign(region=table["region"].replace("r3", "r3b"))
    assert digests(renamed)[0] != digest
    assert digests(renamed)[1] != rows_digest


def test_the_size_of_cells_is_in_the_digest():
    """Ten times the employment everywhere: same growth, another noise."""
    table = section()
    table["employment_start"] = np.exp(table["z"])
    table["employment_end"] = np.exp(table["y"])
    larger = table.assign(
        employment_start=table["employment_start"] * 2.0,
        employment_end=table["employment_end"] * 2.0,
    )
    given = {"formula": "growth ~ x", "growth": "employment", "likelihood": {"scale": "size"}}
    first, second = digests(table, **given), digests(larger, **given)
    assert first[0] != second[0]
    np.testing.assert_allclose(
        build_design(spec("growth ~ x", growth="employment"), read_panel(table)).y,
        build_design(spec("growth ~ x", growth="employment"), read_panel(larger)).y,
        rtol=RELATIVE,
        atol=RELATIVE,
    )


def test_huge_labels_are_not_copied_for_every_row():
    table = section(20, 20, share=1.0)
    table["region"] = table["region"].replace("r0", "x" * 10**6)  # 1.6 GB as padded text
    design = build_design(spec("y ~ x + (1 | region)"), read_panel(table))
    digest, rows_digest = design.digest, design.rows_digest
    table["region"] = table["region"].replace("x" * 10**6, "x" * (10**6 - 1) + "y")
    other = build_design(spec("y ~ x + (1 | region)"), read_panel(table))
    assert (other.digest == digest, other.rows_digest == rows_digest) == (False, False)


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "model", "parts"),
    [
        (
            section().drop_duplicates("region").drop(columns=["industry", "cluster"]),
            spec("y ~ x + (1 | region)"),
            ["(1 | region)", "one row in each of its 8 levels", "Remove the group"],
        ),
        (
            by_cluster(),
            spec("y ~ x + (1 | region:cluster)"),
            ["(1 | region:cluster)", "one row in each"],
        ),
        (
            section().assign(cluster="c"),
            spec("y ~ x + (1 | cluster)"),
            ["(1 | cluster)", "a single level"],
        ),
        (section().assign(w=3.0), spec("y ~ x + w"), ["do not vary", "'w'"]),
        (
            section().assign(w=lambda t: 2.0 * t["x"] - t["z"] + 1.0),
            spec("y ~ x + z + w"),
            ["collinear", "'x', 'z', 'w'"],
        ),
        (
            section().assign(w=lambda t: t.groupby("region")["x"].transform("first")),
            spec("y ~ x + w + (1 | region)", groups={"region": "fixed"}),
            ["'region'", "absorb 'w'"],
        ),
        (
            section().assign(
                w=lambda t: t["x"] + t.groupby("region")["z"].transform("first"),
            ),
            spec("y ~ x + w + (1 | region)", groups={"region": "fixed"}),
            ["collinear", "'x', 'w'"],
        ),
        (
            section(),
            spec(
                "y ~ x + (1 | industry) + (1 | cluster)",
                groups={"industry": "fixed", "cluster": "fixed"},
            ),
            ["'industry'", "'cluster'", "nests", "drop 'cluster'"],
        ),
        (
            section(),
            spec("y ~ x + (1 + z | cluster)"),
            ["(z | cluster)", "not among the fixed terms", "Add + z"],
        ),
        (
            section().rename(columns={"x": "income"}),
            spec("y ~ log(incom)"),
            ["'incom'", "Did you mean 'income'?"],
        ),
        (section(), spec("y ~ cluster_strenght"), ["Did you mean 'cluster_strength'?"]),
        (
            YEARS,
            spec("employment ~ x"),
            ["'2018', '2021'", "[growth]"],
        ),
        (
            section().drop_duplicates("region").drop(columns=["industry", "cluster"]),
            spec("y ~ x + (1 | cluster)"),
            ["(1 | cluster)", "rows without 'cluster'", "'region'"],
        ),
        (section()[:3], spec("y ~ x + z"), ["3 rows for 3 coefficients"]),
        (section(), spec("y ~ log(x)"), ["log(x)", "negative"]),
    ],
)
def test_models_that_are_refused(table, model, parts):
    message = refused(SpecError, model, read_panel(table))
    for part in parts:
        assert part in message, (part, message)


@pytest.mark.parametrize(
    ("table", "model", "parts"),
    [
        (section(), spec("income ~ x"), ["'income'", "--map income="]),
        (section().assign(y=np.nan), spec("y ~ x"), ["no row with a known response", "y unknown"]),
        (section().assign(x=np.nan), spec("y ~ x"), ["no complete row", "to x unknown"]),
        (section(), spec("growth ~ x", growth="y"), ["y_start", "'year'"]),
        (
            YEARS[YEARS["year"] == 2018],
            spec("growth ~ x", growth="employment"),
            ["'2018'", "growth.to, got 2021"],
        ),
    ],
)
def test_panels_that_are_refused(table, model, parts):
    message = refused(PanelError, model, read_panel(table))
    for part in parts:
        assert part in message, (part, message)


def test_nearly_collinear_columns_are_noted_with_their_condition_number():
    table = section()
    table["w"] = table["x"] + 0.001 * table["z"]
    design = build_design(spec("y ~ x + w"), read_panel(table))
    correlation = np.corrcoef(table["x"], table["w"])[0, 1]
    expected = math.sqrt((1 + correlation) / (1 - correlation))  # of two standardized columns
    assert design.record["condition_number"] == pytest.approx(expected, rel=1e-6)  # 1 - r cancels
    assert [note for note in design.record["notes"] if "nearly collinear" in note]
    plain = build_design(spec("y ~ x + z"), read_panel(table))
    assert plain.record["condition_number"] < 2
    assert plain.record["notes"] == []


def test_linkages_may_be_a_table_a_file_or_a_matrix(tmp_path):
    table = section(share=1.0).assign(employment=lambda t: np.exp(t["z"]))
    links = pd.DataFrame(
        {
            "cluster": ["c0", "c1", "c2"],
            "linked_cluster": ["c1", "c2", "c0"],
            "weight": [1.0, 2.0, 3.0],
        }
    )
    links.to_csv(tmp_path / "links.csv", index=False)
    model = spec("y ~ linked_strength", cells=True)
    panel = read_panel(table)
    first = build_design(model, panel, linkages=links)
    second = build_design(model, panel, linkages=tmp_path / "links.csv")
    assert first.digest == second.digest
    assert first.record["linkages"]["links"] == 3
    assert "no linkage table" in refused(SpecError, model, panel)


# --- reference regressions --------------------------------------------------------------------

CHECK = spec(
    "growth ~ log(employment) + log1p(rest_of_cluster) + (1 | region) + (1 | industry)",
    growth="employment",
    cells=True,
    groups={"region": "fixed", "industry": "fixed"},
)


@pytest.mark.parametrize(
    ("file", "n", "expected", "survivors"),
    [
        ("us_ea/industries_2018_2021.parquet", 30_008, (-0.1077, 0.0225), 0.0186),
        ("us_cea/industries_2018_2021.parquet", 47_477, (-0.1097, 0.0214), None),
    ],
)
def test_the_check_regressions_of_the_data(data_folder, file, n, expected, survivors):
    """Two-way fixed effects as the data README prints them; survivors only give another answer."""
    table = pd.read_parquet(data_folder / file)
    alive = (table["employment_start"] > 0) & (table["employment_end"] > 0)

    def coefficients(cells):
        design = build_design(CHECK, read_panel(cells))
        assert design.n_rows == n == alive.sum()
        codes = [group.codes for group in design.groups]
        X, y = within(design.X, codes), within(design.y, codes)
        return np.linalg.lstsq(X, y, rcond=None)[0]

    np.testing.assert_allclose(coefficients(table), expected, atol=ROUNDED)
    if survivors is not None:
        np.testing.assert_allclose(coefficients(table[alive])[1], survivors, atol=ROUNDED)

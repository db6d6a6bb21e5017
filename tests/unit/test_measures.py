"""Measures against the definitions in plain Python: loops, dicts and fsum, no array in sight."""

import functools
import itertools
import math
import random
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from spatialclusters.cells import CellRule, base_cells
from spatialclusters.errors import PanelError, SpecError, WeightsError
from spatialclusters.linkages import read_linkages
from spatialclusters.measures import (
    MEASURES,
    cluster_strength,
    compute_measures,
    growth,
    linked_strength,
    location_quotient,
    log_with_zeros,
    neighbor_strength,
    rest_of_cluster,
)
from spatialclusters.panel import read_panel
from spatialclusters.weights import align, read_weights

RELATIVE = 1e-12  # a few divisions, and sums of whole or half numbers (exact) or of some 20 LQs
SEEDS = range(5)
CELLS = 150  # of the real panel, for every rule

INDUSTRY_MEASURES = (
    "industry_strength",
    "location_quotient",
    "cluster_strength",
    "cluster_level",
    "linked_strength",
    "neighbor_strength",
    "rest_of_cluster",
)
CLUSTER_MEASURES = ("location_quotient", "cluster_level", "linked_strength", "neighbor_strength")
RULES = [
    CellRule(absent, withheld, "midpoint" if withheld == "filled" else None)
    for absent in ("zero", "withheld")
    for withheld in ("zero", "lower", "filled", "missing")
]
NAMES = [f"{rule.absent}-{rule.withheld}" for rule in RULES]


# --- the definitions, word for word -----------------------------------------------------------


def total(parts):
    """A sum; unknown (None) as soon as a part is."""
    parts = list(parts)
    return None if None in parts else math.fsum(parts)


def ratio(above, below):
    return None if above is None or not below else above / below


class Economy:
    """Cells by (region, unit): a number, None (withheld), or not there (absent)."""

    def __init__(self, cells, cluster, rule, *, bounds=None, traded=None, weights=None, links=None):
        self.regions = sorted({region for region, _ in cells})
        self.units = sorted({unit for _, unit in cells})
        self.cluster, self.rule, self.bounds = cluster, rule, bounds or {}
        self.cells, self.weights, self.links = cells, weights or {}, links or {}
        self.scope = [u for u in self.units if traded is None or traded[u]]

    @functools.cache  # noqa: B019
    def count(self, region, unit):
        """What a cell counts as."""
        value = self.cells.get((region, unit))
        if value is not None:
            return value
        if (region, unit) not in self.cells and self.rule.absent == "zero":
            return 0.0
        low, high = self.bounds.get((region, unit), (0.0, None))
        if self.rule.withheld == "zero":
            return 0.0
        if self.rule.withheld == "lower":
            return low
        return None if self.rule.withheld == "missing" else (low + high) / 2

    @functools.cache  # noqa: B019
    def region_total(self, region):
        return total(self.count(region, unit) for unit in self.scope)

    @functools.cache  # noqa: B019
    def unit_total(self, unit):
        return total(self.count(region, unit) for region in self.regions)

    @functools.cache  # noqa: B019
    def everything(self):
        return total(self.count(r, i) for r in self.regions for i in self.scope)

    @functools.cache  # noqa: B019
    def members(self, cluster):
        return [unit for unit in self.units if self.cluster[unit] == cluster]

    def industry_strength(self, region, unit):
        return ratio(
            ratio(self.count(region, unit), self.region_total(region)),
            ratio(self.unit_total(unit), self.everything()),
        )

    location_quotient = industry_strength

    def others(self, unit):
        return [other for other in self.members(self.cluster[unit]) if other != unit]

    def rest_of_cluster(self, region, unit):
        if not self.cluster[unit]:
            return None
        return total(self.count(region, other) for other in self.others(unit))

    def cluster_strength(self, region, unit):
        """[(E_cr - E_ir) / E_r] / [(E_c - E_i) / E]"""
        if not self.cluster[unit]:
            return None
        here = total(self.count(region, other) for other in self.others(unit))
        everywhere = total(self.unit_total(other) for other in self.others(unit))
        return ratio(ratio(here, self.region_total(region)), ratio(everywhere, self.everything()))

    @functools.cache  # noqa: B019
    def level(self, region, cluster):
        """[E_cr / E_r] / [E_c / E]"""
        here = total(self.count(region, unit) for unit in self.members(cluster))
        everywhere = total(self.unit_total(unit) for unit in self.members(cluster))
        return ratio(ratio(here, self.region_total(region)), ratio(everywhere, self.everything()))

    def cluster_level(self, region, unit):
        return self.level(region, self.cluster[unit]) if self.cluster[unit] else None

    def linked_strength(self, region, unit):
        """sum_k L_ck LQ_kr / sum_k L_ck over the clusters of the panel, k other than c"""
        c = self.cluster[unit]
        clusters = {self.cluster[u] for u in self.units} - {"", c}
        links = {k: self.links.get((c, k), 0.0) for k in clusters}
        if not c or not any(links.values()):
            return None
        parts = [(w, self.level(region, k)) for k, w in links.items() if w]
        if any(level is None for _, level in parts):
            return None
        return math.fsum(w * level for w, level in parts) / math.fsum(w for w, _ in parts)

    def neighbor_strength(self, region, unit, leave_out=False):
        """sum_s w_rs x_cs"""
        near = self.weights.get(region, {})
        if not near or not self.cluster[unit]:
            return None
        x = self.cluster_strength if leave_out else self.cluster_level
        parts = [(w, x(s, unit)) for s, w in near.items()]
        if any(strength is None for _, strength in parts):
            return None
        return math.fsum(w * strength for w, strength in parts)


def equal(got, expected):
    if expected is None:
        return math.isnan(got)
    return math.isclose(got, expected, rel_tol=RELATIVE, abs_tol=0.0)


def wrong(computed, economy, name, cells, **options):
    """The cells at which a measure differs from its definition."""
    definition = getattr(economy, name)
    place = [{label: k for k, label in enumerate(computed[d].values)} for d in computed.dims]
    values = computed.values.tolist()
    found = {cell: values[place[0][cell[0]]][place[1][cell[1]]] for cell in cells}
    expected = {cell: definition(*cell, **options) for cell in found}
    return [
        (cell, found[cell], expected[cell])
        for cell in found
        if not equal(found[cell], expected[cell])
    ]


# --- random small economies -------------------------------------------------------------------


def draw(seed, rule, *, by_cluster=False):
    """A small economy with a table of it, whatever can be odd in it being so."""
    pick = random.Random(f"{seed} {rule}")
    regions = [f"r{n}" for n in pick.sample(range(20), pick.randint(3, 7))]
    units = [f"u{n}" for n in pick.sample(range(20), pick.randint(3, 10))]
    cluster = {u: pick.choice(["", "one", "two", "two", "three"]) for u in units}
    cluster = {u: u for u in units} if by_cluster else cluster
    gaps = 0.0 if (rule.absent, rule.withheld) == ("withheld", "filled") else 0.15
    seldom = pick.choice([0.0, 0.02, 0.2])  # with `missing` one gap can make everything unknown
    cells, bounds = {}, {}
    for cell in itertools.product(regions, units):
        if pick.random() < gaps and pick.random() < 5 * seldom:
            continue
        low = float(pick.randint(0, 9))
        bounds[cell] = (low, low + pick.randint(0, 9))
        kind = pick.random()
        cells[cell] = None if kind < seldom else 0.0 if kind < 0.35 else float(pick.randint(1, 99))
    for unit in units:  # every label has a row
        cells.setdefault((regions[0], unit), 1.0)
    for region in regions:
        cells.setdefault((region, units[0]), 1.0)
    if pick.random() < 0.5:  # a region with a total of zero
        cells |= {cell: 0.0 for cell in cells if cell[0] == regions[-1]}
    bounds |= {cell: (0.0, 8.0) for cell in cells if cell not in bounds}
    weights = {
        r: {s: pick.choice([0.5, 1.0, 2.0]) for s in regions if s != r and pick.random() < 0.5}
        for r in regions
    }
    labels = sorted(set(cluster.values()) - {""})
    links = {
        (c, k): float(pick.randint(1, 3))
        for c, k in itertools.permutations(labels, 2)
        if pick.random() < 0.7
    }
    traded = {u: pick.random() < 0.7 for u in units}
    return cells, cluster, bounds, weights, links, traded


def tabulated(cells, cluster, bounds, traded, *, by_cluster=False):
    nan = math.nan
    unit = "cluster" if by_cluster else "industry"
    rows = [
        {
            "region": r,
            unit: u,
            "employment_start": nan if value is None else value,
            "employment_end": 3.0,
            "employment_lower_start": bounds[r, u][0],
            "employment_lower_end": 77.0,
            "employment_upper_start": bounds[r, u][1],
            "employment_upper_end": 99.0,
            "traded": float(traded[u]),
            **({} if by_cluster else {"cluster": cluster[u]}),
        }
        for (r, u), value in cells.items()
    ]
    return pd.DataFrame(rows)


def weighted(weights, regions, *, standardize=False):
    """Weights from nested dicts, isolates declared."""
    rows = [(r, s, w) for r, near in weights.items() for s, w in near.items()]
    rows += [(r, r, 0.0) for r in regions]
    table = pd.DataFrame(rows, columns=["region_i", "region_j", "weight"])
    return align(read_weights(table, row_standardize=standardize), regions)


def linked(links, cluster):
    rows = [(c, k, w) for (c, k), w in links.items()]
    table = pd.DataFrame(rows, columns=["cluster", "linked_cluster", "weight"])
    table = table.astype({"cluster": object, "linked_cluster": object, "weight": float})
    return read_linkages(table, sorted(set(cluster.values()) - {""}))


@pytest.mark.parametrize("totals", ["all", "traded"])
@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_measures_are_their_definitions(rule, totals):
    compared = dict.fromkeys((*INDUSTRY_MEASURES, "left out"), 0)
    for seed in SEEDS:
        cells, cluster, bounds, weights, links, traded = draw(seed, rule)
        panel = read_panel(tabulated(cells, cluster, bounds, traded))
        economy = Economy(
            cells,
            cluster,
            rule,
            bounds=bounds,
            traded=traded if totals == "traded" else None,
            weights=weights,
            links=links,
        )
        given = {
            "rule": rule,
            "totals": totals,
            "weights": weighted(weights, panel.regions),
            "linkages": linked(links, cluster),
        }
        computed = compute_measures(panel, INDUSTRY_MEASURES, "employment", "start", **given)
        everywhere = list(itertools.product(economy.regions, economy.units))
        for name in INDUSTRY_MEASURES:
            assert wrong(computed[name], economy, name, everywhere) == [], (seed, name)
            compared[name] += int(computed[name].notnull().sum())
        out = compute_measures(
            panel, ["neighbor_strength"], "employment", "start", neighbor_leave_out=True, **given
        )["neighbor_strength"]
        assert wrong(out, economy, "neighbor_strength", everywhere, leave_out=True) == [], seed
        compared["left out"] += int(out.notnull().sum())
    few = 10 if "missing" not in (rule.withheld, rule.absent) else 1
    assert all(count >= few for count in compared.values()), compared


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_measures_of_clusters_are_their_definitions(rule):
    for seed in SEEDS:
        cells, cluster, bounds, weights, links, traded = draw(seed, rule, by_cluster=True)
        panel = read_panel(tabulated(cells, cluster, bounds, traded, by_cluster=True))
        economy = Economy(cells, cluster, rule, bounds=bounds, weights=weights, links=links)
        computed = compute_measures(
            panel,
            CLUSTER_MEASURES,
            "employment",
            "start",
            rule=rule,
            weights=weighted(weights, panel.regions),
            linkages=linked(links, cluster),
        )
        everywhere = list(itertools.product(economy.regions, economy.units))
        for name in CLUSTER_MEASURES:
            assert wrong(computed[name], economy, name, everywhere) == [], (seed, name)


def test_standardized_weights_give_a_mean():
    cells, cluster, bounds, _, _, traded = draw(3, RULES[0])
    regions = sorted({region for region, _ in cells})
    near = {r: {s: 5.0 for s in regions if s != r} for r in regions}
    mean = {r: {s: 1 / (len(regions) - 1) for s in regions if s != r} for r in regions}
    panel = read_panel(tabulated(cells, cluster, bounds, traded))
    economy = Economy(cells, cluster, RULES[0], weights=mean)
    computed = compute_measures(
        panel,
        ["neighbor_strength"],
        "employment",
        "start",
        rule=RULES[0],
        weights=weighted(near, panel.regions, standardize=True),
    )["neighbor_strength"]
    assert computed.notnull().any()
    everywhere = itertools.product(economy.regions, economy.units)
    assert wrong(computed, economy, "neighbor_strength", everywhere) == []


# --- the same on the real panel ---------------------------------------------------------------


@functools.cache
def real(folder):
    """The table of the Economic Areas with bounds made up for what is withheld."""
    table = pd.read_parquet(folder / "us_ea" / "industries_2018_2021.parquet")
    pick = random.Random(20)
    withheld = table["employment_start"].isna()
    low = [float(pick.randint(0, 50)) if gap else math.nan for gap in withheld]
    table["employment_lower_start"] = low
    table["employment_upper_start"] = [value + pick.randint(0, 50) for value in low]
    table["employment_lower_end"] = table["employment_upper_end"] = math.nan
    keys = list(zip(table["region"], table["industry"], strict=True))
    start = table["employment_start"].tolist()
    cells = {key: None if math.isnan(v) else v for key, v in zip(keys, start, strict=True)}
    bounds = {
        key: (a, b)
        for key, a, b in zip(keys, low, table["employment_upper_start"], strict=True)
        if not math.isnan(a)
    }
    cluster = dict(zip(table["industry"], table["cluster"], strict=True))
    edges = pd.read_parquet(folder / "us_ea" / "queen.parquet")
    near = {}
    regions = set(table["region"])
    for r, s in zip(edges["region_i"], edges["region_j"], strict=True):
        if r in regions and s in regions:
            near.setdefault(r, []).append(s)
    weights = {r: {s: 1 / len(others) for s in others} for r, others in near.items()}
    linkages = folder / "concordance" / "linked_clusters.csv"
    text = pd.read_csv(linkages)
    links = {
        (c, k): float(w)
        for c, k, w in zip(text["cluster"], text["linked_cluster"], text["weight"], strict=True)
    }
    panel = read_panel(table)
    aligned = align(read_weights(folder / "us_ea" / "queen.parquet"), panel.regions)
    matrix = read_linkages(linkages, sorted(set(cluster.values())))
    return panel, cells, cluster, bounds, weights, links, aligned, matrix


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_measures_of_the_real_panel(data_folder, rule):
    panel, cells, cluster, bounds, weights, links, aligned, matrix = real(data_folder)
    given = {"rule": rule, "weights": aligned, "linkages": matrix}
    if (rule.absent, rule.withheld) == ("withheld", "filled"):
        with pytest.raises(PanelError, match="77192 withheld cells"):
            compute_measures(panel, ["location_quotient"], "employment", "start", **given)
        return
    economy = Economy(cells, cluster, rule, bounds=bounds, weights=weights, links=links)
    pick = random.Random(7)
    sample = pick.sample(sorted(cells), CELLS)
    sample += [(pick.choice(economy.regions), pick.choice(economy.units)) for _ in range(CELLS)]
    computed = compute_measures(panel, INDUSTRY_MEASURES, "employment", "start", **given)
    for name in INDUSTRY_MEASURES:
        assert wrong(computed[name], economy, name, sample) == [], name
    out = compute_measures(
        panel, ["neighbor_strength"], "employment", "start", neighbor_leave_out=True, **given
    )["neighbor_strength"]
    assert wrong(out, economy, "neighbor_strength", sample, leave_out=True) == []
    if rule.withheld != "missing":
        known = [computed[name].notnull().mean().item() for name in INDUSTRY_MEASURES]
        assert min(known) > 0.85, dict(zip(INDUSTRY_MEASURES, known, strict=True))


def test_real_totals_with_local_industries(data_folder):
    """Local industries count in all totals and in no cluster; `traded` leaves them out."""
    table = pd.read_parquet(data_folder / "us_ea" / "industry_years_2017_2021.parquet")
    table = table[table["year"] == 2018]
    traded = dict(zip(table["industry"], table["traded"] == "Traded", strict=True))
    table = table.assign(
        cluster=table["cluster"].where(table["traded"] == "Traded"),
        traded=(table["traded"] == "Traded").astype(float),
    )
    assert 0.3 < sum(traded.values()) / len(traded) < 0.9
    keys = zip(table["region"], table["industry"], strict=True)
    cells = dict(zip(keys, table["employment"].tolist(), strict=True))
    labels = table["cluster"].fillna("")
    cluster = dict(zip(table["industry"], labels, strict=True))
    panel = read_panel(table)
    names = ["location_quotient", "cluster_strength", "cluster_level", "rest_of_cluster"]
    sample = random.Random(5).sample(sorted(cells), CELLS)
    assert any(not cluster[unit] for _, unit in sample)
    for totals in ("all", "traded"):
        computed = compute_measures(
            panel, names, "employment", "2018", rule=RULES[0], totals=totals
        )
        economy = Economy(cells, cluster, RULES[0], traded=traded if totals == "traded" else None)
        for name in names:
            assert wrong(computed[name], economy, name, sample) == [], (totals, name)


def test_measures_over_surviving_cells_only_are_another_thing(data_folder):
    """The trap: what is dropped later still counts in the base year."""
    table = pd.read_parquet(data_folder / "us_ea" / "industries_2018_2021.parquet")
    survives = (table["employment_start"] > 0) & (table["employment_end"] > 0)
    whole, survivors = read_panel(table), read_panel(table[survives])
    after = compute_measures(survivors, ["rest_of_cluster"], "employment", "start", rule=RULES[0])[
        "rest_of_cluster"
    ]
    before = compute_measures(whole, ["rest_of_cluster"], "employment", "start", rule=RULES[0])[
        "rest_of_cluster"
    ].sel(region=after["region"], industry=after["industry"])
    assert bool((before >= after).all())
    differs = (before > after).values[survivors.data["present"].values]
    assert 0.05 < differs.mean() < 0.95


# --- by hand ----------------------------------------------------------------------------------


def small(**columns):
    rows = [
        ("a", "i", "c", 10.0),
        ("a", "j", "c", 30.0),
        ("b", "i", "c", 10.0),
        ("b", "j", "c", 10.0),
    ]
    table = pd.DataFrame(rows, columns=["region", "industry", "cluster", "employment"])
    return table.assign(**columns)


def measured(table, name, rule=RULES[0], **given):
    panel = read_panel(table)
    return compute_measures(panel, [name], "employment", None, rule=rule, **given)[name]


def test_an_industry_alone_in_its_cluster_is_unknown_and_has_no_rest():
    table = small(cluster=["c", "alone", "c", "alone"])
    assert measured(table, "cluster_strength").isnull().all()
    np.testing.assert_array_equal(measured(table, "rest_of_cluster"), np.zeros((2, 2)))
    # 10/40 over 20/60, 30/40 over 40/60; 10/20 over 20/60, 10/20 over 40/60
    np.testing.assert_allclose(
        measured(table, "cluster_level"), [[0.75, 1.125], [1.5, 0.75]], rtol=RELATIVE
    )


def test_own_industry_is_left_out_above_and_below():
    # region a: (40 - 10)/40 over (60 - 20)/60; (40 - 30)/40 over (60 - 40)/60; b the same way
    np.testing.assert_allclose(
        measured(small(), "cluster_strength"), [[1.125, 0.75], [0.75, 1.5]], rtol=RELATIVE
    )


def test_an_industry_without_cluster_counts_in_totals_and_in_no_cluster():
    local = [("a", "local", None, 60.0), ("b", "local", None, 20.0)]
    table = pd.concat(
        [small(), pd.DataFrame(local, columns=["region", "industry", "cluster", "employment"])]
    )
    level = measured(table, "cluster_level")
    # 40/100 over 60/140; 20/40 over 60/140
    expected = [40 / 100 / (60 / 140), 20 / 40 / (60 / 140)]
    for unit in ("i", "j"):
        np.testing.assert_allclose(level.sel(industry=unit), expected, rtol=RELATIVE)
    for name in ("cluster_strength", "cluster_level", "rest_of_cluster"):
        assert measured(table, name).sel(industry="local").isnull().all()
    quotient = measured(table, "location_quotient").sel(industry="local")
    np.testing.assert_allclose(quotient, [0.6 / (80 / 140), 0.5 / (80 / 140)], rtol=RELATIVE)


def test_totals_of_traded_industries():
    table = small(traded=[1, 0, 1, 0])
    quotient = measured(table, "location_quotient", totals="traded")
    # totals: a 10, b 10, all 20; i: 1/1, 1/1; j: 30/10 over 40/20, 10/10 over 40/20
    np.testing.assert_allclose(quotient, [[1.0, 1.5], [1.0, 0.5]], rtol=RELATIVE)
    with pytest.raises(SpecError, match="'traded'"):
        measured(small(), "location_quotient", totals="traded")


def test_a_region_with_a_total_of_zero_is_unknown():
    table = small(employment=[0.0, 0.0, 10.0, 10.0])
    for name in ("location_quotient", "cluster_strength", "cluster_level"):
        computed = measured(table, name)
        assert computed.sel(region="a").isnull().all(), name
        np.testing.assert_allclose(computed.sel(region="b"), 1.0, rtol=RELATIVE)
    assert measured(table, "rest_of_cluster").sel(region="a").values.tolist() == [0.0, 0.0]


def test_no_employment_anywhere_is_unknown_not_an_error():
    for name in ("location_quotient", "cluster_strength", "cluster_level"):
        assert measured(small(employment=0.0), name).isnull().all()


def test_a_region_without_neighbors_is_unknown():
    table = pd.concat([small(), small(region="island")[1:3]])
    weights = weighted({"a": {"b": 1.0}, "b": {"a": 1.0}}, ("a", "b", "island"))
    assert weights.isolates == ("island",)
    for leave_out in (False, True):
        computed = measured(
            table, "neighbor_strength", weights=weights, neighbor_leave_out=leave_out
        )
        assert computed.sel(region="island").isnull().all()
        assert computed.sel(region=["a", "b"]).notnull().all()


def test_a_link_of_one_direction_is_followed_in_that_direction():
    strength = xr.DataArray(
        [[2.0], [3.0], [5.0]], dims=("region", "cluster"), coords={"region": ["a", "b", "c"]}
    )
    weights = weighted(
        {"a": {"b": 1.0, "c": 0.5}, "b": {"c": 2.0}, "c": {"b": 1.0}}, ("a", "b", "c")
    )
    np.testing.assert_array_equal(neighbor_strength(strength, weights), [[5.5], [10.0], [3.0]])


def test_neighbor_strength_asks_for_one_order_of_regions():
    strength = xr.DataArray([[1.0], [2.0]], dims=("region", "c"), coords={"region": ["a", "b"]})
    weights = weighted({"a": {"b": 1.0}, "b": {"a": 1.0}}, ("b", "a"))
    with pytest.raises(ValueError, match="order"):
        neighbor_strength(strength, weights)


def test_linked_strength_by_hand():
    level = xr.DataArray(
        [[1.0, 2.0, 4.0], [np.nan, 1.0, 3.0]],
        dims=("region", "cluster"),
        coords={"region": ["a", "b"], "cluster": ["k", "m", "n"]},
    )
    links = {("k", "m"): 1.0, ("k", "n"): 3.0, ("m", "k"): 2.0}
    matrix = linked(links, {1: "k", 2: "m", 3: "n"})
    expected = [[(2 + 12) / 4, 1.0, np.nan], [(1 + 9) / 4, np.nan, np.nan]]
    np.testing.assert_allclose(linked_strength(level, matrix), expected, rtol=RELATIVE)
    reverse = linked_strength(level.transpose("cluster", "region"), matrix)
    np.testing.assert_allclose(reverse.transpose("region", "cluster"), expected, rtol=RELATIVE)


# --- cells without a number -------------------------------------------------------------------

BOUNDED = pd.DataFrame(
    {
        "region": ["a", "a", "b"],
        "industry": ["i", "j", "i"],
        "cluster": ["c", "c", "c"],
        "employment": [10.0, np.nan, 30.0],
        "employment_lower": [np.nan, 4.0, np.nan],
        "employment_upper": [np.nan, 9.0, np.nan],
    }
)


@pytest.mark.parametrize(
    ("rule", "withheld", "absent"),
    [
        (CellRule("zero", "zero"), 0.0, 0.0),
        (CellRule("zero", "lower"), 4.0, 0.0),
        (CellRule("zero", "filled", "midpoint"), 6.5, 0.0),
        (CellRule("zero", "missing"), np.nan, 0.0),
        (CellRule("withheld", "zero"), 0.0, 0.0),
        (CellRule("withheld", "lower"), 4.0, 0.0),
        (CellRule("withheld", "missing"), np.nan, np.nan),
    ],
)
def test_what_a_cell_counts_as(rule, withheld, absent):
    cells = base_cells(read_panel(BOUNDED), "employment", None, rule)
    np.testing.assert_array_equal(cells["value"], [[10.0, withheld], [30.0, absent]])
    np.testing.assert_array_equal(cells["published"], [[True, False], [True, False]])
    open_end = np.inf if rule.absent == "withheld" else 0.0
    np.testing.assert_array_equal(cells["lower"], [[10.0, 4.0], [30.0, 0.0]])
    np.testing.assert_array_equal(cells["upper"], [[10.0, 9.0], [30.0, open_end]])


def test_bounds_without_columns_are_open():
    table = BOUNDED.drop(columns=["employment_lower", "employment_upper"])
    cells = base_cells(read_panel(table), "employment", None, CellRule("zero", "lower"))
    assert (cells["lower"].values[0, 1], cells["upper"].values[0, 1]) == (0.0, np.inf)
    assert cells["value"].values[0, 1] == 0.0


def test_filling_needs_an_upper_bound():
    rule = CellRule("zero", "filled", "midpoint")
    for table in (
        BOUNDED.drop(columns="employment_upper"),
        BOUNDED.assign(employment_upper=np.nan),
    ):
        with pytest.raises(PanelError, match=r"1 withheld cells.*employment_upper"):
            base_cells(read_panel(table), "employment", None, rule)
    filled = CellRule("withheld", "filled", "midpoint")  # an absent cell has no bound at all
    with pytest.raises(PanelError, match="1 withheld cells"):
        base_cells(read_panel(BOUNDED), "employment", None, filled)


def test_crossed_bounds_are_refused():
    table = BOUNDED.assign(employment_lower=9.5)
    with pytest.raises(PanelError, match="1 cells of 'employment'"):
        base_cells(read_panel(table), "employment", None, CellRule("zero", "lower"))


# --- laws -------------------------------------------------------------------------------------


def employment(seed, regions=5, units=7):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 40, size=(regions, units)).astype(float)
    return xr.DataArray(
        values,
        dims=("region", "industry"),
        coords={
            "region": [f"r{k}" for k in range(regions)],
            "industry": [f"i{k}" for k in range(units)],
            "cluster_of": ("industry", [f"c{k % 3}" for k in range(units)]),
        },
    )


QUOTIENTS = [location_quotient, cluster_strength]


@pytest.mark.parametrize("quotient", QUOTIENTS)
@pytest.mark.parametrize("constant", [1e-9, 3.7, 1e9])
def test_the_unit_of_employment_does_not_matter(quotient, constant):
    e = employment(1)
    np.testing.assert_allclose(quotient(constant * e), quotient(e), rtol=1e-10)  # own is subtracted
    assert quotient(e).notnull().any()


@pytest.mark.parametrize("measure", [*QUOTIENTS, rest_of_cluster])
def test_labels_carry_the_values_in_any_order(measure):
    e = employment(2)
    order = {
        "region": np.random.default_rng(5).permutation(e.sizes["region"]),
        "industry": np.random.default_rng(6).permutation(e.sizes["industry"]),
    }
    moved = measure(e.isel(order)).reindex(region=e["region"], industry=e["industry"])
    np.testing.assert_allclose(moved, measure(e), rtol=RELATIVE)
    turned = measure(e.transpose("industry", "region")).transpose("region", "industry")
    np.testing.assert_array_equal(turned, measure(e))


def test_the_names_of_regions_and_industries_do_not_matter():
    cells, cluster, bounds, weights, links, traded = draw(5, RULES[0])
    table = tabulated(cells, cluster, bounds, traded)
    regions, units = sorted(set(table["region"])), sorted(set(table["industry"]))
    new_region = dict(zip(regions, [f"z{n}" for n in range(len(regions))][::-1], strict=True))
    new_unit = dict(zip(units, [f"z{n}" for n in range(len(units))][::-1], strict=True))

    def run(table, near):
        panel = read_panel(table)
        given = {"weights": weighted(near, panel.regions), "linkages": linked(links, cluster)}
        return compute_measures(
            panel, INDUSTRY_MEASURES, "employment", "start", rule=RULES[0], **given
        )

    first = run(table, weights)
    renamed = table.assign(
        region=table["region"].map(new_region), industry=table["industry"].map(new_unit)
    )
    near = {new_region[r]: {new_region[s]: w for s, w in n.items()} for r, n in weights.items()}
    second = run(renamed.sample(frac=1.0, random_state=1), near)
    for name, region, unit in itertools.product(INDUSTRY_MEASURES, regions, units):
        a = float(first[name].sel(region=region, industry=unit))
        b = float(second[name].sel(region=new_region[region], industry=new_unit[unit]))
        assert a == pytest.approx(b, rel=RELATIVE, nan_ok=True), (name, region, unit)


@pytest.mark.parametrize("seed", range(5))
def test_quotients_average_to_one(seed):
    """Weighted by the regions' shares, the LQs of an industry have mean one."""
    e = employment(seed)
    share = e.sum("industry") / e.sum()
    mean = (location_quotient(e) * share).sum("region")
    np.testing.assert_allclose(mean, 1.0, rtol=RELATIVE)


def test_merging_two_industries_of_a_cluster_changes_nothing_above_them():
    e = employment(4)
    merged = e.isel(industry=slice(0, 6)).copy(deep=True)
    merged[{"industry": 0}] = e.isel(industry=0).values + e.isel(industry=6).values  # both c0
    names = ["cluster_level", "linked_strength", "neighbor_strength"]
    links = linked({("c0", "c1"): 1.0, ("c1", "c2"): 2.0}, {1: "c0", 2: "c1", 3: "c2"})
    near = {"r0": {"r1": 1.0}, "r1": {"r0": 1.0, "r2": 2.0}, "r3": {"r4": 1.0}}

    def run(array):
        frame = array.to_series().rename("employment").reset_index()
        of = dict(zip(array["industry"].values, array["cluster_of"].values, strict=True))
        panel = read_panel(frame.assign(cluster=frame["industry"].map(of)))
        return compute_measures(
            panel,
            names,
            "employment",
            None,
            rule=RULES[0],
            weights=weighted(near, panel.regions),
            linkages=links,
        )

    before, after = run(e), run(merged)
    for name in names:
        kept = before[name].sel(industry=after["industry"])
        np.testing.assert_allclose(after[name], kept, rtol=RELATIVE)
        assert kept.notnull().any()


def test_a_region_without_anyone_changes_no_other():
    e = employment(8)
    empty = xr.concat([e, e.isel(region=[0]).assign_coords(region=["empty"]) * 0.0], "region")
    for quotient in QUOTIENTS:
        found = quotient(empty).sel(region=e["region"])
        np.testing.assert_allclose(found, quotient(e), rtol=RELATIVE)


def test_an_industry_is_in_the_rest_of_the_others_and_not_in_its_own():
    e = employment(9)
    raised = e.copy(deep=True)
    raised.loc[{"region": "r2", "industry": "i3"}] += 8.0  # cluster c0: i0, i3, i6
    change = (rest_of_cluster(raised) - rest_of_cluster(e)).to_series()
    expected = {("r2", "i0"): 8.0, ("r2", "i6"): 8.0}
    assert {cell: value for cell, value in change.items() if value != 0.0} == expected


def test_own_employment_moves_cluster_strength_only_through_the_totals():
    e = employment(10)
    totals = e.sum("industry")
    raised = e.copy(deep=True)
    raised.loc[{"region": "r2", "industry": "i3"}] += 8.0
    before = cluster_strength(e).sel(region="r2", industry="i3")
    after = cluster_strength(raised).sel(region="r2", industry="i3")
    here = float(totals.sel(region="r2"))
    everywhere = float(totals.sum())
    expected = (here / (here + 8.0)) * ((everywhere + 8.0) / everywhere)
    assert float(after / before) == pytest.approx(expected, rel=RELATIVE)


def test_a_region_is_not_its_own_neighbor():
    e = employment(11)
    regions = tuple(e["region"].values.tolist())
    weights = weighted({r: {s: 1.0 for s in regions if s != r} for r in regions}, regions)
    assert (weights.matrix.diagonal() == 0.0).all()
    raised = e.copy(deep=True)
    raised.loc[{"region": "r1"}] += 100.0
    change = (neighbor_strength(raised, weights) != neighbor_strength(e, weights)).any("industry")
    assert change.sel(region="r1").item() is False
    assert change.drop_sel(region="r1").all()
    with pytest.raises(WeightsError, match="own neighbors"):
        weighted({"a": {"a": 1.0}}, ())


def test_inputs_are_not_changed():
    e = employment(12)
    before = e.copy(deep=True)
    for measure in (*QUOTIENTS, rest_of_cluster):
        measure(e)
    xr.testing.assert_identical(e, before)


# --- labels -----------------------------------------------------------------------------------


def test_a_huge_label_is_not_copied_for_every_cell():
    """As NumPy strings, 300 labels padded to the longest would take 120 MB."""
    labels = ["x" * 10**5, "y", "<script>"]
    table = pd.DataFrame({"region": "r", "industry": [f"i{k}" for k in range(300)]})
    table = table.assign(cluster=[labels[k % 3] for k in range(300)], employment=1.0)
    panel = read_panel(table)
    tracemalloc.start()
    names = ["cluster_strength", "cluster_level"]
    computed = compute_measures(panel, names, "employment", None, rule=RULES[0])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6
    np.testing.assert_allclose(computed["cluster_level"], 1.0, rtol=RELATIVE)


# --- refusals ---------------------------------------------------------------------------------


def test_every_measure_of_the_catalogue_is_tested_here():
    assert set(MEASURES) == set(INDUSTRY_MEASURES)


@pytest.mark.parametrize(
    ("table", "name", "given", "part"),
    [
        (small(), "cluster_strengt", {}, "Did you mean 'cluster_strength'?"),
        (small(), "neighbor_strength", {}, "no weights"),
        (small(), "linked_strength", {}, "no linkage table"),
        (small().drop(columns="cluster"), "cluster_strength", {}, "'cluster'"),
        (small().drop(columns="cluster"), "neighbor_strength", {}, "'cluster'"),
        (small()[:1].drop(columns=["cluster", "industry"]), "cluster_level", {}, "industry or cl"),
        (small()[:1].drop(columns="industry"), "cluster_strength", {}, "'industry'"),
        (small()[:1].drop(columns="industry"), "industry_strength", {}, "'industry'"),
        (small()[:1].drop(columns="industry"), "rest_of_cluster", {}, "'industry'"),
    ],
)
def test_measures_that_cannot_be_computed(table, name, given, part):
    with pytest.raises(SpecError) as caught:
        measured(table, name, **given)
    assert part in str(caught.value)


def test_a_quotient_needs_no_cluster():
    computed = measured(small().drop(columns="cluster"), "industry_strength")
    np.testing.assert_allclose(computed, [[0.75, 1.125], [1.5, 0.75]], rtol=RELATIVE)


# --- growth and logs --------------------------------------------------------------------------


def test_growth():
    start = xr.DataArray([100.0, 100.0, 0.0, 5.0, np.nan, 0.0], dims="cell")
    end = xr.DataArray([110.0, 50.0, 5.0, 0.0, 5.0, 0.0], dims="cell")
    expected = [math.log(1.1), math.log(0.5), *[np.nan] * 4]
    whole = growth(start, end, 3, annualized=False)
    np.testing.assert_allclose(whole, expected, rtol=RELATIVE)
    assert (whole.attrs["unit"], whole.attrs["years"]) == ("log change over 3 years", 3)
    yearly = growth(start, end, 3, annualized=True)
    np.testing.assert_allclose(yearly, np.array(expected) / 3, rtol=RELATIVE)
    assert (yearly.attrs["unit"], yearly.attrs["years"]) == ("log change per year", 3)


def test_logs_with_zeros():
    values = np.array([0.0, 0.5, 4.0])
    for rule, expected in {
        "drop": [np.nan, math.log(0.5), math.log(4.0)],
        "minimum-and-dummy": [math.log(0.5), math.log(0.5), math.log(4.0)],
        "asinh": [0.0, math.log(0.5 + math.sqrt(1.25)), math.log(4.0 + math.sqrt(17.0))],
        "log1p": [0.0, math.log(1.5), math.log(5.0)],
    }.items():
        logs, dummy = log_with_zeros(values, rule)
        np.testing.assert_allclose(logs, expected, rtol=RELATIVE)
        assert (dummy is not None) == (rule == "minimum-and-dummy")
        if dummy is not None:
            assert dummy.tolist() == [1.0, 0.0, 0.0]
    assert values.tolist() == [0.0, 0.5, 4.0]

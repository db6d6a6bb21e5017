"""Completed panels: columns equal the design's, cells equal quadrature, bounds and totals hold."""

import dataclasses
import functools
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest

import spatialclusters as sc
from spatialclusters.collapsed.mode import stretch
from spatialclusters.completion.augmentation import Augmentation, Side, completed_panel
from spatialclusters.completion.columns import make_columns
from spatialclusters.completion.equations import Equation, log_scale_density
from spatialclusters.completion.panels import _fewest_effective, prepare
from spatialclusters.completion.pooling import between_shares, shared_out
from spatialclusters.completion.totals import read_totals
from spatialclusters.completion.unknowns import withheld_cells
from spatialclusters.criticism import criticize, residual_spread
from spatialclusters.errors import FitError, PanelError, SamplingError, SpecError
from spatialclusters.exported import chain_key
from spatialclusters.fit_structure import _check_design
from spatialclusters.loo import marginal_loo
from spatialclusters.parameters import with_size_grid
from spatialclusters.residuals import regional_residuals
from spatialclusters.result import assemble
from spatialclusters.rows import choose_rows
from spatialclusters.sensitivity import power_scaling
from spatialclusters.simulation import noise_scale, thinned
from spatialclusters.spec import override, parse_spec
from spatialclusters.spec.distributions import (
    Exponential,
    Flat,
    HalfNormal,
    HalfStudentT,
    InverseScale,
    Uniform,
)

EXACT = 1e-10  # two implementations of the same sums in float64
QUADRATURE = 4.0  # Monte Carlo errors: a right sampler fails once in 16,000 comparisons
TOTALS_SD = 0.01
MCSE_OF_FEW = 0.3  # spectral estimates from few blocks are biased: chains that share panels miss by
ESS_OF_FEW = 0.5  # a factor of 2 (two chains) and 4 (four) in the second

HEAD = """
[growth]
variable = "employment"
from = 2018
to = 2021
[cells]
absent = "zero"
withheld = "zero"
"""
BY_SIZE = '[likelihood]\nscale = "size"\n'
PLAIN = "growth ~ log(employment) + log1p(rest_of_cluster) + (1 | region) + (1 | industry)"
RICH = """growth ~ log(industry_strength) + asinh(cluster_strength) + log(linked_strength)
    + log(neighbor_strength) + log(rest_of_cluster) + center(cluster_level) + lag(log(employment))
    + log(employment):age + (1 | industry) + (1 | region) + (1 + log(industry_strength) | cluster)"""


def economy(seed: int = 1, *, regions: int = 12, withheld: float = 0.4) -> pd.DataFrame:
    """Make cells with brackets; ``true_*`` are what is withheld."""
    rng = np.random.default_rng(seed)
    region, industry = (x.ravel() for x in np.mgrid[:regions, :9])
    table = pd.DataFrame(
        {
            "region": [f"r{k:02d}" for k in region],
            "industry": [f"i{k}" for k in industry],
            "cluster": [f"c{k // 3}" for k in industry],
        }
    )
    level = np.exp(rng.normal(4.0, 1.2, len(table)))
    table["age"] = np.repeat(rng.normal(size=regions), 9)
    table["traded"] = (industry < 6).astype(float)
    for name, factor in (("start", 1.0), ("end", 1.2)):
        value = np.maximum(np.round(level * factor * np.exp(rng.normal(0, 0.2, len(table)))), 1.0)
        hidden = rng.uniform(size=len(table)) < withheld
        edges = np.array([0.0, 20.0, 100.0, 500.0, 2500.0, 1e5])
        bracket = np.searchsorted(edges, value, side="right") - 1
        table[f"true_{name}"] = value
        table[f"employment_{name}"] = np.where(hidden, np.nan, value)
        table[f"employment_lower_{name}"] = np.where(hidden, edges[bracket], value)
        table[f"employment_upper_{name}"] = np.where(hidden, edges[bracket + 1], value)
    kept = rng.uniform(size=len(table)) > 0.15
    # the only industry of its cluster there
    kept &= (table["region"] != "r05") | (table["cluster"] != "c1") | (table["industry"] == "i3")
    kept |= (table["region"] == "r05") & (table["industry"] == "i3")
    return table[kept].reset_index(drop=True)


def published(table: pd.DataFrame) -> sc.Panel:
    return sc.read_panel(table.drop(columns=["true_start", "true_end"]))


def ring(regions: int = 12) -> sc.Weights:
    names = [f"r{k:02d}" for k in range(regions)]
    pairs = [(names[k], names[(k + step) % regions]) for k in range(regions) for step in (1, -1)]
    return sc.read_weights(pd.DataFrame(pairs, columns=["region_i", "region_j"]))


LINKS = pd.DataFrame(
    {"cluster": ["c0", "c0", "c1"], "linked_cluster": ["c1", "c2", "c0"], "weight": [1.0, 2.0, 3.0]}
)


def spec_of(formula: str, more: str = "") -> sc.ModelSpec:
    text = " ".join(formula.split())
    return parse_spec(f'name = "cells"\nformula = "{text}"\n{HEAD}{more}')


@pytest.mark.parametrize(
    "more",
    [
        "",
        '[measures]\ntotals = "traded"\nneighbor_leave_out = true',
        '[groups.region]\neffect = "correlated"\n[groups.industry]\neffect = "correlated"',
    ],
)
def test_columns_are_those_of_a_design(more: str) -> None:
    zeros = '[zeros]\nrest_of_cluster = "minimum-and-dummy"\nlinked_strength = "log1p"\n'
    spec = spec_of(RICH, zeros + more)
    table, weights = economy(withheld=0.0), ring()
    panel = published(table)
    links = sc.read_linkages(LINKS, ["c0", "c1", "c2"])
    rows = choose_rows(spec, panel, weights, links)
    design = sc.build_design(spec, panel, weights, linkages=links)
    columns = make_columns(spec, panel, rows, design, links)
    # another base year in the same cells
    rng = np.random.default_rng(2)
    table["employment_start"] *= np.exp(rng.normal(0, 0.5, len(table)))
    other = published(table)
    expected = sc.build_design(spec, other, weights, linkages=links)
    jax.config.update("jax_enable_x64", True)
    found = columns.evaluate(other.values("employment", "start").fillna(0.0).values)
    assert columns.terms == expected.terms
    assert "zero(rest_of_cluster)" in columns.terms
    np.testing.assert_allclose(found, expected.X, rtol=EXACT, atol=EXACT)
    assert not np.allclose(found, design.X)


def test_columns_of_clusters_are_those_of_a_design() -> None:
    spec = spec_of("growth ~ log(cluster_level) + log(neighbor_strength) + (1 | region)")
    table = economy(withheld=0.0).groupby(["region", "cluster"], as_index=False)
    sums = table[["employment_start", "employment_end"]].sum()
    weights, panel = ring(), sc.read_panel(sums)
    rows = choose_rows(spec, panel, weights, None)
    design = sc.build_design(spec, panel, weights)
    columns = make_columns(spec, panel, rows, design, None)
    sums["employment_start"] **= 1.1
    other = sc.read_panel(sums)
    found = columns.evaluate(other.values("employment", "start").fillna(0.0).values)
    np.testing.assert_allclose(found, sc.build_design(spec, other, weights).X, rtol=EXACT)


@pytest.mark.parametrize(
    "prior",
    [
        HalfNormal(distribution="half_normal", sd=0.7),
        HalfStudentT(distribution="half_student_t", nu=4.0, sd=0.7),
        Exponential(distribution="exponential", rate=2.0),
        Uniform(distribution="uniform", lower=0.1, upper=3.0),
    ],
)
def test_prior_of_a_log_scale_is_pymcs(prior: object) -> None:
    import pymc as pm

    from spatialclusters.parameters import draw_parameter

    with pm.Model() as model:
        variable = draw_parameter("sigma", prior, positive=True)
    x = np.array([-1.0, -0.3, 0.9])
    scale = np.exp(x)
    expected = pm.logp(variable, scale).eval() + x
    found = np.array([float(log_scale_density(prior)(value)) for value in x])
    np.testing.assert_allclose(np.diff(found), np.diff(expected), rtol=EXACT)
    assert model is not None


def test_improper_priors_of_a_log_scale() -> None:
    flat, inverse = Flat(distribution="flat"), InverseScale(distribution="inverse_scale")
    assert float(log_scale_density(flat)(0.7)) == pytest.approx(0.7)
    assert float(log_scale_density(inverse)(0.7)) == pytest.approx(0.0)


def two_unknown(more: str = "") -> tuple[sc.ModelSpec, pd.DataFrame, int]:
    """Return a table in which one cell is withheld in both years."""
    table = economy(3, regions=6, withheld=0.0)
    at = 10
    for name in ("start", "end"):
        table.loc[at, f"employment_{name}"] = np.nan
        table.loc[at, [f"employment_lower_{name}", f"employment_upper_{name}"]] = [20.0, 400.0]
    return spec_of(PLAIN, more), table, at


@functools.cache
def augmented(more: str = "") -> tuple[sc.ModelSpec, pd.DataFrame, int, Augmentation]:
    """Compile the data augmentation of :func:`two_unknown`."""
    spec, table, at = two_unknown(more)
    panel = published(table)
    sides = prepare(spec, panel, None, None, (), 1.0)
    chain = Augmentation.build(
        spec, panel, None, None, sides, totals_sd=TOTALS_SD, predictors=(), tune=300, seed=1
    )
    return spec, table, at, chain


def noise_by_hand(sizes: np.ndarray, growth: dict, ends: tuple[float, float, float]) -> np.ndarray:
    """Return the noise of cells of these sizes in 32 classes between two ends."""
    if "size.share" not in growth:
        return np.full(np.shape(sizes), growth["sigma"])
    edges = np.linspace(*ends[:2], 33)
    k = np.clip(np.digitize(np.log(sizes), edges) - 1, 0, 31)
    relative = np.exp(ends[2] - (edges[k] + edges[k + 1]) / 2.0) ** growth["size.power"]
    share = growth["size.share"]
    return growth["sigma"] * np.sqrt(1.0 - share + share * relative)


def test_size_classes_of_completed_panels_are_stated() -> None:
    table = economy(5, regions=6)
    panel = published(table)
    start, _ = prepare(spec_of(PLAIN), panel, None, None, (), 1.0)
    every = (start.cells.known > 0.0) | np.isnan(panel.values("employment", "start").values)
    every &= panel.data["present"].values
    found = start.cells.size_grid(np.nonzero(every))
    low, high = (table[f"employment_{s}_start"].clip(lower=1.0) for s in ("lower", "upper"))
    expected = [np.log(low.min()), np.log(high.max()), np.median(np.log(low * high) / 2.0)]
    np.testing.assert_allclose(found, expected, rtol=EXACT)


def some_parameters(chain: Augmentation) -> tuple[dict, dict]:
    """Return parameters of the equations of growth and of levels."""
    rng = np.random.default_rng(4)
    growth = {
        "intercept": np.array(0.1),
        "coefficient": np.array([-0.4, 0.1]),
        "sigma": np.array(0.15),
    } | {
        f"effect({g.name})": rng.normal(0, 0.1, (len(g.levels), 1))
        for g in chain.growth.design.groups
    }
    if chain.spec.likelihood.scale == "size":
        growth |= {"size.share": np.array(0.95), "size.power": np.array(2.0)}
    level = {"intercept": np.array(4.0), "sigma": np.array(0.9)} | {
        f"effect({g.name})": rng.normal(0, 0.2, (len(g.levels), 1))
        for g in chain.level.design.groups
    }
    return growth, level


def test_noise_of_growth_follows_the_sizes() -> None:
    spec, _, _, chain = augmented(BY_SIZE)
    growth, _ = some_parameters(chain)
    design = chain.growth.design
    sizes = design.data["size"].values[::-1]
    found = noise_scale(spec, chain.growth.at(design.y, design.X, sizes), growth)
    expected = noise_by_hand(sizes, growth, design.data.attrs["size_grid"])
    np.testing.assert_allclose(found, expected, rtol=EXACT)


def test_stated_classes_are_part_of_a_design_and_checked_on_reading() -> None:
    spec = spec_of("growth ~ log(employment)", BY_SIZE)
    design = sc.build_design(spec, published(economy(withheld=0.0)))
    stated = with_size_grid(design, (0.0, 9.0, 4.0))
    assert stated.digest != design.digest
    _check_design(spec, stated)
    with pytest.raises(ValueError, match="classes of size"):
        _check_design(spec, with_size_grid(design, (9.0, 0.0, 4.0)))


@pytest.mark.parametrize("more", ["", BY_SIZE])
def test_density_of_cells_is_that_of_rows_of_a_design(more: str) -> None:
    spec, table, at, chain = augmented(more)
    growth, level = some_parameters(chain)
    given, found, expected = chain.given(growth, level), [], []
    for z in ([0.0, 0.0], [-1.5, -1.0], [1.0, 1.5], [2.0, 0.7]):
        both = {"start": np.array(z[:1]), "end": np.array(z[1:])}
        energy, _ = chain.cells.gradient(both | {"shift": np.zeros(3), "stretch": 0.0}, given)
        share = 1.0 / (1.0 + np.exp(-np.array(z)))
        x = np.log(20.0) + np.log(20.0) * share
        density = log_density(spec, table, at, growth, level, chain, x[0], x[1:])[0]
        found.append(-float(energy))
        expected.append(density + np.log(share * (1.0 - share)).sum())
    np.testing.assert_allclose(np.diff(found), np.diff(expected), rtol=EXACT)


@pytest.mark.parametrize("more", ["", BY_SIZE])
def test_cells_given_parameters_are_quadrature(more: str) -> None:
    """One cell unknown at both ends, against a grid over rows that build_design makes."""
    spec, table, at, chain = augmented(more)
    sides = chain.sides
    growth, level = some_parameters(chain)
    given = chain.given(growth, level)
    # hold what moves along where it is: the conditional of the cells alone is tested
    frozen = dataclasses.replace(
        chain.cells_target,
        potential=lambda z, data: chain.cells_target.potential(
            z | {"shift": np.zeros(3), "stretch": 0.0}, data
        ),
    )
    from spatialclusters.kernels import make_program

    program = make_program(frozen, {"tune": 300, "target_accept": 0.8, "max_tree_depth": 6}, None)
    z = {"start": jax.numpy.zeros(1), "end": jax.numpy.zeros(1)}
    state = program.init(jax.random.PRNGKey(1), z, *program.gradient(z, given), given)
    draws = []
    for k in range(2300):
        state = program.step(state, given)
        if k >= 300:
            x = [np.asarray(s.cells.logs(state.z[n])[0])[0] for s, n in zip(sides, z, strict=True)]
            draws.append(x)
    mean, sd = _by_quadrature(spec, table, at, growth, level, chain, points=61)
    from arviz_stats.base import array_stats

    for k in range(2):
        values = np.array(draws)[:, k]
        error = array_stats.mcse(values.reshape(2, -1), method="mean")
        assert abs(values.mean() - mean[k]) < QUADRATURE * error
        error = array_stats.mcse(values.reshape(2, -1), method="sd")
        assert abs(values.std() - sd[k]) < QUADRATURE * error


def _by_quadrature(spec, table, at, growth, level, chain, *, points):
    grid = np.linspace(np.log(20.0), np.log(400.0), 2 * points + 1)[1::2]
    density = np.stack([log_density(spec, table, at, growth, level, chain, x, grid) for x in grid])
    weight = np.exp(density - density.max())
    weight /= weight.sum()
    moments = []
    for marginal in (weight.sum(axis=1), weight.sum(axis=0)):
        mean = marginal @ grid
        moments.append((mean, np.sqrt(marginal @ (grid - mean) ** 2)))
    return tuple(zip(*moments, strict=True))


def log_density(spec, table, at, growth, level, chain, x, ends):
    """Return the density of one cell's log start and some log ends, all else known."""
    from scipy import stats

    place = _place(chain.level.design, table, at)
    expected = level["intercept"] + sum(
        level[f"effect({g.name})"][g.codes[place], 0] for g in chain.level.design.groups
    )
    design = sc.build_design(spec, published(_with(table, at, np.exp(x), 90.0)))
    row = _place(design, table, at)
    center = chain.growth.design.data["center"].values
    mean = growth["intercept"] + (design.X - center) @ growth["coefficient"]
    for group in design.groups:
        mean = mean + growth[f"effect({group.name})"][group.codes, 0]
    classes = chain.growth.design.data.attrs["size_grid"]
    noise = noise_by_hand(design.data["size"].values, growth, classes)
    others = stats.norm.logpdf(design.y, mean, noise)
    others[row] = 0.0
    own = stats.norm.logpdf(ends - x, mean[row], noise[row])
    return others.sum() + own + stats.norm.logpdf(x, expected, level["sigma"])


def _place(design: sc.Design, table: pd.DataFrame, at: int) -> int:
    rows = zip(*(design.data[f"row_{d}"].values for d in ("region", "industry")), strict=True)
    return list(rows).index((table.region[at], table.industry[at]))


def _with(table: pd.DataFrame, at: int, start: float, end: float) -> pd.DataFrame:
    table = table.copy()
    table.loc[at, ["employment_start", "employment_end"]] = [start, end]
    return table


@pytest.mark.parametrize("prior", ["default", "uniform"])
def test_noise_moves_with_the_cells(prior: str) -> None:
    """The next step begins at the scale that the cells took, all else as it was."""
    stated = {"uniform": '{ distribution = "uniform", lower = 0.01, upper = 3.0 }'}
    more = f"[priors]\nsigma = {stated[prior]}\n" if prior in stated else ""
    spec, table, _ = two_unknown(more)
    design = sc.build_design(spec, published(_with(table, 10, 90.0, 90.0)))
    equation = Equation.build(spec, design, tune=20, seed=1)
    state, before = equation.step(equation.first, design, chain_key(1, 0))
    moved = equation.with_sigma(state, 1.3 * float(before["sigma"]))
    still = dataclasses.replace(
        equation, program=dataclasses.replace(equation.program, step=lambda state, _: state)
    )
    _, after = still.step(moved, design, chain_key(1, 0))
    assert float(after["sigma"] / before["sigma"]) == pytest.approx(1.3, rel=EXACT)
    for name in ("sd(region)", "sd(industry)"):
        np.testing.assert_allclose(after[name], before[name], rtol=EXACT)


def test_run_passes_the_moved_noise_on() -> None:
    *_, chain = augmented()
    drawn: list[float] = []
    begun: list[float] = []

    class Spy(Equation):
        def step(self, state, design, key):
            at, _ = self._sigma
            begun.append(float(np.exp(stretch(np.asarray(state.z), self.warm)[0][at])))
            state, growth = super().step(state, design, key)
            drawn.append(float(growth["sigma"]))
            return state, growth

    moves: list[float] = []

    def step(state, data):
        state = chain.cells.step(state, data)
        moves.append(float(state.z["stretch"]))
        return state

    spied = dataclasses.replace(
        chain,
        growth=Spy(**{f.name: getattr(chain.growth, f.name) for f in dataclasses.fields(Equation)}),
        cells=dataclasses.replace(chain.cells, step=step),
    )
    list(spied.run(6, 1, progress=False))
    assert np.abs(moves).max() > 1e-3
    expected = np.array(drawn)[:-1] * np.exp(moves[:-1])
    np.testing.assert_allclose(begun[1:], expected, rtol=1e-8)  # through root and softplus and back


QUICK = {"m": 20, "burn": 30, "thin": 1, "progress": False}


def complete(table: pd.DataFrame) -> sc.Completed:
    true = table.groupby(["region", "cluster"])[["true_start", "true_end"]].sum().reset_index()
    parts = [
        true[["region", "cluster"]].assign(year=year, employment=true[name])
        for year, name in ((2018, "true_start"), (2021, "true_end"))
    ]
    totals, panel = [pd.concat(parts)], published(table)
    return sc.complete_panels(
        spec_of(PLAIN), panel, seed=1, totals=totals, totals_sd=TOTALS_SD, **QUICK
    )


@pytest.fixture(scope="module")
def completed() -> tuple[pd.DataFrame, sc.Completed]:
    table = economy()
    return table, complete(table)


def test_completed_panels_keep_what_is_known(completed: tuple) -> None:
    table, made = completed
    given = published(table)
    assert len(made.panels) == 20
    for panel in made.panels:
        for period in ("start", "end"):
            known, values = given.values("employment", period), panel.values("employment", period)
            low, high = (given.values(f"employment_{s}", period) for s in ("lower", "upper"))
            present = given.data["present"]
            assert (values.where(known.notnull(), 0.0) == known.fillna(0.0)).all()
            assert values.notnull().equals(present)
            inside = (np.maximum(low, 1.0) <= values) & (values <= high)
            assert (inside | ~present | known.notnull()).all()
    first, last = (made.panels[k].values("employment", "start").values for k in (0, -1))
    assert (first != last)[given.values("employment", "start").isnull() & present].mean() > 0.9
    assert made.panels[3].provenance["completed"]["panel"] == 4


def test_completed_panels_add_up(completed: tuple) -> None:
    table, made = completed
    for period in ("start", "end"):
        true = table.groupby(["region", "cluster"])[f"true_{period}"].sum()
        for panel in made.panels[10:]:
            values = panel.values("employment", period).to_series().dropna().rename("value")
            frame = values.reset_index().merge(table[["region", "industry", "cluster"]])
            ratio = np.log(frame.groupby(["region", "cluster"])["value"].sum() / true)
            unknown = ratio.abs() > 0
            assert ratio.abs().max() < 6.0 * TOTALS_SD
            assert ratio[unknown].std() < 2.0 * TOTALS_SD


def test_same_seed_gives_the_same_panels(completed: tuple) -> None:
    table, made = completed
    again = complete(table)
    pd.testing.assert_frame_equal(again.trace, made.trace, check_exact=True)
    for a, b in zip(again.panels, made.panels, strict=True):
        assert a.data.identical(b.data)


def test_pooled_fit_counts_the_panels(completed: tuple, tmp_path) -> None:
    _, made = completed
    spec, options = spec_of(PLAIN), {"seed": 1, "tune": 30, "draws": 10, "progress": False}
    with pytest.raises(SamplingError, match="20 panels and 3 chains"):
        sc.fit_completed(spec, made, chains=3, **options)
    folder = tmp_path / "panels"
    fit = sc.fit_completed(spec, made, checkpoint=folder, **options)
    assert fit.draws("coefficient").shape == (2, 200, 2)
    # the panels' priors, stated
    priors = {name: prior.model_dump() for name, prior in fit.spec.priors.items()}
    assert priors == made.record["priors"]
    by_chain = [pd.unique(row).tolist() for row in fit.sample_stats["panel"].values]
    assert by_chain == [list(range(1, 21, 2)), list(range(2, 21, 2))]
    assert (fit.sample_stats["panel"].values[:, :20] == [[1], [2]]).all()
    shares = sc.between_panels(fit).set_index("parameter")["share"]
    assert ((shares >= 0.0) & (shares <= 1.0)).all()
    assert "completed panel" in " ".join(fit.design.record["notes"])
    # a stopped run goes on to the same draws
    (folder / "panel-011.npz").unlink()
    again = sc.fit_completed(spec, made, checkpoint=folder, **options)
    assert (again.draws("coefficient") == fit.draws("coefficient")).all()
    with pytest.raises(SamplingError, match="another run"):
        sc.fit_completed(spec, made, checkpoint=folder, **options | {"seed": 2})
    saved = fit.save(tmp_path / "fit.nc")
    assert sc.load_fit(saved).provenance["completed"]["m"] == 20


def test_share_between_panels_is_rubins() -> None:
    rng = np.random.default_rng(1)
    m, draws = 50, 400
    means = rng.normal(0.0, 2.0, m)
    panels = [{"sigma": mean + rng.normal(0.0, 1.0, (2, draws))} for mean in means]
    share = between_shares(panels)["sigma"]
    between = (1.0 + 1.0 / m) * means.var(ddof=1)
    assert share == pytest.approx(between / (between + 1.0), abs=0.01)
    with pytest.raises(FitError, match="one panel"):
        sc.between_panels(type("Fit", (), {"provenance": {}})())


@pytest.mark.parametrize("chains", [1, 2, 4])
def test_pooled_draws_count_each_panel_once(chains: int) -> None:
    """The Monte Carlo error of a mean is that of the mean of m panels, whatever the chains."""
    from arviz_stats.base import array_stats

    rng, m, draws, within = np.random.default_rng(0), 20, 100, 0.3
    errors, sizes = [], []
    for _ in range(60):
        means = rng.normal(size=m)
        panels = [{"x": mean + within * rng.normal(size=(chains, draws))} for mean in means]
        pooled = shared_out(panels, chains)["x"]
        assert pooled.shape == (chains, m * draws)
        by_hand = np.concatenate([panel["x"].ravel() for panel in panels])
        np.testing.assert_array_equal(np.sort(pooled.ravel()), np.sort(by_hand))
        errors.append(float(array_stats.mcse(pooled, method="mean")))
        sizes.append(float(array_stats.ess(pooled, method="bulk")))
    true = np.sqrt(1.0 / m)
    assert np.median(errors) == pytest.approx(true, rel=MCSE_OF_FEW)
    assert np.median(sizes) == pytest.approx(m * (1.0 + within**2), rel=ESS_OF_FEW)


def test_checks_of_rows_use_the_draws_given_them() -> None:
    """Draws of panel k are k everywhere: rows belong to the first."""
    spec, table = spec_of("growth ~ log(employment) + (1 | region)"), economy(withheld=0.0)
    panel, m, draws = published(table), 20, 20
    design = sc.build_design(spec, panel)
    rng = np.random.default_rng(1)

    def of(number: int) -> dict[str, np.ndarray]:
        shapes = {"coefficient": (1,), "intercept": (), "sigma": (), "sd(region)": (1,)}
        shapes["effect(region)"] = (len(design.groups[0].levels), 1)
        return {n: number + 0.1 * rng.uniform(size=(2, draws, *s)) for n, s in shapes.items()}

    stats = [
        {"panel": np.full((2, draws), k), "marginal_log_likelihood": rng.normal(k, 1, (2, draws))}
        for k in range(1, m + 1)
    ]
    posterior = [of(k) for k in range(1, m + 1)]
    fit = assemble(
        spec, design, shared_out(posterior, 2), shared_out(stats, 2), panel=panel.data,
        geometry=None, provenance={},
    )  # fmt: skip
    own = fit.given_rows
    for name, values in posterior[0].items():
        np.testing.assert_array_equal(own.draws(name), values)
    assert own.given_rows is own
    assert {int(each["sigma"]) for each in thinned(fit, 1000)} == {1}
    assert int(fit.draws("sigma").max()) == m
    # what compares rows with draws is that of a fit of the first panel
    single = assemble(
        spec, design, posterior[0], {"marginal_log_likelihood": stats[0]["marginal_log_likelihood"]},
        panel=panel.data, geometry=None, provenance={},
    )  # fmt: skip
    for check in (residual_spread, regional_residuals, sc.predict, power_scaling):
        pd.testing.assert_frame_equal(check(fit), check(single))
    assert marginal_loo(fit).elpd == marginal_loo(single).elpd
    assert "the first completed panel" in str(criticize(fit))
    assert criticize(single).note == ""


def test_what_cannot_be_completed_is_refused() -> None:
    table, spec = economy(), spec_of(PLAIN)
    with pytest.raises(SpecError, match=r"outcome = 'sar'"):
        sc.complete_panels(
            override(spec, {"spatial.outcome": "sar"}), published(table), ring(), seed=1
        )
    with pytest.raises(SpecError, match="student-t"):
        sc.complete_panels(
            override(spec, {"likelihood.family": "student-t"}), published(table), seed=1
        )
    with pytest.raises(SpecError, match="absent = 'withheld'"):
        sc.complete_panels(override(spec, {"cells.absent": "withheld"}), published(table), seed=1)
    with pytest.raises(SpecError, match="at least 20"):
        sc.complete_panels(spec, published(table), seed=1, m=5)
    with pytest.raises(PanelError, match="no withheld cell"):
        sc.complete_panels(spec, published(economy(withheld=0.0)), seed=1)
    tiny = table.copy()
    hidden = tiny["employment_start"].isna()
    tiny.loc[hidden, ["employment_lower_start", "employment_upper_start"]] = [0.0, 0.5]
    with pytest.raises(PanelError, match="upper bound below 1"):
        sc.complete_panels(spec, published(tiny), seed=1)
    with pytest.raises(PanelError, match="unknown or not positive"):
        sc.complete_panels(spec, published(table), seed=1, predictors=["age"])


def test_totals_are_checked() -> None:
    table, spec = economy(), spec_of(PLAIN)
    panel = published(table)
    good = pd.DataFrame({"region": ["r00"], "year": [2018], "employment": [1.0]})
    for wrong, message in (
        (good, "outside what the bounds"),
        (good.drop(columns="region"), "expected 'year'"),
        (good.assign(employment=0.0), "not a positive number"),
        (good.assign(region="elsewhere"), "without a cell"),
        (pd.concat([good, good]), "a total twice"),
    ):
        with pytest.raises(PanelError, match=message):
            sc.complete_panels(spec, panel, seed=1, totals=[wrong])


def test_unknown_cells_without_an_upper_bound() -> None:
    table = economy().drop(
        columns=[f"employment_{s}_{e}" for s in ("lower", "upper") for e in ("start", "end")]
    )
    panel = published(table)
    everything = np.ones((len(panel.regions), panel.data.sizes["industry"]), dtype=bool)
    cells = withheld_cells(panel, "employment", "start", floor=2.0, wanted=everything)
    x, jacobian = cells.logs(np.zeros(cells.size))
    np.testing.assert_allclose(x, np.log(2.0) + 1.0)
    assert float(jacobian) == 0.0
    assert cells.size == int(panel.cell_counts("employment", "start")["withheld"])
    # numerical Jacobian of both transforms
    bounded = withheld_cells(
        published(economy()), "employment", "start", floor=1.0, wanted=everything
    )
    for some in (cells, bounded):
        z = np.linspace(-2.0, 2.0, some.size)
        step = 1e-6
        slope = (np.asarray(some.logs(z + step)[0]) - np.asarray(some.logs(z - step)[0])) / (
            2 * step
        )
        assert float(some.logs(z)[1]) == pytest.approx(np.log(slope).sum(), abs=1e-6)
    sums = read_totals([], panel, "employment", "start", 2018)
    assert Side("start", cells, sums).totals.log_density(None, 1.0) == 0.0


def test_end_cells_of_no_row_stay_withheld_unless_they_are_in_a_total() -> None:
    """Nothing but its bounds informs such a cell: without an upper one it has no distribution."""
    table = economy(withheld=0.0).query("industry not in ('i6', 'i7') and region != 'r05'").copy()
    # the only industry of its cluster: no strength of the cluster without it, so no row
    table.loc[table["region"] < "r06", "employment_end"] = np.nan
    table = table[[c for c in table if "lower" not in c and "upper" not in c]]
    spec, panel = spec_of("growth ~ log(cluster_strength) + (1 | region)"), published(table)
    alone = (table["industry"] == "i8") & (table["region"] < "r06")
    assert alone.sum() > 2
    start, end = prepare(spec, panel, None, None, (), 1.0)
    assert end.cells.size == (table["employment_end"].isna() & ~alone).sum()
    made = completed_panel(
        spec, panel, (start, end), (start.cells.middle, end.cells.middle), number=1, m=1
    )
    values = made.values("employment", "end").to_series().rename("value").reset_index()
    values = table.merge(values, on=["region", "industry"])["value"].to_numpy()
    np.testing.assert_array_equal(np.isnan(values), alone)
    total = table[alone].groupby("region", as_index=False)["true_end"].sum()
    total = total.assign(industry="i8", year=2021).rename(columns={"true_end": "employment"})
    _, end = prepare(spec, panel, None, None, [total], 1.0)
    assert (panel.data["industry"].values[end.cells.at[1]] == "i8").sum() == alone.sum()


def test_ceiling_bounds_the_cells_that_have_none() -> None:
    table = economy(7)
    some = table["employment_upper_start"].isin([20.0, 100.0])
    table.loc[some, ["employment_lower_start", "employment_upper_start"]] = np.nan
    panel, spec = published(table), spec_of(PLAIN)
    start, end = prepare(spec, panel, None, None, (), 1.0)
    bounded, same = prepare(spec, panel, None, None, (), 1.0, 100.0)
    free = np.isinf(start.cells.width)
    assert 10 < free.sum() < len(free)
    np.testing.assert_allclose(bounded.cells.width[free], np.log(100.0))
    np.testing.assert_array_equal(bounded.cells.width[~free], start.cells.width[~free])
    np.testing.assert_array_equal(same.cells.width, end.cells.width)
    table.loc[some, "employment_lower_start"] = 200.0
    with pytest.raises(PanelError, match="above the ceiling of 100"):
        prepare(spec, published(table), None, None, (), 1.0, 100.0)


def test_open_cells_without_predictors_are_warned_of(caplog, monkeypatch) -> None:
    class ReachedError(Exception):
        pass

    def build(*_: object, **__: object) -> None:
        raise ReachedError

    monkeypatch.setattr(Augmentation, "build", build)
    table, spec = economy(), spec_of(PLAIN)
    free = table[[c for c in table if "lower" not in c and "upper" not in c]]
    free = free.assign(establishments_start=1.0, establishments_end=1.0)
    for given, options, expected in (
        (free, {}, True),
        (free, {"predictors": ["establishments"]}, False),
        (free, {"ceiling": 1e5}, False),
        (table, {}, False),
    ):
        caplog.clear()
        with pytest.raises(ReachedError):
            sc.complete_panels(spec, published(given), seed=1, **options)
        assert ("without an upper bound" in caplog.text) is expected


def test_one_unknown_effective_size_does_not_silence_the_others() -> None:
    rng = np.random.default_rng(1)
    good, stuck = rng.normal(size=200), np.full(200, np.nan)
    for columns in ({"a": stuck, "b": good}, {"a": good, "b": stuck}):
        assert _fewest_effective(pd.DataFrame(columns)) == 0.0
    assert _fewest_effective(pd.DataFrame({"a": good})) > 100.0


def test_command_completes_fits_and_pools(tmp_path, monkeypatch, capsys) -> None:
    from spatialclusters.cli import main

    monkeypatch.chdir(tmp_path)
    table = economy().drop(columns=["true_start", "true_end"])
    table.to_parquet("panel.parquet")
    words = " ".join(PLAIN.split())
    Path("model.toml").write_text(f'formula = "{words}"\n{HEAD}', encoding="utf-8")
    command = ["complete", "model.toml", "--data", "panel.parquet", "-o", "fit.nc", "--quiet"]
    few = ["--burn", "2", "--thin", "1", "--draws", "10", "--chains", "1"]
    # twenty panels from so short a chain do not pass the checks, and are saved all the same
    assert main([*command, *few]) == 3
    out = capsys.readouterr().out
    assert "share" in out
    assert "sigma" in out
    fit = sc.load_fit("fit.nc")
    assert fit.draws("coefficient").shape == (1, 200, 2)
    assert not Path("fit.nc.panels").exists()
    assert main([*command, *few]) == 2  # the file is there
    assert "fit.nc" in capsys.readouterr().err
    assert main([*command, "--panels", "3", "--force"]) == 2

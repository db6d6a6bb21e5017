"""Figures hold what the frames say, at any number of groups and with any labels."""

import math
import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib import _pylab_helpers
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure

import spatialclusters as sc
from spatialclusters.criticism import residual_spread
from spatialclusters.effects import coefficients, convergence, group_effects
from spatialclusters.errors import FitError
from spatialclusters.estimates import estimates_frame
from spatialclusters.frequentist import fit_frequentist
from spatialclusters.plots import (
    convergence_paths,
    plot_by_group,
    plot_coefficients,
    plot_convergence_paths,
    plot_impacts,
    plot_loo_pit,
    plot_map,
    plot_moran,
    plot_predictive,
    plot_ranks,
    plot_residual_spread,
    plot_spillover_decay,
    plot_traces,
    plot_weights,
    printable,
)
from spatialclusters.predictive import predictive_density
from spatialclusters.rankings import rank_levels
from spatialclusters.reporting.figures import picture
from spatialclusters.residuals import residual_moran
from spatialclusters.result import Fit, assemble
from spatialclusters.spillovers import impacts, impacts_by_order, regional_impacts

ODD = ("$x_1^", "长三角产业集群" * 20, "_hidden", "é" * 300, "<b>&amp;", "हिन्दी")


@pytest.fixture(autouse=True)
def nothing_global():
    """Neither settings nor the list of open figures changes."""
    before = dict(mpl.rcParams)
    yield
    assert dict(mpl.rcParams) == before
    assert not _pylab_helpers.Gcf.figs


def by_group(estimates, *, overall=None, half=0.05, unit="per year"):
    named = [(f"group {i:03d}", value) for i, value in enumerate(estimates)]
    if overall is not None:
        named.insert(0, ("overall", overall))
    return estimates_frame(
        {"term": "x", "effect": "speed", "group": group, "unit": unit, "estimate": value,
         "ci_low": value - half, "ci_high": value + half}
        for group, value in named
    )  # fmt: skip


def rows_of(figure):
    return [text.get_text() for text in figure.axes[0].get_yticklabels()]


def texts(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def draw(figure):
    assert isinstance(figure, Figure)
    return picture(figure, "alt", "caption")


def test_coefficients_of_several_estimators_stand_beside_each_other(synthetic_fit):
    posterior = coefficients(synthetic_fit("clusters"))
    other = posterior.assign(estimator="OLS", estimate=posterior["estimate"] + 0.5)
    figure = plot_coefficients(posterior, other)
    terms = posterior.query("effect == 'coefficient' and term != 'intercept'")["term"]
    assert rows_of(figure) == terms.tolist()
    assert texts(figure) == ["posterior", "OLS"]
    drawn = {line.get_label(): np.array(line.get_xdata()) for line in figure.axes[0].lines}
    np.testing.assert_allclose(drawn["OLS"], drawn["posterior"] + 0.5)
    assert "log change over 3 years" in figure.axes[0].get_xlabel()
    draw(figure)


def test_coefficients_beyond_the_limit_are_announced(synthetic_fit):
    frame = coefficients(synthetic_fit("plain"))
    figure = plot_coefficients(frame, limit=1)
    assert rows_of(figure) == ["distance"]
    assert "1 more terms are left out" in figure.axes[0].get_xlabel()
    with pytest.raises(FitError, match="no coefficient"):
        plot_coefficients(frame[frame["term"] == "sigma"])


@pytest.mark.parametrize(("count", "shown"), [(1, 1), (9, 9), (48, 48), (600, 61)])
def test_groups_are_sorted_and_capped(count, shown):
    values = np.random.default_rng(2).normal(size=count)
    figure = plot_by_group(by_group(values, overall=0.1), "speed")
    assert len(rows_of(figure)) == shown
    order = np.argsort(-values)
    assert rows_of(figure)[0] == f"group {order[0]:03d}"
    assert rows_of(figure)[-1] == f"group {order[-1]:03d}"
    assert ("… 540 more between …" in rows_of(figure)) == (count == 600)
    assert "overall, 95 % interval" in texts(figure)
    assert figure.axes[0].get_xlabel() == "speed, per year"
    draw(figure)


def test_open_markers_are_the_intervals_with_zero():
    figure = plot_by_group(by_group([0.2, 0.01, -0.3]), "speed")
    lines = {line.get_label(): list(line.get_xdata()) for line in figure.axes[0].lines}
    assert lines["95 % interval excludes zero"] == [0.2, -0.3]
    assert lines["95 % interval contains zero"] == [0.01]


def test_infinite_ends_reach_the_edge_and_infinite_estimates_are_left_out():
    frame = by_group([0.2, 0.1, math.inf])
    frame.loc[0, "ci_high"] = math.inf
    figure = plot_by_group(frame, "speed")
    assert rows_of(figure) == ["group 000", "group 001"]
    low, high = figure.axes[0].get_xlim()
    assert high < 1.0
    assert low > -1.0
    draw(figure)
    with pytest.raises(FitError, match="no group with a finite speed"):
        plot_by_group(by_group([math.inf]), "speed")


def test_one_term_of_several_is_chosen():
    frame = pd.concat([by_group([0.2]), by_group([0.4]).assign(term="z")], ignore_index=True)
    lines = plot_by_group(frame, "speed", term="z").axes[0].lines
    assert list(lines[0].get_xdata()) == [0.4]


@pytest.mark.parametrize("label", ODD)
def test_labels_are_text_and_never_markup(label):
    frame = by_group([0.1, 0.2])
    frame.loc[0, "group"] = label
    figure = plot_by_group(frame, "speed")
    assert all(not text.get_parse_math() for text in figure.axes[0].get_yticklabels())
    assert max(map(len, rows_of(figure))) <= 41
    assert rows_of(figure)[1].strip(" …")[:5] == label[:5]
    draw(figure)
    draw(plot_coefficients(frame.assign(effect="coefficient", term=label, estimator=label)))


def test_a_map_shows_value_and_certainty(synthetic_fit):
    fit = synthetic_fit("clusters", geometry=True)
    frame = group_effects(fit, "region").iloc[:-1]
    figure = plot_map(fit, frame)
    grades = [c for c in figure.axes[0].collections if isinstance(c, PathCollection)]
    certain = np.maximum(frame["prob_positive"], 1.0 - frame["prob_positive"])
    counts = [(certain >= 0.975).sum(), ((certain >= 0.8) & (certain < 0.975)).sum()]
    counts.append(12 - sum(counts))  # the region without an estimate is among them
    assert min(counts) > 0
    assert [len(c.get_paths()) for c in grades] == counts
    assert [c.get_hatch() for c in grades] == [None, None, "////"]
    assert texts(figure)[0] == "sign with probability 0.975 or more"
    assert texts(figure)[-1] == "no estimate (1)"
    assert figure.axes[1].get_xlabel() == "log change over 3 years"
    first, last = grades[0].get_facecolors()[[0, -1]]
    assert first[2] > first[0]  # negative: purple
    assert last[0] > last[2]  # positive: orange
    weak = grades[1].get_facecolors()[:, :3]
    assert weak.min() > first[:3].min()  # the less certain, the paler
    draw(figure)


def test_a_map_of_weights_draws_every_pair_once(synthetic_fit):
    fit = synthetic_fit("clusters", geometry=True)
    figure = plot_weights(fit)
    pairs = fit.weights.matrix.nnz // 2
    lines = [c for c in figure.axes[0].collections if isinstance(c, LineCollection)]
    assert len(lines[0].get_segments()) == pairs
    assert texts(figure) == [f"neighbors ({pairs} pairs)"]
    draw(figure)
    with pytest.raises(FitError, match="without polygons or without weights"):
        plot_weights(synthetic_fit("clusters"))


def test_a_map_needs_geometry_and_estimates(synthetic_fit):
    fit = synthetic_fit("clusters")
    with pytest.raises(FitError, match="--regions"):
        plot_map(fit, group_effects(fit, "region"))
    with pytest.raises(FitError, match="no estimate"):
        plot_map(synthetic_fit("clusters", geometry=True), group_effects(fit, "cluster"))


def test_residual_spread_and_predictions_compare_with_the_observed(synthetic_fit):
    fit = synthetic_fit("clusters")
    frame = residual_spread(fit, draws=40)
    figure = plot_residual_spread(frame, size="employment in 2018", unit="log change")
    observed = next(line for line in figure.axes[0].lines if line.get_label() == "observed")
    np.testing.assert_array_equal(observed.get_ydata(), frame["observed"])
    assert figure.axes[0].get_xlabel() == "employment in 2018"
    draw(figure)
    figure = plot_predictive(predictive_density(fit, draws=20), unit="log change")
    assert texts(figure) == ["replicated, 95 % of draws", "replicated, mean", "observed"]
    steps = next(p for p in figure.axes[0].patches if p.get_label() == "observed").get_data()
    inside = ((fit.design.y >= steps.edges[0]) & (fit.design.y <= steps.edges[-1])).mean()
    assert (steps.values * np.diff(steps.edges)).sum() == pytest.approx(inside)
    draw(figure)


def test_calibration_is_level_where_probabilities_are_uniform():
    pit = (np.arange(1000) + 0.5) / 1000
    figure = plot_loo_pit(pd.DataFrame({"pit": pit}), bins=10)
    (steps,) = [p for p in figure.axes[0].patches if p.get_label() == "rows, each left out"]
    np.testing.assert_allclose(steps.get_data().values, 1.0)
    hill = plot_loo_pit(pd.DataFrame({"pit": 0.25 + 0.5 * pit}), bins=4)
    (steps,) = [p for p in hill.axes[0].patches if p.get_label() == "rows, each left out"]
    np.testing.assert_allclose(steps.get_data().values, [0.0, 2.0, 2.0, 0.0])
    draw(figure)


def test_moran_by_scope_stands_on_what_independence_gives(synthetic_fit):
    frame = residual_moran(synthetic_fit("clusters"), draws=30)
    figure = plot_moran(frame)
    ordered = frame.sort_values("p_value", kind="stable")
    names = np.where(ordered["of"] == "effects", "region effects", ordered["scope"])
    assert rows_of(figure) == names.tolist()
    assert "without dependence, 95 %" in texts(figure)
    draw(figure)
    few = plot_moran(frame, limit=4)
    assert len(rows_of(few)) == 4
    assert f"{len(frame) - 4} more between" in few.axes[0].get_xlabel()


def test_paths_of_convergence_fall_with_the_speed(synthetic_fit):
    frame = convergence(synthetic_fit("clusters"))
    paths = convergence_paths(frame, years=30.0, steps=4)
    speed = frame.query("group == 'overall' and effect == 'speed'").iloc[0]
    own = paths[paths["group"] == "overall"]
    np.testing.assert_allclose(own["left"], np.exp(-speed["estimate"] * own["year"]))
    np.testing.assert_allclose(own["ci_low"], np.exp(-speed["ci_high"] * own["year"]))
    figure = plot_convergence_paths(paths)
    by_speed = frame.query("effect == 'speed' and group != 'overall'").sort_values("estimate")
    slowest, *_, fastest = by_speed["group"]
    assert texts(figure) == [
        "overall, 95 % interval", f"fastest: {fastest}", f"slowest: {slowest}",
    ]  # fmt: skip
    draw(figure)
    with pytest.raises(FitError, match="no path of 'overall'"):
        plot_convergence_paths(paths[paths["group"] != "overall"])


def test_an_infinite_speed_leaves_nothing():
    frame = by_group([0.02], overall=math.inf)
    frame.loc[0, ["ci_low", "ci_high"]] = [0.5, math.inf]
    own = convergence_paths(frame, years=10.0, steps=3).query("group == 'overall'")
    assert own["left"].tolist() == [1.0, 0.0, 0.0]
    assert own["ci_low"].tolist() == [1.0, 0.0, 0.0]
    draw(plot_convergence_paths(convergence_paths(frame)))


def test_ranks_are_points_with_intervals_first_on_top(synthetic_fit):
    ranks = rank_levels(synthetic_fit("clusters"), "region")
    figure = plot_ranks(ranks)
    assert rows_of(figure) == ranks["group"].tolist()
    assert figure.axes[0].get_xlabel() == "rank among 12"
    assert texts(figure)[0] == "mean rank, 95 % interval"
    draw(figure)
    with pytest.raises(FitError, match="no ranks"):
        plot_ranks(ranks.iloc[:0])


def test_ranks_of_a_chain_that_is_elsewhere_stand_out(synthetic_fit):
    def highest(fit):
        names = [axes.get_title(loc="left") for axes in plot_traces(fit).axes]
        assert names[:2] == ["intercept", "distance"]
        axes = plot_traces(fit).axes[names.index("sigma")]
        return max(patch.get_data().values.max() for patch in axes.patches)

    assert highest(synthetic_fit("plain")) < 2.0
    assert highest(synthetic_fit("plain", sick=True)) > 3.0
    sick = plot_traces(synthetic_fit("noise by cluster", sick=True), limit=4)
    shown = [axes.get_title(loc="left") for axes in sick.axes if axes.get_visible()]
    assert len(shown) == 4
    assert "sigma" in shown
    draw(sick)


def test_printable_keeps_letters_of_all_scripts_and_drops_what_reorders():
    assert printable("a\u202eb\x00c\td\n") == "abc d"
    assert printable("长三角 العربية") == "长三角 العربية"
    assert printable("\ud800x") == "x"


def test_convergence_by_cluster_has_one_row_per_cluster(synthetic_fit):
    figure = plot_by_group(convergence(synthetic_fit("clusters")), "speed")
    assert sorted(rows_of(figure)) == [f"Cluster {number}" for number in range(1, 10)]


def lagged_fit(outcome, *, spread=0.1, industries=False):
    """A fit of y ~ x + lag(x) on a chain of regions, with or without a lag of y."""
    import spatialclusters as sc

    rng, names = np.random.default_rng(4), [f"r{i}" for i in range(8)]
    table = pd.DataFrame({"region": names * (2 if industries else 1)})
    if industries:
        table = table.assign(cluster="c", industry=["a"] * 8 + ["b"] * 8)
    table = table.assign(x=rng.normal(size=len(table)), y=rng.normal(size=len(table)))
    links = pd.DataFrame({"region_i": names[1:] + names[:-1], "region_j": names[:-1] + names[1:]})
    spec = sc.parse_spec(f'formula = "y ~ x + lag(x)"\nspatial.outcome = "{outcome}"')
    design = sc.build_design(spec, sc.read_panel(table), sc.read_weights(links))
    draws = {"coefficient": rng.normal([1.0, 0.2], spread, (4, 100, 2))}
    if outcome == "sar":
        draws["rho"] = rng.uniform(0.3, 0.5, (4, 100))
    return assemble(spec, design, draws, {}, panel=xr.Dataset(), geometry=None, provenance={})


def test_impacts_are_points_with_intervals():
    fit = lagged_fit("sar")
    figure, frame = plot_impacts(fit), impacts(fit).set_index("effect")
    assert rows_of(figure) == ["x"]
    assert texts(figure) == ["direct", "indirect", "total"]
    drawn = {line.get_label(): line.get_xdata() for line in figure.axes[0].lines}
    for effect in ("direct", "indirect", "total"):
        assert list(drawn[effect]) == [frame.loc[effect, "estimate"]]
    assert figure.axes[0].get_xlabel() == "y per unit of the term"
    draw(figure)
    with pytest.raises(FitError, match="got level 'cell'; expected one of 'row'"):
        plot_impacts(fit, level="cell")
    several = lagged_fit("sar", industries=True)
    row, cell = (plot_impacts(several, level=level).axes[0].lines[1] for level in ("row", "cell"))
    assert row.get_xdata()[0] != cell.get_xdata()[0]


def test_decay_shows_orders_and_their_share_of_the_total():
    fit = lagged_fit("sar")
    orders, total = impacts_by_order(fit, "x")
    figure = plot_spillover_decay(fit, "x")
    assert texts(figure) == ["impact, 95 % interval", "cumulative share, 95 % interval"]
    left, right = (axes.lines[0].get_ydata() for axes in figure.axes)
    np.testing.assert_allclose(left, orders.mean(axis=(1, 2)))
    shares = np.quantile(np.cumsum(orders, axis=0) / total, 0.5, axis=(1, 2))
    np.testing.assert_allclose(right, shares)
    assert (np.diff(right) > 0).all()
    assert 0.9 < right[-1] < 1.0
    draw(figure)


def test_decay_of_a_local_spillover_ends_with_the_neighbors():
    figure = plot_spillover_decay(lagged_fit("none"), "x")
    right = figure.axes[1].lines[0].get_ydata()
    assert len(right) == 2
    assert right[1] == pytest.approx(1.0, rel=1e-12)
    draw(figure)


def test_shares_of_a_total_without_a_sign_are_left_out():
    figure = plot_spillover_decay(lagged_fit("sar", spread=5.0), "x")
    assert len(figure.axes) == 1
    assert "interval of the total contains zero" in figure.get_supxlabel()
    draw(figure)


def test_there_are_no_impacts_without_lags(synthetic_fit):
    for plot in (plot_impacts, lambda fit: plot_spillover_decay(fit, "distance")):
        with pytest.raises(FitError, match="coefficients are its impacts"):
            plot(synthetic_fit("plain"))
    with pytest.raises(FitError, match="got the term 'z'"):
        plot_spillover_decay(lagged_fit("sar"), "z")


def test_what_happens_if_all_are_higher_is_no_group():
    frame = by_group([0.2, 0.1], overall=0.15)
    common = frame.iloc[:1].assign(group="common", estimate=9.0, ci_low=8.9, ci_high=9.1)
    figure = plot_by_group(pd.concat([frame, common], ignore_index=True), "speed")
    assert rows_of(figure) == ["group 000", "group 001"]
    assert figure.axes[0].get_xlim()[1] < 1.0


def test_spillovers_are_mapped(synthetic_fit):
    fit = synthetic_fit("plain", geometry=True)
    tree = fit.tree.copy(deep=True)
    tree.attrs["model"] = tree.attrs["model"].replace('outcome = "none"', 'outcome = "sar"')
    tree["posterior"]["rho"] = tree["posterior"]["sigma"] + 0.1
    given = regional_impacts(Fit(tree), "distance").query("effect == 'spill_out'")
    assert len(given) == 12
    draw(plot_map(fit, given))


def test_the_document_shows_every_figure_and_runs(synthetic_fit, tmp_path, monkeypatch):
    document = Path(__file__).parents[2] / "docs" / "figures.md"
    text = document.read_text("utf-8")
    for name in sc.plots.__all__:
        assert name == "printable" or name in text
    fit = synthetic_fit("clusters", geometry=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sc, "load_fit", lambda path: fit, raising=False)
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    exec(compile(code, document.name, "exec"), {})
    names = {path.name for path in tmp_path.iterdir()}
    assert names == set(re.findall(r'savefig\("([^"]+)"\)', code))


def test_results_need_no_frames(synthetic_fit):
    fit = synthetic_fit("clusters")
    frequentist = fit_frequentist(fit)
    figure = plot_coefficients(fit, frequentist)
    assert rows_of(figure) == rows_of(plot_coefficients(coefficients(fit), frequentist.estimates))


def test_a_map_shows_one_number_a_region(synthetic_fit):
    fit = synthetic_fit("clusters", geometry=True)
    regions = group_effects(fit, "region")
    twice = pd.concat([regions, regions.assign(effect="speed")])
    with pytest.raises(FitError, match=r"several rows a region .*'speed of .*Choose an effect"):
        plot_map(fit, twice)

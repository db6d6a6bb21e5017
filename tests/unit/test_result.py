"""A fit on disk: equal after reloading, self-contained, and closed to tricks."""

import shutil

import h5py
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import spatialclusters as sc
from spatialclusters.result import FORMAT

TUNE = DRAWS = 50


@pytest.fixture(scope="module", params=["collapsed", "full"])
def saved(request, tmp_path_factory):
    """A tiny fit of a model with groups and hostile labels, whose inputs are gone."""
    folder = tmp_path_factory.mktemp("fit")
    rng = np.random.default_rng(1)
    regions = ["<script>alert(1)</script>", "a/b", "æ±äº¬", *(f"r{i}" for i in range(7))]
    index = pd.MultiIndex.from_product([regions, list("uvwxyz")], names=["region", "cluster"])
    table = index.to_frame(index=False)
    table["employment_start"] = np.round(rng.lognormal(5.0, 1.0, len(table))) + 1.0
    table["employment_end"] = table["employment_start"] * rng.lognormal(0.0, 0.3, len(table))
    table.to_csv(folder / "table.csv", index=False)
    spec = sc.parse_spec(
        """
        name = "tiny"
        formula = "growth ~ log(employment) + (1 + log(employment) | cluster) + (1 | region)"
        roles = { convergence = "log(employment)" }
        growth = { variable = "employment", from = 2018, to = 2021 }
        groups.region.effect = "correlated"
        likelihood.scale = "size"
        """
    )
    ring = pd.DataFrame({"region_i": regions, "region_j": [*regions[1:], regions[0]]})
    panel = sc.read_panel(folder / "table.csv")
    fit = sc.fit(
        spec, panel, sc.read_weights(ring), seed=1, chains=2, tune=TUNE, draws=DRAWS,
        engine=request.param, progress=False,
    )  # fmt: skip
    path = fit.save(folder / "fit.nc")
    (folder / "table.csv").unlink()
    return fit, path


def test_reloaded_equal(saved):
    fit, path = saved
    again = sc.load_fit(path)
    for name in ("posterior", "sample_stats", "constant_data", "panel", "weights"):
        xr.testing.assert_identical(again.tree[name].to_dataset(), fit.tree[name].to_dataset())
    assert again.spec == fit.spec
    assert again.provenance == fit.provenance
    assert again.weights is not None
    assert again.weights.digest == fit.weights.digest


def test_dims_and_labels(saved):
    fit, _ = saved
    effect = fit.posterior["effect(cluster)"]
    assert effect.dims == ("chain", "draw", "cluster", "column(cluster)")
    assert effect.shape == (2, DRAWS, 6, 2)
    assert fit.posterior["region"].values.tolist() == sorted(fit.design.groups[1].levels)
    assert "a/b" in fit.posterior["region"].values
    assert fit.posterior["coefficient"].dtype == np.float64
    full = fit.provenance["engine"] == "full"
    kind, stat = ("conditional", "diverging") if full else ("marginal", "acceptance_rate")
    assert {f"{kind}_log_likelihood", "log_prior", stat} <= set(fit.sample_stats)


def test_effects_work_from_the_file_alone(saved):
    fit, path = saved
    pd.testing.assert_frame_equal(sc.coefficients(sc.load_fit(path)), sc.coefficients(fit))
    groups = sc.convergence(sc.load_fit(path))["group"].unique().tolist()
    assert groups == ["overall", *"uvwxyz"]


def test_recorded_likelihood_is_that_of_the_draws(saved):
    """Parameters of one draw belong together: recompute the log likelihood from them."""
    from scipy import stats

    from spatialclusters.simulation import linear_predictor, noise_scale

    fit, _ = saved
    if fit.provenance["engine"] == "collapsed":
        values = {str(name): fit.draws(str(name))[1, 3] for name in fit.posterior.data_vars}
        recorded = float(fit.sample_stats["marginal_log_likelihood"][1, 3])
        assert recorded == pytest.approx(dense_marginal(fit, values), rel=1e-9)
        return
    for chain, draw in ((0, 0), (1, DRAWS - 1)):
        values = {str(name): fit.draws(str(name))[chain, draw] for name in fit.posterior.data_vars}
        mean = linear_predictor(fit.design, values)
        scale = noise_scale(fit.spec, fit.design, values)
        expected = stats.norm(mean, scale).logpdf(fit.design.y).sum()
        recorded = float(fit.sample_stats["conditional_log_likelihood"][chain, draw])
        assert recorded == pytest.approx(expected, rel=1e-10)


def dense_marginal(fit, values):
    """Evaluate log p(y | theta) in raw units with the covariance of y written out."""
    from scipy import stats

    from spatialclusters.parameters import model_priors
    from spatialclusters.simulation import noise_scale

    design, priors = fit.design, model_priors(fit.spec, fit.design)
    X = design.X - design.data["center"].values
    sds = np.array([priors[term].prior.sd for term in design.terms])
    V = np.diag(noise_scale(fit.spec, design, values) ** 2)
    V += priors["intercept"].prior.sd ** 2 + (X * sds**2) @ X.T
    for group in design.groups:
        sd = values[f"sd({group.name})"]
        R = np.eye(len(sd))
        if len(sd) > 1:
            R[np.tril_indices(len(sd), -1)] = values[f"cor({group.name})"]
            R = R + np.tril(R, -1).T
        Z = np.column_stack([np.ones(len(X)) if c < 0 else X[:, c] for c in group.columns])
        same = group.codes[:, None] == group.codes
        V += same * ((Z * sd) @ R @ (Z * sd).T)
    return stats.multivariate_normal(np.zeros(len(V)), V).logpdf(design.y)


def test_moments_are_those_of_the_draws(saved):
    """Conditional means differ from draws by their conditional variance, and only that."""
    fit, _ = saved
    moments = fit.moments("total(cluster)")
    if fit.provenance["engine"] == "full":
        assert moments is None
        return
    total = fit.draws("effect(cluster)").copy()
    total[..., 0] += fit.draws("intercept")[..., None]
    total[..., 1] += fit.draws("coefficient")[..., :1]
    z = (total - moments[0]) / np.sqrt(moments[1])
    # 100 draws of 12 quantities: standard normal, though correlated within a draw
    assert abs(z.mean()) < 0.25
    assert 0.8 < z.std() < 1.2
    table = sc.group_effects(fit, "cluster")
    expected = fit.moments("effect(cluster)")[0][..., 0].mean(axis=(0, 1))
    np.testing.assert_allclose(table["estimate"], expected, rtol=1e-12)


def test_a_chain_does_not_depend_on_the_others(saved):
    """Chain 0 alone has the same bits as chain 0 of two."""
    from spatialclusters.run import fit_design
    from spatialclusters.sampling import Settings

    fit, _ = saved
    settings = Settings(**{**fit.provenance["settings"], "chains": 1})
    alone = fit_design(fit.spec, fit.design, settings)
    for name in fit.posterior.data_vars:
        np.testing.assert_array_equal(alone.draws(str(name))[0], fit.draws(str(name))[0])
    assert not np.array_equal(fit.draws("sigma")[0], fit.draws("sigma")[1])


@pytest.mark.parametrize("damage", ["format", "truncated", "external", "soft", "text"])
def test_damaged_or_hostile_files_are_refused(saved, tmp_path, damage):
    path = tmp_path / "bad.nc"
    shutil.copy(saved[1], path)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:5000])
    elif damage == "text":
        path.write_text("not a fit")
    else:
        with h5py.File(path, "r+") as file:
            if damage == "format":
                file.attrs["format"] = "spatialclusters-fit/99"
            elif damage == "external":
                file["posterior/stolen"] = h5py.ExternalLink("/etc/passwd", "/")
            else:
                file["posterior/stolen"] = h5py.SoftLink("/posterior/sigma")
    with pytest.raises(sc.FitError, match=r"bad\.nc: got"):
        sc.load_fit(path)


def test_missing_file_and_unknown_variable(saved, tmp_path):
    with pytest.raises(sc.FitError, match="no such file"):
        sc.load_fit(tmp_path / "none.nc")
    with pytest.raises(sc.FitError, match="Did you mean 'sigma'"):
        saved[0].draws("sigmo")


def test_format_is_stated(saved):
    assert saved[0].tree.attrs["format"] == FORMAT


def test_an_unwritable_place_is_an_error_and_leaves_nothing(saved, tmp_path):
    with pytest.raises(sc.FitError, match="cannot be written"):
        saved[0].save(tmp_path / "no" / "such" / "fit.nc")
    assert list(tmp_path.iterdir()) == []

"""The accepted posteriors are those of the shipped models, and what compares them can tell."""

import importlib
import json
import math
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from arviz_stats.base import array_stats
from scipy import stats

import spatialclusters as sc

STATISTICAL = Path(__file__).parents[1] / "statistical"
COUNTS = (1, 30, 500)
SAME = 1e-9  # relative: sums in another order
DRAWS = 1e-4  # relative: arviz has variances of n, not n - 1, among 6,000 draws
HEADLINE_ESS = 1000.0


@pytest.fixture(scope="module")
def command():
    sys.path.insert(0, str(STATISTICAL))
    try:
        yield importlib.import_module("reference_posteriors")
    finally:
        sys.path.remove(str(STATISTICAL))


@pytest.fixture(scope="module")
def agreement(command):
    return importlib.import_module("agreement")


@pytest.mark.parametrize("name", sc.list_models()["name"])
def test_what_was_accepted_is_the_shipped_model(command, name):
    # the message of a failure says what to run
    reference = command.read(name)
    assert reference["model"]["name"] == name
    assert reference["checks"]
    assert all(each["passed"] for each in reference["checks"])
    assert {"python", "jax", "spatialclusters", "machine"} <= set(reference["versions"])
    assert {"seed", "chains", "tune", "draws", "engine"} <= set(reference["settings"])
    spec = sc.load_model(name)
    wanted = {
        "intercept",
        "sigma",
        "convergence, overall: speed",
        *map(str, spec.parsed_formula.terms),
    }
    wanted |= set(spec.spatial.parameters)
    assert wanted <= set(reference["quantities"])
    for quantity, numbers in reference["quantities"].items():
        assert all(map(math.isfinite, numbers.values())), quantity
        assert min(numbers["ess_bulk"], numbers["ess_tail"]) >= HEADLINE_ESS, quantity
        values = {"mean", "sd"} if "mean" in numbers else {"q025", "median", "q975"}
        assert {f"mcse_{value}" for value in values} | values <= set(numbers), quantity


def test_every_model_has_a_reference_and_every_reference_a_model(command):
    names = set(sc.list_models()["name"])
    assert set(command.MODELS) == names
    assert {path.name for path in command.FOLDER.glob("*.json")} == {
        f"{name}.posterior.json" for name in names
    }


@pytest.mark.slow
def test_income_convergence_agrees_and_its_tables_hold_the_same_numbers(command, monkeypatch):
    fits = []
    refit = command.refit

    def kept(*args, **settings):
        fits.append(refit(*args, **settings))
        return fits[-1]

    monkeypatch.setattr(command, "refit", kept)
    row, passed = command.compare("income_convergence")
    assert passed, row
    (fit,) = fits
    assert fit.provenance["settings"]["seed"] == command.SEED + 1
    found = command.summaries(fit)
    table = sc.coefficients(fit).set_index("term")
    for term in table.index:
        for ours, theirs in (("mean", "estimate"), ("sd", "std_error"), ("mcse_mean", "mcse")):
            assert found.loc[term, ours] == pytest.approx(table.loc[term, theirs], rel=SAME)
    headline = sc.convergence(fit).set_index("effect")
    for effect, statistic in (("change", "mean"), ("speed", "median")):
        ours = found.loc[f"convergence, overall: {effect}", statistic]
        assert ours == pytest.approx(headline.loc[effect, "estimate"], rel=SAME)

    # what is accepted, moved by more than the band allows, is caught wherever it is
    reference = command.read("income_convergence")
    _, limit = command.disagreements(reference, found)
    assert row["band"] == f"{limit:.2f}"
    for quantity in reference["quantities"]:
        for statistic in found.columns:
            if f"mcse_{statistic}" not in reference["quantities"][quantity]:
                continue
            moved = json.loads(json.dumps(reference))
            error = found.loc[quantity, f"mcse_{statistic}"]
            moved["quantities"][quantity][statistic] += 10.0 * error
            gaps, limit = command.disagreements(moved, found)
            assert gaps.loc[quantity, statistic] > limit, (quantity, statistic)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda found: found["model"].update(sha256="0" * 64), "got model with SHA-256"),
        (lambda found: found["data"].update(sha256="0" * 64), "got data with SHA-256"),
        (lambda found: found["priors"].update(sigma="half_normal(9)"), r"sigma: half_normal\(1\)"),
        (lambda found: found.update(format="other/1"), "got format 'other/1'"),
        (lambda found: found["quantities"].pop("sigma"), "other quantities than accepted: sigma"),
    ],
)
def test_what_is_not_comparable_is_refused(command, monkeypatch, tmp_path, capsys, change, words):
    name = "income_convergence"
    reference = command.read(name)
    quantities = pd.DataFrame.from_dict(reference["quantities"], orient="index")
    change(reference)
    monkeypatch.setattr(command, "FOLDER", tmp_path)
    monkeypatch.setattr(command, "refit", lambda *args, **settings: None)
    monkeypatch.setattr(command, "summaries", lambda fit: quantities)
    command.path_of(name).write_text(json.dumps(reference), encoding="utf-8")
    with pytest.raises(command.NotComparableError, match=words):
        command.compare(name)
    assert command.main(["--model", name]) == 2
    assert f"--model {name} --accept" in capsys.readouterr().err


def test_without_a_reference_the_command_says_how_to_make_one(
    command, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(command, "FOLDER", tmp_path)
    assert command.main(["--model", "income_convergence"]) == 2
    assert "--model income_convergence --accept" in capsys.readouterr().err


def test_the_data_s_digest_sees_numbers_and_labels_but_not_their_last_bits(command):
    panel = sc.us_income().data
    known = command.digest(panel)
    assert known == command.digest(panel.copy(deep=True))
    assert known == command.digest(panel.assign(income=panel["income"] * (1.0 + 1e-13)))
    assert known != command.digest(panel.assign(income=panel["income"] * (1.0 + 1e-7)))
    regions = [*panel["region"].values[:-1], "Elsewhere"]
    assert known != command.digest(panel.assign_coords(region=regions))


@pytest.mark.parametrize("count", COUNTS)
def test_the_band_is_the_quantile_of_the_largest_of_that_many_normals(agreement, count):
    inside = stats.norm.cdf(agreement.bound(count)) - stats.norm.cdf(-agreement.bound(count))
    assert inside**count == pytest.approx(agreement.LEVEL, rel=SAME)


def test_summaries_of_draws_are_those_of_arviz(agreement):
    draws = np.random.default_rng(1).gamma(3.0, size=(4, 1500))
    found = agreement.mean_and_sd(draws)
    assert found["mean"] == pytest.approx(draws.mean(), rel=SAME)
    assert found["sd"] == pytest.approx(draws.std(ddof=1), rel=SAME)
    for name in ("mean", "sd"):
        error = array_stats.mcse(draws, chain_axis=0, draw_axis=1, method=name)
        assert found[f"mcse_{name}"] == pytest.approx(error, rel=DRAWS)


def test_errors_of_rao_blackwell_estimates_are_what_repeated_runs_vary_by(agreement):
    # x given h is normal(h, exp(h)); h is standard normal; E x = 0, Var x = exp(1 / 2) + 1
    runs = []
    for seed in range(300):
        h = np.random.default_rng(seed).standard_normal((4, 500))
        runs.append(agreement.mean_and_sd(h, (h, np.exp(h))))
    table = pd.DataFrame(runs)
    truth = {"mean": 0.0, "sd": math.sqrt(math.exp(0.5) + 1.0)}
    for name, exact in truth.items():
        z = (table[name] - exact) / table[f"mcse_{name}"]
        # 300 values: a sd of 1 within 0.82 and 1.18, a mean of 0 within 0.25, each but in 1 of 10,000
        assert 0.82 < z.std() < 1.18
        assert abs(z.mean()) < 0.25


def test_quantiles_stand_infinite_draws(agreement):
    draws = np.random.default_rng(1).standard_normal((4, 1500))
    some = draws.copy()
    some[0, :10] = np.inf
    found = agreement.median_and_interval(some)
    assert all(map(math.isfinite, found.values()))
    error = array_stats.mcse(draws, chain_axis=0, draw_axis=1, method="median")
    assert agreement.median_and_interval(draws)["mcse_median"] == pytest.approx(error, rel=SAME)


def test_gaps_are_in_combined_errors_and_nothing_hides(agreement):
    ours = pd.DataFrame(
        {"mean": [1.0, 2.0, 5.0, np.nan, 0.0], "mcse_mean": [0.3, 0.0, 0.0, 0.1, np.nan],
         "median": [np.nan, np.nan, np.nan, 7.0, np.nan],
         "mcse_median": [np.nan, np.nan, np.nan, 3.0, np.nan], "ess": 1.0},
        index=list("abcde"),
    )  # fmt: skip
    theirs = ours.assign(mean=[2.0, 2.0, 5.1, 4.0, 1.0], median=ours["median"] + 6.0)
    theirs["mcse_mean"], theirs["mcse_median"] = (
        [0.4, 0.0, 0.0, 0.1, 0.1],
        [*[np.nan] * 3, 4.0, np.nan],
    )
    found = agreement.gaps(ours, theirs)
    assert found["mean"].tolist() == [2.0, 0.0, np.inf, np.inf, np.inf]
    assert found["median"].dropna().to_dict() == {"d": 1.2}
    assert list(found) == ["mean", "median"]
    one_sided = agreement.gaps(ours[["mean", "mcse_mean"]], theirs[["median", "mcse_median"]])
    assert np.isinf(one_sided.loc["a", "mean"])
    assert np.isinf(one_sided.loc["d", "median"])
    assert agreement.largest(found.loc[["a", "b"]]) == (2.0, "mean of a")

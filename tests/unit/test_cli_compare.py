"""The command that puts fits, and estimates of other kinds beside the first, side by side."""

import io
import json

import pandas as pd
import pytest

from spatialclusters.cli import main

KERNEL = "bartlett 0.0012 km"  # regions are squares of one meter


@pytest.fixture(scope="module")
def files(synthetic_fit, tmp_path_factory):
    """Fits of the same rows whose region effects are correlated, random and fixed."""
    folder = tmp_path_factory.mktemp("fits")
    variants = {"correlated": "clusters", "random": "noise by cluster", "fixed": "fixed"}
    return {
        effect: str(synthetic_fit(name, geometry=True).save(folder / f"{effect}.nc"))
        for effect, name in variants.items()
    }


def refused(capsys, *words):
    assert main([str(word) for word in words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err


def test_every_estimator_beside_a_fit(capsys, files):
    words = [files["correlated"], "--conley", "0.0012", "--reml", "--spatial-ml", "--gmm"]
    assert main(["compare", *words, "--format", "csv"]) == 0
    printed = capsys.readouterr()
    table = pd.read_csv(io.StringIO(printed.out))
    spatial = [f"{method} {p}" for method in ("ML", "GMM") for p in ("SAR", "SEM", "SDM")]
    assert set(table["estimator"]) == {
        "posterior, region correlated, cluster random",
        "fixed effects",
        "OLS",
        f"fixed effects, Conley {KERNEL}",
        f"OLS, Conley {KERNEL}",
        "REML",
        *spatial,
    }
    assert {"difference", "verdict", "reason"} <= set(table)
    large = table["difference"].abs() > 2.0
    judged = table["verdict"].notna()
    assert large[judged].any()
    assert (table["verdict"].isin(["expected", "warning"]) == large)[judged].all()
    assert not judged[table["estimator"].str.startswith("posterior")].any()
    for text in (f"Conley errors ({KERNEL})", "REML: errors", "ML SDM adds", "first-stage F"):
        assert text in printed.err


def test_the_table_says_which_gaps_want_a_reason(capsys, files):
    assert main(["compare", files["correlated"], "--conley", "knn:3", "--kernel", "uniform"]) == 0
    printed = capsys.readouterr()
    assert "OLS, Conley uniform 3 neighbors" in printed.out
    assert "Conley, uniform 3 neighbors" in printed.out
    assert "estimates are within 2 standard errors of the posterior." in printed.out
    lines = printed.out.splitlines()
    start = lines.index("The others: difference in standard errors")
    head, *rows = [line.split() for line in lines[start + 2 :]]
    assert head == ["estimator", "term", "effect", "posterior", "estimate", "difference", "verdict"]
    assert {row[-1] for row in rows if row} <= {"expected", "warning"}
    assert "Group means (region) stand in for fixed effects" in printed.err


def test_fits_with_groups_taken_otherwise(capsys, files):
    assert main(["compare", *files.values(), "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert list(dict.fromkeys(row["estimator"] for row in rows)) == [
        f"posterior, region {effect}, cluster random" for effect in files
    ]
    assert main(["compare", *files.values()]) == 0
    printed = capsys.readouterr().out
    line = next(line for line in printed.splitlines() if line.startswith("effects of region"))
    assert line.split()[3:] == list(files)
    assert "standard errors of the posterior" not in printed


def test_draws_have_a_seed(capsys, files):
    printed = []
    for seed in ("1", "1", "2"):
        words = ["compare", files["correlated"], "--spatial-ml", "--seed", seed, "--format", "csv"]
        assert main(words) == 0
        found = capsys.readouterr()
        printed.append(found.out)
        assert f"(seed {seed})" in found.err
    assert printed[0] == printed[1] != printed[2]


def test_refusals(capsys, files, synthetic_fit, tmp_path):
    assert "expected another beside it, --frequentist, --conley, --reml" in refused(
        capsys, "compare", files["fixed"]
    )
    for text in ("far", "knn:many"):
        message = refused(capsys, "compare", files["fixed"], "--conley", text)
        assert f"--conley: got '{text}'; expected a number of km as in 150, or knn:8" in message
    assert "got bandwidth -3.0; expected a positive number" in refused(
        capsys, "compare", files["fixed"], "--conley", "-3"
    )
    bare = synthetic_fit("regions").save(tmp_path / "bare.nc")
    assert "Conley errors: got no geometry" in refused(capsys, "compare", bare, "--conley", "5")
    assert "REML: got a model without group effects" in refused(capsys, "compare", bare, "--reml")

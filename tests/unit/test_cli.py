"""Every command, what it prints where, its exit codes, and what it refuses to touch."""

import io
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import spatialclusters as sc
from spatialclusters.cli import main
from spatialclusters.cli.output import clean, show, show_estimates
from spatialclusters.estimates import estimates_frame
from spatialclusters.result import assemble
from spatialclusters.sampling import Settings

HEAVY = ("pandas", "numpy", "pymc", "jax", "arviz", "libpysal", "matplotlib", "rich")
EVIL = "\x1b[31mred\x9b1m [bold]x[/bold] \u202etxt"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """A folder with a table and polygons, as a user has them."""
    folder = tmp_path_factory.mktemp("inputs")
    panel = sc.us_income()
    table = panel.data["income"].to_dataframe().reset_index().astype({"year": int})
    table[table["year"].isin([1929, 1994])].to_csv(folder / "income.csv", index=False)
    shapes = panel.geometry.to_frame("geometry").reset_index()
    shapes.to_file(folder / "states.geojson")
    return folder


def made_up_fit(draws: int = 500) -> sc.Fit:
    """A fit whose draws are independent normals: what the commands print needs no sampler."""
    spec, rng = sc.load_model("income_convergence"), np.random.default_rng(1)
    panel = sc.us_income()
    design = sc.build_design(spec, panel, sc.contiguity(panel))
    shape = (4, draws)
    posterior = {
        "intercept": rng.normal(3.6, 0.01, shape),
        "coefficient": rng.normal(-0.7, 0.4, (*shape, 1)),
        "sigma": rng.normal(0.09, 0.01, shape),
    }
    stats = {
        "diverging": np.zeros(shape, dtype=bool),
        "energy": rng.normal(size=shape),
        "tree_depth": np.full(shape, 3),
        "n_steps": np.full(shape, 7),
        "acceptance_rate": np.full(shape, 0.9),
        "step_size": np.full(shape, 0.5),
        "lp": rng.normal(size=shape),
        "conditional_log_likelihood": rng.normal(size=shape),
        "log_prior": rng.normal(size=shape),
    }
    provenance = {
        "version": "0",
        "created": "2026-01-01T00:00:00+00:00",
        "settings": vars(Settings(seed=1, draws=draws)),
        "engine": "full",
        "sampler": "none",
        "versions": {},
        "python": "3",
        "digests": {"model": spec.digest, "design": design.digest, "rows": design.rows_digest},
        "timings": {"wall_seconds": 1.0},
    }
    return assemble(
        spec, design, posterior, stats,
        panel=xr.Dataset(), geometry=panel.geometry, provenance=provenance,
    )  # fmt: skip


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> Path:
    """A saved fit that passes its check."""
    return made_up_fit().save(tmp_path_factory.mktemp("fit") / "good.nc")


@pytest.fixture(scope="module")
def short(tmp_path_factory) -> Path:
    """A saved fit with too few draws."""
    return made_up_fit(20).save(tmp_path_factory.mktemp("fit") / "short.nc")


def data_flags(inputs: Path) -> list[str]:
    return ["--data", str(inputs / "income.csv"), "--regions", str(inputs / "states.geojson")]


def refused(capsys, *words: object) -> str:
    """Run a command that must be refused: exit 2, one message, nothing on standard output."""
    assert main([str(word) for word in words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert "Traceback" not in printed.err
    return printed.err


# starting


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from spatialclusters.cli import main; main(['--help']); main(['fit', '-h']);"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    for name in ("demo", "models", "validate", "fit", "summary", "effects", "check", "compare"):
        assert f"\n  {name} " in done.stdout
    assert "--row-standardize / --no-row-standardize" in done.stdout


def test_help_is_fast():
    def seconds(code: str) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        return time.perf_counter() - started

    bare = min(seconds("import typer") for _ in range(3))
    full = min(seconds("from spatialclusters.cli import main; main(['-h'])") for _ in range(3))
    assert full < 3 * bare


def test_version_and_no_command(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"spatialclusters {sc.__version__}\n"
    assert main([]) == 0
    assert capsys.readouterr().out.startswith("Usage: spatialclusters")


def test_the_program_is_installed():
    program = Path(sys.executable).with_name("spatialclusters")
    done = subprocess.run([program, "nonsense"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: No such command 'nonsense'. See spatialclusters --help.\n"


def test_usage_errors(capsys, fitted):
    assert "Missing option '--data'" in refused(capsys, "fit", "income_convergence")
    assert "--draws" in refused(capsys, "demo", "--draws", "1")
    assert "'xml'" in refused(capsys, "summary", fitted, "--format", "xml")
    assert "spatialclusters summary --help" in refused(capsys, "summary", fitted, "--nope")


def test_a_bug_of_ours(capsys, monkeypatch, fitted):
    # whoever is imported while the patch is there would keep it
    import spatialclusters.comparison
    import spatialclusters.diagnostics
    import spatialclusters.reporting  # noqa: F401

    monkeypatch.setattr("spatialclusters.effects.coefficients", lambda fit: 1 / 0)
    assert main(["summary", str(fitted)]) == 1
    printed = capsys.readouterr()
    assert "ZeroDivisionError" in printed.err
    assert "Please report it" in printed.err.splitlines()[-1]


# models


def test_models(capsys):
    assert main(["models"]) == 0
    listed = capsys.readouterr().out
    assert [line for line in listed.splitlines() if not line.startswith(" ")] == (
        sc.list_models()["name"].tolist()
    )
    assert main(["models", "--format", "csv"]) == 0
    assert pd.read_csv(io.StringIO(capsys.readouterr().out)).columns[0] == "name"


def test_models_show_writes_a_model_file(capsys, tmp_path):
    assert main(["models", "show", "cluster_growth"]) == 0
    text = capsys.readouterr().out
    path = tmp_path / "mine.toml"
    path.write_text(text)
    assert sc.load_model(path) == sc.load_model("cluster_growth")
    assert "# @article{Delgado2014," in text
    assert 'structure = "iid"' in text  # a default, written out
    assert "Did you mean 'cluster_growth'" in refused(capsys, "models", "show", "cluster_grwth")


def test_cite(capsys, tmp_path):
    assert main(["cite", "cluster_growth"]) == 0
    assert capsys.readouterr().out.startswith("@article{Delgado2014,")
    path = tmp_path / "plain.toml"
    path.write_text('formula = "y ~ x"')
    assert main(["cite", str(path)]) == 0
    assert capsys.readouterr() == ("", "The model cites nothing.\n")


# data


def test_validate(capsys, inputs):
    assert main(["validate", "income_convergence", *data_flags(inputs)]) == 0
    text = capsys.readouterr().out
    assert "Sample: 48 rows in 48 regions" in text
    assert "1929: 48 cells, 48 observed" in text
    assert "Weights queen, row-standardized: 214 links" in text
    assert "half_normal(1)" in text
    words = ["--weights", "knn:4", "--no-row-standardize", "--set", "growth.annualized=true"]
    assert main(["validate", "income_convergence", *data_flags(inputs), *words]) == 0
    text = capsys.readouterr().out
    assert "Weights knn:4, not standardized: 192 links" in text
    assert "log change per year" in text


def test_weights_that_are_estimated(capsys, inputs):
    words = ["validate", "income_convergence_lag", *data_flags(inputs)]
    assert main([*words, "--weights", "queen", "--weights", "knn:4"]) == 0
    text = capsys.readouterr().out
    assert "Weights queen + knn:4, row-standardized" in text
    assert "W is estimated: shares of queen, knn:4" in text
    assert "dirichlet(1)" in text
    assert main([*words, "--weights", "decay-exponential:900"]) == 0
    text = capsys.readouterr().out
    assert "exp(-delta d) within 900 km" in text
    assert "how fast weights fall with distance" in text
    assert main(["validate", "income_convergence_distance", *data_flags(inputs)]) == 0
    assert "d^-delta within 1000 km" in capsys.readouterr().out
    flags = ["--set", "spatial.outcome=sem", "--weights", "decay-power:900"]
    assert "weights that are estimated" in refused(capsys, *words, *flags)
    flags = ["--no-row-standardize", "--weights", "decay-power:900"]
    assert "row-standardization" in refused(capsys, *words, *flags)


def test_map_renames_columns(capsys, inputs, tmp_path):
    table = pd.read_csv(inputs / "income.csv").rename(columns={"region": "state", "income": "usd"})
    table.to_csv(tmp_path / "t.csv", index=False)
    words = ["validate", "income_convergence", "--data", str(tmp_path / "t.csv")]
    assert main([*words, "--map", "region=state", "--map", "income=usd"]) == 0
    assert "Weights: none" in capsys.readouterr().out
    assert "expected NEW=OLD" in refused(capsys, *words, "--map", "region")


def test_bad_input_is_one_message(capsys, inputs, tmp_path):
    words = ["validate", "income_convergence", *data_flags(inputs)]
    assert "no such file" in refused(capsys, "validate", "income_convergence", "--data", "no.csv")
    assert "years" in refused(capsys, *words, "--set", "growth.to=2222")
    assert "expected KEY=VALUE" in refused(capsys, *words, "--set", "growth.to")
    assert "Did you mean 'to'" in refused(capsys, *words, "--set", "growth.too=2000")
    assert "queen" in refused(capsys, *words, "--weights", "quen")
    evil = tmp_path / "evil.csv"
    evil.write_text(f"{EVIL},income_start,income_end\na,1,2\n")
    message = refused(capsys, "validate", "income_convergence", "--data", evil)
    assert "\x1b" not in message
    assert "\\x1b" in message


# fitting: the sampler is replaced, and run for real at the end


@pytest.fixture
def sampler(monkeypatch):
    """Replace the fit by a made-up one and record what it was asked."""
    asked: dict = {"draws_made": 500}

    def fake(spec, panel, weights, **settings):
        asked.update(settings, spec=spec, weights=weights)
        (folder := settings["checkpoint"]).mkdir(exist_ok=True)
        (folder / "job.json").write_text("{}")
        if asked.get("interrupt"):
            raise KeyboardInterrupt
        return made_up_fit(asked["draws_made"])

    monkeypatch.setattr(sc, "fit", fake)
    return asked


def fit_words(inputs: Path, output: Path) -> list[str]:
    return ["fit", "income_convergence", *data_flags(inputs), "-o", str(output)]


def test_fit(capsys, inputs, sampler, tmp_path):
    output = tmp_path / "fit.nc"
    words = ["--weights", "rook", "--seed", "7", "--draws", "60", "--tune", "50", "--chains", "2"]
    assert main([*fit_words(inputs, output), *words, "--no-row-standardize"]) == 0
    printed = capsys.readouterr()
    assert "log(income)" in printed.out
    assert "95 % equal-tailed" in printed.out
    assert "Sampling: converged" in printed.err
    assert f"spatialclusters report {output} -o" in printed.err
    assert sc.load_fit(output).spec.name == "income_convergence"
    assert [path.name for path in tmp_path.iterdir()] == ["fit.nc"]
    assert (sampler["seed"], sampler["draws"], sampler["chains"]) == (7, 60, 2)
    assert sampler["weights"].kind == "rook"
    assert sampler["spec"].weights.kind == "rook"
    assert not sampler["spec"].weights.row_standardize
    assert not sampler["weights"].row_standardized


def test_fit_that_failed_its_check_is_saved(capsys, inputs, sampler, tmp_path):
    sampler["draws_made"] = 20
    output = tmp_path / "fit.nc"
    assert main([*fit_words(inputs, output), "-q"]) == 3
    printed = capsys.readouterr()
    assert "NOT converged" in printed.err
    assert "too few draws" in printed.out
    assert output.is_file()


def test_fit_refuses_an_existing_file(capsys, inputs, sampler, tmp_path):
    output = tmp_path / "fit.nc"
    output.write_text("precious")
    assert "--force" in refused(capsys, *fit_words(inputs, output))
    assert output.read_text() == "precious"
    assert "spec" not in sampler
    assert main([*fit_words(inputs, output), "--force"]) == 0
    assert sc.load_fit(output)


def test_fit_checks_the_output_first(capsys, inputs, sampler, tmp_path):
    assert "cannot be written" in refused(capsys, *fit_words(inputs, tmp_path / "no" / "fit.nc"))
    assert "folder" in refused(capsys, *fit_words(inputs, tmp_path))
    assert "spec" not in sampler
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_on_error(capsys, inputs, tmp_path):
    words = fit_words(inputs, tmp_path / "fit.nc")
    refused(capsys, *words, "--set", "growth.to=2222")
    refused(capsys, *words, "--weights", "nowhere.gal")
    assert "no checkpoint" in refused(capsys, *words, "--resume")
    assert list(tmp_path.iterdir()) == []


def test_interrupted(capsys, inputs, sampler, tmp_path):
    sampler["interrupt"] = True
    output = tmp_path / "fit.nc"
    assert main(fit_words(inputs, output)) == 130
    printed = capsys.readouterr()
    assert f"{output}.partial" in printed.err
    assert "--resume" in printed.err
    assert not output.exists()
    sampler["interrupt"] = False
    assert main([*fit_words(inputs, output), "--resume"]) == 0
    assert sampler["resume"]
    assert not Path(f"{output}.partial").exists()


# saved fits


def test_summary(capsys, fitted):
    assert main(["summary", str(fitted)]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert lines[0] == "Regional income growth: convergence"
    assert lines[2].split() == ["term", "mean", "sd", "interval", "P(>0)", "R-hat", "ESS", "unit"]
    assert "[2] log change over 65 years per unit of the term" in lines


def test_formats(capsys, fitted):
    assert main(["summary", str(fitted), "--format", "csv"]) == 0
    table = pd.read_csv(io.StringIO(capsys.readouterr().out))
    wanted = sc.coefficients(sc.load_fit(fitted))
    np.testing.assert_array_equal(table["estimate"], wanted["estimate"])
    assert main(["effects", str(fitted), "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert [row["effect"] for row in rows] == ["change", "speed", "half_life"]
    assert rows[2]["ci_high"] == "inf"
    assert rows[2]["std_error"] is None


def test_effects(capsys, fitted):
    assert main(["effects", str(fitted)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("Convergence\n\nterm")
    assert "half_life" in text
    assert "to inf" in text


def test_effects_need_roles(capsys, tmp_path):
    fit = made_up_fit(20)
    fit.tree.attrs["model"] = fit.tree.attrs["model"].replace('convergence = "log(income)"', "")
    path = sc.Fit(fit.tree).save(tmp_path / "plain.nc")
    message = refused(capsys, "effects", path)
    assert "[roles] convergence" in message
    assert "[roles] specialization" in message


@pytest.fixture(scope="module")
def lagged(tmp_path_factory) -> Path:
    """A saved fit with a lag of the response."""
    tree = made_up_fit().tree
    tree.attrs["model"] = tree.attrs["model"].replace('outcome = "none"', 'outcome = "sar"')
    tree["posterior"]["rho"] = tree["posterior"]["sigma"] + 0.3
    return sc.Fit(tree).save(tmp_path_factory.mktemp("fit") / "lagged.nc")


def test_impacts(capsys, lagged):
    fit, term = sc.load_fit(lagged), "log(income)"
    assert main(["impacts", str(lagged)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("Impacts of one unit more\n\nterm ")
    assert [line.split()[:3] for line in text.splitlines()[3:6]] == [
        [term, "row", effect] for effect in ("direct", "indirect", "total")
    ]
    assert "indirect: on all other rows together" in text
    assert "cell" not in text
    for by, expected in (("overall", sc.impacts(fit)), ("order", sc.impacts(fit, by="order")),
                         ("region", sc.regional_impacts(fit, term))):  # fmt: skip
        words = ["impacts", str(lagged), "--by", by, "--term", term]
        assert main([*words, "--format", "csv"]) == 0
        table = pd.read_csv(io.StringIO(capsys.readouterr().out))
        np.testing.assert_array_equal(table["estimate"], expected["estimate"])
        assert main([*words, "--format", "json"]) == 0
        rows = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
        assert [row["group"] for row in rows] == expected["group"].tolist()
        assert main(words) == 0
        assert "95 % equal-tailed" in capsys.readouterr().out


def test_impacts_need_lags(capsys, fitted, lagged):
    for words in ([], ["--by", "order"], ["--by", "region"], ["--term", "log(income)"]):
        message = refused(capsys, "impacts", fitted, *words)
        assert "coefficients are its impacts. Use summary, or effects." in message
    assert "Did you mean 'log(income)'" in refused(
        capsys, "impacts", lagged, "--term", "log(incom)"
    )
    assert "'tract'" in refused(capsys, "impacts", lagged, "--by", "tract")


def test_dependence_is_explained(capsys, lagged):
    assert main(["summary", str(lagged)]) == 0
    assert "rho: factor of the neighbors' response" in capsys.readouterr().out.splitlines()
    assert main(["effects", str(lagged)]) == 0
    text = capsys.readouterr().out
    assert text.count("common") == 4
    assert "by group" not in text
    assert text.endswith("overall: if this row alone is higher; common: if all are.\n")


def test_check(capsys, fitted, short):
    assert main(["check", str(fitted)]) == 0
    assert capsys.readouterr().out.startswith("Sampling: converged, all checks passed.\n  ok ")
    assert main(["check", str(short)]) == 3
    assert "  FAIL bulk ESS" in capsys.readouterr().out
    assert main(["check", str(short), "--format", "json"]) == 3
    assert {row["passed"] for row in json.loads(capsys.readouterr().out)} == {True, False}
    assert main(["check", str(fitted), "--model"]) == 0
    assert "\nModel: " in capsys.readouterr().out
    assert main(["check", str(short), "--model", "--format", "json"]) == 3
    assert {row["of"] for row in json.loads(capsys.readouterr().out)} == {"sampling", "model"}


def test_one_chain_cannot_pass(capsys, fitted, tmp_path):
    tree = sc.load_fit(fitted).tree
    for group in ("posterior", "sample_stats"):
        tree[group] = xr.DataTree(tree[group].to_dataset().isel(chain=[0]))
    path = sc.Fit(tree).save(tmp_path / "one.nc")
    assert main(["check", str(path)]) == 3
    assert "FAIL R-hat of hyperparameters and headline quantities: inf" in capsys.readouterr().out


def test_compare(capsys, fitted, short):
    assert "expected another" in refused(capsys, "compare", fitted)
    assert main(["compare", str(fitted), "--frequentist"]) == 0
    printed = capsys.readouterr()
    assert "OLS" in printed.out
    assert "log(income)" in printed.out
    assert main(["compare", str(fitted), str(short), "--format", "csv"]) == 0
    table = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert {"term", "effect", "estimator", "estimate", "ci_low"} <= set(table.columns)
    assert table["estimator"].nunique() == 2


def test_not_a_fit(capsys, tmp_path):
    assert "no such file" in refused(capsys, "summary", tmp_path / "none.nc")
    (tmp_path / "text.nc").write_text("hello")
    assert "not a fit" in refused(capsys, "check", tmp_path / "text.nc")


@pytest.mark.slow
def test_report(capsys, short, fitted, tmp_path):
    output = tmp_path / "report.html"
    assert main(["report", str(short), "-o", str(output)]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{output}\n"
    assert "NOT converged" in printed.err
    page = output.read_bytes()
    assert b"<html" in page
    assert "existing file" in refused(capsys, "report", short, "-o", output)
    assert output.read_bytes() == page
    assert "itself" in refused(capsys, "report", short, "-o", short, "--force")
    numbers = tmp_path / "numbers.json"
    words = ["report", str(short), "-o", str(output), "--json", str(numbers), "--force", "-v"]
    assert main([*words, "--spatial-ml", "--with", str(fitted)]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{output}\n{numbers}\n"
    assert "leave-one-out of the other models ..." in printed.err
    assert re.search(r"section ladder: \d+\.\d s", printed.err)
    record = json.loads(numbers.read_text("utf-8"))
    ladder, frequentist = (
        next(each for each in record["sections"] if each["name"] == name)
        for name in ("ladder", "frequentist")
    )
    models = [row[0] for row in ladder["blocks"][1]["rows"]]
    assert set(models) == {"income_convergence", "good"}
    assert "ML SEM" in {row[1] for row in frequentist["blocks"][1]["rows"]}
    assert "existing file" in refused(
        capsys, "report", short, "-o", tmp_path / "new.html", "--json", numbers
    )


# what reaches the terminal


def test_labels_obey_nothing(capsys):
    row = {"term": EVIL, "effect": "coefficient", "unit": EVIL, "estimate": 1.0, "point": "mean"}
    frame = estimates_frame([row | {"group": "", "ci_prob": 0.95, "ci_kind": "eti"}])
    for style in ("table", "csv", "json"):
        show_estimates(frame, style, title=EVIL)
        show(frame[["term", "unit"]], style, title=EVIL)
        text = capsys.readouterr().out
        assert all(c.isprintable() or c == "\n" for c in text)
        assert "[bold]x[/bold]" in text
        if style == "json":
            assert json.loads(text.splitlines()[0])[0]["term"] == EVIL


def test_clean():
    assert clean("a\nb\t\x00", keep="\n") == "a\nb\\t\\x00"
    assert clean("Île-de-France\xa0東京") == "Île-de-France 東京"
    assert clean("\ud800") == "\\ud800"


def test_long_terms_are_not_cut_in_a_pipe(capsys):
    term = "mean(log(neighbor_strength) | region):" * 2
    rows = [{"term": term + str(i), "effect": "sd", "unit": "u" * 200, "group": "g" * 90,
             "point": "mean", "verdict": "ok"} for i in range(2)]  # fmt: skip
    show_estimates(estimates_frame(rows), "table")
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith(term + "0  " + "g" * 90)
    assert len(lines) == 5


def test_a_reader_that_has_gone(fitted):
    code = f"from spatialclusters.cli import main; import sys; sys.exit(main(['summary', {str(fitted)!r}]))"
    running = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    running.stdout.close()
    assert running.stderr.read() == b""
    running.stderr.close()
    assert running.wait() == 141


# the sampler itself


def started(words: list[str]) -> subprocess.Popen:
    """Start the program with Ctrl-C in force, whatever the test runner ignores."""
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from spatialclusters.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_an_interrupted_fit_resumes_to_the_same_draws(capsys, inputs, tmp_path):
    settings = ["--chains", "2", "--tune", "300", "--draws", "3000", "--seed", "3", "-q"]
    settings += ["--sampler", "nuts"]  # otherwise it is over before there is anything to keep
    whole, cut = tmp_path / "whole.nc", tmp_path / "cut.nc"
    done = started([*fit_words(inputs, whole), *settings])
    out, err = done.communicate(timeout=1800)
    assert done.returncode == 0, err
    assert "log(income)" in out

    running = started([*fit_words(inputs, cut), *settings])
    partial = Path(f"{cut}.partial")
    until = time.monotonic() + 900
    while not list(partial.glob("chain-0/block-*.npz")) and time.monotonic() < until:
        time.sleep(0.005)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=300)
    assert running.returncode == 130, err
    assert out == ""
    assert "--resume" in err
    assert not cut.exists()
    blocks = len(list(partial.glob("chain-*/block-*.npz")))
    assert 0 < blocks < 2 * 66

    assert "got checkpoints" in refused(capsys, *fit_words(inputs, cut), *settings)
    changed = refused(capsys, *fit_words(inputs, cut), *settings, "--resume", "--seed", "4")
    assert "seed was 3, is 4" in changed
    assert len(list(partial.glob("chain-*/block-*.npz"))) == blocks

    resumed = started([*fit_words(inputs, cut), *settings, "--resume"])
    err = resumed.communicate(timeout=1800)[1]
    assert resumed.returncode == 0, err
    xr.testing.assert_identical(sc.load_fit(cut).posterior, sc.load_fit(whole).posterior)
    xr.testing.assert_identical(sc.load_fit(cut).sample_stats, sc.load_fit(whole).sample_stats)
    assert not partial.exists()


def test_compare_by_leaving_one_out(capsys, fitted, short):
    assert main(["compare", str(fitted), str(short), "--loo", "--format", "csv"]) == 0
    table = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert {"model", "elpd", "difference", "difference_error"} <= set(table.columns)
    assert len(table) == 2


def test_compare_with_maximum_likelihood(capsys, fitted):
    assert main(["compare", str(fitted), "--spatial-ml"]) == 0
    printed = capsys.readouterr()
    assert "ML SAR" in printed.out
    assert "rho" in printed.out

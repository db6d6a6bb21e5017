"""Calibration: what is ranked, files that continue, broken samplers; bands are tested with the ranks."""

import errno
import json
import os
from dataclasses import asdict, replace

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PolyCollection

import spatialclusters as sc
from spatialclusters.calibration import FAMILY_WISE, Calibration
from spatialclusters.cli import main
from spatialclusters.collapsed.mode import stretch
from spatialclusters.design import Design
from spatialclusters.errors import FitError, SamplingError, SpecError
from spatialclusters.exported import chain_key
from spatialclusters.plots import plot_calibration
from spatialclusters.program import build_target
from spatialclusters.ranks import rank_band
from spatialclusters.repeated import RepeatedSampler
from spatialclusters.run import choose_settings

DATASETS, DRAWS, THIN = 20, 19, 10
SMALL = 1e-3  # p-value that a right sampler exceeds at the seed here
MODEL = """
name = "small"
formula = "y ~ x + (1 | cluster)"
[spatial]
outcome = "sar"
[priors]
intercept = { distribution = "normal", mean = 0.0, sd = 1.0 }
x = { distribution = "normal", mean = 0.0, sd = 1.0 }
"sd(cluster)" = { distribution = "half_normal", sd = 0.5 }
sigma = { distribution = "half_normal", sd = 1.0 }
"""
RANKED = [
    "intercept",
    "x",
    "effect(cluster)[a, 1]",
    "rho",
    "sd(cluster)[1]",
    "sigma",
    "total impact of x",
    "log p(y | theta)",
    "log p(y | effects, theta)",
]


def table():
    rng = np.random.default_rng(3)
    regions = [f"r{i}" for i in range(6)]
    index = pd.MultiIndex.from_product([regions, list("abc")], names=["region", "cluster"])
    frame = index.to_frame(index=False)
    frame["x"], frame["y"] = rng.standard_normal((2, len(frame)))
    ring = [(regions[i], regions[(i + d) % 6]) for i in range(6) for d in (1, 5)]
    return frame, pd.DataFrame(ring, columns=["region_i", "region_j"])


@pytest.fixture(scope="module")
def model():
    frame, ring = table()
    spec = sc.parse_spec(MODEL)
    return spec, sc.build_design(spec, sc.read_panel(frame), sc.read_weights(ring))


@pytest.fixture(scope="module")
def sampler(model):
    return RepeatedSampler(
        *model, choose_settings(model[0], seed=1, tune=100, draws=DRAWS * THIN), thin=THIN
    )


@pytest.fixture(scope="module")
def found(model, sampler, tmp_path_factory):
    file = tmp_path_factory.mktemp("calibration") / "whole.jsonl"
    return sc.calibrate(*model, seed=1, datasets=DATASETS, sampler=sampler, file=file), file


@pytest.mark.slow
def test_every_quantity_of_every_data_set_is_ranked(found):
    calibration, file = found
    assert list(calibration.ranks) == RANKED
    assert calibration.ranks.shape == calibration.ess.shape == (DATASETS, len(RANKED))
    assert calibration.ranks.min().min() >= 0
    assert calibration.ranks.max().max() <= calibration.draws == DRAWS
    assert min(calibration.p_values.values()) > SMALL
    assert calibration.passed
    assert "uniform" in str(calibration)
    assert calibration.runs["seconds"].gt(0.0).all()
    again = sc.read_calibration(file)
    pd.testing.assert_frame_equal(again.ranks, calibration.ranks)
    pd.testing.assert_frame_equal(again.ess, calibration.ess)
    assert again.provenance == calibration.provenance


@pytest.mark.slow
def test_an_interrupted_calibration_continues_to_the_same_ranks(model, sampler, found, tmp_path):
    calibration, file = found
    torn = tmp_path / "torn.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    # the header, four data sets, and half of one that was being written
    torn.write_bytes(b"".join(lines[:5]) + lines[5][:40])
    assert len(sc.read_calibration(torn).ranks) == 4
    again = sc.calibrate(*model, seed=1, datasets=7, sampler=sampler, file=torn, resume=True)
    pd.testing.assert_frame_equal(again.ranks, calibration.ranks.iloc[:7])
    pd.testing.assert_frame_equal(again.ess, calibration.ess.iloc[:7])
    for mine, theirs in zip(
        torn.read_text().splitlines(), file.read_text().splitlines(), strict=False
    ):
        mine, theirs = (json.loads(line) | {"seconds": 0} for line in (mine, theirs))
        assert mine == theirs
    # nothing is left to do, and nothing is done
    before = torn.read_bytes()
    sc.calibrate(*model, seed=1, datasets=3, sampler=sampler, file=torn, resume=True)
    assert torn.read_bytes() == before


@pytest.mark.slow
def test_another_calibration_is_not_continued(model, sampler, found):
    with pytest.raises(SamplingError, match="other 'seed'; expected the same"):
        sc.calibrate(*model, seed=2, datasets=3, sampler=sampler, file=found[1], resume=True)
    with pytest.raises(SamplingError, match="got an existing file"):
        sc.calibrate(*model, seed=1, datasets=3, sampler=sampler, file=found[1])


@pytest.mark.slow
def test_a_full_disk_leaves_what_was_finished(model, sampler, found, tmp_path, monkeypatch):
    file, count = tmp_path / "full.jsonl", iter(range(100))
    real = os.fsync

    def full(number):
        if next(count) == 3:  # the header is the first
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(number)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FitError, match="No space left on device"):
        sc.calibrate(*model, seed=1, datasets=5, sampler=sampler, file=file)
    monkeypatch.undo()
    again = sc.calibrate(*model, seed=1, datasets=5, sampler=sampler, file=file, resume=True)
    pd.testing.assert_frame_equal(again.ranks, found[0].ranks.iloc[:5])


@pytest.mark.slow
def test_with_stated_priors_the_response_of_the_design_does_not_matter(model, sampler):
    """Or the truth would not be drawn from the prior that its fit has."""
    spec, design = model
    other = Design(design.data.assign(y=100.0 * design.data["y"] + 7.0), design.weights)
    y, key = design.y + 1.0, chain_key(1, 0)
    z = sampler.target.start(key)
    found = [
        float(target.potential(z, target.prepare(y, None)))
        for target in (build_target(spec, d, {"engine": "collapsed"}) for d in (design, other))
    ]
    assert found[0] == found[1]


@pytest.mark.slow
def test_a_prior_without_its_jacobian_is_found_out(model, sampler):
    """Density of log sd(cluster) as if it were that of sd(cluster)."""
    options = asdict(sampler.settings)
    target = build_target(*model, options, other_sizes=True)

    def broken(z, data):
        return target.potential(z, data) + stretch(z, data.warm)[0][0]

    bad = RepeatedSampler(
        *model, sampler.settings, thin=THIN, target=replace(target, potential=broken)
    )
    calibration = sc.calibrate(*model, seed=1, datasets=3 * DATASETS, sampler=bad)
    assert not calibration.passed
    assert calibration.p_values["sd(cluster)[1]"] < FAMILY_WISE / len(RANKED)
    assert "NOT calibrated" in str(calibration)


def made_up(n=200, draws=99, **shifted):
    rng = np.random.default_rng(4)
    names = ["x", "sigma", *shifted]
    ranks = pd.DataFrame(rng.integers(0, draws + 1, (n, len(names))), columns=names)
    for name, shift in shifted.items():
        ranks[name] = np.clip(ranks[name] + shift, 0, draws)
    runs = pd.DataFrame({"seconds": np.ones(n), "diverging": 0, "pareto_k": np.nan})
    return Calibration(ranks, ranks * 0.0 + 90.0, runs, draws, {})


def test_the_verdict_names_what_is_off():
    calibration = made_up(rho=30)
    assert not calibration.passed
    judged = calibration.table().set_index("quantity")
    assert judged["uniform"].to_dict() == {"x": True, "sigma": True, "rho": False}
    assert judged.loc["rho", "coverage_50"] == pytest.approx(
        calibration.ranks["rho"].between(25, 74).mean()
    )
    assert "1 of 3 quantities are off" in str(calibration)
    assert "Outside their bands: 'rho'" in str(calibration)
    # shared among more quantities, the band is wider
    p = calibration.p_values["x"]
    alone = calibration.table(family_wise=1.01 * p, quantities=1).set_index("quantity")
    shared = calibration.table(family_wise=1.01 * p, quantities=2).set_index("quantity")
    assert not alone.loc["x", "uniform"]
    assert shared.loc["x", "uniform"]


def test_the_figure_shows_ranks_inside_and_outside_their_band():
    calibration = made_up(rho=30)
    before = dict(mpl.rcParams)
    figure = plot_calibration(calibration)
    assert dict(mpl.rcParams) == before
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["x", "sigma", "rho (off)"]
    band = rank_band(200, 99, FAMILY_WISE / 3)
    for axes in figure.axes:
        (area,) = (c for c in axes.collections if isinstance(c, PolyCollection))
        corners = area.get_paths()[0].vertices
        share = np.arange(1, 100) / 100
        for bound in band:
            wanted = set(np.round(bound / 200 - share, 9))
            assert wanted <= set(np.round(corners[:, 1], 9))
        line = axes.lines[-1].get_ydata()
        inside = (line[1:-1] >= band.lower / 200 - share) & (line[1:-1] <= band.upper / 200 - share)
        assert inside.all() == ("off" not in axes.get_title(loc="left"))


def test_the_worst_are_shown_if_there_are_too_many():
    calibration = made_up(rho=30, phi=20)
    figure = plot_calibration(calibration, limit=2)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["rho (off)", "phi (off)"]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "no calibration"),
        (b"PK\xff\xfe\n", "no calibration"),
        (b'{"format": "spatialclusters-calibration/1"}\n{"dataset": 0}\n', "no calibration"),
        (b"[]\n", "no calibration"),
        (b'{"format": "another/1"}\n', "got format 'another/1'"),
        (b'{"format": "spatialclusters-calibration/1"}\n', "no calibration"),
        (b'{"format": "spatialclusters-calibration/1", "draws": 9}\n', "no finished data set"),
    ],
)
def test_other_files_are_refused(content, named, tmp_path):
    file = tmp_path / "file.jsonl"
    file.write_bytes(content)
    with pytest.raises(FitError, match=named):
        sc.read_calibration(file)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(FitError, match=r"nothing\.jsonl"):
        sc.read_calibration(tmp_path / "nothing.jsonl")


@pytest.mark.parametrize(
    "change",
    [
        {"groups.cluster.effect": "fixed"},
        {"priors.x": {"distribution": "flat"}},
    ],
)
def test_without_a_proper_prior_there_is_no_truth(change):
    frame, ring = table()
    spec = sc.override(sc.parse_spec(MODEL), change)
    design = sc.build_design(spec, sc.read_panel(frame), sc.read_weights(ring))
    with pytest.raises(SpecError, match="expected"):
        sc.calibrate(spec, design, seed=1, datasets=1, draws=19, thin=1, tune=10)


def test_no_data_sets_are_refused(model):
    with pytest.raises(SamplingError, match="datasets = 0"):
        sc.calibrate(*model, seed=1, datasets=0)


@pytest.mark.slow
def test_the_command_writes_judges_and_continues(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    frame, _ = table()
    frame.drop_duplicates("region").to_csv("panel.csv", index=False)
    (tmp_path / "line.toml").write_text('formula = "y ~ x"')
    words = ["calibrate", "line.toml", "--data", "panel.csv", "-o", "line.jsonl", "--draws", "19"]
    # a seed at which a right sampler passes: at one in a hundred it does not
    words += ["--thin", "5", "--tune", "50", "--datasets", "6", "--seed", "2", "--quiet"]
    assert main([*words, "--figure", "line.png"]) == 0
    said = capsys.readouterr()
    assert "Calibration: ranks of all 5 quantities are uniform." in said.out
    assert (tmp_path / "line.png").read_bytes().startswith(b"\x89PNG")
    assert main(words) == 2
    assert "got an existing file" in capsys.readouterr().err
    assert main([*words, "--resume", "--format", "json"]) == 0
    assert [row["quantity"] for row in json.loads(capsys.readouterr().out)][:3] == [
        "intercept",
        "x",
        "sigma",
    ]
    # a calibration that is off
    lines = (tmp_path / "line.jsonl").read_text().splitlines()
    header, *runs = map(json.loads, lines)
    for run in runs:
        run["ranks"]["sigma"] = 0
    (tmp_path / "line.jsonl").write_text("".join(f"{json.dumps(x)}\n" for x in (header, *runs)))
    assert main([*words, "--resume"]) == 3
    assert "Outside their bands: 'sigma'" in capsys.readouterr().out

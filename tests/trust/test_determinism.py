"""Chain k has the same bits in any company, in a fresh process, with nothing in the cache.

Fits resumed: test_interruption.py.
"""

import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import spatialclusters as sc
from spatialclusters.run import fit_design
from spatialclusters.sampling import Settings, sample
from tests.trust.made import SAR, ring, table

SETTINGS = Settings(seed=9, chains=1, tune=50, draws=100, engine="collapsed")


def inputs():
    spec = sc.parse_spec(SAR)
    return spec, sc.build_design(spec, sc.read_panel(table()), sc.read_weights(ring()))


@pytest.fixture(scope="module")
def two_chains(tmp_path_factory):
    """By a fresh process, which finds nothing in the cache."""
    code = """
        import sys
        from dataclasses import replace
        from spatialclusters.run import fit_design
        from tests.trust.test_determinism import SETTINGS, inputs
        fit_design(*inputs(), replace(SETTINGS, chains=2)).save(sys.argv[1])
    """
    folder = tmp_path_factory.mktemp("fresh")
    path = folder / "fit.nc"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(path)],
        env=os.environ | {"XDG_CACHE_HOME": str(folder / "cache")},
        cwd=Path(__file__).resolve().parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list((folder / "cache").rglob("*-cache"))  # it did compile
    return sc.load_fit(path)


@pytest.mark.slow
def test_one_chain_alone(two_chains):
    alone = fit_design(*inputs(), SETTINGS)
    for group in ("posterior", "sample_stats", "conditional_mean", "conditional_variance"):
        for name, values in alone.tree[group].data_vars.items():
            found = two_chains.tree[group][name].values[:1]
            np.testing.assert_array_equal(found, values.values, err_msg=name)


@pytest.mark.slow
def test_one_core(two_chains, tmp_path):
    settings = replace(SETTINGS, chains=2)
    drawn = sample(*inputs(), settings, folder=tmp_path / "job", cores=1)
    for name, values in drawn.posterior.items():
        np.testing.assert_array_equal(values, two_chains.draws(name))

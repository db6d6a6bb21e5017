"""Chain k has the same bits in any company, in a fresh process, with nothing in the cache.

Fits resumed: test_interruption.py. One chain alone: tests/unit/test_result.py.
"""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import spatialclusters as sc
from spatialclusters.run import fit_design
from spatialclusters.sampling import Settings, sample
from tests.trust.made import SAR, ring, table

SETTINGS = Settings(seed=9, chains=2, tune=50, draws=100, engine="collapsed")


def inputs():
    spec = sc.parse_spec(SAR)
    return spec, sc.build_design(spec, sc.read_panel(table()), sc.read_weights(ring()))


@pytest.fixture(scope="module")
def reference():
    return fit_design(*inputs(), SETTINGS)


def chains(fit, count):
    """The first chains of everything that is drawn or recorded."""
    return {
        (group, name): values.values[:count]
        for group in ("posterior", "sample_stats", "conditional_mean", "conditional_variance")
        for name, values in fit.tree[group].data_vars.items()
    }


@pytest.mark.slow
def test_more_chains_in_a_fresh_process_with_an_empty_cache(reference, tmp_path):
    code = """
        import sys
        from dataclasses import replace
        from spatialclusters.run import fit_design
        from tests.trust.test_determinism import SETTINGS, inputs
        fit_design(*inputs(), replace(SETTINGS, chains=3)).save(sys.argv[1])
    """
    path = tmp_path / "fit.nc"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(path)],
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")},
        cwd=Path(__file__).resolve().parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "cache").rglob("*-cache"))  # it did compile
    expected = chains(reference, 2)
    for key, values in chains(sc.load_fit(path), 2).items():
        np.testing.assert_array_equal(values, expected[key], err_msg=str(key))


@pytest.mark.slow
def test_one_core(reference, tmp_path):
    drawn = sample(*inputs(), SETTINGS, folder=tmp_path / "job", cores=1)
    for name, values in drawn.posterior.items():
        np.testing.assert_array_equal(values, reference.draws(name))

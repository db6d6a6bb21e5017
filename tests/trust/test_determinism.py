"""Chain k has the same bits in any company, on any number of cores, in a fresh process, without a cache.

Fits resumed: test_interruption.py. One chain alone: tests/unit/test_result.py.
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
from spatialclusters.files import read_arrays
from spatialclusters.sampling import Settings, sample
from tests.trust.made import SAR, ring, table

SETTINGS = Settings(seed=9, chains=2, tune=50, draws=100, engine="collapsed")


def inputs():
    spec = sc.parse_spec(SAR)
    return spec, sc.build_design(spec, sc.read_panel(table()), sc.read_weights(ring()))


def everything(drawn):
    """All that is drawn or recorded, by kind and name."""
    kinds = ("posterior", "stats", "means", "variances")
    return {f"{k} {name}": x for k in kinds for name, x in getattr(drawn, k).items()}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """Two chains, one after the other, by a process that finds nothing in the cache."""
    code = """
        import sys
        from pathlib import Path
        from spatialclusters.files import write_arrays
        from spatialclusters.sampling import sample
        from tests.trust.test_determinism import SETTINGS, everything, inputs
        folder = Path(sys.argv[1])
        drawn = sample(*inputs(), SETTINGS, folder=folder / "job", cores=1)
        write_arrays(folder / "draws.npz", everything(drawn))
    """
    folder = tmp_path_factory.mktemp("fresh")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(folder)],
        env=os.environ | {"XDG_CACHE_HOME": str(folder / "cache")},
        cwd=Path(__file__).resolve().parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list((folder / "cache").rglob("*-cache"))  # it did compile
    return read_arrays(folder / "draws.npz")


@pytest.mark.slow
def test_three_chains_side_by_side(fresh, tmp_path):
    drawn = sample(*inputs(), replace(SETTINGS, chains=3), folder=tmp_path / "job")
    found = everything(drawn)
    assert set(found) == set(fresh)
    for name, values in found.items():
        np.testing.assert_array_equal(values[:2], fresh[name], err_msg=name)
    assert (drawn.posterior["rho"][1] != drawn.posterior["rho"][2]).all()

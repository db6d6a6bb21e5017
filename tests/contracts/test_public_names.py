"""The public names are what the stub says, and importing the package loads nothing heavy."""

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import spatialclusters as sc

HEAVY = ("pymc", "pytensor", "jax", "numpyro", "arviz", "libpysal", "pandas", "matplotlib")


def stub_names() -> dict[str, str]:
    """Return the module of each public name, from the stub."""
    tree = ast.parse(Path(sc.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    return {
        alias.name: node.module
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }


def submodules() -> list[str]:
    return [found.name for found in pkgutil.walk_packages(sc.__path__, f"{sc.__name__}.")]


def test_public_names_after_importing_every_submodule():
    for name in submodules():
        importlib.import_module(name)
    for name, module in stub_names().items():
        wanted = getattr(importlib.import_module(f"{sc.__name__}.{module}"), name)
        assert getattr(sc, name) is wanted
        if not name.startswith("_"):
            assert wanted.__doc__, name
    assert set(sc.__all__) == {*stub_names(), "plots"}
    assert sc.plots is importlib.import_module("spatialclusters.plots")


def test_no_public_name_is_a_module():
    modules = {name.rsplit(".", 1)[-1] for name in submodules() if name.count(".") == 1}
    assert modules & set(stub_names()) == set()


def test_public_names_are_public_in_their_module():
    for name, module in stub_names().items():
        if not name.startswith("_"):
            assert name in importlib.import_module(f"{sc.__name__}.{module}").__all__


def test_importing_the_package_loads_nothing_heavy():
    code = (
        "import sys, spatialclusters as sc; assert 'read_panel' in dir(sc);"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_data_side_loads_no_sampler():
    code = (
        "import sys, spatialclusters as sc; sc.Panel, sc.Weights, sc.ModelSpec, sc.Design;"
        f"print([name for name in {HEAVY[:5]!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

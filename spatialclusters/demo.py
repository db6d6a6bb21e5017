"""Everything on the built-in data: fits, reports, and the truth beside its posterior."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from spatialclusters.catalogue import load_model
from spatialclusters.datasets import simulated_economy, us_income
from spatialclusters.effects import coefficients
from spatialclusters.errors import FitError
from spatialclusters.reporting import write_report
from spatialclusters.run import fit

if TYPE_CHECKING:
    from spatialclusters.datasets import SimulatedEconomy
    from spatialclusters.result import Fit

__all__ = ["FOLDER", "TRUTH_FILE", "choose_folder", "read_truth", "run_demo", "truth_table"]

FOLDER: Final = "spatialclusters-demo"
TRUTH_FILE: Final = "simulated_economy_truth.csv"
_SEED: Final = 1


def choose_folder(wanted: str | Path | None = None) -> Path:
    """Return a folder that does not exist or is empty; nothing is created.

    Parameters
    ----------
    wanted
        The folder; without one the first free name among ``spatialclusters-demo``,
        ``spatialclusters-demo-2``, ... in the current folder.

    Raises
    ------
    FitError
        ``wanted`` is a file or holds something.

    Examples
    --------
    >>> choose_folder("nowhere/yet").name
    'yet'
    """
    if wanted is None:
        number, folder = 1, Path(FOLDER)
        while folder.exists():
            number += 1
            folder = Path(f"{FOLDER}-{number}")
        return folder
    folder = Path(wanted)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        msg = f"{folder.name}: got a file, or a folder that is not empty; expected a new one."
        raise FitError(msg + " Choose another with -o.")
    return folder


def run_demo(
    folder: str | Path,
    *,
    draws: int | None = None,
    tune: int | None = None,
    chains: int = 4,
    progress: bool = True,
) -> list[Path]:
    """Fit the shipped models to the built-in data and write everything to a folder.

    ``income_convergence`` on the income of US states, and ``cluster_growth`` on a
    simulated economy whose parameters are known.

    Parameters
    ----------
    folder
        New or empty.
    draws, tune, chains
        As in :func:`spatialclusters.fit`.
    progress
        Show progress on stderr.

    Returns
    -------
    list of Path
        Both fits (``.nc``), both reports (``.html``), and :data:`TRUTH_FILE`.

    Raises
    ------
    FitError
        The folder holds something, or cannot be made.
    """
    target = choose_folder(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        msg = f"{target.name}: cannot be made ({cause.strerror}). Choose another with -o."
        raise FitError(msg) from cause
    sampled = partial(fit, seed=_SEED, draws=draws, tune=tune, chains=chains, progress=progress)
    written = _write(sampled(load_model("income_convergence"), us_income()), target, "us_income")
    economy = simulated_economy()
    simulated = sampled(economy.spec, economy.panel, economy.weights, linkages=economy.linkages)
    written += _write(simulated, target, "simulated_economy")
    truth = target / TRUTH_FILE
    truth_table(simulated, economy).to_csv(truth, index=False)
    return [*written, truth]


def truth_table(fitted: Fit, economy: SimulatedEconomy) -> pd.DataFrame:
    """Put the parameters an economy was simulated at beside their posterior.

    Returns
    -------
    pandas.DataFrame
        Columns ``term, truth, mean, ci_low, ci_high, inside``; the interval is the
        95 % equal-tailed one. Of many intervals some 5 % miss the truth.
    """
    frame = coefficients(fitted)
    others = [
        name
        for name in map(str, fitted.posterior.data_vars)
        if name not in ("intercept", "coefficient") and not name.startswith("effect(")
    ]
    truth = np.concatenate(
        [np.ravel(economy.truth[name]) for name in ("intercept", "coefficient", *others)]
    )
    inside = (frame["ci_low"] <= truth) & (truth <= frame["ci_high"])
    labels = frame["term"].where(frame["group"] == "", frame["term"] + " [" + frame["group"] + "]")
    return pd.DataFrame(
        {
            "term": labels,
            "truth": truth,
            "mean": frame["estimate"],
            "ci_low": frame["ci_low"],
            "ci_high": frame["ci_high"],
            "inside": np.where(inside, "yes", "no"),
        }
    )


def read_truth(path: str | Path) -> pd.DataFrame:
    """Read back what :func:`run_demo` wrote to :data:`TRUTH_FILE`."""
    return pd.read_csv(path)


def _write(fitted: Fit, folder: Path, name: str) -> list[Path]:
    """Save the fit first: a report can be written again, draws cannot."""
    saved = fitted.save(folder / f"{name}.nc")
    return [saved, write_report(fitted, path=folder / f"{name}.html")]

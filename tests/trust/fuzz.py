"""Mutations of good input: each is used or refused by one error; none breaks or hangs anything.

python -m tests.trust.fuzz --cases 10000 --seed 20261126 --output docs/records

Case i of a seed is always the same one: ``--only i`` runs it alone, with its traceback. Warnings are
errors, as in the tests, so that a number that overflowed does not pass for a result.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

import spatialclusters as sc
from spatialclusters.cli import main as command_line
from spatialclusters.cli.output import clean
from spatialclusters.errors import SpatialClustersError
from spatialclusters.formula import FUNCTIONS, parse_formula
from spatialclusters.run import default_weights
from spatialclusters.sources import read_cbp, read_eurostat, read_qcew
from spatialclusters.spec import override, parse_spec, spec_to_toml
from spatialclusters.weights import align
from tests.trust.cases_of_data import GAL, ICAR, LINKED
from tests.trust.cases_of_files import CBP
from tests.trust.made import GROWTH, PLAIN, SAR, economy, fit_bytes, ring, squares, table
from tests.trust.mutate import NUMBERS, WORDS, mutated, mutated_bytes

SECONDS = 30  # of CPU for one case: a hang, where the largest take one
LONGEST = 6_000  # characters of a message
MODELS = tuple(sc.catalogue.model_text(name) for name in sc.list_models()["name"])
SPECS = (*MODELS, PLAIN, SAR, ICAR, GROWTH, LINKED)
FORMULAS = tuple(parse_spec(text).formula for text in SPECS)
QCEW = (
    "area_fips,own_code,industry_code,agglvl_code,size_code,year,qtr,disclosure_code,"
    "annual_avg_estabs,annual_avg_emplvl,total_annual_wages\n"
    "01001,5,10,71,0,2018,A,,10,100,3000000\n01001,5,311811,78,0,2018,A,N,3,0,0\n"
)
EUROSTAT = (
    "nace_r2,indic_sbs,geo\\TIME_PERIOD\t2021 \t2022 \n"
    "C10,EMP_LOC_NR,AT11\t5 b\t: C\nC11,EMP_LOC_NR,AT12\t7e2 bu\t0 n\n"
)
SETTINGS: dict[str, tuple[str, ...]] = {
    "formula": ("y ~ x", "y ~ x*z + (1 | region)", "y ~ log(x)", "growth ~ log(cluster_level)"),
    "growth.to": ("2021", "1994"),
    "growth.annualized": ("true", "false"),
    "cells.absent": ("zero", "withheld"),
    "cells.withheld": ("zero", "lower", "missing"),
    "zeros.cluster_level": ("drop", "minimum-and-dummy", "asinh", "log1p"),
    "spatial.outcome": ("none", "sar", "sem", "sac"),
    "spatial.blocks": ("restandardize", "subset"),
    "groups.region.structure": ("iid", "icar", "car", "leroux", "bym2", "sar"),
    "groups.region.effect": ("random", "correlated", "fixed"),
    "groups.cluster.effect": ("random", "correlated", "fixed"),
    "likelihood.scale": ("constant", "by-cluster", "size"),
    "likelihood.family": ("gaussian", "student-t"),
    "weights.kind": ("queen", "rook", "knn:3", "distance:0.0011", "queen + knn:2", "decay-power:1"),
    "priors.sigma": ('{ distribution = "uniform", lower = 0.0, upper = 9.0 }',),
    "priors.rho": ('{ distribution = "uniform", lower = -1.0, upper = 1.0 }',),
    "name": ("other",),
    "a.b.c": ("1",),
    "[": ("1",),
}  # fmt: skip


class Hang(BaseException):
    """A case that took too long."""


def _spec(rng: np.random.Generator, folder: Path) -> None:
    text = mutated(_one(SPECS, rng), rng, SPECS)
    if rng.random() < 0.2:
        text = mutated_bytes(text.encode(), rng).decode("utf-8", "surrogateescape")
    spec = parse_spec(text)
    if parse_spec(spec_to_toml(spec)) != spec:
        msg = "a model that does not read back as it was written"
        raise AssertionError(msg)


def _settings(rng: np.random.Generator, folder: Path) -> None:
    """One to three keys set, mostly to what they may be, and the design that comes of it."""
    text, data = ((SAR, table()), (ICAR, table()), (GROWTH, economy()))[int(rng.integers(3))]
    changes = {}
    for _ in range(rng.integers(1, 4)):
        key = _one(tuple(SETTINGS), rng)
        value = _one(SETTINGS[key], rng)
        changes[key] = value if rng.random() < 0.7 else mutated(_one((value, *NUMBERS), rng), rng)
    spec = override(parse_spec(text), changes)
    panel = sc.read_panel(data, squares())
    sc.build_design(spec, panel, default_weights(spec, panel))


def _formula(rng: np.random.Generator, folder: Path) -> None:
    again = parse_formula(mutated(_one(FORMULAS, rng), rng, FORMULAS))
    if str(parse_formula(str(again))) != str(again):
        msg = "a formula that does not read back as it was written"
        raise AssertionError(msg)


def _design(rng: np.random.Generator, folder: Path) -> None:
    """A formula in the grammar, on a table with zeros, negative numbers and gaps."""

    def expression(depth: int = 0) -> str:
        if depth < 3 and rng.random() < 0.4:
            return f"{_one(FUNCTIONS, rng)}({expression(depth + 1)})"
        return _one(("x", "z", "w", "v"), rng)

    products = [_one(("", f":{expression()}", f"*{expression()}"), rng) for _ in range(2)]
    formula = " + ".join(f"{expression()}{product}" for product in products)
    groups = _one(("", " + (1 | region)", " + (1 | region) + (1 | cluster)"), rng)
    text = f"formula = 'y ~ {formula}{groups}'\n"
    if logged := [name for name in "xzwv" if f"log({name})" in formula]:
        rules = ("drop", "minimum-and-dummy", "asinh", "log1p")
        text += "[zeros]\n" + "".join(f"{name} = '{_one(rules, rng)}'\n" for name in logged)
    data = economy()[["region", "cluster"]]
    for name in "yxzwv":
        values = rng.normal(0.0, 10.0 ** rng.integers(-8, 9), len(data))
        gaps = np.where(rng.random(len(data)) < 0.1, rng.choice([0.0, np.nan]), values)
        data[name] = gaps if name == "y" or rng.random() < 0.3 else np.abs(gaps)
    panel = sc.read_panel(data, squares())
    spec = parse_spec(text)
    sc.build_design(spec, panel, sc.contiguity(panel) if rng.random() < 0.8 else None)


def _table(rng: np.random.Generator, folder: Path) -> None:
    data, text = ((table(), PLAIN), (economy(), GROWTH))[int(rng.integers(2))]
    path = folder / "panel.csv"
    content = mutated(data.to_csv(index=False), rng).encode("utf-8", "replace")
    path.write_bytes(mutated_bytes(content, rng) if rng.random() < 0.3 else content)
    panel = sc.read_panel(path)
    sc.build_design(parse_spec(text), panel)


def _weights(rng: np.random.Generator, folder: Path) -> None:
    suffix = _one(("csv", "gal"), rng)
    text = mutated(ring().to_csv(index=False) if suffix == "csv" else GAL, rng)
    path = folder / f"weights.{suffix}"
    path.write_bytes(mutated_bytes(text.encode(), rng) if rng.random() < 0.3 else text.encode())
    panel = sc.read_panel(table())
    weights = align(sc.read_weights(path, row_standardize=bool(rng.integers(2))), panel.regions)
    sc.build_design(parse_spec(_one((SAR, ICAR), rng)), panel, weights)


def _shapes(rng: np.random.Generator, folder: Path) -> None:
    path = folder / "regions.geojson"
    path.write_text(mutated(squares().to_json(), rng), encoding="utf-8")
    panel = sc.read_panel(table(), path)
    sc.contiguity(panel)
    sc.knn(panel, 2)


def _raw(rng: np.random.Generator, folder: Path) -> None:
    read, text, name = (
        (read_cbp, CBP, "cbp18co.txt"),
        (read_qcew, QCEW, "qcew.csv"),
        (lambda path: read_eurostat(path, nuts_year=2021), EUROSTAT, "sbs.tsv"),
    )[int(rng.integers(3))]
    text = mutated(text, rng)
    path = folder / name
    path.write_bytes(mutated_bytes(text.encode(), rng) if rng.random() < 0.3 else text.encode())
    read(path)


def _fit(rng: np.random.Generator, folder: Path) -> None:
    """Damage that the seal must show, or an edit by somebody who took it off."""
    path = folder / "fit.nc"
    if rng.random() < 0.3:
        path.write_bytes(mutated_bytes(fit_bytes(), rng))
        if path.read_bytes() == fit_bytes():
            return
        try:
            sc.load_fit(path)
        except SpatialClustersError:
            raise
        msg = "a damaged fit that was read"
        raise AssertionError(msg)
    path.write_bytes(fit_bytes())
    with h5py.File(path, "r+") as file:
        _edit(file, rng)
    fit = sc.load_fit(path)
    sc.coefficients(fit)
    sc.impacts(fit)
    sc.check(fit)
    _ = fit.geometry


def _edit(file: h5py.File, rng: np.random.Generator) -> None:
    groups = [file, *(file[name] for name in file)]
    group = groups[int(rng.integers(len(groups)))]
    names, marks = list(group), [m for m in group.attrs if not m.startswith("_NC")]
    match rng.integers(4):
        case 0 if marks:
            mark = _one(tuple(marks), rng)
            value = group.attrs[mark]
            group.attrs[mark] = (
                mutated(value, rng).replace("\0", "") if isinstance(value, str) else -7
            )
        case 1 if names:
            del group[_one(tuple(names), rng)]
        case 2 if names and isinstance(group[names[0]], h5py.Dataset):
            array = group[_one(tuple(names), rng)]
            if array.dtype.kind in "fiu" and array.size:
                array[(0,) * array.ndim] = rng.choice([0, 3, 100])
        case _ if names and isinstance(group[names[0]], h5py.Dataset):
            name = _one(tuple(names), rng)
            values = group[name][()]
            del group[name]
            group[name] = rng.choice([1.0, 2.0]) if np.ndim(values) == 0 else values[::2]


def _command(rng: np.random.Generator, folder: Path) -> None:
    """The program itself: exit code 0 or 2, one message, no traceback."""
    model, panel = folder / "model.toml", folder / "panel.csv"
    text, data = ((PLAIN, table()), (GROWTH, economy()))[int(rng.integers(2))]
    spoil = rng.random() < 0.5  # one of the two, so that the other is reached
    text = mutated(text, rng, SPECS) if spoil else text
    model.write_text(text, encoding="utf-8", errors="replace")
    rows = data.to_csv(index=False)
    panel.write_text(rows if spoil else mutated(rows, rng), encoding="utf-8")
    words = [
        "validate",
        str(model),
        "--data",
        str(panel),
        *([_one(WORDS, rng)] if rng.random() < 0.3 else []),
    ]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = command_line([word.replace("\0", "") for word in words])
    if code not in (0, 2) or "Traceback" in err.getvalue() or (code == 2 and out.getvalue()):
        raise AssertionError(f"exit code {code}: {err.getvalue()[-500:]}")
    if code == 2:
        raise SpatialClustersError(err.getvalue())


KINDS: dict[str, tuple[Callable[[np.random.Generator, Path], None], float]] = {
    "model files": (_spec, 0.34),
    "settings": (_settings, 0.08),
    "formulas": (_formula, 0.18),
    "formulas on data": (_design, 0.08),
    "tables": (_table, 0.15),
    "weights": (_weights, 0.06),
    "regions": (_shapes, 0.02),
    "files of agencies": (_raw, 0.04),
    "saved fits": (_fit, 0.04),
    "command line": (_command, 0.01),
}


@dataclass
class Tally:
    """What came of the cases."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    longest: dict[str, float] = field(default_factory=dict)


def run_case(seed: int, index: int, folder: Path) -> tuple[str, str, float]:
    """Run one case; return its kind, ``fits`` or ``refused`` or what broke, and CPU seconds."""
    rng = np.random.default_rng([seed, index])
    kind = rng.choice(list(KINDS), p=[share for _, share in KINDS.values()])
    for path in folder.iterdir():
        path.unlink()
    started = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        KINDS[kind][0](rng, folder)
        outcome = "fits"
    except SpatialClustersError as error:
        outcome = _judged(str(error))
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001  Rust's panics are no Exceptions
        outcome = traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return kind, outcome, time.process_time() - started


def _judged(message: str) -> str:
    """Look at a message: not too long, and nothing in it that a terminal obeys once cleaned."""
    if not 0 < len(message) < LONGEST:
        return f"a message of {len(message)} characters: {message[:300]}"
    if not all(c.isprintable() or c == "\n" for c in clean(message, keep="\n")):
        return f"a message that a terminal obeys: {message[:300]!r}"
    return "refused"


def run_all(cases: int, seed: int, *, progress: bool = False) -> Tally:
    """Run cases 0 to ``cases`` - 1 of a seed."""

    def hang(*_: object) -> None:
        raise Hang

    tally, before = Tally(), signal.signal(signal.SIGPROF, hang)
    try:
        with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
            warnings.simplefilter("error")
            for index in range(cases):
                kind, outcome, seconds = run_case(seed, index, Path(name))
                if outcome not in ("fits", "refused"):
                    tally.failures.append(f"case {index} ({kind}): {outcome}")
                    outcome = "BROKE"
                tally.outcomes[kind, outcome] += 1
                tally.longest[kind] = max(seconds, tally.longest.get(kind, 0.0))
                if progress and index % 500 == 499:
                    print(f"{index + 1} cases, {len(tally.failures)} broke", file=sys.stderr)
    finally:
        signal.signal(signal.SIGPROF, before)
    return tally


def record(tally: Tally, cases: int, seed: int) -> str:
    """Return the record as Markdown."""
    lines = [
        "# Mutated input",
        "",
        f"`python -m tests.trust.fuzz --cases {cases} --seed {seed} --output docs/records`",
        "",
        "Good model files, formulas, tables, weights, maps, files of agencies and saved fits, each after one",
        "to several mutations (pieces dropped, doubled, swapped, spliced, replaced by hostile words and",
        "numbers; bytes changed). Every case must be used, or be refused by one error of ours whose message is",
        f"short and harmless; none may take {SECONDS} seconds of CPU. Warnings count as breaks.",
        f"**{len(tally.failures)} of {cases:,} broke.**",
        "",
        "| mutated | cases | fit | refused | broke | longest, CPU s |",
        "|---|---|---|---|---|---|",
    ]
    for kind in KINDS:
        counts = [tally.outcomes[kind, outcome] for outcome in ("fits", "refused", "BROKE")]
        cells = [
            kind,
            *(f"{n:,}" for n in (sum(counts), *counts)),
            f"{tally.longest.get(kind, 0.0):.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _one(values: tuple[str, ...], rng: np.random.Generator) -> str:
    return values[int(rng.integers(len(values)))]


def main() -> int:
    """Run the command; return 1 if anything broke."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=20261126)
    parser.add_argument("--only", type=int, help="run this case alone")
    parser.add_argument("--output", type=Path, help="folder of the record")
    options = parser.parse_args()
    if options.only is not None:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("error")
            print(*run_case(options.seed, options.only, Path(folder)), sep="\n")
        return 0
    tally = run_all(options.cases, options.seed, progress=True)
    for failure in tally.failures:
        print(failure)
    text = record(tally, options.cases, options.seed)
    print(text)
    if options.output:
        (options.output / "fuzz.md").write_text(text, encoding="utf-8")
    return int(bool(tally.failures))


if __name__ == "__main__":
    sys.exit(main())

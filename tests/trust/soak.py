"""Fit 200 times in one process: memory, handles, threads, children and files stay where they are.

    python -m tests.trust.soak --fits 200 --output docs/records

Every tenth fit is one of :func:`spatialclusters.fit`, of spatial models in this process, of others in
processes of their own; the rest are by a sampler that is compiled in this process for another model.
Each is saved, read and asked what a session asks; every 25th gets a report. After a fifth of the
fits everything that is built once has been built.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import spatialclusters as sc
from spatialclusters.design import Design
from spatialclusters.repeated import RepeatedSampler
from spatialclusters.run import choose_settings, label
from tests.trust.made import GROWTH, PLAIN, SAR, economy, ring, squares, table

GROWN = (
    25.0  # MB from the second fifth of the rounds to the last: 0.15 a fit; one kept fit has more
)
MODELS = {
    "growth": GROWTH + 'likelihood = { scale = "size" }\n',
    "spatial lag": SAR,
    "spatial error": SAR.replace('"sar"', '"sem"'),
    "Student-t, full engine": PLAIN + '[likelihood]\nfamily = "student-t"\n',
}
SHORT = {"chains": 1, "tune": 10, "draws": 50}
OWN_PROCESS, REPORT = 10, 25  # every so many fits: 40 fits have every model, as each fifth of 200


@dataclass(frozen=True)
class Held:
    """What the process holds after a fit."""

    seconds: float
    megabytes: float
    handles: int
    threads: int
    children: int
    files: int
    """Files that are left in the folder of temporary files."""


def held(seconds: float, temporary: Path) -> Held:
    """Count after what is not in use any more has been collected.

    What the allocator keeps for the next compilation is given back first: it is no leak, and hides one.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    process = Path("/proc/self")
    children = [path.read_text().split() for path in process.glob("task/*/children")]
    return Held(
        seconds,
        int((process / "statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20,
        len(list((process / "fd").iterdir())),
        len(list((process / "task").iterdir())),
        sum(map(len, children)),
        len(list(temporary.rglob("*"))),
    )


def inputs(name: str) -> tuple[sc.ModelSpec, sc.Panel, sc.Weights | None]:
    """Read a small data set anew, as every fit does."""
    spec = sc.parse_spec(MODELS[name])
    if name == "growth":
        return spec, sc.read_panel(economy(8, 5), squares([f"r{i:02d}" for i in range(8)])), None
    weights = sc.read_weights(ring()) if spec.spatial.parameters else None
    return spec, sc.read_panel(table(), squares()), weights


class Fitter:
    """Fits one model after the other."""

    def __init__(self) -> None:
        self._made: tuple[sc.ModelSpec, sc.Design, RepeatedSampler] | None = None

    def fit(self, number: int) -> sc.Fit:
        """Return the fit of this number."""
        kind, place = divmod(number, OWN_PROCESS)
        spec, panel, weights = inputs(list(MODELS)[kind % len(MODELS)])
        if place == 0:
            return sc.fit(spec, panel, weights, seed=number, progress=False, **SHORT)
        settings = choose_settings(spec, seed=number, **SHORT)
        if place == 1:
            design = sc.build_design(spec, panel, weights)
            self._made = spec, design, RepeatedSampler(spec, design, settings)
        spec, design, sampler = self._made
        noise = 0.1 * design.y.std() * np.random.default_rng(number).normal(size=design.n_rows)
        other = Design(design.data.assign(y=design.data["y"] + noise), design.weights)
        drawn = sampler.sample(other, seed=number)
        return label(
            spec, other, settings, drawn, panel=panel, linkages=None, timings=drawn.timings
        )


def ask(fit: sc.Fit, number: int, folder: Path) -> None:
    """Save, read and ask."""
    fit = sc.load_fit(fit.save(folder / "fit.nc"))
    sc.check(fit), sc.coefficients(fit)
    frequentist = sc.fit_frequentist(fit)
    sc.compare(fit, frequentist)
    if number % REPORT == REPORT - 1:
        sc.write_report(fit, frequentist, path=folder / "report.html")


def run_all(fits: int) -> list[Held]:
    """Return what was held after each fit."""
    found, fitter = [], Fitter()
    with tempfile.TemporaryDirectory() as name:
        folder, temporary = Path(name) / "work", Path(name) / "temporary"
        folder.mkdir(), temporary.mkdir()
        os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)  # of chains, and of this process
        with contextlib.suppress(KeyboardInterrupt):  # what was found until then is recorded
            for number in range(fits):
                started = time.monotonic()
                ask(fitter.fit(number), number, folder)
                found.append(held(time.monotonic() - started, temporary))
                print(number, found[-1], file=sys.stderr, flush=True)
        tempfile.tempdir = None
    return found


def parts(found: list[Held]) -> tuple[list[Held], list[Held]]:
    """Return the second fifth of the fits, and the last."""
    fifth = len(found) // 5
    return found[fifth : 2 * fifth], found[-fifth:]


def leaks(found: list[Held]) -> list[str]:
    """Say what grew from the second fifth of the fits to the last."""
    early, late = parts(found)
    grown = [
        f"{name} ({max(before)} -> {max(after)})"
        for name in ("handles", "threads", "children", "files")
        for before, after in [[[getattr(each, name) for each in part] for part in (early, late)]]
        if max(after) > max(before)
    ]
    before, after = (float(np.median([each.megabytes for each in part])) for part in (early, late))
    return grown + ([f"memory ({before:.0f} -> {after:.0f} MB)"] if after - before > GROWN else [])


def record(found: list[Held], wanted: int) -> str:
    """Return the record as Markdown."""
    grown, fits = leaks(found), len(found)
    stopped = f" The command was stopped before it had made {wanted}." if fits < wanted else ""
    own = -(-fits // OWN_PROCESS)
    lines = [
        "# Many fits in one process",
        "",
        f"`python -m tests.trust.soak --fits {wanted} --output docs/records`",
        "",
        f"{fits} fits of one chain (10 + 50 iterations) in one session: {own} by `sc.fit` (spatial models in this process,",
        f"the others in processes of their own), and {fits - own} by {own} samplers that were compiled in this process; {', '.join(MODELS)}",
        "in turn. Each fit was saved, read, checked, and compared with its regressions; every",
        f"{REPORT}th got a report. After each: memory that is resident, open file handles, threads, child processes, and",
        "files left among the temporary ones. Compared are the second fifth of the fits and the last:",
        f"memory may grow by {GROWN:g} MB at most, nothing else at all.{stopped}",
        "",
        f"**{'Nothing grew.' if not grown else 'Grew: ' + '; '.join(grown) + '.'}**",
        "",
        "| after fits | memory, MB | file handles | threads | children | temporary files |",
        "|---|---|---|---|---|---|",
    ]
    for number in sorted({1, *range(fits // 10, fits + 1, max(fits // 10, 1))}):
        each = found[number - 1]
        lines.append(
            f"| {number} | {each.megabytes:.0f} | {each.handles} | {each.threads} | {each.children} | {each.files} |"
        )
    early, late = ([each.megabytes for each in part] for part in parts(found))
    lines += [
        "",
        f"Memory, median: {np.median(early):.1f} MB in the second fifth, {np.median(late):.1f} MB in the last. Threads are those",
        "of JAX in this process.",
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run the command; return 1 if something grew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fits", type=int, default=200)
    parser.add_argument("--output", type=Path, help="folder of the record")
    options = parser.parse_args()
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
    found = run_all(options.fits)
    text = record(found, options.fits)
    print(text)
    if options.output:
        (options.output / "soak.md").write_text(text, encoding="utf-8")
    return int(bool(leaks(found)))


if __name__ == "__main__":
    sys.exit(main())

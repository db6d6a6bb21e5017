"""Fit 200 times in one process: memory, file handles, threads, children and files stay where they are.

    python -m tests.trust.soak --fits 200 --output docs/records

Each round fits a model as :func:`spatialclusters.fit` does, in processes of their own, saves the fit,
reads it, and asks it what a session asks; every fourth round compiles a sampler in this process as well
and draws from four data sets, every tenth writes a report. After a tenth of the rounds everything that is
built once has been built.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import spatialclusters as sc
from spatialclusters.repeated import RepeatedSampler
from spatialclusters.run import choose_settings
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
SHORT = {"chains": 2, "tune": 10, "draws": 50, "progress": False}
IN_PROCESS, REPORT = 4, 10  # every so many rounds


@dataclass(frozen=True)
class Held:
    """What the process holds after a round."""

    seconds: float
    megabytes: float
    handles: int
    threads: int
    children: int
    files: int
    """Files that are left in the folder of temporary files."""


def held(seconds: float, temporary: Path) -> Held:
    """Count after what is not in use any more has been collected."""
    gc.collect()
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
    """Read a small data set anew, as every round does."""
    spec = sc.parse_spec(MODELS[name])
    if name == "growth":
        return spec, sc.read_panel(economy(8, 5), squares([f"r{i:02d}" for i in range(8)])), None
    weights = sc.read_weights(ring()) if spec.spatial.parameters else None
    return spec, sc.read_panel(table(), squares()), weights


def one_round(number: int, folder: Path) -> None:
    """Fit once, or five times, and ask."""
    name = list(MODELS)[number % len(MODELS)]
    spec, panel, weights = inputs(name)
    path = folder / "fit.nc"
    sc.fit(spec, panel, weights, seed=number, **SHORT).save(path)
    fit = sc.load_fit(path)
    sc.check(fit), sc.coefficients(fit)
    frequentist = sc.fit_frequentist(fit)
    sc.compare(fit, frequentist)
    if number % IN_PROCESS == 0:
        repeat(list(MODELS)[number // IN_PROCESS % len(MODELS)], number)
    if number % REPORT == REPORT - 1:
        sc.write_report(fit, frequentist, path=folder / "report.html")


def repeat(name: str, seed: int) -> None:
    """Compile a sampler in this process, and draw from four data sets."""
    spec, panel, weights = inputs(name)
    design = sc.build_design(spec, panel, weights)
    settings = choose_settings(spec, seed=1, tune=10, draws=50)
    sampler, rng = RepeatedSampler(spec, design, settings), np.random.default_rng(seed)
    for _ in range(4):
        sampler.sample(design.y + 0.1 * design.y.std() * rng.normal(size=design.n_rows), seed=seed)


def run_all(fits: int) -> list[Held]:
    """Return what was held after each round."""
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder, temporary = Path(name) / "work", Path(name) / "temporary"
        folder.mkdir(), temporary.mkdir()
        os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)  # of chains, and of this process
        for number in range(fits):
            started = time.monotonic()
            one_round(number, folder)
            found.append(held(time.monotonic() - started, temporary))
            print(number, found[-1], file=sys.stderr, flush=True)
        tempfile.tempdir = None
    return found


def parts(found: list[Held]) -> tuple[list[Held], list[Held]]:
    """Return the second fifth of the rounds, and the last."""
    fifth = len(found) // 5
    return found[fifth : 2 * fifth], found[-fifth:]


def leaks(found: list[Held]) -> list[str]:
    """Say what grew from the second fifth of the rounds to the last."""
    early, late = parts(found)
    grown = [
        f"{name} ({max(before)} -> {max(after)})"
        for name in ("handles", "threads", "children", "files")
        for before, after in [[[getattr(each, name) for each in part] for part in (early, late)]]
        if max(after) > max(before)
    ]
    before, after = (float(np.median([each.megabytes for each in part])) for part in (early, late))
    return grown + ([f"memory ({before:.0f} -> {after:.0f} MB)"] if after - before > GROWN else [])


def record(found: list[Held]) -> str:
    """Return the record as Markdown."""
    grown, fits = leaks(found), len(found)
    repeated = 4 * -(-fits // IN_PROCESS)
    lines = [
        "# Many fits in one process",
        "",
        f"`python -m tests.trust.soak --fits {fits} --output docs/records`",
        "",
        f"{fits} fits by `sc.fit` ({', '.join(MODELS)} in turn; two chains of 10 + 50 iterations), each saved, read,",
        f"checked and compared with its regressions; {repeated} fits by {repeated // 4} samplers that were compiled in this",
        f"process, and {fits // REPORT} reports. After each round: memory that is resident, open file handles, threads, child",
        "processes, and files left among the temporary ones. Compared are the second fifth of the rounds and the",
        f"last; memory may grow by {GROWN:g} MB at most, nothing else at all.",
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
        f"Memory, median: {np.median(early):.1f} MB in the second fifth, {np.median(late):.1f} MB in the last. Threads are JAX's",
        "pool, which has some for each of the devices that PyMC asks it for; chains have processes of",
        "their own, and end with them.",
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run the command; return 1 if something grew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fits", type=int, default=200)
    parser.add_argument("--output", type=Path, help="folder of the record")
    options = parser.parse_args()
    found = run_all(options.fits)
    text = record(found)
    print(text)
    if options.output:
        (options.output / "soak.md").write_text(text, encoding="utf-8")
    return int(bool(leaks(found)))


if __name__ == "__main__":
    sys.exit(main())

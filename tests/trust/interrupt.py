"""Kill a fit at random moments, resume it, and compare the draws with those of a run in peace.

python -m tests.trust.interrupt --kills 20 --seed 20261127 --output docs/records [--small-disk FOLDER]

The program runs as a user runs it; a kill is SIGKILL to it and its chains. ``--small-disk`` names an
empty folder on a file system of a few MB, for runs out of space that is really out.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import spatialclusters as sc
from tests.trust.made import GROWTH, economy

PROGRAM = "import sys; from spatialclusters.cli import main; sys.exit(main(sys.argv[1:]))"
SETTINGS = (
    "--chains",
    "2",
    "--tune",
    "100",
    "--draws",
    "400",
    "--seed",
    "5",
    "-q",
    "--sampler",
    "nuts",
)
BLOCKS = 2 * 10  # of 50 iterations each
GROUPS = ("posterior", "sample_stats", "conditional_mean", "conditional_variance", "constant_data")
INTERRUPTED = 130  # exit code
DEADLINE = 1800.0  # seconds for one run, on a machine however busy


@dataclass(frozen=True)
class Outcome:
    """One interruption: when, what was left, and whether the resumed draws are the same."""

    how: str
    seconds: float
    left: str
    same: bool
    problem: str = ""


class Job:
    """A folder with the inputs of a small collapsed fit."""

    def __init__(self, folder: Path, printed: Path | None = None) -> None:
        self.folder, self.output = folder, folder / "fit.nc"
        self.printed = printed or folder / "log"
        self.partial = folder / "fit.nc.partial"
        folder.mkdir(parents=True, exist_ok=True)
        economy(8, 5).to_csv(folder / "panel.csv", index=False)
        (folder / "model.toml").write_text(GROWTH + 'likelihood = { scale = "size" }\n')

    def start(self, *more: str, limit: int | None = None) -> subprocess.Popen[bytes]:
        """Start the program in a group of processes of its own; no file may outgrow ``limit``."""

        def limited() -> None:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        words = [
            "fit",
            "model.toml",
            "--data",
            "panel.csv",
            "-o",
            self.output.name,
            *SETTINGS,
            *more,
        ]
        with self.printed.open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-c", PROGRAM, *words],
                cwd=self.folder, stdout=log, stderr=log, start_new_session=True, preexec_fn=limited,
            )  # fmt: skip

    def log(self) -> str:
        """What the last run printed."""
        return self.printed.read_text(encoding="utf-8", errors="replace")

    def blocks(self) -> int:
        """Checkpoints written so far."""
        return len(list(self.partial.glob("chain-*/block-*.npz")))

    def left(self) -> str:
        """What an interruption has left."""
        if self.output.exists():
            return "the finished fit"
        if not (self.partial / "job.json").exists():
            return "nothing sampled"
        return f"{self.blocks()} of {BLOCKS} checkpoints"

    def finish(self) -> int:
        """Run to the end, from whatever is left."""
        if self.output.exists():
            return 0
        resume = ["--resume"] if (self.partial / "job.json").exists() else []
        return self.start(*resume).wait(DEADLINE)

    def size(self) -> int:
        """Bytes of everything that the program has written."""
        total = 0
        for path in [*self.folder.glob(".fit.nc.*"), *self.partial.rglob("*"), self.output]:
            try:
                total += path.stat().st_size
            except FileNotFoundError:  # it has been moved into place
                continue
        return total


def same_draws(path: Path, reference: sc.Fit) -> bool:
    """Tell whether a saved fit has the reference's draws, bit by bit."""
    tree = sc.load_fit(path).tree
    return all(
        np.array_equal(values.values, reference.tree[group][name].values)
        for group in GROUPS
        for name, values in tree[group].data_vars.items()
    ) and all(
        set(tree[group].data_vars) == set(reference.tree[group].data_vars) for group in GROUPS
    )


def nothing_partial_is_a_fit(job: Job) -> bool:
    """Tell whether every file but the finished one is refused as a fit."""
    for path in job.folder.rglob("*"):
        if path.is_file() and path != job.output:
            try:
                sc.load_fit(path)
            except sc.FitError:
                continue
            # the whole fit under its temporary name, about to be moved, is no partial one
            if not path.name.startswith(".fit.nc."):
                return False
    return True


def wait_until(process: subprocess.Popen[bytes], happened: Callable[[], bool]) -> None:
    """Wait for something, or for the process to end."""
    until = time.monotonic() + DEADLINE
    while process.poll() is None and not happened() and time.monotonic() < until:
        time.sleep(0.001)


def moments(
    seconds: float, rng: np.random.Generator
) -> Iterator[tuple[str, Callable[[Job, subprocess.Popen[bytes]], None]]]:
    """Yield ways to choose a moment: any time, a checkpoint, the middle of a write, the saving."""

    def anytime(job: Job, process: subprocess.Popen[bytes]) -> None:
        end = time.monotonic() + rng.uniform(0.0, seconds)
        wait_until(process, lambda: time.monotonic() > end)

    def checkpoint(job: Job, process: subprocess.Popen[bytes]) -> None:
        count = int(rng.integers(1, BLOCKS))
        wait_until(process, lambda: job.blocks() >= count)
        time.sleep(rng.uniform(0.0, 0.02))

    def writing(job: Job, process: subprocess.Popen[bytes]) -> None:
        count = int(rng.integers(0, BLOCKS))
        wait_until(
            process, lambda: job.blocks() >= count and any(job.partial.glob("chain-*/.block-*"))
        )

    def saving(job: Job, process: subprocess.Popen[bytes]) -> None:
        wait_until(process, lambda: any(job.folder.glob(".fit.nc.*")) or job.output.exists())
        time.sleep(rng.uniform(0.0, 0.02))

    kinds = (("at any time", anytime), ("after a checkpoint", checkpoint),
             ("while a checkpoint is written", writing), ("while the fit is saved", saving))  # fmt: skip
    while True:
        yield from kinds


def killed(
    job: Job, how: str, moment: Callable[..., None], reference: sc.Fit, *, alone: bool = False
) -> Outcome | None:
    """Kill one run (only its first process if ``alone``), resume it and compare; None if it was over."""
    started = time.monotonic()
    process = job.start()
    moment(job, process)
    seconds = time.monotonic() - started
    if process.poll() is not None:
        return None
    (os.kill if alone else os.killpg)(process.pid, signal.SIGKILL)
    process.wait()
    left, whole = job.left(), nothing_partial_is_a_fit(job)
    return _resumed(
        job, how, seconds, left, reference, "" if whole else "a partial file was read as a fit"
    )


def interrupted(
    job: Job, how: str, number: int, moment: Callable[..., None], reference: sc.Fit
) -> Outcome:
    """Send a signal that asks the program to stop: Ctrl-C to all of them, or a termination."""
    started = time.monotonic()
    process = job.start()
    moment(job, process)
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    process.wait(DEADLINE)
    problem = (
        ""
        if process.returncode == INTERRUPTED
        else f"exit code {process.returncode}: {job.log()[-200:]}"
    )
    return _resumed(job, how, time.monotonic() - started, job.left(), reference, problem)


def without_space(
    job: Job, how: str, reference: sc.Fit, *, limit: int | None = None, ballast: Path | None = None
) -> Outcome:
    """Run out of space: an error and exit code 2; with space again, resume."""
    started = time.monotonic()
    process = job.start(limit=limit)
    process.wait(DEADLINE)
    seconds, told = time.monotonic() - started, job.log()
    problem = ""
    if process.returncode != 2 or "Traceback" in told or "error: " not in told:
        problem = f"exit code {process.returncode}: {told[-200:]}"
    if not nothing_partial_is_a_fit(job):
        problem = "a partial file was read as a fit"
    if ballast is not None:
        ballast.unlink()
    return _resumed(job, how, seconds, job.left(), reference, problem)


def _resumed(
    job: Job, how: str, seconds: float, left: str, reference: sc.Fit, problem: str
) -> Outcome:
    code = job.finish()
    if code not in (0, 3):
        return Outcome(
            how, seconds, left, same=False, problem=f"exit code {code}: {job.log()[-200:]}"
        )
    return Outcome(how, seconds, left, same_draws(job.output, reference), problem)


def run_in_peace(folder: Path) -> tuple[sc.Fit, float, int]:
    """Run once without disturbance; return the fit, its seconds, and the most bytes on disk."""
    job, started, most = Job(folder), time.monotonic(), 0
    process = job.start()
    while process.poll() is None:
        most = max(most, job.size())
        time.sleep(0.01)
    if process.returncode not in (0, 3):
        raise RuntimeError(job.log())
    return sc.load_fit(job.output), time.monotonic() - started, most


def run_all(kills: int, seed: int, folder: Path, small_disk: Path | None) -> list[Outcome]:
    """Run everything that the record tells."""
    rng = np.random.default_rng(seed)
    reference, seconds, most = run_in_peace(folder / "peace")
    found: list[Outcome] = []
    ways, tries = moments(seconds, rng), 0
    while len(found) < kills:
        how, moment = next(ways)
        tries += 1
        outcome = killed(Job(folder / f"kill-{tries}"), how, moment, reference)
        if outcome is not None:
            found.append(outcome)
            _say(found)

    def middle(job: Job, process: subprocess.Popen[bytes]) -> None:
        wait_until(process, lambda: job.blocks() >= BLOCKS // 3)

    alone = killed(
        Job(folder / "alone"), "the program alone, its chains left", middle, reference, alone=True
    )
    if alone is None:
        raise RuntimeError("the program ended before it had written a third of its checkpoints")
    found.append(alone)
    _say(found)
    during = dict(itertools.islice(ways, 4))["while a checkpoint is written"]
    for number, name in ((signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")):
        for when, moment in (("after a third", middle), ("while a checkpoint is written", during)):
            job = Job(folder / f"{name}-{len(found)}")
            found.append(interrupted(job, f"{name}, {when}", number, moment, reference))
            _say(found)
    for limit in (1_000, 20_000, 100_000):
        job = Job(folder / f"limit-{limit}")
        found.append(without_space(job, f"no file over {limit:,} bytes", reference, limit=limit))
        _say(found)
    if small_disk is not None:
        for outcome in _on_small_disk(small_disk, folder / "log", most, reference):
            found.append(outcome)
            _say(found)
    return found


def _on_small_disk(place: Path, printed: Path, most: int, reference: sc.Fit) -> Iterator[Outcome]:
    for share in (0.02, 0.2, 0.5, 0.8, 0.95):
        job, ballast = Job(place / "job", printed), place / "ballast"
        free = shutil.disk_usage(place).free - int(share * most)
        with ballast.open("wb") as file:
            file.write(bytes(max(free, 0)))
        yield without_space(job, f"a disk with room for {share:.0%}", reference, ballast=ballast)
        shutil.rmtree(place / "job")


def _say(found: list[Outcome]) -> None:
    last = found[-1]
    print(
        len(found),
        last.how,
        f"{last.seconds:.1f} s",
        last.left,
        last.same,
        last.problem,
        file=sys.stderr,
    )


def record(found: list[Outcome], kills: int, seed: int, *, small_disk: bool) -> str:
    """Return the record as Markdown."""
    correct = sum(each.same and not each.problem for each in found)
    command = f"python -m tests.trust.interrupt --kills {kills} --seed {seed} --output docs/records"
    lines = [
        "# Interrupted fits",
        "",
        f"`{command}{' --small-disk FOLDER' if small_disk else ''}`",
        "",
        "A small collapsed fit (2 chains, 100 + 400 iterations) by the program, killed with its chains by SIGKILL,",
        "then continued with `--resume` (or run again, where nothing had been sampled), and compared with a run in",
        "peace: posterior, statistics of the sampler, conditional moments and data, bit by bit. Every file that",
        "an interruption left was tried as a fit, and refused. Ctrl-C and a termination must exit with 130; where",
        "no space is left there must be one error and exit code 2.",
        f"**{correct} of {len(found)} resumed to the same draws.**",
        "",
        "| interrupted | after, s | left | same draws |",
        "|---|---|---|---|",
    ]
    for each in found:
        outcome = "yes" if each.same and not each.problem else f"NO {each.problem}"
        lines.append(f"| {each.how} | {each.seconds:.1f} | {each.left} | {outcome} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run the command; return 1 if a run did not resume to the same draws."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=20261127)
    parser.add_argument("--small-disk", type=Path)
    parser.add_argument("--output", type=Path, help="folder of the record")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found = run_all(options.kills, options.seed, Path(name), options.small_disk)
    text = record(found, options.kills, options.seed, small_disk=options.small_disk is not None)
    print(text)
    if options.output:
        (options.output / "interruption.md").write_text(text, encoding="utf-8")
    return int(any(each.problem or not each.same for each in found))


if __name__ == "__main__":
    sys.exit(main())

"""Killed, out of space, damaged: a fit resumes to the same draws, or says what is wrong.

One kill here; twenty by the command (docs/records/interruption.md).
"""

import errno
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import spatialclusters as sc
from spatialclusters import run
from spatialclusters.chain import block_files
from spatialclusters.cli import main
from spatialclusters.files import _Patient, read_arrays, replace_file, write_arrays, write_netcdf
from spatialclusters.run import fit_design
from spatialclusters.sampling import Settings, _start
from tests.trust import interrupt
from tests.trust.made import GROWTH, economy, made_up_fit

# what starts the program that is killed forks, beside the threads of JAX; the child does nothing else
pytestmark = pytest.mark.filterwarnings(r"ignore:os\.fork\(\) was called:RuntimeWarning")

WRITING = "while a checkpoint is written"

# --- full disks ------------------------------------------------------------------------------

DATA = xr.Dataset(
    {"x": ("i", np.arange(20_000.0))}, coords={"i": np.array([f"r{i}" for i in range(20_000)], dtype=object)}
)  # fmt: skip


class Full(io.FileIO):
    """A file on a disk with room for ``room`` bytes."""

    room = 0

    def write(self, data):
        if self.tell() + len(data) > self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


@pytest.mark.parametrize("room", [0, 100, 5_000, 50_000, 160_000, 300_000])
def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path, monkeypatch, room):
    monkeypatch.setattr(Full, "room", room)

    class Opened:
        raw = None

        def __init__(self, path):
            self.raw = Full(path, "x+")

    def write(file):
        opened = Opened(f"{file.name}.full")
        try:
            write_netcdf(opened, DATA)
        finally:
            opened.raw.close()
            Path(opened.raw.name).unlink()

    with pytest.raises(OSError, match="No space left"):
        replace_file(tmp_path / "data.nc", write)
    assert list(tmp_path.iterdir()) == []


def test_what_a_full_disk_did_not_take_is_read_back(tmp_path, monkeypatch):
    """HDF5 that reads something else than it has written crashes, now and then."""
    rng = np.random.default_rng(1)
    monkeypatch.setattr(Full, "room", 400)
    with io.FileIO(tmp_path / "whole", "w+") as whole, Full(tmp_path / "full", "w+") as raw:
        patient = _Patient(raw)
        for step in range(600):
            at, kind, data = int(rng.integers(900)), rng.integers(6), rng.bytes(rng.integers(1, 60))
            found = []
            for file in (whole, patient):
                buffer = bytearray(b"x" * 100)
                file.seek(at)
                if kind == 0 and step > 100:
                    found.append(file.truncate(at))
                elif kind < 4:
                    found.append(file.write(data))
                read = file.seek(-30, io.SEEK_CUR) if at > 60 else file.seek(0)
                found.append((file.tell(), read, buffer[: file.readinto(buffer)], file.tell()))
                found.append((file.seek(0, io.SEEK_END), file.tell()))
            assert found[: len(found) // 2] == found[len(found) // 2 :]
    assert "No space left" in str(patient.problem)


def test_a_full_disk_does_not_take_python_down(tmp_path):
    """HDF5 that could not write tried again when Python ended, and crashed."""
    code = """
import resource, signal, sys
from pathlib import Path
from spatialclusters.files import replace_file, write_netcdf
from tests.trust.test_interruption import DATA
failed = 0
for limit in (500, 5_000, 50_000, 160_000, 300_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    try:
        replace_file(Path(sys.argv[1]), lambda file: write_netcdf(file, DATA))
    except OSError:
        failed += 1
print(failed)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "data.nc")], capture_output=True, text=True, check=False
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "5\n"), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_is_written_is_what_xarray_writes(tmp_path):
    path = tmp_path / "data.nc"
    replace_file(path, lambda file: write_netcdf(file, DATA))
    with xr.open_dataset(path, engine="h5netcdf") as read:
        xr.testing.assert_identical(read.load(), DATA)


@pytest.mark.parametrize("place", ["fit.nc", "design.nc", "job.json"])
def test_no_space_from_the_command_line(tmp_path, monkeypatch, capsys, place):
    """One error and exit code 2, whichever file it is that does not fit."""
    monkeypatch.chdir(tmp_path)
    economy(8, 5).to_csv("panel.csv", index=False)
    (tmp_path / "model.toml").write_text(GROWTH)
    real = os.fsync

    def full(number):
        if place in str(Path(f"/proc/self/fd/{number}").readlink()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(number)

    monkeypatch.setattr("spatialclusters.files.os.fsync", full)
    if place == "fit.nc":
        monkeypatch.setattr(
            sc, "fit", lambda *_, checkpoint, **__: checkpoint.mkdir() or made_up_fit()
        )
    words = ["fit", "model.toml", "--data", "panel.csv", "-o", "fit.nc", "-q", "--sampler", "nuts"]
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert "No space left" in err
    assert "Traceback" not in err
    left = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert "fit.nc" not in left
    assert not [name for name in left if name.startswith(".")]


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_no_space_for_what_is_printed(tmp_path, stream):
    """The result cannot be printed, or the error cannot: exit code 2 in either case."""
    made_up_fit().save(tmp_path / "fit.nc")
    words = ["summary", "fit.nc"] if stream == "stdout" else ["summary", "nothing.nc"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", interrupt.PROGRAM, *words],
            cwd=tmp_path, check=False, text=True,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: full},
        )  # fmt: skip
    assert done.returncode == 2
    if stream == "stdout":
        assert done.stderr.startswith("error: standard output: cannot be written ([Errno 28]")


def test_a_file_where_the_checkpoints_should_go(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    economy(8, 5).to_csv("panel.csv", index=False)
    (tmp_path / "model.toml").write_text(GROWTH)
    (tmp_path / "fit.nc.partial").write_text("something else")
    assert main(["fit", "model.toml", "--data", "panel.csv", "-o", "fit.nc", "-q"]) == 2
    assert "checkpoints at fit.nc.partial cannot be written" in capsys.readouterr().err
    assert (tmp_path / "fit.nc.partial").read_text() == "something else"


# --- checkpoints ------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["auto", "nuts"])
def job(tmp_path_factory, request):
    """A finished job with its checkpoints, and the fit that came of it."""
    folder = tmp_path_factory.mktemp("job") / "checkpoints"
    scale = "size" if request.param == "nuts" else "constant"
    spec = sc.parse_spec(f'{GROWTH}likelihood = {{ scale = "{scale}" }}\n')
    design = sc.build_design(spec, sc.read_panel(economy(8, 5)))
    settings = Settings(
        seed=5, chains=1, tune=50, draws=150, engine="collapsed", sampler=request.param
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "is_small", lambda *_: False)
        fit = fit_design(spec, design, settings, checkpoint=folder)
    assert ("n_steps" in fit.sample_stats) == (request.param == "nuts")
    return spec, design, settings, folder, fit


@pytest.fixture
def again(job, tmp_path, monkeypatch):
    """A copy of the checkpoints, and what resumes them."""
    monkeypatch.setattr(run, "is_small", lambda *_: False)
    spec, design, settings, folder, reference = job
    copy = tmp_path / "checkpoints"
    shutil.copytree(folder, copy)

    def resume(*, resume=True, **changes):
        changed = Settings(**{**vars(settings), **changes})
        return fit_design(spec, design, changed, checkpoint=copy, resume=resume)

    return copy, resume, reference


def same(fit, reference):
    for group in ("posterior", "sample_stats", "conditional_mean", "conditional_variance"):
        xr.testing.assert_identical(
            fit.tree[group].to_dataset(), reference.tree[group].to_dataset()
        )


@pytest.mark.slow
def test_a_damaged_checkpoint_is_named_and_made_again(again):
    folder, resume, reference = again
    bad = folder / "chain-0" / "block-000002.npz"
    bad.write_bytes(bad.read_bytes()[:-300])
    with pytest.raises(sc.SamplingError, match=r"chain-0/block-000002\.npz is damaged: delete it"):
        resume()
    bad.unlink()
    # what comes after a gap is not continued from: it is made again as well
    assert len(block_files(folder, 0)) == 2
    same(resume(), reference)


@pytest.mark.slow
def test_remains_of_another_job_are_not_continued(again):
    """A job whose removal was interrupted has lost its name, and left its draws."""
    folder, resume, reference = again
    (folder / "job.json").unlink()
    for path in (folder / "chain-0").glob("block-*"):
        arrays = read_arrays(path)
        write_arrays(path, {name: values + 1 for name, values in arrays.items()})
    same(resume(resume=False), reference)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda job: "{", "job.json that cannot be read"),
        (lambda job: "[]", "the package's version changed"),
        (lambda job: json.dumps(job | {"versions": job["versions"] | {"jax": "0.0"}}), "jax was 0.0, is "),
        (lambda job: json.dumps(job | {"design": "0" * 64}), "the sample .* changed"),
        (lambda job: json.dumps(job | {"weights": "0" * 64}), "the weights changed"),
    ],
)  # fmt: skip
def test_other_jobs_are_not_resumed(again, change, says):
    folder, resume, _ = again
    path = folder / "job.json"
    path.write_text(change(json.loads(path.read_text())))
    with pytest.raises(sc.SamplingError, match=says):
        resume()
    with pytest.raises(sc.SamplingError, match="got checkpoints of an interrupted run"):
        resume(resume=False)


def test_a_chain_ends_with_the_process_that_waits_for_it(again):
    folder, _, _ = again
    last = folder / "chain-0" / "block-000003.npz"
    before = read_arrays(last)
    last.unlink()
    assert _start("chain", folder, "0", "1").wait() == 0  # who started it is not process 1
    assert not last.exists()
    assert _start("chain", folder, "0", str(os.getpid())).wait() == 0
    after = read_arrays(last)
    for name, values in before.items():
        if "seconds" not in name:
            np.testing.assert_array_equal(after[name], values)


# --- kills ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_kill_while_a_checkpoint_is_written(tmp_path):
    rng = np.random.default_rng(11)
    reference, seconds, _ = interrupt.run_in_peace(tmp_path / "peace")
    moment = dict(itertools.islice(interrupt.moments(seconds, rng), 4))[WRITING]
    for attempt in range(4):
        job = interrupt.Job(tmp_path / f"{attempt}")
        if found := interrupt.killed(job, WRITING, moment, reference):
            break
    assert found is not None, "it was over each time"
    assert found.problem == ""
    assert found.same

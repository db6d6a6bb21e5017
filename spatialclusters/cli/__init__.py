"""The command line: each command calls one public function.

Standard output is the result, standard error the progress. Exit codes: 0 done, 1 a
bug of ours, 2 bad input, 3 the sampling failed its checks (results are written), 130
interrupted. Heavy libraries are imported by the command that needs them.
"""

from __future__ import annotations

import logging
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import typer

from spatialclusters._version import __version__
from spatialclusters.cli.commands import app
from spatialclusters.cli.output import clean, warn
from spatialclusters.errors import SpatialClustersError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Parameters
    ----------
    arguments
        Words after the program's name; those of the process by default.

    Examples
    --------
    >>> main(["cite", "income_convergence"])
    @article{Barro1992,
    ...
    0
    """
    words = None if arguments is None else list(arguments)
    with _messages(), _termination_as_interrupt():
        try:
            code = app(args=words, prog_name="spatialclusters", standalone_mode=False)
        except typer.TyperException as error:
            context = getattr(error, "ctx", None)
            where = f" See {context.command_path} --help." if context else ""
            warn(f"error: {error.format_message()}{where}")
            return 2
        except SpatialClustersError as error:
            warn(f"error: {error}")
            return 2
        except KeyboardInterrupt:
            code = 130
        except Exception:  # noqa: BLE001  the last place where a bug can be shown as one
            warn(traceback.format_exc())
            warn(
                f"This is a bug of spatialclusters {__version__}. Please report it with the above."
            )
            return 1
    return int(code or 0)


class _Formatter(logging.Formatter):
    """Log lines as ``warning: ...``, without what a terminal would obey."""

    def format(self, record: logging.LogRecord) -> str:
        return clean(f"{record.levelname.lower()}: {record.getMessage()}", keep="\n")


@contextmanager
def _messages() -> Iterator[None]:
    """Send the package's log to standard error while a command runs, of others only warnings."""
    ours, root = logging.getLogger("spatialclusters"), logging.getLogger()
    before = ours.level, ours.propagate
    handlers = [logging.StreamHandler(sys.stderr), logging.StreamHandler(sys.stderr)]
    handlers[1].setLevel(logging.WARNING)
    for logger, handler in zip((ours, root), handlers, strict=True):
        handler.setFormatter(_Formatter())
        logger.addHandler(handler)
    ours.setLevel(logging.WARNING)
    ours.propagate = False
    try:
        yield
    finally:
        for logger, handler in zip((ours, root), handlers, strict=True):
            logger.removeHandler(handler)
        ours.setLevel(before[0])
        ours.propagate = before[1]


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """Let a termination request stop the chains and keep the checkpoints, as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

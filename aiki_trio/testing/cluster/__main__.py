"""`python -m aiki_trio.testing.cluster MODULE`: a cluster in one terminal, until Ctrl-C.

Every line of every process is shown under the process's name. With `--postgres` and `--redis` these
servers are started too, for the cluster alone: from PATH, or from the wheels that carry them.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

from aiki_sdk import AikiError

from ._cluster import LocalCluster

COLOURS: Final = (36, 33, 35, 32, 34, 31)
"""ANSI codes, one name after the other."""


class Terminal:
    """Shows lines under the names of their processes; safe to use from threads."""

    def __init__(self, *, colour: bool) -> None:
        """Show in colours or not."""
        self.colour = colour
        self._names: dict[str, int] = {}
        self._lock = threading.Lock()

    def tell(self, name: str, line: str) -> None:
        """Show one line."""
        with self._lock:
            number = self._names.setdefault(name, len(self._names))
            shown = f"{name:>10} |"
            if self.colour:
                shown = f"\x1b[{COLOURS[number % len(COLOURS)]}m{shown}\x1b[0m"
            sys.stdout.write(f"{shown} {line}\n")
            sys.stdout.flush()


@contextmanager
def told_to_stop() -> Generator[threading.Event]:
    """Give an event that is set by Ctrl-C or SIGTERM."""
    stop = threading.Event()

    def note(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, note) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a cluster until told to stop; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m aiki_trio.testing.cluster", description=__doc__
    )
    parser.add_argument("module", nargs="?", default="examples.orders.workflows")
    parser.add_argument("--workers", type=int, default=2, help="how many (default: 2)")
    parser.add_argument("--postgres", action="store_true", help="keep runs in PostgreSQL")
    parser.add_argument("--redis", action="store_true", help="hand runs out through Redis")
    parser.add_argument("--folder", type=Path, help="keep the data in this folder")
    given = parser.parse_args(arguments)
    if given.workers < 0:
        parser.error("--workers must be 0 or more")
    terminal = Terminal(colour=sys.stdout.isatty())
    cluster = LocalCluster(
        given.module,
        count=given.workers,
        postgres=given.postgres,
        redis=given.redis,
        folder=given.folder,
        tell=terminal.tell,
    )
    try:
        with told_to_stop() as stop, cluster:
            for name, url in cluster.addresses.items():
                terminal.tell("cluster", f"{name}: {url}")
            terminal.tell("cluster", "ready; Ctrl-C stops it")
            stop.wait()
            terminal.tell("cluster", "stopping")
    except AikiError as error:
        sys.stderr.write(f"error: {error.message}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

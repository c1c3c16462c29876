"""The yardsticks that all workloads use.

Invariant: a workload checks every result that it gets; what is wrong raises `WrongResult`, so a
figure exists only if the work was done.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import trio
from attrs import define, frozen

Params: TypeAlias = Mapping[str, int]
Figures: TypeAlias = dict[str, float]


class WrongResult(Exception):
    """A workload's result is not what it must be."""


def check(*, actual: object, expected: object, what: str) -> None:
    """Raise `WrongResult` if a result is not the expected one."""
    if actual != expected:
        message = f"{what} is {actual!r}; it must be {expected!r}"
        raise WrongResult(message)


def percentile(values: Iterable[float], percent: float) -> float:
    """Return the smallest value that so many per cent of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def latencies(values_ms: Sequence[float]) -> Figures:
    """Return the usual percentiles of times in milliseconds."""
    return {f"p{percent}_ms": percentile(values_ms, percent) for percent in (50, 95, 99)}


@define(eq=False)
class Stopwatch:
    """Wall and CPU time, in seconds, since it was made."""

    wall_at: float
    cpu_at: float

    @classmethod
    def started(cls) -> Stopwatch:
        """Start one."""
        return cls(time.perf_counter(), time.process_time())

    @property
    def wall_s(self) -> float:
        """Seconds that have passed."""
        return time.perf_counter() - self.wall_at

    @property
    def wall_ms(self) -> float:
        """Milliseconds that have passed."""
        return self.wall_s * 1e3

    @property
    def cpu_s(self) -> float:
        """Seconds that all threads of this process have computed."""
        return time.process_time() - self.cpu_at


@frozen
class Memory:
    """What a process holds, in bytes, garbage aside.

    Attributes:
        anonymous: what it has allocated; this is what it costs.
        mapped: files mapped into memory (the database, libraries); the system may drop these pages.

    """

    anonymous: int
    mapped: int


def memory(pid: int | None = None) -> Memory:
    """Read how much memory a process holds; without one, this process, after a collection."""
    if pid is None:
        gc.collect()
    status = Path(f"/proc/{pid or 'self'}/status")
    kib = dict(line.split()[:2] for line in status.read_text().splitlines() if "kB" in line)
    if "RssAnon:" not in kib:
        message = f"{status} has no line RssAnon; memory is measured on Linux only"
        raise OSError(message)
    return Memory(int(kib["RssAnon:"]) * 1024, int(kib["RssFile:"]) * 1024)


def database_bytes(folder: Path) -> int:
    """Return the size of the database: SQLite's with its log, PostgreSQL's without."""
    files = [*folder.glob("*.db*"), *(folder / "postgres" / "base").rglob("*")]
    return sum(path.stat().st_size for path in files if path.is_file())


async def limited(
    count: int, cap: int, work: Callable[[int], Awaitable[object]], *, first: int = 0
) -> None:
    """Do `work(number)` for so many numbers, at most `cap` at a time."""
    numbers = iter(range(first, first + count))

    async def take_turns() -> None:
        for number in numbers:
            await work(number)

    async with trio.open_nursery() as nursery:
        for _ in range(min(cap, count)):
            nursery.start_soon(take_turns)

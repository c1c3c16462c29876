"""What is measured over time, and the line that is fitted through it.

Invariant: a verdict is taken from the last 80 % of a series alone, so that warming up does not
count; growth is only blamed where it is more than the noise and more than the fit's own error.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import trio
from attrs import frozen

from aiki_actors.kernel import TreeNode
from aiki_sdk.protocol import TreeNode as ToldNode

Node: TypeAlias = TreeNode | ToldNode
"""A part of the actor tree: of this process, or as another one tells of it."""

WARM_UP: Final = 0.2
HOUR_S: Final = 3_600.0

_PROC: Final = Path("/proc")


@frozen
class Series:
    """One thing that is measured.

    Attributes:
        name: its column.
        title: what it is, with its unit.
        scale: measured numbers are divided by this for people.
        noise: growth over the window that is not blamed, as measured.
        per_hour: growth that is not blamed, as measured, per hour.

    """

    name: str
    title: str
    scale: float = 1.0
    noise: float = math.inf
    per_hour: float = math.inf


MIB: Final = 1024.0 * 1024.0

_BESIDE: Final = (
    Series("database", "database with its log, MiB", MIB, 6 * MIB, 4 * MIB),
    Series("mailboxes", "messages that wait in mailboxes", noise=200, per_hour=100),
    Series("deepest", "messages in the fullest mailbox", noise=100, per_hour=50),
    Series("actors", "actors", noise=120, per_hour=20),
    Series("ended", "cases that have ended"),
    Series("slowest", "slowest case since the sample before, ms"),
)
EMBEDDED: Final = (
    Series("rss", "memory that the process has allocated, MiB", MIB, 6 * MIB, MIB),
    Series("tasks", "Trio tasks", noise=250, per_hour=20),
    Series("threads", "threads", noise=6, per_hour=1),
    Series("files", "open file descriptors", noise=6, per_hour=1),
    *_BESIDE,
)
APART: Final = (
    Series("rss", "memory that the server has allocated, MiB", MIB, 6 * MIB, MIB),
    Series("threads", "threads of the server", noise=6, per_hour=1),
    Series("files", "open file descriptors of the server", noise=40, per_hour=5),
    Series("worker_rss", "memory that a worker has allocated, MiB", MIB, 6 * MIB, MIB),
    Series("worker_threads", "threads of a worker", noise=6, per_hour=1),
    Series("worker_files", "open file descriptors of a worker", noise=6, per_hour=1),
    *_BESIDE,
)
"""In the order of columns and panels. What has no limit is shown and not judged.

Noise is what a machine that is busy with something else makes of it: up to `Plan.live_max` cases
are under way then, instead of a few, each with actors and tasks of its own.
"""


def process_figures() -> dict[str, float]:
    """Measure this process, Trio tasks as well."""
    tasks = float(trio.lowlevel.current_statistics().tasks_living)
    return {**memory_figures("self"), "tasks": tasks}


def memory_figures(pid: int | str) -> dict[str, float]:
    """Measure a process: allocated memory in bytes, threads, file descriptors."""
    place = _PROC / str(pid)
    words = dict(
        line.split(":", 1)
        for line in (place / "status").read_text(encoding="ascii").splitlines()
        if ":" in line
    )
    return {
        "rss": int(words["RssAnon"].split()[0]) * 1024.0,
        "threads": float(words["Threads"]),
        "files": float(sum(1 for _ in (place / "fd").iterdir())),
    }


def tree_figures(tree: Node) -> dict[str, float]:
    """Measure the actors and their mailboxes."""
    depths = [node.mailbox_depth for node in _nodes(tree)]
    return {
        "mailboxes": float(sum(depths)),
        "deepest": float(max(depths)),
        "actors": float(len(depths)),
    }


def _nodes(tree: Node) -> Iterable[Node]:
    yield tree
    for child in tree.children:
        yield from _nodes(child)


def database_bytes(path: Path) -> float:
    """Return the size of a database with its write-ahead log."""
    return float(sum(one.stat().st_size for one in path.parent.glob(f"{path.name}*")))


@frozen
class Fit:
    """A straight line through the last 80 % of a series.

    Attributes:
        first_s, last_s: the window.
        start: the line's value at its beginning.
        slope: change per second.
        error: standard error of the slope.

    """

    first_s: float
    last_s: float
    start: float
    slope: float
    error: float

    def at(self, time_s: float) -> float:
        """Return the line's value at a time."""
        return self.start + self.slope * (time_s - self.first_s)

    @property
    def growth(self) -> float:
        """Change over the window."""
        return self.slope * (self.last_s - self.first_s)


def fit(times: Sequence[float], values: Sequence[float], warm_up: float = WARM_UP) -> Fit:
    """Fit by least squares.

    Raises:
        ValueError: fewer than three samples are left after the warm-up.

    """
    begin = times[0] + warm_up * (times[-1] - times[0]) if times else 0.0
    points = [(t, v) for t, v in zip(times, values, strict=True) if t >= begin]
    if len(points) < 3:
        raise ValueError(f"{len(points)} samples after the warm-up; measure longer or more often")
    mean_t = sum(t for t, _ in points) / len(points)
    mean_v = sum(v for _, v in points) / len(points)
    spread = sum((t - mean_t) ** 2 for t, _ in points)
    slope = sum((t - mean_t) * (v - mean_v) for t, v in points) / spread
    rest = sum((v - mean_v - slope * (t - mean_t)) ** 2 for t, v in points)
    error = math.sqrt(rest / (len(points) - 2) / spread)
    first_s = points[0][0]
    return Fit(first_s, points[-1][0], mean_v + slope * (first_s - mean_t), slope, error)


@frozen
class Verdict:
    """What is said of one series."""

    series: Series
    fit: Fit
    holds: bool

    def __str__(self) -> str:
        series, fit = self.series, self.fit
        word = "shown" if series.per_hour == math.inf else "flat " if self.holds else "GROWS"
        hourly, error = (x * HOUR_S / series.scale for x in (fit.slope, fit.error))
        return (
            f"{word}  {series.title}: {fit.start / series.scale:.1f}, "
            f"{fit.growth / series.scale:+.2f} in the window, {hourly:+.1f} ± {error:.1f} an hour"
        )


def judge(series: Series, times: Sequence[float], values: Sequence[float]) -> Verdict:
    """Fit a series and say whether it grows."""
    line = fit(times, values)
    surely = (line.slope - 2 * line.error) * HOUR_S
    grows = line.growth > series.noise and surely > series.per_hour
    return Verdict(series, line, not grows)

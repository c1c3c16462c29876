"""The tasks' own log of what they did: one JSON line when a task's code begins, one when it ends.

It is the second witness beside the journal, and knows nothing of it. Lines are appended with one
`write` each to a file opened with O_APPEND: what a process wrote before it was killed is there.

A worker process that is told nothing else writes to the file that `ORDERS_EFFECTS` names.

Invariant: the line that says "begin" stands in the file before the task's code does anything.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Final

import trio
from attrs import asdict, define, evolve, field, frozen

from aiki_sdk import CONVERTER, SystemClock, TaskContext, current_task


class Phase(StrEnum):
    """What a line says of an execution of a task's code."""

    BEGIN = "begin"
    OK = "ok"
    FAILED = "failed"
    CANCELLED = "cancelled"


@frozen
class Line:
    """One line of the log.

    Attributes:
        phase: `begin`, or how the execution ended.
        key: the task call's idempotency key: the same for every attempt and replay.
        at: microseconds since the Unix epoch.

    """

    phase: Phase
    run: str
    task: str
    key: str
    attempt: int
    pid: int
    at: int


@define(eq=False)
class EffectLog:
    """Appends lines; safe to use from threads.

    Attributes:
        executions: executions that have ended in this process.
        kill_at: the process kills itself by SIGKILL when it has written so many lines; None: never.

    """

    path: Path
    kill_at: int | None = None
    executions: int = 0
    _lines: int = 0
    _clock: SystemClock = field(factory=SystemClock)
    _lock: threading.Lock = field(factory=threading.Lock)
    _file: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(self, phase: Phase, context: TaskContext) -> None:
        """Append a line."""
        at = round(self._clock.now().timestamp() * 1_000_000)
        line = Line(
            phase,
            context.run_id,
            context.name,
            context.idempotency_key,
            context.attempt,
            os.getpid(),
            at,
        )
        with self._lock:
            os.write(self._file, json.dumps(asdict(line)).encode() + b"\n")
            self._lines += 1
            self.executions += phase is not Phase.BEGIN
            if self._lines == self.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


EFFECTS_VARIABLE: Final = "ORDERS_EFFECTS"

_logs: list[EffectLog] = []
_lock = threading.Lock()


@contextmanager
def recording(path: Path, *, kill_at: int | None = None) -> Generator[EffectLog]:
    """Have `effect()` write to a file for as long as the block lasts."""
    log = EffectLog(path, kill_at)
    _logs.append(log)
    try:
        yield log
    finally:
        _logs.remove(log)
        log.close()


@contextmanager
def effect() -> Generator[None]:
    """Note that a task's code begins and how it ends; without a log, do nothing."""
    log = _current_log()
    if log is None:
        yield
        return
    context = current_task()
    log.write(Phase.BEGIN, context)
    try:
        yield
    except trio.Cancelled:
        log.write(Phase.CANCELLED, context)
        raise
    except BaseException:
        log.write(Phase.FAILED, context)
        raise
    log.write(Phase.OK, context)


def _current_log() -> EffectLog | None:
    with _lock:
        named = os.environ.get(EFFECTS_VARIABLE)
        if not _logs and named:
            _logs.append(EffectLog(Path(named)))
        return _logs[-1] if _logs else None


def read_lines(path: Path) -> tuple[Line, ...]:
    """Read a log, in the order in which it was written.

    Raises:
        ValueError: a line is not JSON.
        PayloadError: a line is not what this program writes; the message names it.

    """
    return tuple(
        CONVERTER.from_json(json.loads(line), Line, path=f"{path}:{number}")
        for number, line in enumerate(path.read_text().splitlines(), start=1)
    )


@frozen
class Execution:
    """One time that a task's code ran.

    Attributes:
        ended: how and when (microseconds) it ended; None: it never did.

    """

    begun: Line
    ended: Line | None = None

    @property
    def phase(self) -> Phase:
        """How it ended; `begin` if it never did."""
        return self.begun.phase if self.ended is None else self.ended.phase


def executions_of(lines: Iterable[Line]) -> list[Execution]:
    """Pair beginnings with ends, in order of their beginnings.

    Raises:
        ValueError: an execution ended that never began.

    """
    executions: list[Execution] = []
    running: dict[tuple[int, str, int], list[int]] = {}
    for line in lines:
        same = running.setdefault((line.pid, line.key, line.attempt), [])
        if line.phase is Phase.BEGIN:
            same.append(len(executions))
            executions.append(Execution(line))
        elif same:
            number = same.pop()
            executions[number] = evolve(executions[number], ended=line)
        else:
            message = f"the log has an end without a beginning: {line}; it is not complete"
            raise ValueError(message)
    return executions

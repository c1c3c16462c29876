"""The processes of a rig: direct children of a plain Python program, reaped by it, never lost.

Children are made by `fork`, since a fork of a process that has imported everything lives after
milliseconds, or by `spawn` for any other command. Both are the same to whoever kills them. The
parent runs no thread and no event loop, so that forking it is safe.

Invariant: a child whose block (`with child:`) is left is gone and reaped.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from attrs import define, field

LOOK_S: Final = 0.004


class ChildHangs(Exception):
    """A child did not end, stop or do something in the time that it was given."""


@define(eq=False)
class Child:
    """A process that we have started.

    Attributes:
        pid: its id.
        name: what it is, for messages.
        code: how it ended: its exit code, or minus the signal; None as long as it lives.

    """

    pid: int
    name: str
    code: int | None = field(default=None, init=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()

    def poll(self) -> int | None:
        """Return how it ended, None if it lives; reaps it."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> int:
        """Kill it by SIGKILL if it lives, and reap it; return how it ended."""
        self.signal(signal.SIGKILL)
        return self.wait(30.0)

    def wait(self, within_s: float) -> int:
        """Wait for its end.

        Raises:
            ChildHangs: it has not ended in time.

        """
        self.until(lambda: self.poll() is not None, within_s, "end")
        assert self.code is not None, "it was waited for"
        return self.code

    def until(self, happened: Callable[[], bool], within_s: float, what: str) -> None:
        """Wait until something has happened.

        Raises:
            ChildHangs: it has not, in time.

        """
        if not wait_until(happened, within_s):
            raise ChildHangs(f"{self.name} (process {self.pid}) did not {what} in {within_s:g} s")


def wait_until(happened: Callable[[], bool], within_s: float) -> bool:
    """Look until something has happened; False if it has not, in time."""
    deadline = time.monotonic() + within_s
    while not happened():
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_S)
    return True


def fork(work: Callable[[], int], name: str) -> Child:
    """Run a function in a copy of this process; what it returns is the copy's exit code."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return Child(pid, name)
    code = 1
    try:
        code = work()
    except BaseException:  # noqa: BLE001  # the copy must not go on in the code of its parent
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def spawn(command: Sequence[str], name: str, *, env: Mapping[str, str], output: Path) -> Child:
    """Start a program, with what it prints appended to a file."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    actions = (
        (os.POSIX_SPAWN_OPEN, 1, str(output), flags, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    )
    return Child(os.posix_spawnp(command[0], list(command), env, file_actions=actions), name)

"""One process of a local cluster: a direct child that is started, watched, killed and reaped.

What it prints is passed on line by line, each under the process's name, and can be waited for: a
server says where it listens, and nobody has to guess when it is ready.

Plain Python on purpose: the parent of processes that are killed must not share their event loop.
Invariant: a process that was started is a direct child and is reaped, whatever it ended by.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from attrs import Factory, define, field

from aiki_sdk import Unavailable

LINES_KEPT: Final = 200
"""Lines of output that are kept of a process, to be shown when it fails."""

READY_S: Final = 60.0
STOP_S: Final = 40.0
"""Seconds for an orderly stop: more than a server's or worker's own grace."""

Tell = Callable[[str, str], None]
"""Takes the name of a process and a line that it printed."""


@define(eq=False)
class Managed:
    """A process with a name.

    Attributes:
        name: what its lines are shown under.
        command: the command line.
        ready: matches the line by which it says that it is ready; None: it is ready at once.
        environment: variables beside those of this process.
        folder: where it runs.
        tell: is given every line.
        stop_signal: asks it to end in good order.
        user: the user that it runs as; None: this one.
        restarts: how often it was started again.

    """

    name: str
    command: Sequence[str]
    ready: re.Pattern[str] | None = None
    environment: Mapping[str, str] = Factory(dict[str, str])
    folder: Path | None = None
    tell: Tell = field(default=lambda _name, _line: None)
    stop_signal: signal.Signals = signal.SIGTERM
    user: str | None = None
    restarts: int = field(default=-1, init=False)
    match: re.Match[str] | None = field(default=None, init=False)
    lines: deque[str] = field(factory=lambda: deque[str](maxlen=LINES_KEPT), init=False)
    _process: subprocess.Popen[str] | None = field(default=None, init=False)
    _reader: threading.Thread | None = field(default=None, init=False)
    _ready: threading.Event = field(factory=threading.Event, init=False)
    _asked: bool = field(default=False, init=False)

    @property
    def pid(self) -> int:
        """Its process id; of the last one, if it has ended."""
        return self._started().pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How it ended, as `subprocess` counts; None while it runs."""
        return self._started().poll()

    def start(self) -> None:
        """Start it, or start it again.

        Raises:
            RuntimeError: it runs already.
        """
        if self.running:
            message = f"{self.name} runs already, as process {self.pid}; stop it first"
            raise RuntimeError(message)
        self._ready, self.match, self._asked = threading.Event(), None, False
        self._process = subprocess.Popen(  # noqa: S603  # commands are this package's own
            list(self.command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, "PYTHONUNBUFFERED": "1", **self.environment},
            cwd=self.folder,
            user=self.user,
            # A group of its own: Ctrl-C reaches the parent alone, which stops all in order.
            start_new_session=True,
        )
        self.restarts += 1
        self._reader = threading.Thread(
            target=self._read, args=(self._process, self._ready), name=self.name, daemon=True
        )
        self._reader.start()
        if self.ready is None:
            self._ready.set()

    def wait_ready(self, within_s: float = READY_S) -> None:
        """Wait until it has said that it is ready.

        Raises:
            Unavailable: it ended instead, or said nothing in time; with its last lines.
        """
        self._ready.wait(within_s)
        if self.ready is not None and (self.match is None or not self._ready.is_set()):
            code = self._started().poll()
            fate = "is not ready" if code is None else f"ended with exit code {code}"
            last = "\n".join(list(self.lines)[-20:])
            message = f"{self.name} {fate} after {within_s:g} s; its last lines:\n{last}"
            raise Unavailable(message)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to it and to what it started; nothing happens if it has ended."""
        if self.running:
            os.killpg(self.pid, number)

    def kill(self) -> None:
        """Kill it with SIGKILL, and wait until it is gone."""
        self.send(signal.SIGKILL)
        self.wait()

    def ask_to_stop(self) -> None:
        """Ask it to end in good order, and do not wait; asked again, it is not told twice."""
        if self.running and not self._asked:
            self._asked = True
            # To the process alone: how it ends what it started is its own affair.
            os.kill(self.pid, signal.SIGCONT)
            os.kill(self.pid, self.stop_signal)

    def stop(self, within_s: float = STOP_S) -> int:
        """Ask it to end and wait; kill it if it does not in time. Return its exit code."""
        if self._process is None:
            return 0
        self.ask_to_stop()
        try:
            return self.wait(within_s)
        except subprocess.TimeoutExpired:
            self.tell(self.name, f"did not end within {within_s:g} s and is killed")
            self.kill()
            return self.wait()

    def wait(self, within_s: float | None = None) -> int:
        """Wait until it has ended and its last line was read; return its exit code.

        Raises:
            subprocess.TimeoutExpired: it has not ended in time.
        """
        code = self._started().wait(within_s)
        if self._reader is not None:
            self._reader.join(5.0)
        return code

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            message = f"{self.name} was never started; call start()"
            raise RuntimeError(message)
        return self._process

    def _read(self, process: subprocess.Popen[str], ready: threading.Event) -> None:
        assert process.stdout is not None, "the process was started with a pipe"
        with process.stdout as lines:
            for line in lines:
                text = line.rstrip("\n")
                self.lines.append(text)
                found = None if self.ready is None else self.ready.search(text)
                if found is not None:
                    self.match = found
                    ready.set()
                self.tell(self.name, text)
        # Whoever waits for an ended process learns of it now.
        ready.set()

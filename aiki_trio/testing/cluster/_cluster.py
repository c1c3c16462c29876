"""`LocalCluster`: a server and workers as real processes on this machine, and what they stand on.

    with LocalCluster("my_app.workflows", workers=3) as cluster:
        ...  # cluster.url is what clients connect to
        cluster.workers[0].kill()
        cluster.workers[0].start()

Every part is a direct child, can be killed, frozen and started again at the same address, and is
stopped in the opposite order of its start. Data is kept in one folder, removed at the end unless it
was given.
"""

from __future__ import annotations

import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from attrs import Factory, define, field

from ._process import Managed, Tell

SERVING: Final = re.compile(r"serving (?P<url>https?://\S+)")
CONNECTED: Final = re.compile(r"worker \S+ is connected")


@define(eq=False)
class LocalCluster:
    """A cluster on this machine, made of processes.

    Attributes:
        module: the workflows' code: a dotted name, or the path of a `.py` file.
        count: how many workers are started at first.
        database_url: where runs are kept; None: a SQLite file in the folder.
        redis_url: where work is queued; None: workers are given it over their sessions.
        folder: where data is kept; None: a temporary folder, removed at the end.
        environment: variables for all processes.
        server_flags: further flags of `aiki server`.
        worker_flags: further flags of `aiki worker`.
        tell: is given every line that a process prints, under its name.

    """

    module: str
    count: int = 2
    database_url: str | None = None
    redis_url: str | None = None
    folder: Path | None = None
    environment: Mapping[str, str] = Factory(dict[str, str])
    server_flags: tuple[str, ...] = ()
    worker_flags: tuple[str, ...] = ()
    tell: Tell = field(default=lambda _name, _line: None)
    server: Managed = field(init=False)
    workers: list[Managed] = field(factory=lambda: list[Managed](), init=False)
    _port: int = field(init=False)
    _stack: ExitStack = field(factory=ExitStack, init=False)

    @property
    def url(self) -> str:
        """Where the server is reached; the same for as long as the cluster lives."""
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        """Start the server, then the workers; return when all are ready."""
        with ExitStack() as stack:
            if self.folder is None:
                self.folder = Path(tempfile.mkdtemp(prefix="aiki-cluster-"))
                stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            if self.database_url is None:
                self.database_url = f"sqlite:///{self.folder / 'aiki.db'}"
            self._port = free_port()
            self.server = self._make_server()
            stack.callback(self.server.stop)
            self.server.start()
            self.server.wait_ready()
            stack.callback(self._stop_workers)
            for _ in range(self.count):
                self.add_worker(ready=False)
            for worker in self.workers:
                worker.wait_ready()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the workers, then the server."""
        self._stack.__exit__(kind, error, traceback)

    def add_worker(self, *, module: str | None = None, ready: bool = True) -> Managed:
        """Start one more worker; `module`: other code than the cluster's."""
        name = f"worker-{len(self.workers) + 1}"
        command = [*AIKI, "worker", module or self.module, "--url", self.url, *self.worker_flags]
        if self.redis_url is not None:
            command += ["--redis-url", self.redis_url]
        worker = Managed(name, command, CONNECTED, environment=self._variables(), tell=self.tell)
        self.workers.append(worker)
        worker.start()
        if ready:
            worker.wait_ready()
        return worker

    def _make_server(self) -> Managed:
        assert self.database_url is not None, "set when the cluster is entered"
        command = [*AIKI, "server", "--port", str(self._port)]
        command += ["--database-url", self.database_url, *self.server_flags]
        if self.redis_url is not None:
            command += ["--redis-url", self.redis_url]
        return Managed("server", command, SERVING, environment=self._variables(), tell=self.tell)

    def _variables(self) -> dict[str, str]:
        # What the caller's own shell sets for `aiki` must not reach into the cluster.
        return {"AIKI_CONFIG": "", **self.environment}

    def _stop_workers(self) -> None:
        """Stop all workers at the same time."""
        for worker in self.workers:
            worker.ask_to_stop()
        for worker in self.workers:
            worker.stop()


AIKI: Final = (sys.executable, "-m", "aiki_trio.cli")


def free_port() -> int:
    """Return a port of the loopback interface that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

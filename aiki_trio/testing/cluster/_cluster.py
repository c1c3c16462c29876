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
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from attrs import Factory, define, field

from aiki_sdk import NotFound

from ._backing import LOOPBACK, Backing, free_port, make_postgres, make_redis
from ._process import Managed, Tell

SERVING: Final = re.compile(r"serving (?P<url>https?://\S+)")
AIKI: Final = (sys.executable, "-m", "aiki_trio.cli")
CONNECTED: Final = re.compile(r"worker \S+ is connected")


@define(eq=False)
class LocalCluster:
    """A cluster on this machine, made of processes.

    Attributes:
        module: the workflows' code: a dotted name, or the path of a `.py` file.
        count: how many workers are started at first.
        postgres: start a PostgreSQL too, and keep runs there; else in a SQLite file in the folder.
        redis: start a Redis too, from which workers pull their runs.
        folder: where data is kept; None: a temporary folder, removed at the end.
        environment: variables for all processes.
        server_flags: further flags of `aiki server`.
        worker_flags: further flags of `aiki worker`.
        tell: is given every line that a process prints, under its name.

    """

    module: str
    count: int = 2
    postgres: bool = False
    redis: bool = False
    folder: Path | None = None
    environment: Mapping[str, str] = Factory(dict[str, str])
    server_flags: tuple[str, ...] = ()
    worker_flags: tuple[str, ...] = ()
    tell: Tell = field(default=lambda _name, _line: None)
    parts: list[Managed] = field(factory=lambda: list[Managed](), init=False)
    addresses: dict[str, str] = field(factory=lambda: dict[str, str](), init=False)
    _port: int = field(init=False)
    _stack: ExitStack = field(factory=ExitStack, init=False)

    @property
    def url(self) -> str:
        """Where the server is reached; the same for as long as the cluster lives."""
        return f"http://{LOOPBACK}:{self._port}"

    @property
    def workers(self) -> list[Managed]:
        """The worker processes, in order of their start."""
        return [part for part in self.parts if part.name.startswith("worker")]

    @property
    def server(self) -> Managed:
        """The server process."""
        return self.part("server")

    def part(self, name: str) -> Managed:
        """Return a part by name: `server`, `postgres`, `redis`, or `worker-1` and so on.

        Raises:
            NotFound: there is no such part; with those that there are.
        """
        for part in self.parts:
            if part.name == name:
                return part
        there = ", ".join(part.name for part in self.parts)
        raise NotFound(f"the cluster has no part {name!r}; there are: {there}")

    def __enter__(self) -> Self:
        """Start what stores and queues, the server, then the workers; return when all are ready.

        Raises:
            Unavailable: a part does not start; with its last lines.
        """
        with ExitStack() as stack:
            if self.folder is None:
                self.folder = Path(tempfile.mkdtemp(prefix="aiki-cluster-"))
                stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            self.addresses["database"] = f"sqlite:///{self.folder / 'aiki.db'}"
            if self.postgres:
                backing = make_postgres(self.folder, free_port(), self.tell)
                self.addresses["database"] = self._run_backing(backing, stack)
            if self.redis:
                backing = make_redis(self.folder, free_port(), self.tell)
                self.addresses["redis"] = self._run_backing(backing, stack)
            self._port = free_port()
            self.addresses["server"] = self.url
            server = self._make_server()
            self.parts.append(server)
            stack.callback(server.stop)
            server.start()
            server.wait_ready()
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
        """Stop the workers, then the server, then what these stand on."""
        self._stack.__exit__(kind, error, traceback)

    def add_worker(self, *, module: str | None = None, ready: bool = True) -> Managed:
        """Start one more worker; `module`: other code than the cluster's."""
        name = f"worker-{len(self.workers) + 1}"
        command = [*AIKI, "worker", module or self.module, "--url", self.url, *self.worker_flags]
        worker = self._managed(name, command, CONNECTED)
        self.parts.append(worker)
        worker.start()
        if ready:
            worker.wait_ready()
        return worker

    def _run_backing(self, backing: Backing, stack: ExitStack) -> str:
        self.parts.append(backing.process)
        stack.callback(backing.process.stop)
        backing.process.start()
        backing.process.wait_ready()
        return backing.url

    def _make_server(self) -> Managed:
        command = [*AIKI, "server", "--port", str(self._port)]
        command += ["--database-url", self.addresses["database"], *self.server_flags]
        if self.postgres:
            command.append("--migrate")
        return self._managed("server", command, SERVING)

    def _managed(self, name: str, command: list[str], ready: re.Pattern[str]) -> Managed:
        return Managed(name, command, ready, environment=self._variables(), tell=self.tell)

    def _variables(self) -> dict[str, str]:
        # What the caller's own shell sets for `aiki` must not reach into the cluster.
        redis = {"AIKI_REDIS_URL": self.addresses.get("redis", "")}
        return {"AIKI_CONFIG": "", **redis, **self.environment}

    def _stop_workers(self) -> None:
        """Stop all workers at the same time."""
        for worker in self.workers:
            worker.ask_to_stop()
        for worker in self.workers:
            worker.stop()

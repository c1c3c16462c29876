"""Starts the real cluster's processes, and breaks what is between them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from attrs import define, field

from aiki_sdk import AikiError, Client
from aiki_sdk.client import RunHandle
from tests.session.programs import steps, waits

ROOT = Path(__file__).parents[2]
READY_S = 20.0


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@define(eq=False)
class Rig:
    """The processes of one test."""

    folder: Path
    grace_s: float
    lease_s: float
    port: int = field(factory=free_port)
    server: trio.Process | None = None
    workers: list[trio.Process] = field(factory=lambda: list[trio.Process]())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def sink(self) -> str:
        return str(self.folder / "effects")

    async def _start(self, *arguments: str) -> trio.Process:
        command = [sys.executable, "-m", "tests.session.programs", *arguments]
        log = (self.folder / "log").open("ab")
        with log:
            process = await trio.lowlevel.open_process(
                command, stdout=subprocess.PIPE, stderr=log, cwd=ROOT
            )
        assert process.stdout is not None
        with trio.fail_after(READY_S):
            said = await process.stdout.receive_some()
        assert said, f"{arguments} ended: {(self.folder / 'log').read_text()}"
        return process

    async def start_server(self) -> None:
        times = (str(self.grace_s), str(self.lease_s))
        database = str(self.folder / "runs.db")
        self.server = await self._start("serve", database, str(self.port), *times)

    async def start_worker(
        self, *, url: str | None = None, version: str = "1", grace_s: float = 5
    ) -> trio.Process:
        worker = await self._start("work", url or self.url, version, str(grace_s))
        self.workers.append(worker)
        return worker

    async def kill(self, process: trio.Process | None) -> None:
        assert process is not None
        process.kill()
        await process.wait()

    def effects(self) -> Counter[str]:
        """Return how often each step took effect."""
        if not Path(self.sink).exists():
            return Counter()
        return Counter(Path(self.sink).read_text().split())

    async def until_effects(self, count: int) -> None:
        """Wait until so many steps took effect."""
        with trio.fail_after(READY_S):
            while self.effects().total() < count:  # noqa: ASYNC110  (other processes write it)
                await trio.sleep(0.02)

    async def start_runs(self, client: Client, count: int, length: int, pause_ms: int) -> list[Any]:
        items = [(steps, self.sink, f"r{number}", length, pause_ms) for number in range(count)]
        return list(await client.start_many(items))

    async def start_waiting(self, client: Client) -> RunHandle[str]:
        return await client.start(waits, self.sink, "waiting")

    async def results(self, handles: list[RunHandle[Any]], within_s: float = 30) -> list[Any]:
        """Return what runs returned, asking again while the server is away."""
        with trio.fail_after(within_s):
            return [await _result(handle) for handle in handles]

    async def close(self) -> None:
        for process in [*self.workers, self.server]:
            if process is not None and process.returncode is None:
                os.kill(process.pid, signal.SIGCONT)
                process.kill()
                await process.wait()
            if process is not None and process.stdout is not None:
                await process.stdout.aclose()


async def _result(handle: RunHandle[Any]) -> Any:
    while True:
        try:
            return await handle.result()
        except AikiError as error:
            if not error.retryable:
                raise
            await trio.sleep(0.1)


@asynccontextmanager
async def rig(folder: Path, *, grace_s: float = 1.0, lease_s: float = 3.0) -> AsyncGenerator[Rig]:
    """Start a server; end every process with the block."""
    one = Rig(folder, grace_s, lease_s)
    try:
        await one.start_server()
        yield one
    finally:
        with trio.CancelScope(shield=True):
            await one.close()


@define(eq=False)
class Proxy:
    """A TCP proxy that can lose what it carries, in either direction, without closing."""

    target: int
    port: int = field(factory=free_port)
    up: bool = True
    down: bool = True
    _scope: trio.CancelScope = field(factory=trio.CancelScope)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async def serve(stream: trio.SocketStream) -> None:
            try:
                other = await trio.open_tcp_stream("127.0.0.1", self.target)
            except OSError:
                await stream.aclose()
                return
            async with stream, other, trio.open_nursery() as nursery:
                nursery.start_soon(self._carry, stream, other, True, nursery.cancel_scope)
                nursery.start_soon(self._carry, other, stream, False, nursery.cancel_scope)

        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_tcp, serve, self.port)
            task_status.started()

    async def _carry(
        self,
        source: trio.SocketStream,
        sink: trio.SocketStream,
        upwards: bool,
        scope: trio.CancelScope,
    ) -> None:
        try:
            while data := await source.receive_some():
                if self.up if upwards else self.down:
                    await sink.send_all(data)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        scope.cancel()

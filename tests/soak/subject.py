"""What a soak soaks: an engine with a client, faults that are its own, and figures of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path
from typing import Final, Protocol, TypeAlias

import trio
from attrs import frozen

from aiki_sdk import Client
from aiki_trio import Runtime

from .samples import EMBEDDED, Series, database_bytes, process_figures, tree_figures

Fault: TypeAlias = Callable[[], Awaitable[None]]

LOCK_S: Final = 0.4


class Subject(Protocol):
    """An engine under soak."""

    @property
    def client(self) -> Client:
        """The client that the load uses."""
        ...

    @property
    def left_out(self) -> Collection[str]:
        """The kinds of runs that it cannot execute."""
        ...

    @property
    def series(self) -> Sequence[Series]:
        """What is judged of it; its figures have these names."""
        ...

    @property
    def faults(self) -> Sequence[Fault]:
        """What can be done to it, in turn; named as the report shall say."""
        ...

    async def figures(self) -> dict[str, float]:
        """Measure it now."""
        ...

    async def idle(self) -> bool:
        """Tell whether nothing is left to be done."""
        ...


async def lock_database(database: Path) -> None:
    """Hold a SQLite database's write lock, so that writes are refused for a while."""
    connection = sqlite3.connect(database, timeout=5.0, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        await trio.sleep(LOCK_S)
        connection.execute("ROLLBACK")
    finally:
        connection.close()


@frozen(eq=False)
class Embedded:
    """A runtime in this process."""

    runtime: Runtime
    database: Path

    @property
    def client(self) -> Client:
        """The runtime's own."""
        return self.runtime.client

    @property
    def left_out(self) -> Collection[str]:
        """None."""
        return ()

    @property
    def series(self) -> Sequence[Series]:
        """Those of one process."""
        return EMBEDDED

    @property
    def faults(self) -> Sequence[Fault]:
        """A killed worker, a locked database."""
        return (self.kill_worker, self.lock_database)

    async def figures(self) -> dict[str, float]:
        """Measure this process, the actors and the database."""
        return {
            **process_figures(),
            **tree_figures(self.runtime.tree()),
            "database": database_bytes(self.database),
        }

    async def idle(self) -> bool:
        """Tell whether no run is active or ready."""
        return not (self.runtime.runs.active or await self.runtime.storage.ready(limit=1))

    async def kill_worker(self) -> None:
        """Kill the worker in the midst of everything, and start another."""
        session = self.runtime.session
        worker = self.runtime.system.root.supervisor("worker")
        assert session is not None, "the runtime has a worker"
        assert worker is not None, "the runtime has a worker"
        session.cut()
        worker.kill()
        await worker.wait_stopped()
        self.runtime.start_worker()

    async def lock_database(self) -> None:
        """Lock the database."""
        await lock_database(self.database)

"""One life of the runtime in a test: from its start until it is killed.

A kill is as abrupt as one process allows: the way to the disk and the worker's session are cut
first, in one step, then everything is cancelled. Python still runs `finally` blocks, which a SIGKILL
would not; nothing of what they do reaches the journal or a client.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, suppress

import trio
from attrs import define, field

from aiki_actors import engine as e
from aiki_sdk import AikiError
from aiki_trio._runtime import Runtime, running

from ._disk import Gate
from ._time import TestTime


@define(eq=False)
class Life:
    """A runtime that runs, or has been killed.

    Attributes:
        started: set when it takes requests.
        ended: set when nothing of it runs any more.

    """

    runtime: Runtime
    gate: Gate
    time: TestTime
    started: trio.Event = field(factory=trio.Event, init=False)
    ended: trio.Event = field(factory=trio.Event, init=False)
    killed: bool = field(default=False, init=False)
    _stop: trio.Event = field(factory=trio.Event, init=False)
    _callers: dict[trio.CancelScope, None] = field(
        factory=lambda: dict[trio.CancelScope, None](), init=False
    )

    async def run(self) -> None:
        """Run until killed."""
        try:
            async with running(self.runtime):
                if self.runtime.session is None:
                    self.runtime.start_worker()
                if not self.killed:
                    self.started.set()
                await self._stop.wait()
                self.runtime.system.root.kill()
        finally:
            self.ended.set()

    def kill(self) -> None:
        """End it at once; nothing of it counts from here on."""
        if self.killed:
            return
        self.killed = self.gate.closed = True
        if self.runtime.session is not None:
            self.runtime.session.cut()
        for scope in list(self._callers):
            scope.cancel()
        self._stop.set()
        if self.started.is_set():
            self.runtime.system.root.kill()

    @contextmanager
    def caller(self) -> Generator[trio.CancelScope]:
        """Cancel the body when this life is killed: whoever asked it gets no answer."""
        with trio.CancelScope() as scope:
            self._callers[scope] = None
            if self.killed:
                scope.cancel()
            try:
                yield scope
            finally:
                del self._callers[scope]

    def cut_worker(self) -> None:
        """Kill the worker at once; `replace_worker` starts another."""
        session = self.runtime.session
        worker = self.runtime.system.root.supervisor("worker")
        if session is not None:
            session.cut()
        if worker is not None:
            worker.kill()

    async def replace_worker(self) -> None:
        """Start a worker in place of the killed one, and give it what that one held."""
        with self.caller():
            worker = self.runtime.system.root.supervisor("worker")
            if worker is not None:
                await worker.wait_stopped()
            self.runtime.start_worker()
            # Claims that were being written for the old worker when it died have landed after this.
            await self.time.settled()
            await self._take_claims_back()

    async def _take_claims_back(self) -> None:
        """Do at once what the server does when a lease runs out."""
        connected = self.runtime.dispatcher.sessions
        after: str | None = None
        while page := await self.gate.claimed(limit=500, after=after):
            for run in page:
                if run.worker_id not in connected:
                    command = e.LoseClaim(run.epoch, f"worker {run.worker_id} was killed")
                    # Refused if the run has gone on meanwhile: then nothing is to be taken back.
                    with suppress(AikiError):
                        await self.runtime.runs.do(run.run_id, command)
            after = page[-1].run_id

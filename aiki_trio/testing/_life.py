"""One life of the runtime in a test: from its start until it is killed.

A kill is as abrupt as one process allows: the way to the disk and the worker's session are cut
first, in one step, then everything is cancelled. Python still runs `finally` blocks, which a
SIGKILL would not; nothing of what they do reaches the journal or a client.
"""

from __future__ import annotations

from contextlib import suppress
from types import TracebackType

import trio
from attrs import define, field

from aiki_actors import engine as e
from aiki_sdk import AikiError
from aiki_trio._runtime import Runtime, running

from ._disk import Gate
from ._time import TestTime


@define(eq=False)
class Caller:
    """A block that ends early, without an error, when the life it asks is killed."""

    _callers: dict[trio.CancelScope, None]
    _too_late: bool
    _scope: trio.CancelScope = field(factory=trio.CancelScope, init=False)

    def __enter__(self) -> None:
        """Begin to ask."""
        self._scope.__enter__()
        self._callers[self._scope] = None
        if self._too_late:
            self._scope.cancel()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """Ask no more."""
        del self._callers[self._scope]
        return self._scope.__exit__(kind, error, traceback)


@define(eq=False)
class Life:
    """A runtime that runs, or has been killed.

    Attributes:
        started: it takes requests, or did.
        killed: it does not count any more, though some of it may still run.

    """

    runtime: Runtime
    gate: Gate
    time: TestTime
    started: bool = field(default=False, init=False)
    killed: bool = field(default=False, init=False)
    _settled: trio.Event = field(factory=trio.Event, init=False)
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
                self.started = True
                self._settled.set()
                await self._stop.wait()
                self.runtime.system.root.kill()
        finally:
            self._settled.set()

    async def started_or_ended(self) -> None:
        """Wait until it takes requests, or never will."""
        await self._settled.wait()

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
        if self.started:
            self.runtime.system.root.kill()

    def caller(self) -> Caller:
        """Cancel the body when this life is killed: whoever asked it gets no answer."""
        return Caller(self._callers, self.killed)

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

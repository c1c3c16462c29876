"""The in-process session: a server and a worker in one process speak by plain calls.

It is both sides' port at once, and adds nothing: what a websocket session does with frames,
acknowledgements and resumption, one process gets for free.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, NoReturn

import trio
from attrs import define, field

from aiki_actors import engine as e
from aiki_actors.server import Dispatcher, Do, Runs, Session
from aiki_actors.worker import Assignment, WorkerInbox, WorkerSettings
from aiki_sdk import JsonValue, StaleClaim, WorkflowRegistry


@define(eq=False)
class LocalSession:
    """Connects this process's worker to this process's server."""

    worker_id: str
    namespace: str
    registry: WorkflowRegistry
    settings: WorkerSettings
    runs: Runs
    dispatcher: Dispatcher
    worker: WorkerInbox = field(init=False)
    joined: bool = field(default=False, init=False)
    """Whether the worker takes runs."""
    ended: Callable[[str], None] | None = field(default=None, init=False)
    """Told of each run whose claim by this worker has ended."""
    _cut: bool = field(default=False, init=False)

    def cut(self) -> None:
        """Carry nothing any more, either way: what becomes of a session whose worker was killed."""
        self._cut, self.joined = True, False
        self.dispatcher.leave(self.worker_id)

    # -- what the worker says (aiki_actors.worker.ServerPort) ---------------------------------

    def submit(
        self, run_id: str, commands: tuple[e.WorkerCommand, ...]
    ) -> Coroutine[Any, Any, tuple[e.Entry, ...]]:
        """Carry commands out as one change; never half-way cancelled."""
        if self._cut:
            return self._refuse()
        return self.runs.submit(run_id, commands)

    async def _refuse(self) -> NoReturn:
        await trio.lowlevel.checkpoint()
        message = f"the session of worker {self.worker_id} was cut; its claims do not count"
        raise StaleClaim(message)

    async def reclaim(self, run_id: str) -> None:
        """Make a parked run whose code goes on by itself ready; this worker is asked first."""
        if not self._cut:
            await self.runs.do(run_id, e.UnparkRun())

    def dropped(self, run_id: str) -> None:
        """Note that a run is not kept warm any more."""
        if not self._cut:
            self.dispatcher.forget_warm(run_id)

    def lost(self, run_id: str, epoch: int, reason: str) -> None:
        """Take the claim of an execution that broke down back."""
        if not self._cut:
            self.runs.tell(run_id, Do(e.LoseClaim(epoch, reason)))

    def progress(self, run_id: str, kind: str, body: Mapping[str, JsonValue]) -> None:
        """Show something to whoever watches the run."""
        if not self._cut:
            self.runs.show(run_id, kind, body)

    def join(self) -> None:
        """Give this worker runs of every workflow that is registered now; may be said again."""
        if not self._cut:
            self.joined = True
            self._take(self.settings.runs_max)

    def _take(self, slots: int) -> None:
        serves = frozenset((workflow.name, workflow.version) for workflow in self.registry)
        self.dispatcher.join(
            Session(self.worker_id, self, self.ended),
            serves,
            frozenset(self.settings.pools),
            slots,
            self.namespace,
        )

    def leave(self) -> None:
        """Give this worker no more runs; what happens to those that it has it still hears."""
        if not self._cut:
            self.joined = False
            self._take(0)

    # -- what the server says (aiki_actors.server.Inbox) --------------------------------------

    def assign(self, run_id: str, claim: e.ClaimRef, entries: tuple[e.Entry, ...]) -> None:
        """Have a run executed."""
        if not self._cut:
            self.worker.assign(Assignment(run_id, claim, entries))

    def push(self, run_id: str, entries: tuple[e.Entry, ...]) -> None:
        """Tell the worker what happened to a run."""
        if not self._cut:
            self.worker.push(run_id, entries)

    def cool(self, run_id: str) -> None:
        """Have a parked run not kept warm any more."""
        if not self._cut:
            self.worker.cool(run_id)

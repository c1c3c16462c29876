"""The actor of one worker session: its deadlines, and what takes time."""

from __future__ import annotations

import logging
from typing import ClassVar, Final, Never

import trio
from attrs import define

from aiki_actors.kernel import Actor, ActorContext, StopReason
from aiki_actors.session import CloseCode
from aiki_sdk import AikiError

from ._worker_session import Job, WorkerSession

LOGGER: Final = logging.getLogger("aiki.server")

JOBS_AT_ONCE: Final = 16
"""Claims of a returning worker that are looked up in the database at the same time."""


@define(eq=False)
class SessionActor(Actor[Never]):
    """Watches over one session: ends it when its time is over, and does what takes time."""

    kind: ClassVar[str] = "session"
    session: WorkerSession

    async def started(self, context: ActorContext[Never]) -> None:
        """Begin to watch."""
        context.start_soon(self._watch, context)

    async def stopping(self, reason: StopReason) -> None:
        """Let the worker go; its claims wait for it if it is the server that stops."""
        lose = reason is StopReason.FAILURE
        self.session.end(CloseCode.GOING_AWAY, "the server is stopping", lose=lose)

    def describe(self) -> str:
        """Return what the worker does."""
        session = self.session
        lost = ", connection lost" if session.connection is None else ""
        return f"{session.worker_id}: {len(session.claims)} of {session.slots} runs{lost}"

    async def _watch(self, context: ActorContext[Never]) -> None:
        session = self.session
        limiter = trio.CapacityLimiter(JOBS_AT_ONCE)
        while True:
            session.changed = trio.Event()
            while session.jobs:
                context.start_soon(self._carry_out, session.jobs.popleft(), limiter)
            if session.doom is not None:
                session.end(*session.doom)
                return
            due_in = session.due_in()
            if due_in <= 0:
                why = "its connection was lost" if session.connection is None else "it fell silent"
                reason = f"worker {session.worker_id} did not come back in time: {why}"
                session.end(CloseCode.ENDED, reason)
                return
            with trio.move_on_after(due_in):
                await session.changed.wait()

    async def _carry_out(self, job: Job, limiter: trio.CapacityLimiter) -> None:
        async with limiter:
            try:
                await job()
            except AikiError as error:
                LOGGER.warning("worker %s: %s", self.session.worker_id, error)
            finally:
                self.session.jobs_open -= 1

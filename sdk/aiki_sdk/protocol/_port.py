"""The one border between a client and a server, in one process and over HTTP alike.

`ClientPort` is all that `Client` knows of a server, and it is bound to one namespace. Everything
that passes is a wire value (`_views`, `_requests`) or a `JsonValue`: no function, no class, no
exception but the `AikiError` family. What is acknowledged here is durable.

What every implementation promises:

* Unknown run ids, and those of another namespace, are `NotFound`.
* Any method may raise `Unavailable` (try again) and `Unauthorized`.
* Every method may be cancelled. Cancelled before it returned, `start`, `send` and `control` may or
  may not have been done; reference ids make repeating them safe.
* Ids and names arrive as the caller gave them; requests are well-formed, for their constructors
  see to it.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from ._requests import (
    ControlRequest,
    ForkRequest,
    RunQuery,
    SendRequest,
    StartRequest,
    UpdateQuery,
)
from ._views import (
    EventReceipt,
    Health,
    JournalEntry,
    Outcome,
    Problem,
    RunInfo,
    RunPage,
    StartResult,
    Update,
    WorkflowInfo,
)


class ClientPort(Protocol):
    """A server, as the clients of one namespace see it."""

    @property
    def namespace(self) -> str:
        """The namespace that everything here happens in."""
        ...

    async def start(self, request: StartRequest) -> StartResult:
        """Start a run, or find the one that the reference id names.

        Raises:
            ReferenceConflict: the reference id names a run with another input or one that has
                ended, and `on_conflict` does not allow it.
            UnknownWorkflow: the server knows no such workflow, or not this version.
            InvalidRequest: the input does not fit the workflow, where the server can tell.
        """
        ...

    async def start_many(self, requests: Sequence[StartRequest]) -> Sequence[StartResult | Problem]:
        """Start many runs; each succeeds or fails by itself.

        Returns:
            One answer per request, in order: the run, or the error that `start` would have raised.

        Raises:
            LimitExceeded: more than `BATCH_MAX` requests.
        """
        ...

    async def get(self, run_id: str) -> RunInfo:
        """Return what is known of a run."""
        ...

    async def find(self, workflow: str, reference_id: str) -> RunInfo:
        """Return the run that holds a reference id of a workflow now.

        Raises:
            NotFound: naming both.
        """
        ...

    async def list(self, query: RunQuery) -> RunPage:
        """Return a page of the runs that match, the newest first.

        Raises:
            InvalidRequest: the cursor is not one that this query gave.
        """
        ...

    async def count(self, query: RunQuery) -> int:
        """Count the runs that match; `limit` and `cursor` do not matter."""
        ...

    async def journal(self, run_id: str, *, after: int, limit: int) -> Sequence[JournalEntry]:
        """Return the entries with seq above `after`, in order: `limit`, or all."""
        ...

    async def result(self, run_id: str, *, wait_s: float | None) -> Outcome | None:
        """Wait for a run's end.

        Args:
            run_id: the run.
            wait_s: how long to wait, in seconds; 0: do not; None: as long as the port likes, which
                may be for ever.

        Returns:
            How it ended; None if it has not within `wait_s`, or within what the port waits at most
            (the caller asks again). None never comes at once unless `wait_s` is 0.
        """
        ...

    async def send(self, run_id: str, request: SendRequest) -> EventReceipt:
        """Acknowledge an event or a question for a run.

        Raises:
            RunEnded: the run has ended.
            UnknownEvent: its workflow declares no event of this name.
            UnknownQuestion: its workflow declares no question of this name.
            PayloadError: the data does not fit the event's type, where the server can tell.
        """
        ...

    async def send_many(
        self, run_ids: Sequence[str], request: SendRequest
    ) -> Sequence[EventReceipt | Problem]:
        """Send one event to many runs; each gets it or not by itself.

        Returns:
            One answer per run, in order: the receipt, or the error that `send` would have raised.

        Raises:
            LimitExceeded: more than `BATCH_MAX` runs.
        """
        ...

    async def control(self, run_id: str, request: ControlRequest) -> None:
        """Do something to a run; repeating what already took effect changes nothing.

        Raises:
            IllegalTransition: not in the run's status (`RunEnded` if it has ended).
            NotFound: the run, or the named sleep among its waits.
        """
        ...

    async def control_many(
        self, run_ids: Sequence[str], request: ControlRequest
    ) -> Sequence[Problem | None]:
        """Do one thing to many runs; each is done or not by itself.

        Returns:
            One answer per run, in order: None, or the error that `control` would have raised.

        Raises:
            LimitExceeded: more than `BATCH_MAX` runs.
        """
        ...

    async def fork(self, run_id: str, request: ForkRequest) -> StartResult:
        """Make a new run of what a run had recorded up to an entry; the old one is not touched.

        Raises:
            InvalidRequest: there is no such entry, or an override names no task result up to it.
            UnknownWorkflow: the server knows the workflow in this version not.
            PayloadError: the input does not fit the workflow.
        """
        ...

    def updates(
        self, run_id: str, *, after: int, wait_s: float | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[Update]]:
        """Open the stream of a run's updates with seq above `after`, past ones first.

        The stream ends by itself when the run has ended and everything up to its end was given,
        when `wait_s` seconds have passed since it was opened, or when the reader was too slow and
        was cut off; the reader tells these apart by the last update's status and by time, and
        may open it again after the last seq without a gap.

        Prefer a class over an async generator: a reader that is dropped without being closed must
        hold on to nothing that is not bounded.

        Args:
            run_id: the run; `NotFound` is raised on entering.
            after: 0 for everything from the first entry.
            wait_s: seconds until the stream ends; None: no limit.
        """
        ...

    async def workflows(self) -> Sequence[WorkflowInfo]:
        """Return the workflows that the server knows, by name, then version."""
        ...

    async def health(self) -> Health:
        """Return how the server is; raises only what concerns the way to it."""
        ...

    async def aclose(self) -> None:
        """Give connections back; closing again does nothing.

        A port that has connections raises `Unavailable` from then on; one inside the server's
        process has none and works as long as the server does.
        """
        ...


class WatchingPort(ClientPort, Protocol):
    """A server that tells of all its runs; one that only reads a file does not."""

    def watch(self, query: UpdateQuery) -> AbstractAsyncContextManager[AsyncIterator[Update]]:
        """Open a stream of the updates of all runs that a query selects, from now on.

        It has no end. Where updates were missed it raises an error that is `retryable`, and the
        next read goes on with what happens from then on.
        """
        ...

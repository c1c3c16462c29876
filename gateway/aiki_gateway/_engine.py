"""The engine as the gateway sees it: all that HTTP, websockets and the dashboard may ask for.

The gateway talks to the engine through this one protocol and through nothing else: it imports no
storage and no queue, so that it can be tested against a fake of a few lines and put in front of a
remote engine later. Everything that passes is a wire value; what a client asks over HTTP is done by
the same `ClientPort` that a client in the same process uses.

Invariant: nothing here decides anything about a run. Authentication, limits on requests and the
translation of errors to HTTP are the gateway's own business and happen before and after.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from attrs import Factory, frozen

from aiki_actors.session import Connection
from aiki_sdk.protocol import ClientPort, Health, RunStatus, RunSummary, TreeNode, Update


@frozen(kw_only=True)
class WorkerInfo:
    """A connected worker.

    Attributes:
        workflows: what it executes, as `name@version`, in order.
        pools: the pools that it serves, in order.
        free: how many more runs it takes now.
    """

    id: str
    namespace: str
    workflows: tuple[str, ...] = ()
    pools: tuple[str, ...] = ()
    free: int = 0


@frozen(kw_only=True)
class StreamFilter:
    """Which updates a live stream carries; what is empty does not restrict. All must hold."""

    runs: tuple[str, ...] = ()
    workflows: tuple[str, ...] = ()
    statuses: tuple[RunStatus, ...] = ()


@frozen(kw_only=True)
class StreamStart:
    """Where a live stream begins.

    Attributes:
        after: by run, the seq of the last update that the reader has; the rest of these runs'
            updates come first, from their journals.
        position: a position that the stream told before, as long as this server still knows it;
            then nothing else counts.
        latest: no snapshot: only what happens from now on.
    """

    after: Mapping[str, int] = Factory(lambda: dict[str, int]())
    position: str | None = None
    latest: bool = False


@frozen
class Snapshot:
    """The runs that a stream is about, as they are when it begins; at most a page, newest first.

    Attributes:
        more: whether there are more than are told.
    """

    runs: tuple[RunSummary, ...]
    more: bool = False


class Positioned(Protocol):
    """An update of a live stream, and the position after it.

    Readers of the same are given the same object, so that what is made of it once serves all.
    """

    @property
    def update(self) -> Update:
        """What happened."""
        ...

    @property
    def position(self) -> str:
        """The position after it."""
        ...


class LiveStream(Protocol):
    """A namespace's updates: what the reader missed, then what happens, each exactly once."""

    async def next_batch(self, gather_s: float = 0.0) -> Sequence[Snapshot | Positioned]:
        """Wait for what comes next; never empty. Cancelled, it loses nothing.

        Args:
            gather_s: what happens within so many seconds of the batch before comes together, unless
                it becomes too much.

        Raises:
            SubscriberTooSlow: the reader fell too far behind, and was cut off.
            Unavailable: the engine is stopping.
        """
        ...

    def position(self) -> str | None:
        """Return the position behind all that was read; None if more is waiting."""
        ...

    def cursors(self) -> Mapping[str, int]:
        """Return, for the runs of which updates were read last, the seq of the last one."""
        ...


class RunUpdates(Protocol):
    """One run's updates, each once, from behind a seq to the run's end."""

    async def next_batch(self) -> Sequence[Update]:
        """Wait for what comes next. Cancelled, it loses nothing.

        None: the run has ended, or the reader was too slow and was cut off.
        """
        ...


class Engine(Protocol):
    """A running engine, on this node."""

    def client_port(self, namespace: str) -> ClientPort:
        """Return the port of one namespace's clients; asking again is cheap.

        Closing the port closes nothing but the port.

        Raises:
            InvalidRequest: if the name of the namespace is not valid.
        """
        ...

    def run_updates(
        self, namespace: str, run_id: str, *, after: int
    ) -> AbstractAsyncContextManager[RunUpdates]:
        """Open a run's updates with seq above `after`; raises NotFound on entering."""
        ...

    def subscribe(
        self, namespace: str, where: StreamFilter, start: StreamStart, *, buffer: int
    ) -> AbstractAsyncContextManager[LiveStream]:
        """Open a stream of a namespace's updates; a reader that is `buffer` behind is cut off."""
        ...

    def workers(self, namespace: str) -> Sequence[WorkerInfo]:
        """Return the workers of a namespace that are connected now, by id."""
        ...

    def accept_worker(self, frame: bytes) -> Connection:
        """Take a worker's first word, and return the connection over which its session goes on.

        Raises:
            ProtocolError: it is refused, with the code and the reason to close the socket with.
        """
        ...

    def tree(self) -> TreeNode:
        """Return a picture of the live actor tree, taken now, from the root down."""
        ...

    async def health(self) -> Health:
        """Return how this node is, with all its components.

        Answers within a second also while something hangs: what does not answer is a problem.
        """
        ...

"""The directory of worker sessions: lets workers of other processes in, and back in.

    sessions (supervisor)
    └─ session <worker id>   one per worker, for as long as its claims may count

A worker whose socket was lost has the grace to come back to its session and go on; after a restart
of the server, the same grace to come back with its claims. Until then the keeper leaves them alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from attrs import define, field, frozen

from aiki_actors.kernel import ChildSpec, Restart, Supervisor, SupervisorSpec
from aiki_actors.session import (
    WORKER_ID,
    CloseCode,
    Connection,
    Hello,
    Link,
    ProtocolError,
    SessionLimits,
    Welcome,
    encode_welcome,
    negotiate,
    read_hello,
)
from aiki_actors.storage import Storage
from aiki_sdk import Ids

from ._catalogue import WorkflowCatalogue
from ._dispatcher import Dispatcher, Session
from ._runs import Runs
from ._session_actor import SessionActor
from ._worker_session import WorkerSession

if TYPE_CHECKING:
    from collections.abc import Sequence

LOGGER: Final = logging.getLogger("aiki.server")

SESSIONS_MAX: Final = 10_000
"""Workers with a session at the same time; one more is told to come back later."""


@frozen
class ConnectedWorker:
    """A worker with a session.

    Attributes:
        connected: whether its socket is there now; else it has the grace to come back.
        slots: runs that it takes at a time; 0 while it takes none.
        runs: how many it holds.

    """

    id: str
    namespace: str
    workflows: tuple[str, ...]
    pools: tuple[str, ...]
    slots: int
    runs: int
    connected: bool


@define(eq=False)
class Sessions:
    """All worker sessions of this server. `supervisor` is set when the tree stands."""

    runs: Runs
    dispatcher: Dispatcher
    storage: Storage
    catalogue: WorkflowCatalogue
    ids: Ids
    monotonic: Callable[[], float]
    limits: SessionLimits = field(factory=SessionLimits)
    release: str = ""
    supervisor: Supervisor | None = field(default=None, init=False)
    _sessions: dict[str, WorkerSession] = field(
        factory=lambda: dict[str, WorkerSession](), init=False
    )
    _since: float = field(default=0.0, init=False)

    def started(self, supervisor: Supervisor) -> None:
        """Begin to let workers in; those of an earlier process have the grace to come back."""
        self.supervisor = supervisor
        self._since = self.monotonic()

    def may_return(self, worker_id: str) -> bool:
        """Whether a worker that is not connected may yet come back to its claims.

        Workers inside a server's process end with it.
        """
        if WORKER_ID.fullmatch(worker_id) is None or self.supervisor is None:
            return False
        return self.monotonic() < self._since + self.limits.grace_s

    def accept(self, frame: bytes, namespace: str | None = None) -> Connection:
        """Take a worker's first word, and return the connection over which it goes on.

        Args:
            frame: the first word.
            namespace: the one that the worker's key is for; None: any.

        Raises:
            ProtocolError: it is refused, with the code and the reason to close the socket with.

        """
        hello = read_hello(frame)
        negotiate(hello)
        if namespace is not None and hello.namespace != namespace:
            reason = f"the key is for namespace {namespace!r}, not {hello.namespace!r}"
            raise ProtocolError(CloseCode.UNAUTHORIZED, reason)
        known = self._sessions.get(hello.worker_id)
        if known is not None and not known.knows(hello.token):
            raise ProtocolError(CloseCode.REPLACED, "another worker has this id")
        if known is not None and known.id == hello.session:
            return self._attach(known, hello, resumed=True)
        if known is not None:
            known.end(CloseCode.REPLACED, f"worker {hello.worker_id} began another session")
        return self._attach(self._begin(hello), hello, resumed=False)

    def _begin(self, hello: Hello) -> WorkerSession:
        if self.supervisor is None:
            raise ProtocolError(CloseCode.GOING_AWAY, "the server is not ready for workers")
        if len(self._sessions) >= SESSIONS_MAX:
            raise ProtocolError(CloseCode.TOO_MUCH, f"there are {SESSIONS_MAX} workers already")
        session = WorkerSession(self.ids.claim_id(), hello, self, Link(self.limits))
        self._sessions[hello.worker_id] = session
        self.dispatcher.attach(Session(hello.worker_id, session))
        spec = ChildSpec(
            # A session that is ending may still have its place in the tree.
            id=f"{hello.worker_id}.{session.id[:8]}",
            start=lambda: SessionActor(session),
            restart=Restart.TEMPORARY,
        )
        session.ref = self.supervisor.start_child(spec)
        return session

    def _attach(self, session: WorkerSession, hello: Hello, *, resumed: bool) -> Connection:
        def welcome() -> bytes:
            return encode_welcome(
                Welcome(
                    session=session.id,
                    resumed=resumed,
                    received=session.link.received,
                    limits=self.limits,
                    release=self.release,
                )
            )

        try:
            return session.attach(hello if resumed else _anew(hello), welcome)
        except ProtocolError as error:
            session.end(CloseCode.MALFORMED, error.reason)
            raise

    def remove(self, session: WorkerSession) -> None:
        """Forget a session that has ended."""
        worker_id = session.worker_id
        if self._sessions.get(worker_id) is session:
            del self._sessions[worker_id]
        known = self.dispatcher.sessions.get(worker_id)
        if known is not None and known.inbox is session:
            self.dispatcher.leave(worker_id)

    def workers(self, namespace: str) -> Sequence[ConnectedWorker]:
        """Return the workers of a namespace that have a session, by id."""
        found: list[ConnectedWorker] = []
        for worker_id, session in sorted(self._sessions.items()):
            serve = session.serve
            if session.hello.namespace == namespace:
                served = () if serve is None else serve.workflows
                workflows = tuple(sorted(f"{name}@{version}" for name, version in served))
                found.append(
                    ConnectedWorker(
                        worker_id,
                        namespace,
                        workflows,
                        () if serve is None else tuple(sorted(serve.pools)),
                        session.slots,
                        len(session.claims),
                        session.connection is not None,
                    )
                )
        return found


def _anew(hello: Hello) -> Hello:
    """Return a first word for a session that begins: nothing of it was received yet."""
    return Hello(
        worker_id=hello.worker_id,
        token=hello.token,
        namespace=hello.namespace,
        protocols=hello.protocols,
        format=hello.format,
        release=hello.release,
    )


def sessions_spec() -> SupervisorSpec:
    """Describe the supervisor of the sessions."""
    return SupervisorSpec(id="sessions")

"""`SyncClient`: the client for plain code: scripts, Django, notebooks, threads.

It is `Client` in plain calls: the same methods with the same names, arguments and errors. Several
threads may use one client at once, and should, for then they share its connections.
"""

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    NoReturn,
    ParamSpec,
    Self,
    TypeAlias,
    TypeVar,
    Unpack,
    final,
    overload,
)

from aiki_sdk._errors import AikiError, InvalidRequest
from aiki_sdk._event import Event
from aiki_sdk._ports import Clock
from aiki_sdk._workflow import AnyWorkflow, Workflow
from aiki_sdk.client._client import NO_SCHEDULES, Client
from aiki_sdk.client._handle import RunHandle
from aiki_sdk.client._many_runs import BulkOutcome
from aiki_sdk.client._options import StartKwargs, StartSpec
from aiki_sdk.client._run_list import RunFilters
from aiki_sdk.client._startable import Startable0, Startable1, Startable2, Startable3, Startable4
from aiki_sdk.client._starter import Starter
from aiki_sdk.client._starting import StartItem
from aiki_sdk.client._stepping import run_plain
from aiki_sdk.client._sync_handle import SyncRunHandle
from aiki_sdk.client._sync_streams import SyncRunList, SyncStream
from aiki_sdk.client._waiting import ambient_monotonic
from aiki_sdk.client._words import StatusWords
from aiki_sdk.payload import PayloadCodec
from aiki_sdk.protocol import PAGE_SIZE_DEFAULT, ControlCommand, Health, Update, WorkflowInfo

if TYPE_CHECKING:
    from aiki_sdk.http import Exchange, HttpSettings

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")

# Named here, for inside the class `list` is the method.
SyncStarted: TypeAlias = list[SyncRunHandle[Any]]
SyncStartedOrNot: TypeAlias = list[SyncRunHandle[Any] | AikiError]
Outcomes: TypeAlias = list[BulkOutcome]


@final
class SyncStarter:
    """What `SyncClient.options` returns: it starts workflows with those options."""

    __slots__ = ("_starter",)

    def __init__(self, starter: Starter) -> None:
        """Use `SyncClient.options`."""
        self._starter = starter

    def start(
        self, workflow: Workflow[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> SyncRunHandle[R]:
        """Start a run; every argument is the workflow's; see `Starter.start`."""
        return SyncRunHandle(run_plain(self._starter.start(workflow, *args, **kwargs)))

    def spec(self, workflow: Workflow[P, R], /, *args: P.args, **kwargs: P.kwargs) -> StartSpec[R]:
        """Return the same as an item for `SyncClient.start_many`; nothing is started yet."""
        return self._starter.spec(workflow, *args, **kwargs)


@final
class SyncClient:
    """A client of one namespace of a server, for code that is not async.

    ::

        with SyncClient("http://localhost:9850") as client:
            handle = client.start(process_order, Order("o-1", 500), reference_id="order-o-1")
            print(handle.result())

    Every method may raise `Unauthorized` and `Unavailable`. Where a loop runs, use `Client`: each
    call here blocks its thread.
    """

    __slots__ = ("_client", "api_key", "url")

    url: str
    """Where the server is."""

    api_key: str | None
    """What opens the server, if it asks for keys."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        namespace: str | None = None,
        workflows: Iterable[AnyWorkflow] = (),
        clock: Clock | None = None,
        codec: PayloadCodec | None = None,
        http: "HttpSettings | None" = None,
        exchange: "Exchange | None" = None,
    ) -> None:
        """Make a client; nothing is sent yet. The arguments are those of `Client`.

        Args:
            url: the server's URL, such as `http://localhost:9850`.
            api_key: what opens a server that asks for keys.
            namespace: the namespace to work in. Default: `default`.
            workflows: workflows whose code is at hand.
            clock: for timeouts. Default: the machine's.
            codec: encrypts or compresses every payload.
            http: limits, patience and trust.
            exchange: how requests go out, in tests; it must not suspend.

        Raises:
            InvalidRequest: naming what is not valid.
            DuplicateName: if two workflows have one name and version.
        """
        from aiki_sdk.http import HttpPort, HttpSettings, SyncExchange

        settings = HttpSettings() if http is None else http
        port = HttpPort.to(
            url,
            namespace="default" if namespace is None else namespace,
            api_key=api_key,
            settings=settings,
            exchange=SyncExchange(settings) if exchange is None else exchange,
            monotonic=ambient_monotonic if clock is None else clock.monotonic,
        )
        self._client = Client(port, workflows=workflows, clock=clock, codec=codec)
        self.url, self.api_key = port.url, port.api_key

    def __repr__(self) -> str:
        return f"<sync client of namespace {self.namespace!r} at {self.url}>"

    @property
    def namespace(self) -> str:
        """The namespace that this client works in."""
        return self._client.namespace

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back; runs are not affected."""
        run_plain(self._client.aclose())

    # --- Starting ---------------------------------------------------------------------------------

    @overload
    def start(
        self, workflow: Workflow[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> SyncRunHandle[R]: ...

    @overload
    def start(
        self, workflow: Startable0[R], /, **options: Unpack[StartKwargs]
    ) -> SyncRunHandle[R]: ...

    @overload
    def start(
        self, workflow: Startable1[A, R], a: A, /, **options: Unpack[StartKwargs]
    ) -> SyncRunHandle[R]: ...

    @overload
    def start(
        self, workflow: Startable2[A, B, R], a: A, b: B, /, **options: Unpack[StartKwargs]
    ) -> SyncRunHandle[R]: ...

    @overload
    def start(
        self, workflow: Startable3[A, B, C, R], a: A, b: B, c: C, /, **options: Unpack[StartKwargs]
    ) -> SyncRunHandle[R]: ...

    @overload
    def start(
        self,
        workflow: Startable4[A, B, C, D, R],
        a: A,
        b: B,
        c: C,
        d: D,
        /,
        **options: Unpack[StartKwargs],
    ) -> SyncRunHandle[R]: ...

    @overload
    def start(self, workflow: str, /, *args: Any, **kwargs: Any) -> SyncRunHandle[Any]: ...

    def start(self, workflow: Any, /, *args: Any, **kwargs: Any) -> SyncRunHandle[Any]:
        """Start a run, and return a handle once the start is durable; see `Client.start`."""
        handle: RunHandle[Any] = run_plain(self._client.start(workflow, *args, **kwargs))
        return SyncRunHandle(handle)

    def options(self, **options: Unpack[StartKwargs]) -> SyncStarter:
        """Fix the options of starts; see `Client.options`."""
        return SyncStarter(self._client.options(**options))

    @overload
    def start_many(
        self, items: Iterable[StartItem], *, return_errors: Literal[False] = False
    ) -> SyncStarted: ...

    @overload
    def start_many(
        self, items: Iterable[StartItem], *, return_errors: Literal[True]
    ) -> SyncStartedOrNot: ...

    def start_many(
        self, items: Iterable[StartItem], *, return_errors: bool = False
    ) -> SyncStarted | SyncStartedOrNot:
        """Start many runs with few requests; see `Client.start_many`."""
        if return_errors:
            started = run_plain(self._client.start_many(items, return_errors=True))
            return [
                SyncRunHandle(item) if isinstance(item, RunHandle) else item for item in started
            ]
        return [SyncRunHandle(handle) for handle in run_plain(self._client.start_many(items))]

    def send_or_start(
        self,
        workflow: Workflow[..., R],
        args: tuple[Any, ...],
        event: Event[E],
        data: E,
        *,
        event_reference_id: str | None = None,
        **options: Unpack[StartKwargs],
    ) -> SyncRunHandle[R]:
        """Send an event to a run, starting one if none is alive; see `Client.send_or_start`."""
        send: Any = self._client.send_or_start
        given = {"event_reference_id": event_reference_id, **options}
        handle: RunHandle[R] = run_plain(send(workflow, args, event, data, **given))
        return SyncRunHandle(handle)

    # --- Finding ----------------------------------------------------------------------------------

    @overload
    def get(self, run_id: str, *, workflow: Workflow[..., R]) -> SyncRunHandle[R]: ...

    @overload
    def get(self, run_id: str, *, workflow: str | None = None) -> SyncRunHandle[Any]: ...

    @overload
    def get(self, *, workflow: Workflow[..., R], reference_id: str) -> SyncRunHandle[R]: ...

    @overload
    def get(self, *, workflow: str, reference_id: str) -> SyncRunHandle[Any]: ...

    def get(self, run_id: str | None = None, **which: Any) -> SyncRunHandle[Any]:
        """Return a handle on a run, by id or by workflow and reference id; see `Client.get`."""
        get: Any = self._client.get
        handle: RunHandle[Any] = run_plain(get(run_id, **which))
        return SyncRunHandle(handle)

    def list(
        self,
        *,
        limit: int = PAGE_SIZE_DEFAULT,
        cursor: str | None = None,
        **filters: Unpack[RunFilters],
    ) -> SyncRunList:
        """Return the runs that match all filters, the newest first; see `Client.list`."""
        return SyncRunList(self._client.list(limit=limit, cursor=cursor, **filters))

    def count(self, **filters: Unpack[RunFilters]) -> int:
        """Count the runs that match all filters; see `Client.count`."""
        return run_plain(self._client.count(**filters))

    def updates(
        self,
        *,
        run_ids: Iterable[str] = (),
        workflow: AnyWorkflow | str | Iterable[AnyWorkflow | str] | None = None,
        status: StatusWords | None = None,
    ) -> SyncStream[Update]:
        """Return the updates of all runs from now on, as an iterator; see `Client.updates`."""
        return SyncStream(self._client.updates(run_ids=run_ids, workflow=workflow, status=status))

    @property
    def schedules(self) -> NoReturn:
        """Nothing yet: this version has no schedules; see `Client.schedules`."""
        raise InvalidRequest(NO_SCHEDULES)

    # --- Many runs --------------------------------------------------------------------------------

    def multicast(
        self,
        event: Event[Any] | str,
        data: object = None,
        *,
        run_ids: Sequence[str] | None = None,
        reference_ids: tuple[AnyWorkflow | str, Sequence[str]] | None = None,
        event_reference_id: str | None = None,
        **filters: Unpack[RunFilters],
    ) -> Outcomes:
        """Send one event to many runs; see `Client.multicast`."""
        given: dict[str, Any] = {
            "run_ids": run_ids,
            "reference_ids": reference_ids,
            "event_reference_id": event_reference_id,
            **filters,
        }
        send: Any = self._client.multicast
        outcomes: Outcomes = run_plain(send(event, data, **given))
        return outcomes

    def bulk(
        self,
        command: ControlCommand | str,
        *,
        reason: str | None = None,
        run_ids: Sequence[str] | None = None,
        **filters: Unpack[RunFilters],
    ) -> Outcomes:
        """Do one thing to many runs; see `Client.bulk`."""
        return run_plain(self._client.bulk(command, reason=reason, run_ids=run_ids, **filters))

    # --- The server -------------------------------------------------------------------------------

    def workflows(self) -> Sequence[WorkflowInfo]:
        """Return the workflows that the server knows."""
        return run_plain(self._client.workflows())

    def health(self) -> Health:
        """Return how the server is."""
        return run_plain(self._client.health())

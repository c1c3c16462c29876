"""The client: starts runs and finds them again.

It knows a server only by a `ClientPort`, and turns Python values into wire values and back; it
keeps no state of its own. With a URL it works under Trio and asyncio alike; `SyncClient` is the
same without either.
"""

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self, TypeVar, Unpack, cast, final, overload

from attrs import evolve

from aiki_sdk._errors import InvalidRequest
from aiki_sdk._ports import Clock
from aiki_sdk._registry import WorkflowRegistry
from aiki_sdk._workflow import AnyWorkflow, Workflow
from aiki_sdk.client._all_updates import AllUpdates
from aiki_sdk.client._connecting import key_of, port_of, url_of
from aiki_sdk.client._handle import RunHandle
from aiki_sdk.client._many_runs import ManyRuns
from aiki_sdk.client._run_list import (
    RunFilters,
    RunList,
    run_query,
    update_query,
    workflow_name,
)
from aiki_sdk.client._sealed_port import SealedPort
from aiki_sdk.client._start_or_send import StartOrSend
from aiki_sdk.client._starting import Starting
from aiki_sdk.client._waiting import ambient_monotonic
from aiki_sdk.client._words import StatusWords
from aiki_sdk.payload import PayloadCodec
from aiki_sdk.protocol import PAGE_SIZE_DEFAULT, ClientPort, Health, RunInfo, WorkflowInfo

if TYPE_CHECKING:
    from aiki_sdk.http import HttpSettings

R = TypeVar("R")

NO_SCHEDULES: Final = (
    "this version has no schedules; start runs with delay= or at=, or let a run sleep and then "
    "continue as new"
)


@final
class Client(Starting, ManyRuns, StartOrSend):
    """A client of one namespace.

    ::

        async with Client("http://localhost:9850") as client:
            handle = await client.start(process_order, Order("o-1", 500), reference_id="order-o-1")
            print(await handle.result())

    Every method may raise `Unauthorized` and `Unavailable`. With a reference id it can be repeated.
    """

    __slots__ = ("_known", "_monotonic", "_port", "api_key", "url")

    url: str | None
    """Where the server is; None: in this process."""

    api_key: str | None
    """What opens the server, if it asks for keys."""

    def __init__(
        self,
        port: ClientPort | str,
        *,
        api_key: str | None = None,
        namespace: str | None = None,
        workflows: Iterable[AnyWorkflow] = (),
        clock: Clock | None = None,
        codec: PayloadCodec | None = None,
        http: "HttpSettings | None" = None,
    ) -> None:
        """Make a client; nothing is sent yet.

        Args:
            port: the server's URL, such as `http://localhost:9850`; or a port such as a runtime in
                this process offers it.
            api_key: what opens a server that asks for keys.
            namespace: the namespace to work in. Default: that of the port; of a server's URL,
                `default`.
            workflows: workflows whose code is at hand; results of their runs are converted to
                their return types, also where a run is got by id.
            clock: for timeouts. Default: Trio's inside Trio, else the machine's.
            codec: encrypts or compresses every payload before it leaves the client; the workers
                that execute the runs need the same.
            http: limits, patience and trust of a client with a URL.

        Raises:
            InvalidRequest: naming what is not valid, such as a port that is for another namespace.
            DuplicateName: if two workflows have one name and version.
        """
        self._known = WorkflowRegistry(workflows)
        self._monotonic = ambient_monotonic if clock is None else clock.monotonic
        reached = port_of(
            port, api_key=api_key, namespace=namespace, http=http, monotonic=self._monotonic
        )
        self.url, self.api_key = url_of(reached), key_of(reached)
        self._port = reached if codec is None else SealedPort(reached, codec)

    def __repr__(self) -> str:
        where = "in this process" if self.url is None else f"at {self.url}"
        return f"<client of namespace {self.namespace!r} {where}>"

    @property
    def namespace(self) -> str:
        """The namespace that this client works in."""
        return self._port.namespace

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Give the port's connections back; runs are not affected."""
        await self._port.aclose()

    # --- Finding ----------------------------------------------------------------------------------

    @overload
    async def get(self, run_id: str, *, workflow: Workflow[..., R]) -> RunHandle[R]: ...

    @overload
    async def get(self, run_id: str, *, workflow: str | None = None) -> RunHandle[Any]: ...

    @overload
    async def get(self, *, workflow: Workflow[..., R], reference_id: str) -> RunHandle[R]: ...

    @overload
    async def get(self, *, workflow: str, reference_id: str) -> RunHandle[Any]: ...

    async def get(
        self,
        run_id: str | None = None,
        *,
        workflow: AnyWorkflow | str | None = None,
        reference_id: str | None = None,
    ) -> RunHandle[Any]:
        """Return a handle on a run, by its id or by its workflow and reference id.

        Args:
            run_id: the run's id.
            workflow: the workflow or its name; with an id, what the run must be a run of.
            reference_id: the reference id, instead of the run's id.

        Raises:
            NotFound: if there is no such run in this namespace.
            InvalidRequest: if it is not said which run is meant, or the run is one of another
                workflow.
        """
        name = workflow_name(workflow)
        if run_id is not None and reference_id is None:
            info = await self._port.get(_run_id(run_id))
            if name is not None and info.workflow != name:
                message = (
                    f"workflow={name!r} is not valid: run {info.id} is a run of "
                    f"{info.workflow!r}; get it without `workflow=`"
                )
                raise InvalidRequest(message)
        elif run_id is None and name is not None and reference_id is not None:
            info = await self._port.find(name, reference_id)
        else:
            message = (
                f"get(run_id={run_id!r}, workflow={name!r}, reference_id={reference_id!r}) is not "
                "valid: pass the run's id, or its workflow and reference id"
            )
            raise InvalidRequest(message)
        return self._handle(info.id, self._code_of(info, workflow))

    def _code_of(self, info: RunInfo, given: object) -> AnyWorkflow | None:
        """Return the code whose types the run's result has: that of its version, if at hand."""
        known = self._known.get(info.workflow, info.version)
        if known is not None:
            return known
        return cast("AnyWorkflow", given) if isinstance(given, Workflow) else None

    def list(
        self,
        *,
        limit: int = PAGE_SIZE_DEFAULT,
        cursor: str | None = None,
        **filters: Unpack[RunFilters],
    ) -> RunList:
        """Return the runs that match all filters, the newest first.

        Await it for one page, or iterate over it for all: ``async for run in client.list(): ...``.

        Args:
            limit: runs on a page, at most 500.
            cursor: where to go on: the `cursor` of the page before.
            filters: those of `RunFilters`: `status`, `workflow`, `version`, `reference_id`,
                `parent_id`, `labels`, `created_after`, `created_before`, `query`, `undeliverable`.

        Raises:
            InvalidRequest: naming the filter and its value.
        """
        return RunList(self._port, evolve(run_query(filters), limit=limit, cursor=cursor))

    async def count(self, **filters: Unpack[RunFilters]) -> int:
        """Count the runs that match all filters, which are those of `list`.

        Raises:
            InvalidRequest: naming the filter and its value.
        """
        return await self._port.count(run_query(filters))

    def updates(
        self,
        *,
        run_ids: Iterable[str] = (),
        workflow: AnyWorkflow | str | Iterable[AnyWorkflow | str] | None = None,
        status: StatusWords | None = None,
    ) -> AllUpdates:
        """Return the updates of all runs of the namespace from now on, as an async iterator.

        Those of one run, from its beginning, are `RunHandle.updates`.

        Args:
            run_ids: only of these runs, at most 50.
            workflow: only of runs of this workflow, or of these.
            status: only those after which a run has this status, or one of these.

        Raises:
            InvalidRequest: naming the filter and its value.
            LimitExceeded: of `run_ids`.
        """
        return AllUpdates(self._port, update_query(run_ids, workflow, status))

    @property
    def schedules(self) -> NoReturn:
        """Nothing yet: this version has no schedules.

        Raises:
            InvalidRequest: always, with what to do instead.
        """
        raise InvalidRequest(NO_SCHEDULES)

    # --- The server -------------------------------------------------------------------------------

    async def workflows(self) -> Sequence[WorkflowInfo]:
        """Return the workflows that the server knows."""
        return await self._port.workflows()

    async def health(self) -> Health:
        """Return how the server is."""
        return await self._port.health()


def _run_id(run_id: object) -> str:
    if isinstance(run_id, str) and run_id:
        return run_id
    message = f"run_id={run_id!r} is not valid: pass a run's id as a str"
    raise InvalidRequest(message)

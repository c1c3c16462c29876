"""The client: starts runs and finds them again.

It knows a server only by a `ClientPort`, and turns Python values into wire values and back; it
keeps no state of its own. All methods work under Trio and, where the port does, under asyncio.
"""

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import (
    Any,
    Literal,
    ParamSpec,
    Self,
    TypeAlias,
    TypeVar,
    Unpack,
    cast,
    final,
    overload,
)

from attrs import evolve

from aiki_sdk._errors import AikiError, InvalidRequest
from aiki_sdk._ports import Clock
from aiki_sdk._registry import WorkflowRegistry
from aiki_sdk._workflow import AnyWorkflow, Workflow
from aiki_sdk.client._handle import RunHandle
from aiki_sdk.client._many_runs import ManyRuns
from aiki_sdk.client._options import (
    StartKwargs,
    StartOptions,
    StartSpec,
    build_request,
    split_options,
)
from aiki_sdk.client._run_list import RunFilters, RunList, run_query, workflow_name
from aiki_sdk.client._sealed_port import SealedPort
from aiki_sdk.client._start_or_send import StartOrSend
from aiki_sdk.client._startable import Startable0, Startable1, Startable2, Startable3, Startable4
from aiki_sdk.client._starter import Starter
from aiki_sdk.client._waiting import ambient_monotonic
from aiki_sdk.payload import PayloadCodec
from aiki_sdk.protocol import (
    BATCH_MAX,
    PAGE_SIZE_DEFAULT,
    ClientPort,
    Health,
    Problem,
    RunInfo,
    StartResult,
    WorkflowInfo,
)

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")

# Named here, for inside the class `list` is the method.
Started: TypeAlias = list[RunHandle[Any]]
StartedOrNot: TypeAlias = list[RunHandle[Any] | AikiError]
StartItem: TypeAlias = StartSpec[Any] | tuple[Any, ...]
"""What to start: a `StartSpec`, or a tuple of a workflow (or its name) and its arguments."""


@final
class Client(ManyRuns, StartOrSend):
    """A client of one namespace.

    ::

        async with Client(port) as client:
            handle = await client.start(process_order, Order("o-1", 500), reference_id="order-o-1")
            print(await handle.result())

    Every method may raise `Unauthorized` and `Unavailable`. With a reference id it can be repeated.
    """

    __slots__ = ("_known", "_monotonic", "_port")

    def __init__(
        self,
        port: ClientPort,
        *,
        namespace: str | None = None,
        workflows: Iterable[AnyWorkflow] = (),
        clock: Clock | None = None,
        codec: PayloadCodec | None = None,
    ) -> None:
        """Make a client.

        Args:
            port: the server, such as a runtime in this process offers it.
            namespace: the namespace that the port is for; given only to make sure.
            workflows: workflows whose code is at hand; results of their runs are converted to
                their return types, also where a run is got by id.
            clock: for timeouts. Default: Trio's inside Trio, else the machine's.
            codec: encrypts or compresses every payload before it leaves the client; the workers
                that execute the runs need the same.

        Raises:
            InvalidRequest: if the port is a URL, for this version speaks no HTTP, or if it is for
                another namespace.
            DuplicateName: if two workflows have one name and version.
        """
        given = cast("object", port)
        if isinstance(given, str):
            message = (
                f"Client({given!r}) is not possible: HTTP is not available in this version; "
                "pass the port of a runtime in this process, or use its `runtime.client`"
            )
            raise InvalidRequest(message)
        if namespace is not None and namespace != port.namespace:
            message = (
                f"namespace={namespace!r} is not valid: the port is for {port.namespace!r}; "
                f"ask the runtime for the port of {namespace!r}"
            )
            raise InvalidRequest(message)
        self._port = port if codec is None else SealedPort(port, codec)
        self._known = WorkflowRegistry(workflows)
        self._monotonic = ambient_monotonic if clock is None else clock.monotonic

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

    # --- Starting ---------------------------------------------------------------------------------

    @overload
    async def start(
        self, workflow: Workflow[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> RunHandle[R]: ...

    @overload
    async def start(
        self, workflow: Startable0[R], /, **options: Unpack[StartKwargs]
    ) -> RunHandle[R]: ...

    @overload
    async def start(
        self, workflow: Startable1[A, R], a: A, /, **options: Unpack[StartKwargs]
    ) -> RunHandle[R]: ...

    @overload
    async def start(
        self, workflow: Startable2[A, B, R], a: A, b: B, /, **options: Unpack[StartKwargs]
    ) -> RunHandle[R]: ...

    @overload
    async def start(
        self, workflow: Startable3[A, B, C, R], a: A, b: B, c: C, /, **options: Unpack[StartKwargs]
    ) -> RunHandle[R]: ...

    @overload
    async def start(
        self,
        workflow: Startable4[A, B, C, D, R],
        a: A,
        b: B,
        c: C,
        d: D,
        /,
        **options: Unpack[StartKwargs],
    ) -> RunHandle[R]: ...

    @overload
    async def start(self, workflow: str, /, *args: Any, **kwargs: Any) -> RunHandle[Any]: ...

    async def start(self, workflow: Any, /, *args: Any, **kwargs: Any) -> RunHandle[Any]:
        """Start a run of a workflow, and return a handle on it once the start is durable.

        Positional arguments are the workflow's. Keywords that are options of `StartOptions`
        (`reference_id`, `on_conflict`, `delay`, `at`, `priority`, `pool`, `retry`, `timeout`,
        `labels`, `version`) are options, all others are the workflow's too. Type checkers accept
        options beside positional arguments only, up to four; where that is not enough, or where
        the workflow has a parameter of such a name, say
        ``client.options(reference_id=...).start(workflow, ...)``.

        By name, all arguments go by name too, as keywords or as one dict:
        ``client.start("order-processing", {"order": {...}}, version="1.0.0")``.

        Raises:
            InvalidRequest: naming the option and its value.
            TypeError: if the arguments do not fit the workflow's signature.
            PayloadError: naming the parameter and the place in it that cannot be converted.
            ReferenceConflict: if the reference id names another run and `on_conflict` says so.
            UnknownWorkflow: if the server knows no such workflow.
        """
        options, arguments = split_options(workflow, kwargs)
        return await self._start(StartSpec(workflow, args, arguments, options))

    def options(self, **options: Unpack[StartKwargs]) -> Starter:
        """Fix the options of starts: ``client.options(labels=...).start(workflow, x, y=1)``.

        Type checkers check every argument of such a start, keywords included.

        Raises:
            TypeError: if there is no such option.
        """
        return Starter(self._start, StartOptions(**options))

    async def _start(self, spec: StartSpec[Any]) -> RunHandle[Any]:
        request, code = build_request(spec, self._known)
        result = await self._port.start(request)
        return self._handle(result.run_id, code)

    @overload
    async def start_many(
        self, items: Iterable[StartItem], *, return_errors: Literal[False] = False
    ) -> Started: ...

    @overload
    async def start_many(
        self, items: Iterable[StartItem], *, return_errors: Literal[True]
    ) -> StartedOrNot: ...

    async def start_many(
        self, items: Iterable[StartItem], *, return_errors: bool = False
    ) -> Started | StartedOrNot:
        """Start many runs with few requests; each is started, or not, by itself.

        Args:
            items: tuples ``(workflow, *args)``, or with options
                ``client.options(...).spec(workflow, *args, **kwargs)``.
            return_errors: whether to return the errors among the handles instead of raising them.

        Returns:
            A handle per item, in order.

        Raises:
            ExceptionGroup: of the errors of all items that were not started; the others were.
            InvalidRequest: what is wrong with an item; then none was started, and so for the
                other errors that `start` raises before it asks the server.
        """
        made = [build_request(_spec_of(item), self._known) for item in items]
        started: StartedOrNot = []
        for first in range(0, len(made), BATCH_MAX):
            batch = made[first : first + BATCH_MAX]
            answers = await self._port.start_many([request for request, _ in batch])
            for (_, code), answer in zip(batch, answers, strict=True):
                started.append(self._started(answer, code))
        if return_errors:
            return started
        errors = [item for item in started if isinstance(item, AikiError)]
        if errors:
            message = f"{len(errors)} of {len(started)} runs were not started"
            raise ExceptionGroup(message, errors)
        return [item for item in started if isinstance(item, RunHandle)]

    def _started(
        self, answer: StartResult | Problem, code: AnyWorkflow | None
    ) -> RunHandle[Any] | AikiError:
        if isinstance(answer, Problem):
            return answer.to_error()
        return self._handle(answer.run_id, code)

    def _handle(self, run_id: str, code: AnyWorkflow | None) -> RunHandle[Any]:
        return RunHandle(self._port, run_id, code, self._monotonic)

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
                `parent_id`, `labels`, `created_after`, `created_before`.

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

    # --- The server -------------------------------------------------------------------------------

    async def workflows(self) -> Sequence[WorkflowInfo]:
        """Return the workflows that the server knows."""
        return await self._port.workflows()

    async def health(self) -> Health:
        """Return how the server is."""
        return await self._port.health()


def _spec_of(item: StartItem) -> StartSpec[Any]:
    if isinstance(item, StartSpec):
        return item
    if isinstance(cast("object", item), tuple) and item:
        return StartSpec(item[0], item[1:])
    message = (
        f"{item!r} is not valid in start_many: pass a tuple (workflow, *args), "
        "or client.options(...).spec(workflow, *args)"
    )
    raise InvalidRequest(message)


def _run_id(run_id: object) -> str:
    if isinstance(run_id, str) and run_id:
        return run_id
    message = f"run_id={run_id!r} is not valid: pass a run's id as a str"
    raise InvalidRequest(message)

"""How a client starts runs: one, or many with few requests.

The overloads of `start` are by number of positional arguments, so that type checkers tell options
and arguments apart; see `_startable`.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, ParamSpec, TypeAlias, TypeVar, Unpack, cast, overload

from attrs import evolve

from aiki_sdk._errors import AikiError, InvalidRequest, UnknownWorkflow
from aiki_sdk._registry import WorkflowRegistry
from aiki_sdk._workflow import AnyWorkflow, Workflow
from aiki_sdk.client._handle import RunHandle
from aiki_sdk.client._options import (
    StartKwargs,
    StartOptions,
    StartSpec,
    build_request,
    split_options,
)
from aiki_sdk.client._startable import Startable0, Startable1, Startable2, Startable3, Startable4
from aiki_sdk.client._starter import Starter
from aiki_sdk.client._waiting import Monotonic
from aiki_sdk.protocol import (
    BATCH_MAX,
    ClientPort,
    Problem,
    StartRequest,
    StartResult,
    definition_of,
)

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")

Started: TypeAlias = list[RunHandle[Any]]
StartedOrNot: TypeAlias = list[RunHandle[Any] | AikiError]
StartItem: TypeAlias = StartSpec[Any] | tuple[Any, ...]
"""What to start: a `StartSpec`, or a tuple of a workflow (or its name) and its arguments."""


class Starting:
    """The part of a client that starts runs."""

    __slots__ = ()

    _port: ClientPort
    _known: WorkflowRegistry
    _monotonic: Monotonic
    url: str | None

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
            UnknownWorkflow: if the server knows no such workflow, and neither does this client; or
                if the server is in this process.
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
        try:
            result = await self._port.start(request)
        except UnknownWorkflow:
            if code is None or self.url is None:
                raise
            result = await self._port.start(_defined(request, code))
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
            answers = await self._start_batch(batch)
            for (_, code), answer in zip(batch, answers, strict=True):
                started.append(self._started(answer, code))
        if return_errors:
            return started
        errors = [item for item in started if isinstance(item, AikiError)]
        if errors:
            message = f"{len(errors)} of {len(started)} runs were not started"
            raise ExceptionGroup(message, errors)
        return [item for item in started if isinstance(item, RunHandle)]

    async def _start_batch(
        self, batch: Sequence[tuple[StartRequest, AnyWorkflow | None]]
    ) -> Sequence[StartResult | Problem]:
        answers = [*await self._port.start_many([request for request, _ in batch])]
        again = [
            (number, _defined(request, code))
            for number, (request, code) in enumerate(batch)
            if code is not None and self.url is not None and _is_unknown(answers[number])
        ]
        if again:
            known = await self._port.start_many([request for _, request in again])
            for (number, _), answer in zip(again, known, strict=True):
                answers[number] = answer
        return answers

    def _started(
        self, answer: StartResult | Problem, code: AnyWorkflow | None
    ) -> RunHandle[Any] | AikiError:
        if isinstance(answer, Problem):
            return answer.to_error()
        return self._handle(answer.run_id, code)

    def _handle(self, run_id: str, code: AnyWorkflow | None) -> RunHandle[Any]:
        return RunHandle(self._port, run_id, code, self._monotonic)


def _defined(request: StartRequest, code: AnyWorkflow) -> StartRequest:
    """Tell a server what the workflow is; its workers may come, or have their turn, later.

    Not told with every start: a server keeps what it was told, or what its workers tell it.
    """
    return evolve(request, definition=definition_of(code))


def _is_unknown(answer: StartResult | Problem) -> bool:
    return isinstance(answer, Problem) and answer.code == UnknownWorkflow.code


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

"""`ControlPort`: the control socket of a running runtime, as a client sees it.

A `ClientPort` like that of a runtime in one's own process, so that `Client` and `RunHandle` do the
rest. Each request is a connection; cancelling a call closes it, and the runtime stops waiting.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self, TypeVar

import trio
from attrs import define, field

from aiki_sdk import AikiError, JsonValue, Unavailable, error_from_wire
from aiki_sdk.protocol import (
    ControlRequest,
    EventReceipt,
    ForkRequest,
    Health,
    JournalEntry,
    Outcome,
    Problem,
    RunInfo,
    RunPage,
    RunQuery,
    SendRequest,
    StartRequest,
    StartResult,
    TreeNode,
    Update,
    WorkflowInfo,
    from_wire,
    to_wire,
)

from ._wire import Lines

T = TypeVar("T")


async def is_served(path: Path) -> bool:
    """Tell whether a runtime listens on a control socket."""
    try:
        stream = await trio.open_unix_socket(str(path))
    except OSError:
        return False
    await stream.aclose()
    return True


@define(eq=False)
class ControlPort:
    """One namespace of the runtime that serves a control socket."""

    path: Path
    namespace: str

    @asynccontextmanager
    async def _asked(self, method: str, params: Mapping[str, object]) -> AsyncGenerator[Lines]:
        """Open a connection and write the request on it."""
        try:
            stream = await trio.open_unix_socket(str(self.path))
        except OSError as error:
            message = f"no runtime answers at {self.path}: {error.strerror or error}; try again"
            raise Unavailable(message) from error
        async with stream:
            lines = Lines(stream)
            wire = {name: to_wire(value) for name, value in params.items()}
            await lines.send({"namespace": self.namespace, "method": method, "params": wire})
            yield lines

    async def _call(self, method: str, **params: object) -> JsonValue:
        async with self._asked(method, params) as lines:
            return _member(await lines.receive(), "result")

    async def start(self, request: StartRequest) -> StartResult:
        """Start a run; see `ClientPort.start`."""
        return from_wire(await self._call("start", request=request), StartResult, "result")

    async def start_many(self, requests: Sequence[StartRequest]) -> Sequence[StartResult | Problem]:
        """Start runs one after the other; each succeeds or fails by itself."""
        answers: list[StartResult | Problem] = []
        for request in requests:
            try:
                answers.append(await self.start(request))
            except AikiError as error:
                answers.append(Problem.from_error(error))
        return answers

    async def get(self, run_id: str) -> RunInfo:
        """Return what is known of a run."""
        return from_wire(await self._call("get", run_id=run_id), RunInfo, "result")

    async def find(self, workflow: str, reference_id: str) -> RunInfo:
        """Return the run that holds a reference id now."""
        answer = await self._call("find", workflow=workflow, reference_id=reference_id)
        return from_wire(answer, RunInfo, "result")

    async def list(self, query: RunQuery) -> RunPage:
        """Return a page of the runs that match, the newest first."""
        return from_wire(await self._call("list", query=query), RunPage, "result")

    async def count(self, query: RunQuery) -> int:
        """Count the runs that match."""
        return from_wire(await self._call("count", query=query), int, "result")

    async def journal(self, run_id: str, *, after: int, limit: int) -> Sequence[JournalEntry]:
        """Return the entries with seq above `after`, in order, at most `limit`."""
        answer = await self._call("journal", run_id=run_id, after=after, limit=limit)
        return from_wire(answer, tuple[JournalEntry, ...], "result")

    async def result(self, run_id: str, *, wait_s: float | None) -> Outcome | None:
        """Wait for a run's end."""
        answer = await self._call("result", run_id=run_id, wait_s=wait_s)
        return None if answer is None else from_wire(answer, Outcome, "result")

    async def send(self, run_id: str, request: SendRequest) -> EventReceipt:
        """Acknowledge an event for a run."""
        answer = await self._call("send", run_id=run_id, request=request)
        return from_wire(answer, EventReceipt, "result")

    async def send_many(
        self, run_ids: Sequence[str], request: SendRequest
    ) -> Sequence[EventReceipt | Problem]:
        """Send an event to runs, one after the other."""
        answers: list[EventReceipt | Problem] = []
        for run_id in run_ids:
            try:
                answers.append(await self.send(run_id, request))
            except AikiError as error:
                answers.append(Problem.from_error(error))
        return answers

    async def control(self, run_id: str, request: ControlRequest) -> None:
        """Do something to a run."""
        await self._call("control", run_id=run_id, request=request)

    async def control_many(
        self, run_ids: Sequence[str], request: ControlRequest
    ) -> Sequence[Problem | None]:
        """Do one thing to runs, one after the other."""
        answers: list[Problem | None] = []
        for run_id in run_ids:
            try:
                await self.control(run_id, request)
            except AikiError as error:
                answers.append(Problem.from_error(error))
            else:
                answers.append(None)
        return answers

    async def fork(self, run_id: str, request: ForkRequest) -> StartResult:
        """Make a new run of what a run had recorded."""
        answer = await self._call("fork", run_id=run_id, request=request)
        return from_wire(answer, StartResult, "result")

    @asynccontextmanager
    async def updates(
        self, run_id: str, *, after: int, wait_s: float | None = None
    ) -> AsyncGenerator[AsyncIterator[Update]]:
        """Open the stream of a run's updates with seq above `after`."""
        params = {"run_id": run_id, "after": after, "wait_s": wait_s}
        async with self._asked("updates", params) as lines:
            yield _Stream(lines)

    async def workflows(self) -> Sequence[WorkflowInfo]:
        """Return the workflows that the runtime knows."""
        return from_wire(await self._call("workflows"), tuple[WorkflowInfo, ...], "result")

    async def health(self) -> Health:
        """Return how the runtime is."""
        return from_wire(await self._call("health"), Health, "result")

    async def tree(self) -> TreeNode:
        """Return a picture of the runtime's live actor tree."""
        return from_wire(await self._call("tree"), TreeNode, "result")

    async def aclose(self) -> None:
        """Nothing to give back: connections live as long as their request."""
        await trio.lowlevel.checkpoint()


@define(eq=False)
class _Stream:
    """The updates that come over one connection."""

    lines: Lines
    _ended: bool = field(default=False, init=False)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Update:
        if not self._ended:
            line = await self.lines.receive()
            if not (isinstance(line, dict) and line.get("end") is True):
                return from_wire(_member(line, "item"), Update, "item")
            self._ended = True
        raise StopAsyncIteration


def _member(line: JsonValue, name: str) -> JsonValue:
    """Return what an answer carries, or raise the error that it is."""
    if isinstance(line, dict):
        problem = line.get("error")
        if isinstance(problem, dict):
            found = from_wire(problem, Problem, "error")
            raise error_from_wire(found.code, found.message, found.details)
        if name in line:
            return line[name]
    message = f"the runtime answered {line!r}, which this release does not understand"
    raise Unavailable(message)

"""`HttpPort`: a server somewhere else, as its clients see it.

A `ClientPort` like that of a runtime in one's own process, so that `Client` and `RunHandle` do the
rest, and errors are the same ones. What failed on the way is done again where that is safe: reading
always; starts and events because each carries a name of its own (`Idempotency-Key`) under which the
server does it once; commands of which twice is the same as once. Everything else raises
`Unavailable` if it may have happened.
"""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Self

from attrs import define, evolve, field

from aiki_sdk._json import JsonValue, dumps
from aiki_sdk._names import check_name
from aiki_sdk._ports import Ids, Rng, SystemIds, SystemRng
from aiki_sdk.client._waiting import Monotonic, ambient_monotonic
from aiki_sdk.http._address import path_of
from aiki_sdk.http._caller import Caller, Items
from aiki_sdk.http._exchange import AsyncExchange, Exchange
from aiki_sdk.http._settings import HttpSettings
from aiki_sdk.http._streams import NamespaceStream, Place, RunStream
from aiki_sdk.protocol import (
    PAGE_SIZE_MAX,
    ControlCommand,
    ControlRequest,
    EventReceipt,
    ForkRequest,
    Health,
    JournalEntry,
    OnConflict,
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
    UpdateQuery,
    WorkflowInfo,
    to_wire,
)

KEY_PREFIX: Final = "idempotency:"
"""How the server makes the reference id of what came with an `Idempotency-Key` and without one."""

BATCH_BYTES_MAX: Final = 2 * 1024 * 1024
"""Of starts in one body: half of what servers take. One payload may be as large as this."""

_TWICE_IS_ONCE: Final = frozenset(
    {
        ControlCommand.CANCEL,
        ControlCommand.TERMINATE,
        ControlCommand.PAUSE,
        ControlCommand.RESUME,
    }
)
"""Not `wake`, which would end the next sleep; nor `retry` and `requeue`, a second time each."""


@define(eq=False)
class HttpPort:
    """One namespace of a server."""

    _caller: Caller
    _ids: Ids = field(factory=SystemIds)

    @classmethod
    def to(
        cls,
        url: str,
        *,
        namespace: str = "default",
        api_key: str | None = None,
        settings: HttpSettings | None = None,
        exchange: Exchange | None = None,
        rng: Rng | None = None,
        monotonic: Monotonic = ambient_monotonic,
    ) -> Self:
        """Make a port to a server; nothing is sent yet.

        Args:
            url: where the server is, such as `http://localhost:9850`.
            namespace: the namespace that everything happens in.
            api_key: what opens it, if the server asks for keys.
            settings: limits and patience.
            exchange: how requests go out. Default: over Trio or asyncio, whichever runs.
            rng: chance for the pauses between attempts.
            monotonic: the clock for deadlines.

        Raises:
            InvalidRequest: naming what is not valid; never the key.
        """
        chosen = HttpSettings() if settings is None else settings
        caller = Caller(
            url,
            check_name("namespace", namespace),
            api_key,
            chosen,
            AsyncExchange(chosen) if exchange is None else exchange,
            SystemRng() if rng is None else rng,
            monotonic,
        )
        return cls(caller)

    @property
    def namespace(self) -> str:
        """The namespace that everything happens in."""
        return self._caller.namespace

    @property
    def url(self) -> str:
        """Where the server is."""
        return self._caller.url

    @property
    def api_key(self) -> str | None:
        """What opens the server; not shown anywhere."""
        return self._caller.api_key

    # --- Runs -------------------------------------------------------------------------------------

    async def start(self, request: StartRequest) -> StartResult:
        """Start a run; see `ClientPort.start`."""
        headers: dict[str, str] = {}
        if request.reference_id is None:
            headers["idempotency-key"] = self._ids.claim_id()
        response = await self._caller.ask(
            "POST",
            path_of("runs"),
            body=to_wire(_once(request)),
            headers=headers,
            repeatable=_starts_once(request),
        )
        return self._caller.read(response, StartResult)

    async def start_many(self, requests: Sequence[StartRequest]) -> Sequence[StartResult | Problem]:
        """Start many runs with few requests; each succeeds or fails by itself."""
        answers: list[StartResult | Problem] = []
        for batch in _batches(self._named(request) for request in requests):
            answers += await self._start_batch(batch)
        return answers

    def _named(self, request: StartRequest) -> StartRequest:
        if request.reference_id is not None:
            return request
        return evolve(_once(request), reference_id=self._key())

    async def _start_batch(
        self, batch: Sequence[tuple[StartRequest, JsonValue]]
    ) -> Sequence[StartResult | Problem]:
        response = await self._caller.ask(
            "POST",
            path_of("runs", "batch"),
            body={"runs": [json for _, json in batch]},
            repeatable=all(_starts_once(request) for request, _ in batch),
        )
        return [
            self._caller.problem(item) or self._caller.parse(item.get("result"), StartResult)
            for item in self._caller.items(response, "results", len(batch))
        ]

    def _key(self) -> str:
        return f"{KEY_PREFIX}{self._ids.claim_id()}"

    async def get(self, run_id: str) -> RunInfo:
        """Return what is known of a run."""
        return self._caller.read(await self._caller.ask("GET", path_of("runs", run_id)), RunInfo)

    async def find(self, workflow: str, reference_id: str) -> RunInfo:
        """Return the run that holds a reference id now."""
        params = [("workflow", workflow), ("reference_id", reference_id)]
        return self._caller.read(
            await self._caller.ask("GET", path_of("runs", "find"), params=params), RunInfo
        )

    async def list(self, query: RunQuery) -> RunPage:
        """Return a page of the runs that match, the newest first."""
        params = [*_filters(query), ("limit", str(query.limit))]
        if query.cursor is not None:
            params.append(("cursor", query.cursor))
        return self._caller.read(
            await self._caller.ask("GET", path_of("runs"), params=params), RunPage
        )

    async def count(self, query: RunQuery) -> int:
        """Count the runs that match."""
        response = await self._caller.ask("GET", path_of("runs", "count"), params=_filters(query))
        return self._caller.parse(self._caller.member(response, "count"), int)

    async def journal(self, run_id: str, *, after: int, limit: int) -> Sequence[JournalEntry]:
        """Return the entries with seq above `after`, in order, at most `limit`."""
        params = [("after", str(after)), ("limit", str(limit))]
        response = await self._caller.ask("GET", path_of("runs", run_id, "journal"), params=params)
        return self._caller.parse(
            self._caller.member(response, "entries"), tuple[JournalEntry, ...]
        )

    async def result(self, run_id: str, *, wait_s: float | None) -> Outcome | None:
        """Wait for a run's end for `wait_s` seconds, or as long as the server holds it back."""
        path = path_of("runs", run_id, "result")
        answer = await self._caller.ask_and_wait(path, wait_s)
        return None if answer.status_code == 202 else self._caller.read(answer, Outcome)

    async def send(self, run_id: str, request: SendRequest) -> EventReceipt:
        """Acknowledge an event or a question for a run."""
        body: dict[str, JsonValue] = {"data": request.data}
        headers: dict[str, str] = {}
        key = self._ids.claim_id()
        if request.reference_id is None:
            headers["idempotency-key"] = key
        else:
            body["reference_id"] = request.reference_id
        sort = "questions" if request.question else "events"
        path = path_of("runs", run_id, sort, request.event)
        receipt = self._caller.read(
            await self._caller.ask("POST", path, body=body, headers=headers), EventReceipt
        )
        if request.reference_id is None and receipt.duplicate and receipt.seq is None:
            # Our own repetition: the first attempt was taken, and only its answer was lost.
            seq = await self._seq_of_event(run_id, KEY_PREFIX + key)
            return EventReceipt(seq, duplicate=False)
        return receipt

    async def _seq_of_event(self, run_id: str, reference_id: str) -> int | None:
        after = 0
        while True:
            page = await self.journal(run_id, after=after, limit=PAGE_SIZE_MAX)
            for entry in page:
                if (
                    entry.body.get("reference_id") == reference_id
                    and entry.kind == "event-accepted"
                ):
                    return entry.seq
            if not page:
                return None
            after = page[-1].seq

    async def send_many(
        self, run_ids: Sequence[str], request: SendRequest
    ) -> Sequence[EventReceipt | Problem]:
        """Send one event to many runs with one request."""
        named = request
        if request.reference_id is None:
            named = evolve(request, reference_id=self._key())
        items = await self._bulk(run_ids, {"event": to_wire(named)}, repeatable=True)
        return [
            self._caller.problem(item) or self._caller.parse(item.get("receipt"), EventReceipt)
            for item in items
        ]

    async def control(self, run_id: str, request: ControlRequest) -> None:
        """Do something to a run."""
        given = {"reason": request.reason, "sleep": request.sleep}
        await self._caller.ask(
            "POST",
            path_of("runs", run_id, str(request.command)),
            body={name: value for name, value in given.items() if value is not None},
            repeatable=request.command in _TWICE_IS_ONCE,
        )

    async def control_many(
        self, run_ids: Sequence[str], request: ControlRequest
    ) -> Sequence[Problem | None]:
        """Do one thing to many runs with one request."""
        repeatable = request.command in _TWICE_IS_ONCE
        items = await self._bulk(run_ids, {"control": to_wire(request)}, repeatable=repeatable)
        return [self._caller.problem(item) for item in items]

    async def _bulk(
        self, run_ids: Sequence[str], what: Mapping[str, JsonValue], *, repeatable: bool
    ) -> Items:
        ids: list[JsonValue] = [*run_ids]
        body: dict[str, JsonValue] = {"run_ids": ids, **what}
        path = path_of("runs", "bulk")
        response = await self._caller.ask("POST", path, body=body, repeatable=repeatable)
        return self._caller.items(response, "results", len(ids))

    async def fork(self, run_id: str, request: ForkRequest) -> StartResult:
        """Make a new run of what a run had recorded; never repeated, for it has no name."""
        path = path_of("runs", run_id, "fork")
        response = await self._caller.ask("POST", path, body=to_wire(request), repeatable=False)
        return self._caller.read(response, StartResult)

    # --- Streams ----------------------------------------------------------------------------------

    def updates(
        self, run_id: str, *, after: int, wait_s: float | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[Update]]:
        """Open the stream of a run's updates; it outlasts lost connections."""
        path = path_of("runs", run_id, "stream")
        place = Place(self._caller.monotonic, after=after)
        return RunStream(self._caller, path, place, wait_s)

    def watch(self, query: UpdateQuery) -> AbstractAsyncContextManager[AsyncIterator[Update]]:
        """Open a stream of the updates of all runs that a query selects, from now on."""
        params = [("run", run_id) for run_id in query.run_ids]
        params += [("workflow", name) for name in query.workflows]
        params += [("status", str(status)) for status in query.statuses]
        place = Place(self._caller.monotonic, params, first=[("from", "latest")])
        return NamespaceStream(self._caller, path_of("stream"), place)

    # --- The server -------------------------------------------------------------------------------

    async def workflows(self) -> Sequence[WorkflowInfo]:
        """Return the workflows that the server knows."""
        response = await self._caller.ask("GET", path_of("workflows"))
        return self._caller.parse(
            self._caller.member(response, "workflows"), tuple[WorkflowInfo, ...]
        )

    async def health(self) -> Health:
        """Return how the server is."""
        return self._caller.read(await self._caller.ask("GET", path_of("health")), Health)

    async def tree(self) -> TreeNode:
        """Return a picture of the server's live actor tree, from its root down."""
        return self._caller.read(await self._caller.ask("GET", path_of("tree")), TreeNode)

    async def aclose(self) -> None:
        """Close all connections; from then on every method raises `Unavailable`."""
        await self._caller.aclose()


def _batches(
    requests: Iterable[StartRequest],
) -> Iterator[Sequence[tuple[StartRequest, JsonValue]]]:
    """Cut many starts into bodies that a server takes; each has one at least."""
    batch: list[tuple[StartRequest, JsonValue]] = []
    size = 0
    for request in requests:
        json = to_wire(request)
        length = len(dumps(json))
        if batch and size + length > BATCH_BYTES_MAX:
            yield batch
            batch, size = [], 0
        batch.append((request, json))
        size += length
    if batch:
        yield batch


def _once(request: StartRequest) -> StartRequest:
    """Return a start whose repetition under a made-up name never leads to another run."""
    if request.reference_id is None and request.on_conflict is not OnConflict.ERROR:
        return evolve(request, on_conflict=OnConflict.ERROR)
    return request


def _starts_once(request: StartRequest) -> bool:
    """Tell whether a start, made again, leads to the same run, also if that has ended already."""
    return request.reference_id is None or request.on_conflict is not OnConflict.RESTART_IF_ENDED


def _filters(query: RunQuery) -> list[tuple[str, str]]:
    params: list[tuple[str, str]] = [("status", str(status)) for status in query.status]
    plain: dict[str, Any] = {
        "workflow": query.workflow,
        "version": query.version,
        "reference_id": query.reference_id,
        "parent_id": query.parent_id,
        "query": query.query,
    }
    params += [(name, value) for name, value in plain.items() if value is not None]
    if query.undeliverable:
        params.append(("undeliverable", "true"))
    params += [("label", f"{name}:{value}") for name, value in query.labels.items()]
    times = {"created_after": query.created_after, "created_before": query.created_before}
    params += [(name, at.isoformat()) for name, at in times.items() if at is not None]
    return params

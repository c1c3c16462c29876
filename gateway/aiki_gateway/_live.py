"""Live state as server-sent events: of one run, and of a namespace.

The form is that of HTML's EventSource: each event has an id, and a browser that reconnects sends
the last one it saw. What a stream gives is backed by the journal, so that it goes on without a gap.

    id: 7                         id: <position>;run_01J…=7
    event: update                 event: snapshot | update
    data: {"run_id": …}           data: {…}

Both end with `event: end`, which says why and from where to resume. A comment line keeps proxies
from closing a stream that has nothing to say.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Final

import trio

from aiki_sdk import AikiError, InvalidRequest, JsonValue, LimitExceeded
from aiki_sdk._json import dumps
from aiki_sdk.protocol import RunStatus, Update, to_wire

from ._call import Call, StreamOut, Texts
from ._engine import LiveStream, Positioned, RunUpdates, Snapshot, StreamFilter, StreamStart
from ._metrics import Metrics
from ._settings import GatewaySettings

RUNS_NAMED_MAX: Final = 50
"""Runs that a stream's filter may name: each of them is in every event's id."""

PIECE_BYTES: Final = 32 * 1024
"""Updates of a run that are there already are sent together, until so much has come together."""

COMMENT: Final = b":\n\n"
TOO_SLOW: Final = "subscriber-too-slow"

LOGGER: Final = logging.getLogger("aiki.gateway")

_PAIR: Final = re.compile(r"([^=,;]{1,256})=(\d{1,15})", re.ASCII)


def snapshot_json(snapshot: Snapshot) -> JsonValue:
    """Return a snapshot as it travels."""
    return {"runs": [to_wire(run) for run in snapshot.runs], "more": snapshot.more}


def event(kind: str, data: bytes, event_id: str | None = None) -> bytes:
    """Return one server-sent event; JSON has no line breaks, so that it is one line of data."""
    head = f"event: {kind}\n" if event_id is None else f"id: {event_id}\nevent: {kind}\n"
    return b"%bdata: %b\n\n" % (head.encode(), data)


async def run_stream(call: Call, out: StreamOut) -> None:
    """Stream one run's updates, to its end."""
    after = await _first_seq(call)
    ended = False

    async with call.engine.run_updates(call.namespace, call.run_id, after=after) as updates:
        await out.open()

        async def pump() -> str:
            nonlocal after, ended
            while batch := await _updates_or_comment(call, out, updates):
                for data, sent in _pieces(batch, call.facts.texts):
                    await out.send(data)
                    call.facts.metrics.updates_sent += len(sent)
                    after, ended = sent[-1].seq, sent[-1].status.terminal
                    if out.sent_bytes >= call.settings.stream_bytes_max:
                        return "closing"
            # It ended with the run; or the run had ended before; or the reader was too slow.
            return "ended" if ended or await _has_ended(call, after) else "slow"

        reason = await until_closing(call.facts.closing, pump)
    if reason == "slow":
        call.facts.metrics.streams_cut_off += 1
    await out.send(event("end", dumps({"reason": reason, "after": after})))


async def _first_seq(call: Call) -> int:
    """Return the seq that a reader has: by its last event, by the query, or the run's last."""
    last = call.headers.get("last-event-id", "")
    if last.isascii() and last.isdecimal() and len(last) <= 15:
        return int(last)
    if last:
        message = f"Last-Event-ID {last[:50]!r} is not valid: send the id of an event"
        raise InvalidRequest(message)
    if call.text("from") == "latest":
        return (await call.port.get(call.run_id)).seq
    return call.integer("after", 0)


async def _has_ended(call: Call, after: int) -> bool:
    info = await call.port.get(call.run_id)
    return info.status.terminal and info.seq <= after


def _pieces(
    batch: Sequence[Update], texts: Texts[Update]
) -> Iterator[tuple[bytes, Sequence[Update]]]:
    """Make events of updates; return what is sent in one write, and what it tells."""
    size, events, told = 0, list[bytes](), list[Update]()
    for update in batch:
        events.append(event("update", texts.of(update), str(update.seq)))
        told.append(update)
        size += len(events[-1])
        if size >= PIECE_BYTES or update is batch[-1]:
            yield b"".join(events), told
            size, events, told = 0, [], []


async def _updates_or_comment(call: Call, out: StreamOut, updates: RunUpdates) -> Sequence[Update]:
    """Return the next updates, none at the end; meanwhile keep the connection alive."""
    while True:
        with trio.move_on_after(call.settings.keep_alive_comment_s):
            return await updates.next_batch()
        await out.send(COMMENT)


async def until_closing(closing: trio.Event, pump: Callable[[], Awaitable[str]]) -> str:
    """Pump until there is a reason to end, and return it; the server's stop is one."""
    reason = "closing"
    async with trio.open_nursery() as nursery:

        async def end() -> None:
            await closing.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(end)
        try:
            reason = await pump()
        except AikiError as error:
            if error.code == TOO_SLOW:
                reason = "slow"
            elif not error.retryable:
                LOGGER.exception("a stream failed")
        nursery.cancel_scope.cancel()
    return reason


# --- A namespace's stream -------------------------------------------------------------------------


async def namespace_stream(call: Call, out: StreamOut) -> None:
    """Stream the updates of all runs that the filter selects."""
    where = StreamFilter(
        runs=tuple(call.texts("run")),
        workflows=tuple(call.texts("workflow")),
        statuses=tuple(RunStatus(word) for word in call.texts("status")),
    )
    if len(where.runs) > RUNS_NAMED_MAX:
        fix = "watch them with several streams, or use the websocket"
        raise LimitExceeded("runs in one stream", RUNS_NAMED_MAX, len(where.runs), fix)
    start = _start(call)
    seqs = dict(start.after)
    facts = call.facts
    buffer = call.settings.subscriber_updates_max
    async with call.engine.subscribe(call.namespace, where, start, buffer=buffer) as stream:
        await out.open()

        async def pump() -> str:
            while out.sent_bytes < call.settings.stream_bytes_max:
                batch = await _batch_or_comment(call, out, stream, seqs)
                # Readers of the same are told the same, made once; seqs are one reader's own.
                texts = (
                    [_event_of(one, where, seqs, facts.texts) for one in batch]
                    if seqs or where.runs
                    else [_shared_event_of(one, facts.events) for one in batch]
                )
                await out.send(b"".join(texts))
                facts.metrics.updates_sent += len(batch)
            return "closing"

        with facts.metrics.namespace_stream():
            reason = await until_closing(facts.closing, pump)
        if reason == "slow":
            facts.metrics.streams_cut_off += 1
        await out.send(_end(reason, stream))


def _end(reason: str, stream: LiveStream) -> bytes:
    return event("end", dumps({"reason": reason, "after": dict(stream.cursors())}))


async def _batch_or_comment(
    call: Call, out: StreamOut, stream: LiveStream, seqs: Mapping[str, int]
) -> Sequence[Snapshot | Positioned]:
    while True:
        with trio.move_on_after(call.settings.keep_alive_comment_s):
            return await stream.next_batch(gather_s(call.facts.metrics, call.settings))
        position = stream.position()
        # An id without data moves a browser's last event on, and dispatches nothing.
        await out.send(
            COMMENT if position is None else f"id: {_id_of(position, seqs)}\n\n".encode()
        )


def gather_s(metrics: Metrics, settings: GatewaySettings) -> float:
    """Return how long updates gather for each stream, so that all get a bounded part of the time.

    Each write costs the same, however much it carries; each update is made into text once.
    """
    return metrics.namespace_streams / settings.stream_writes_per_s


def _shared_event_of(one: Snapshot | Positioned, events: Texts[Positioned]) -> bytes:
    if isinstance(one, Snapshot):
        return event("snapshot", dumps(snapshot_json(one)))
    return events.of(one)


def update_json(update: Update) -> bytes:
    """Return an update as JSON."""
    return dumps(to_wire(update))


def event_text(one: Positioned) -> bytes:
    """Return an update as an event whose id is its position alone."""
    return event("update", update_json(one.update), one.position)


def _event_of(
    one: Snapshot | Positioned, where: StreamFilter, seqs: dict[str, int], texts: Texts[Update]
) -> bytes:
    if isinstance(one, Snapshot):
        return event("snapshot", dumps(snapshot_json(one)))
    update = one.update
    if where.runs:
        seqs[update.run_id] = update.seq
    return event("update", texts.of(update), _id_of(one.position, seqs))


def _id_of(position: str, seqs: Mapping[str, int]) -> str:
    """Return an event's id: the position, and the seqs of the runs that the filter names."""
    if not seqs:
        return position
    return f"{position};{','.join(f'{run_id}={seq}' for run_id, seq in seqs.items())}"


def _start(call: Call) -> StreamStart:
    """Return where a stream begins: behind the reader's last event, or now.

    Raises:
        InvalidRequest: the last event's id is not one of ours.
    """
    latest = call.text("from") == "latest"
    last = call.headers.get("last-event-id", "")
    if not last:
        return StreamStart(latest=latest)
    position, _, pairs = last.partition(";")
    after: dict[str, int] = {}
    for pair in pairs.split(",") if pairs else []:
        found = _PAIR.fullmatch(pair)
        if found is None or len(after) >= RUNS_NAMED_MAX:
            message = f"Last-Event-ID {last[:50]!r} is not valid: send the id of an event"
            raise InvalidRequest(message)
        after[found[1]] = int(found[2])
    return StreamStart(after=after, position=position, latest=latest)

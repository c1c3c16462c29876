"""The messages of a session as JSON arrays: the kind, then the fields by position.

    ["submit", 7, "run_01…", 1, "9f…", [["record-success", {"call": {…}, "output": 3}]]]
    ["done", 7, [[12, 1767225600000000, "task-succeeded", {…}]]]

Entries are `[seq, at in microseconds, kind, body]`, bodies as they stand in the database. Commands
are objects of their fields but for the claim, which the message carries once. Reading is strict:
what does not fit is a `ProtocolError`, whatever was sent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias, TypeVar, cast

from attrs import fields as fields_of

from aiki_actors.engine import ClaimRef, Entry, Micros, WorkerCommand
from aiki_actors.storage import body_from_document, compile_fields, encode_entry
from aiki_sdk import AikiError, JsonValue, dumps

from . import _messages as m
from ._errors import ProtocolError
from ._limits import ENTRIES_BYTES, CloseCode

_MARK: Final = b" "  # stands before a document that holds integers of more than 64 bits

COMMAND_KINDS: Final[Mapping[str, type[WorkerCommand]]] = {
    re.sub(r"(?<!^)(?=[A-Z])", "-", cls.__name__).lower(): cls
    for cls in WorkerCommand.__subclasses__()
}
"""Every command of a worker by its name on the wire: `record-success`, …"""

_COMMANDS: Final = {
    kind: compile_fields(cls, passed=frozenset({"claim"})) for kind, cls in COMMAND_KINDS.items()
}
_ENCODERS: Final[Mapping[type[Any], tuple[bytes, Callable[[Any], bytes]]]] = {
    cls: (kind.encode(), _COMMANDS[kind][0]) for kind, cls in COMMAND_KINDS.items()
}
_READERS: Final = {kind: read for kind, (_, read) in _COMMANDS.items()}

Message = TypeVar("Message")
_Make: TypeAlias = Callable[..., Message]
"""Makes a message of the parts of its array after the kind; raises what Python does if unfit."""


# --- Writing -------------------------------------------------------------------------------------


def _array(items: Iterable[bytes]) -> bytes:
    """Put documents into an array; the mark of big integers moves to the front."""
    mark = b""
    parts: list[bytes] = []
    for item in items:
        if item[:1] == _MARK:
            mark, item = _MARK, item[1:]  # noqa: PLW2901  (the document without its mark)
        parts.append(item)
    return b"%b[%b]" % (mark, b",".join(parts))


def entry_document(entry: Entry) -> bytes:
    """Write an entry."""
    seq, at, kind, body = encode_entry(entry)
    if body[:1] == _MARK:
        return b' [%d,%d,"%b",%b]' % (seq, at, kind.encode(), body[1:])
    return b'[%d,%d,"%b",%b]' % (seq, at, kind.encode(), body)


def _entries(entries: Sequence[Entry]) -> bytes:
    if len(entries) == 1:
        document = entry_document(entries[0])
        return b" [%b]" % document[1:] if document[:1] == _MARK else b"[%b]" % document
    return _array([entry_document(entry) for entry in entries])


def _command(command: WorkerCommand) -> bytes:
    kind, encode = _ENCODERS[type(command)]
    return _array((b'"%b"' % kind, encode(command)))


def submitted(
    number: int, run_id: str, claim: ClaimRef, commands: Sequence[WorkerCommand]
) -> bytes:
    """Write a submission.

    Raises:
        PayloadError: a value in it cannot be JSON.

    """
    said = _array([_command(command) for command in commands])
    head = b'"submit",%d,"%b",%d,"%b"' % (
        number,
        run_id.encode(),
        claim.epoch,
        claim.claim_id.encode(),
    )
    return _array((head, said))


def done(number: int, entries: Sequence[Entry]) -> bytes:
    """Write that a submission took effect."""
    return _array((b'"done",%d' % number, _entries(entries)))


def assigned(run_id: str, claim: ClaimRef, entries: Sequence[Entry]) -> list[bytes]:
    """Write an assignment, as several messages if there are many entries."""
    head = b'"assign","%b",%d,"%b"' % (run_id.encode(), claim.epoch, claim.claim_id.encode())
    parts = _parts(entries)
    return [
        _array((head, part, b"true" if at == len(parts) else b"false"))
        for at, part in enumerate(parts, 1)
    ]


def pushed(run_id: str, entries: Sequence[Entry]) -> list[bytes]:
    """Write what happened to a run, as several messages if that is much."""
    head = b'"push","%b"' % run_id.encode()
    return [_array((head, part)) for part in _parts(entries)]


def _parts(entries: Sequence[Entry]) -> list[bytes]:
    """Write entries as arrays of a bounded size; one at least."""
    if len(entries) == 1:
        return [_entries(entries)]
    parts: list[bytes] = []
    documents: list[bytes] = []
    size = 0
    for entry in entries:
        document = entry_document(entry)
        if documents and size + len(document) > ENTRIES_BYTES:
            parts.append(_array(documents))
            documents, size = [], 0
        documents.append(document)
        size += len(document)
    parts.append(_array(documents))
    return parts


def answered(answer: m.Answered) -> bytes:
    """Write what has become of a claim."""
    head = dumps(["claim", answer.run_id, answer.epoch, answer.held.value])[1:-1]
    return _array((head, _entries(answer.entries)))


def written(message: m.WorkerMessage | m.ServerMessage) -> bytes:
    """Write any other message; the frequent ones have functions of their own.

    Raises:
        PayloadError: a value in it cannot be JSON.

    """
    match message:
        case m.Submitted(number, run_id, claim, commands):
            return submitted(number, run_id, claim, commands)
        case m.Done(number, entries):
            return done(number, entries)
        case m.Answered():
            return answered(message)
        case m.Pushed(run_id, entries):
            return _array((b'"push","%b"' % run_id.encode(), _entries(entries)))
        case m.Assigned(run_id, claim, entries, last):
            head = dumps(["assign", run_id, claim.epoch, claim.claim_id])[1:-1]
            return _array((head, _entries(entries), dumps(last)))
        case _:
            return dumps(_plain(message))


def _plain(  # noqa: C901, PLR0912  (one plain line per message)
    message: m.WorkerMessage | m.ServerMessage,
) -> list[JsonValue]:
    """Return a message without entries or commands as JSON."""
    match message:
        case m.Reclaim(number, run_id):
            return ["reclaim", number, run_id]
        case m.Claim(number, run_id):
            return ["claim", number, run_id]
        case m.Poisoned(number, run_id, deliveries):
            return ["poisoned", number, run_id, deliveries]
        case m.Pulls(pulls):
            return ["pulls", pulls]
        case m.MessagesLost():
            return ["messages-lost"]
        case m.Broken(run_id, epoch, reason):
            return ["broken", run_id, epoch, reason]
        case m.Dropped(run_id):
            return ["dropped", run_id]
        case m.Progress(run_id, kind, body):
            return ["progress", run_id, kind, dict(body)]
        case m.Announce(definitions):
            return ["announce", list(definitions)]
        case m.Holds(run_id, claim, claimed_seq, seq):
            return ["holds", run_id, claim.epoch, claim.claim_id, claimed_seq, seq]
        case m.Serve(workflows, pools, slots):
            return ["serve", [list(pair) for pair in workflows], list(pools), slots]
        case m.Slots(slots):
            return ["slots", slots]
        case m.Beating(claims):
            return ["beating", [[run_id, epoch] for run_id, epoch in claims]]
        case m.Goodbye():
            return ["goodbye"]
        case m.Refused(number, code, text, details):
            return ["refused", number, code, text, dict(details)]
        case m.Gone(claims):
            return ["gone", [[run_id, epoch] for run_id, epoch in claims]]
        case m.Cold(run_id):
            return ["cold", run_id]
        case _:
            raise AssertionError(f"{type(message).__name__} is written elsewhere")


# --- Reading -------------------------------------------------------------------------------------


def read_worker_message(document: list[JsonValue]) -> m.WorkerMessage:
    """Read what a worker said.

    Raises:
        ProtocolError: it is not what the protocol says.

    """
    return cast("m.WorkerMessage", _read(document, _FROM_WORKER))


def read_server_message(document: list[JsonValue]) -> m.ServerMessage:
    """Read what the server said.

    Raises:
        ProtocolError: it is not what the protocol says.
        JournalVersionError: an entry in it is of a newer release.

    """
    return cast("m.ServerMessage", _read(document, _FROM_SERVER))


def _read(document: list[JsonValue], known: Mapping[str, Callable[..., object]]) -> object:
    kind = document[0]
    make = known.get(kind) if isinstance(kind, str) else None
    if make is None:
        raise ProtocolError(CloseCode.MALFORMED, f"there is no message {str(kind)[:40]!r}")
    try:
        return make(*document[1:])
    except (TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
        reason = f"message {kind!r} does not fit: {error}"
        raise ProtocolError(CloseCode.MALFORMED, reason) from error


def _text(value: object) -> str:
    if type(value) is not str:
        message = f"{type(value).__name__} instead of a text"
        raise TypeError(message)
    return value


def _count(value: object) -> int:
    if type(value) is not int or value < 0:
        message = f"{value!r:.40} instead of a number from 0 on"
        raise TypeError(message)
    return value


def _list(value: object) -> list[JsonValue]:
    if not isinstance(value, list):
        message = f"{type(value).__name__} instead of an array"
        raise TypeError(message)
    return cast("list[JsonValue]", value)


def _object(value: object) -> dict[str, JsonValue]:
    if not isinstance(value, dict):
        message = f"{type(value).__name__} instead of an object"
        raise TypeError(message)
    return cast("dict[str, JsonValue]", value)


def read_entries(value: object) -> tuple[Entry, ...]:
    """Read entries."""
    return tuple([_entry(item) for item in _list(value)])


def _entry(item: JsonValue) -> Entry:
    seq, at, kind, body = _list(item)
    return Entry(_count(seq), Micros(_count(at)), body_from_document(_text(kind), _object(body)))


def _submit(
    number: object, run_id: object, epoch: object, claim_id: object, said: object
) -> m.Submitted:
    claim = ClaimRef(_count(epoch), _text(claim_id))
    commands: list[WorkerCommand] = []
    for item in _list(said):
        kind, document = _list(item)
        body: dict[str, Any] = _object(document)
        body["claim"] = claim
        try:
            commands.append(_READERS[_text(kind)](body))
        except AikiError as error:  # an error inside is not of the form of one
            raise ValueError(error.message) from error
    return m.Submitted(_count(number), _text(run_id), claim, tuple(commands))


def _pairs(value: object) -> tuple[tuple[str, int], ...]:
    pairs: list[tuple[str, int]] = []
    for item in _list(value):
        run_id, epoch = _list(item)
        pairs.append((_text(run_id), _count(epoch)))
    return tuple(pairs)


def _workflows(value: object) -> tuple[tuple[str, str], ...]:
    pairs: list[tuple[str, str]] = []
    for item in _list(value):
        name, version = _list(item)
        pairs.append((_text(name), _text(version)))
    return tuple(pairs)


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        message = f"{type(value).__name__} instead of a truth value"
        raise TypeError(message)
    return value


def _holds(
    run_id: object, epoch: object, claim_id: object, claimed_seq: object, seq: object
) -> m.Holds:
    claim = ClaimRef(_count(epoch), _text(claim_id))
    return m.Holds(_text(run_id), claim, _count(claimed_seq), _count(seq))


def _serve(workflows: object, pools: object, slots: object) -> m.Serve:
    named = tuple([_text(pool) for pool in _list(pools)])
    return m.Serve(_workflows(workflows), named, _count(slots))


def _done(number: object, entries: object) -> m.Done:
    return m.Done(_count(number), read_entries(entries))


def _assign(
    run_id: object, epoch: object, claim_id: object, entries: object, last: object
) -> m.Assigned:
    claim = ClaimRef(_count(epoch), _text(claim_id))
    return m.Assigned(_text(run_id), claim, read_entries(entries), _truth(last))


def _plainly(make: Callable[..., Message], *readers: Callable[[object], Any]) -> _Make[Message]:
    """Return how a message is read of which each part is a field."""

    def read(*parts: object) -> Message:
        return make(*[read(part) for read, part in zip(readers, parts, strict=True)])

    return read


_FROM_WORKER: Final[Mapping[str, _Make[m.WorkerMessage]]] = {
    "submit": _submit,
    "reclaim": _plainly(m.Reclaim, _count, _text),
    "claim": _plainly(m.Claim, _count, _text),
    "poisoned": _plainly(m.Poisoned, _count, _text, _count),
    "pulls": _plainly(m.Pulls, _truth),
    "messages-lost": _plainly(m.MessagesLost),
    "broken": _plainly(m.Broken, _text, _count, _text),
    "dropped": _plainly(m.Dropped, _text),
    "progress": _plainly(m.Progress, _text, _text, _object),
    "announce": _plainly(m.Announce, lambda value: tuple(_list(value))),
    "holds": _holds,
    "serve": _serve,
    "slots": _plainly(m.Slots, _count),
    "beating": _plainly(m.Beating, _pairs),
    "goodbye": _plainly(m.Goodbye),
}
_FROM_SERVER: Final[Mapping[str, _Make[m.ServerMessage]]] = {
    "done": _done,
    "refused": _plainly(m.Refused, _count, _text, _text, _object),
    "assign": _assign,
    "push": _plainly(m.Pushed, _text, read_entries),
    "claim": _plainly(m.Answered, _text, _count, lambda value: m.Held(_text(value)), read_entries),
    "gone": _plainly(m.Gone, _pairs),
    "cold": _plainly(m.Cold, _text),
}

assert all("claim" in {field.name for field in fields_of(cls)} for cls in COMMAND_KINDS.values())

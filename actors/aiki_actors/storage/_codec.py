"""Journal entries and notices as JSON: what stands in the `body` column, and how it is read back.

The form, which never changes for what has been written (`engine.FORMAT`, and golden files under
`tests/unit/storage/golden`):

* An object of the fields by name; fields that are None or have their default are left out.
* Times (`…_at`, `deadline`) are ISO 8601 in UTC with microseconds, durations are seconds; both
  exact, see `_times.py`. A `Call` is `{"address", "branch", "index"}`.
* Payloads are written as they are, an error as `ErrorInfo.to_json` says.
* A reader ignores fields that it does not know.

Each kind is compiled once, by cattrs, for the plain fields. Payloads and errors are written on
their own and spliced in: so they may nest as deep as a payload may, whatever they are wrapped in,
and each is encoded once. Invariant: `decode_entry(…, *encode_entry(entry)) == entry`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, Final, TypeAlias, cast

import attrs
from cattrs import Converter
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from aiki_actors.engine import (
    ENTRY_KINDS,
    FORMAT,
    Body,
    Call,
    CancelRun,
    CreateRun,
    EndChild,
    Entry,
    Micros,
    Notice,
    NoticeCommand,
    ParentLink,
    RunCreated,
)
from aiki_sdk import (
    ErrorInfo,
    JournalVersionError,
    JsonValue,
    PayloadError,
    StorageCorrupt,
    dumps,
    loads,
)
from aiki_sdk.protocol import OnParentEnd, Priority, RunStatus, Slept

from ._times import micros_from_iso, micros_from_seconds, micros_to_iso, micros_to_seconds

EntryRow: TypeAlias = tuple[int, int, str, bytes]
"""An entry as a row: seq, at (microseconds), kind, body. Its format is `FORMAT`."""

NOTICE_KINDS: Final[Mapping[str, type[NoticeCommand]]] = {
    "cancel-run": CancelRun,
    "create-run": CreateRun,
    "end-child": EndChild,
}
"""Every kind of command that a notice can carry, by its name in the database."""

_Read: TypeAlias = Callable[[Any, Any], Any]
_Write: TypeAlias = Callable[[Any], Any]
_Splice: TypeAlias = Callable[[Any], bytes]
_MARK: Final = b" "  # a document that starts with it holds integers of more than 64 bits
_EMPTY: Final = b"{}"


# --- Fields ---------------------------------------------------------------------------------------


def _same(value: Any, _type: Any = None) -> Any:
    return value


def _exactly(kind: type) -> _Read:
    def read(value: Any, _type: Any) -> Any:
        if type(value) is not kind:
            message = f"{type(value).__name__} instead of {kind.__name__}"
            raise TypeError(message)
        return value

    return read


_text = _exactly(str)


def _optional(read: _Read) -> _Read:
    def read_optional(value: Any, kind: Any) -> Any:
        return None if value is None else read(value, kind)

    return read_optional


def _labels(value: Any, _type: Any) -> dict[str, str]:
    return {_text(name, str): _text(label, str) for name, label in value.items()}


def _texts(value: Any, _type: Any) -> tuple[str, ...]:
    return tuple(_text(item, str) for item in value)


def _write_call(call: Call) -> dict[str, str | int]:
    form: dict[str, str | int] = {"address": call.address}
    if call.branch:
        form["branch"] = call.branch
    if call.index:
        form["index"] = call.index
    return form


def _read_call(value: Any, _type: Any) -> Call:
    return Call(value["address"], value.get("branch", ""), value.get("index", 0))


def _write_parent(parent: ParentLink | None) -> dict[str, str] | None:
    if parent is None:
        return None
    form = {"run_id": parent.run_id}
    if parent.on_parent_end is not OnParentEnd.ABANDON:
        form["on_parent_end"] = parent.on_parent_end.value
    return form


def _read_parent(value: Any, _type: Any) -> ParentLink:
    return ParentLink(value["run_id"], OnParentEnd(value.get("on_parent_end", OnParentEnd.ABANDON)))


def _write_optional(write: _Write) -> _Write:
    return lambda value: None if value is None else write(value)


def _write_enum(value: Any) -> Any:
    return value.value


def _read_enum(kind: type) -> _Read:
    return lambda value, _type: kind(value)


def _read_time(value: Any, _type: Any) -> Micros:
    return micros_from_iso(value)


def _read_duration(value: Any, _type: Any) -> Micros:
    return micros_from_seconds(value)


def _read_error(value: Any, _type: Any) -> ErrorInfo:
    if not isinstance(value, dict):
        message = f"{type(value).__name__} instead of an error"
        raise TypeError(message)
    return ErrorInfo.from_json(cast("dict[str, JsonValue]", value))


def _splice_error(error: ErrorInfo) -> bytes:
    return dumps(error.to_json())


_PLAIN: Final[Mapping[str, tuple[_Write, _Read]]] = {
    "Call": (_write_call, _read_call),
    "Mapping[str, str]": (dict, _labels),
    "OnParentEnd": (_write_enum, _read_enum(OnParentEnd)),
    "ParentLink | None": (_write_parent, _optional(_read_parent)),
    "Priority": (_write_enum, _read_enum(Priority)),
    "RunStatus": (_write_enum, _read_enum(RunStatus)),
    "Slept": (_write_enum, _read_enum(Slept)),
    "bool": (_same, _exactly(bool)),
    "int": (_same, _exactly(int)),
    "str": (_same, _text),
    "str | None": (_same, _optional(_text)),
    "tuple[str, ...] | None": (_same, _optional(_texts)),
}
"""How a field is written into and read from the plain part, by its annotation."""

_TIME: Final = (micros_to_iso, _read_time)
_DURATION: Final = (micros_to_seconds, _read_duration)


def _plain(name: str, annotation: str) -> tuple[_Write, _Read]:
    if annotation in {"Micros", "Micros | None"}:
        write, read = _TIME if name.endswith("_at") or name == "deadline" else _DURATION
        if annotation == "Micros":
            return write, read
        return _write_optional(write), _optional(read)
    return _PLAIN[annotation]


# --- Kinds ----------------------------------------------------------------------------------------


@attrs.frozen
class _Codec:
    """How one class is written, and read from the object that its document holds."""

    encode: Callable[[Any], bytes]
    read: Callable[[dict[str, JsonValue]], Any]


_converter: Final = Converter(detailed_validation=False)
_Spliced: TypeAlias = Mapping[str, tuple[_Splice, _Read]]


def _compile(cls: type[Any], spliced: _Spliced) -> _Codec:
    """Build the codec of one class from its annotations; an unknown annotation is a KeyError."""
    annotations: dict[str, str] = cls.__annotations__
    # Any: cattrs takes the overrides as keywords beside its own options.
    writing: dict[str, Any] = {}
    reading: dict[str, Any] = {}
    splices: list[tuple[Callable[[Any], Any], bytes, _Splice]] = []
    absent_is_none: list[str] = []
    for attribute in attrs.fields(cls):
        name, annotation = attribute.name, annotations[attribute.name]
        required = attribute.default is attrs.NOTHING
        if required and (annotation == "JsonValue" or annotation.endswith("| None")):
            absent_is_none.append(name)
        if annotation in spliced and (required or annotation != "str | None"):
            splice, read = spliced[annotation]
            splices.append((attrgetter(name), b'"%s":' % name.encode(), splice))
            writing[name] = override(omit=True)
        else:
            write, read = _plain(name, annotation)
            writing[name] = override(unstruct_hook=write, omit_if_default=True)
        reading[name] = override(struct_hook=read)
    plain = make_dict_unstructure_fn(cls, _converter, **writing)
    structure = make_dict_structure_fn(cls, _converter, **reading)
    return _Codec(_encoder(plain, splices), _reader(cls, structure, tuple(absent_is_none)))


def _encoder(
    plain: Callable[[Any], dict[str, Any]],
    splices: list[tuple[Callable[[Any], Any], bytes, _Splice]],
) -> Callable[[Any], bytes]:
    def encode(value: Any) -> bytes:
        document = dumps(plain(value))
        for get, key, write in splices:
            item = get(value)
            if item is not None:
                document = _spliced(document, key, write(item))
        return document

    return encode


def _spliced(document: bytes, key: bytes, item: bytes) -> bytes:
    """Add a member to an object, both as JSON; the mark of big integers moves to the front."""
    mark = b""
    if item[:1] == _MARK:
        mark, item = _MARK, item[1:]
    if document[:1] == _MARK:
        mark, document = _MARK, document[1:]
    if document == _EMPTY:
        return b"%b{%b%b}" % (mark, key, item)
    return b"%b%b,%b%b}" % (mark, document[:-1], key, item)


def _reader(
    cls: type[Any], structure: Callable[[Any, Any], Any], absent_is_none: tuple[str, ...]
) -> Callable[[dict[str, JsonValue]], Any]:
    def read(document: dict[str, JsonValue]) -> Any:
        for name in absent_is_none:
            document.setdefault(name, None)
        return structure(document, cls)

    return read


_PAYLOADS: Final[_Spliced] = {
    "ErrorInfo": (_splice_error, _read_error),
    "ErrorInfo | None": (_splice_error, _optional(_read_error)),
    "JsonValue": (dumps, _same),
    "str | None": (dumps, _optional(_text)),
}
_created: Final = _compile(RunCreated, _PAYLOADS)
_NESTED: Final[_Spliced] = {
    **_PAYLOADS,
    "RunCreated": (_created.encode, lambda value, _type: _created.read(value)),
}
_BODIES: Final = {kind: _compile(cls, _NESTED) for kind, cls in ENTRY_KINDS.items()}
_COMMANDS: Final = {kind: _compile(cls, _NESTED) for kind, cls in NOTICE_KINDS.items()}
_COMMAND_KINDS: Final[Mapping[type[Any], str]] = {cls: kind for kind, cls in NOTICE_KINDS.items()}
_ENCODERS: Final[Mapping[str, Callable[[Any], bytes]]] = {
    kind: codec.encode for kind, codec in _BODIES.items()
}


# --- Entries and notices --------------------------------------------------------------------------


def encode_entry(entry: Entry) -> EntryRow:
    """Write an entry as its row.

    Raises:
        PayloadError: something in it cannot be JSON; the message names the place.
        ValueError: a time or duration in it is out of range.
    """
    body = entry.body
    return entry.seq, entry.at, body.kind, _ENCODERS[body.kind](body)


def decode_entry(run_id: str, seq: int, at: int, kind: str, form: int, data: bytes) -> Entry:
    """Read an entry from its row.

    Raises:
        JournalVersionError: a newer release wrote it: the format or the kind is not known here.
        StorageCorrupt: the body is damaged.
    """
    codec = _BODIES.get(kind)
    if codec is None or form > FORMAT:
        raise _too_new(f"entry {seq} of run {run_id}", kind, form, ENTRY_KINDS)
    body: Body = _decoded(codec, f"entry {seq} of run {run_id}", kind, data)
    return Entry(seq, Micros(at), body)


def encode_notice(notice: Notice) -> tuple[str, bytes]:
    """Write a notice's command as its kind and body.

    Raises:
        PayloadError: something in it cannot be JSON; the message names the place.
        ValueError: a time or duration in it is out of range.
    """
    kind = _COMMAND_KINDS[type(notice.command)]
    return kind, _COMMANDS[kind].encode(notice.command)


def decode_notice(
    notice_id: str, source_id: str, target_id: str, kind: str, form: int, data: bytes
) -> Notice:
    """Read a notice from its row.

    Raises:
        JournalVersionError: a newer release wrote it: the format or the kind is not known here.
        StorageCorrupt: the body is damaged.
    """
    codec = _COMMANDS.get(kind)
    if codec is None or form > FORMAT:
        raise _too_new(f"notice {notice_id}", kind, form, NOTICE_KINDS)
    command: NoticeCommand = _decoded(codec, f"notice {notice_id}", kind, data)
    return Notice(notice_id, source_id, target_id, command)


def entry_to_json(entry: Entry) -> dict[str, JsonValue]:
    """Show an entry to people and programs: `{"seq", "at", "kind", "body"}`, `at` as ISO 8601.

    Raises:
        PayloadError: something in it cannot be JSON; the message names the place.
    """
    body = entry.body
    return {
        "seq": entry.seq,
        "at": micros_to_iso(entry.at),
        "kind": body.kind,
        "body": loads(_ENCODERS[body.kind](body)),
    }


def _decoded(codec: _Codec, what: str, kind: str, data: bytes) -> Any:
    try:
        document = loads(data)
        if not isinstance(document, dict):
            message = f"{type(document).__name__} instead of an object"
            raise TypeError(message)
        return codec.read(document)
    except (ValueError, TypeError, KeyError, AttributeError, PayloadError) as error:
        message = (
            f"{what} ({kind}) is damaged and cannot be read ({type(error).__name__}: {error}); "
            "restore a backup of the database"
        )
        raise StorageCorrupt(message) from error


def _too_new(what: str, kind: str, form: int, known: Mapping[str, object]) -> JournalVersionError:
    reads = f"formats up to {FORMAT}"
    if kind not in known:
        reads += f" and the kinds {', '.join(sorted(known))}"
    return JournalVersionError(
        f"{what} has kind {kind!r} in format {form}, which a newer release wrote; "
        f"this one reads {reads}: upgrade it",
        details={"what": what, "kind": kind, "format": form, "format_max": FORMAT},
    )

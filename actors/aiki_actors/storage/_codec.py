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

import re
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, Final, TypeAlias, get_args

import attrs
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from aiki_actors.engine import (
    ENTRY_KINDS,
    FORMAT,
    Body,
    Entry,
    Micros,
    Notice,
    NoticeCommand,
    RunCreated,
)
from aiki_sdk import (
    JournalVersionError,
    JsonValue,
    PayloadError,
    StorageCorrupt,
    dumps,
    loads,
)

from ._fields import (
    Read,
    annotation_of,
    converter,
    optional,
    plain_field,
    read_error,
    same,
    splice_error,
    text,
)
from ._times import micros_to_iso

EntryRow: TypeAlias = tuple[int, int, str, bytes]
"""An entry as a row: seq, at (microseconds), kind, body. Its format is `FORMAT`."""

NOTICE_KINDS: Final[Mapping[str, type[NoticeCommand]]] = {
    re.sub(r"(?<!^)(?=[A-Z])", "-", cls.__name__).lower(): cls for cls in get_args(NoticeCommand)
}
"""Every kind of command that a notice can carry, by its name in the database: `cancel-run`, …"""

_Splice: TypeAlias = Callable[[Any], bytes]
_MARK: Final = b" "  # a document that starts with it holds integers of more than 64 bits
_EMPTY: Final = b"{}"


# --- Kinds ----------------------------------------------------------------------------------------


@attrs.frozen
class _Codec:
    """How one class is written, and read from the object that its document holds."""

    encode: Callable[[Any], bytes]
    read: Callable[[dict[str, JsonValue]], Any]


_Spliced: TypeAlias = Mapping[str, tuple[_Splice, Read]]


def _compile(cls: type[Any], spliced: _Spliced, passed: frozenset[str] = frozenset()) -> _Codec:
    """Build the codec of one class from its annotations; an unknown annotation is a KeyError.

    Fields in `passed` are not written, and stand in what is read as they are to be.
    """
    # Any: cattrs takes the overrides as keywords beside its own options.
    writing: dict[str, Any] = {}
    reading: dict[str, Any] = {}
    splices: list[tuple[Callable[[Any], Any], bytes, _Splice]] = []
    absent_is_none: list[str] = []
    for attribute in attrs.fields(cls):
        if attribute.name in passed:
            writing[attribute.name] = override(omit=True)
            reading[attribute.name] = override(struct_hook=same)
            continue
        name, annotation = attribute.name, annotation_of(cls, attribute.name)
        required = attribute.default is attrs.NOTHING
        if required and (annotation == "JsonValue" or annotation.endswith("| None")):
            absent_is_none.append(name)
        if annotation in spliced and (required or annotation != "str | None"):
            splice, read = spliced[annotation]
            splices.append((attrgetter(name), b'"%s":' % name.encode(), splice))
            writing[name] = override(omit=True)
        else:
            write, read = plain_field(cls, name)
            writing[name] = override(unstruct_hook=write, omit_if_default=True)
        reading[name] = override(struct_hook=read)
    plain = make_dict_unstructure_fn(cls, converter, **writing)
    if passed:
        structure = _by_name(cls, {name: hook.struct_hook for name, hook in reading.items()})
    else:
        structure = make_dict_structure_fn(cls, converter, **reading)
    return _Codec(_encoder(plain, splices), _reader(cls, structure, tuple(absent_is_none)))


def _by_name(cls: type[Any], hooks: Mapping[str, Read]) -> Callable[[Any, Any], Any]:
    """Return how a class is built whose fields are not all positional, which cattrs cannot."""
    required = {a.name for a in attrs.fields(cls) if a.default is attrs.NOTHING}
    known = tuple([(name, hook, name in required) for name, hook in hooks.items()])

    def structure(document: Any, _type: Any) -> Any:
        values = {
            name: hook(document[name], None)
            for name, hook, needed in known
            if needed or name in document
        }
        return cls(**values)

    return structure


def _encoder(
    plain: Callable[[Any], dict[str, Any]],
    splices: list[tuple[Callable[[Any], Any], bytes, _Splice]],
) -> Callable[[Any], bytes]:
    def encode(value: Any) -> bytes:
        document = dumps(plain(value))
        for get, key, write in splices:
            item = get(value)
            if item is not None and item != ():
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
    "ErrorInfo": (splice_error, read_error),
    "ErrorInfo | None": (splice_error, optional(read_error)),
    "JsonValue": (dumps, same),
    "str | None": (dumps, optional(text)),
}
_created: Final = _compile(RunCreated, _PAYLOADS)
_NESTED: Final[_Spliced] = {
    **_PAYLOADS,
    "RunCreated": (_created.encode, lambda value, _type: _created.read(value)),
}
_BODIES: Final = {kind: _compile(cls, _NESTED) for kind, cls in ENTRY_KINDS.items()}


def _splice_bodies(bodies: tuple[Body, ...]) -> bytes:
    mark = b""
    items: list[bytes] = []
    for body in bodies:
        item = _spliced(dumps({"kind": body.kind}), b'"body":', _BODIES[body.kind].encode(body))
        if item[:1] == _MARK:
            mark, item = _MARK, item[1:]
        items.append(item)
    return b"%b[%b]" % (mark, b",".join(items))


def _read_bodies(value: Any, _type: Any) -> tuple[Body, ...]:
    return tuple([_read_body(item["kind"], item["body"]) for item in value])


def _read_body(kind: str, document: dict[str, JsonValue]) -> Body:
    if kind not in _BODIES:
        raise _too_new("an entry inside a notice", kind, FORMAT, ENTRY_KINDS)
    body: Body = _BODIES[kind].read(document)
    return body


_COMMAND_PARTS: Final[_Spliced] = {
    **_NESTED,
    "tuple[Body, ...]": (_splice_bodies, _read_bodies),
}
_COMMANDS: Final = {kind: _compile(cls, _COMMAND_PARTS) for kind, cls in NOTICE_KINDS.items()}
_COMMAND_KINDS: Final[Mapping[type[Any], str]] = {cls: kind for kind, cls in NOTICE_KINDS.items()}
_ENCODERS: Final[Mapping[str, Callable[[Any], bytes]]] = {
    kind: codec.encode for kind, codec in _BODIES.items()
}


def compile_fields(
    cls: type[Any], *, passed: frozenset[str] = frozenset()
) -> tuple[Callable[[Any], bytes], Callable[[dict[str, Any]], Any]]:
    """Return how values of a class are written and read, in the form of entries' bodies.

    Reading raises TypeError, ValueError, KeyError or AttributeError for what does not fit.

    Args:
        cls: an attrs class whose fields have types that entries and commands have.
        passed: fields that are not written; whoever reads puts them into the object.
    """
    compiled = _compile(cls, _COMMAND_PARTS, passed)
    return compiled.encode, compiled.read


def body_from_document(kind: str, document: dict[str, JsonValue]) -> Body:
    """Read an entry's body from the object that its document holds.

    Raises:
        JournalVersionError: a newer release wrote it: the kind is not known here.
        TypeError: it does not fit; or ValueError, KeyError, AttributeError, PayloadError.
    """
    codec = _BODIES.get(kind)
    if codec is None:
        raise _too_new("an entry", kind, FORMAT, ENTRY_KINDS)
    body: Body = codec.read(document)
    return body


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

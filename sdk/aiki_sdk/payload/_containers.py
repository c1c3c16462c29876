"""Lists, tuples, sets and dicts.

Sets are written sorted by the canonical text of their members, so that equal sets have one form.
Keys of JSON objects are strings: a dict may have keys of any type that travels as one string or one
integer, and integers are written as decimal digits.
"""

from collections import deque
from collections.abc import Callable, Collection
from typing import Any, Final, cast

from aiki_sdk._canonical import canonical_json
from aiki_sdk._json import JsonValue
from aiki_sdk.payload._codec import (
    Codec,
    Encode,
    Kind,
    Misfit,
    is_a,
    type_shown,
    wrong_class,
    wrong_json,
)

_ARRAY: Final = frozenset[Kind](("array",))
_OBJECT: Final = frozenset[Kind](("object",))
_STRING: Final = frozenset[Kind](("str",))
_INTEGER: Final = frozenset[Kind](("int",))


def list_codec(item: Codec, build: Callable[[list[Any]], Any] = list) -> Codec:
    """Return the codec of a sequence whose members all have one type.

    Lists and tuples are taken for one another; what is read back is what `build` makes.
    """
    encode_item, decode_item = item.encode, item.decode

    def encode(value: Any) -> JsonValue:
        if not is_a(value, _SEQUENCES):
            raise wrong_class(build, value)
        members: Collection[Any] = value
        try:
            return [encode_item(member) for member in members]
        except Misfit:
            _locate_item(encode_item, members)
            raise

    def decode(json: Any, _type: object = None) -> Any:
        if json.__class__ is not list:
            raise wrong_json("a list", json)
        try:
            members = [decode_item(member) for member in json]
        except Misfit:
            _locate_item(decode_item, json)
            raise
        return members if build is list else build(members)

    return Codec(encode, decode, _ARRAY, (cast("type", build),), cast("type", build).__name__)


def tuple_codec(items: tuple[Codec, ...], cls: type | None = None) -> Codec:
    """Return the codec of a tuple of fixed length, or of a named tuple."""
    count = len(items)
    encoders = tuple(item.encode for item in items)
    decoders = tuple(item.decode for item in items)
    names = cast("tuple[str, ...]", getattr(cls, "_fields", ()))
    segments = [f".{name}" for name in names] or [f"[{index}]" for index in range(count)]

    def encode(value: Any) -> JsonValue:
        if not is_a(value, cls or _SEQUENCES):
            raise wrong_class(cls or tuple, value)
        return _each(encoders, value)

    def decode(json: Any, _type: object = None) -> Any:
        if json.__class__ is not list:
            raise wrong_json(f"a list of {count}", json)
        members = _each(decoders, json)
        return tuple(members) if cls is None else cls(*members)

    def _each(converters: tuple[Callable[[Any], Any], ...], members: Any) -> list[Any]:
        if len(members) != count:
            reason = f"expected {count} members, got {len(members)}"
            raise Misfit(reason, members)
        done: list[Any] = []
        for convert, member, segment in zip(converters, members, segments, strict=True):
            try:
                done.append(convert(member))
            except Misfit as misfit:
                raise misfit.at(segment) from misfit.__cause__
        return done

    return Codec(encode, decode, _ARRAY, (cls or tuple,), (cls or tuple).__name__)


def set_codec(item: Codec, build: type[set[Any]] | type[frozenset[Any]]) -> Codec:
    """Return the codec of a set; it is written sorted."""
    encode_item, decode_item = item.encode, item.decode

    def encode(value: Any) -> JsonValue:
        if not is_a(value, _SETS):
            raise wrong_class(build, value)
        members: Collection[Any] = value
        try:
            return sorted([encode_item(member) for member in members], key=canonical_json)
        except Misfit as misfit:
            raise misfit.at("{…}") from misfit.__cause__

    def decode(json: Any, _type: object = None) -> Any:
        if json.__class__ is not list:
            raise wrong_json("a list", json)
        try:
            return build(decode_item(member) for member in json)
        except Misfit:
            _locate_item(decode_item, json)
            raise
        except TypeError as error:
            reason = "members of a set must be hashable; declare a list"
            raise Misfit(reason, json) from error

    return Codec(encode, decode, _ARRAY, (build,), build.__name__)


def dict_codec(key: Codec, item: Codec, key_type: object) -> Codec:
    """Return the codec of a dict.

    Raises:
        Misfit: if keys of this type cannot be strings.
    """
    encode_item, decode_item = item.encode, item.decode
    encode_key, decode_key = _key_converters(key, key_type)

    def encode(value: Any) -> JsonValue:
        if not is_a(value, dict):
            raise wrong_class(dict, value)
        pairs: dict[Any, Any] = value
        try:
            return {encode_key(name): encode_item(member) for name, member in pairs.items()}
        except Misfit:
            _locate_member(encode_key, encode_item, pairs)
            raise

    def decode(json: Any, _type: object = None) -> Any:
        if json.__class__ is not dict:
            raise wrong_json("an object", json)
        try:
            return {decode_key(name): decode_item(member) for name, member in json.items()}
        except Misfit:
            _locate_member(decode_key, decode_item, json)
            raise

    return Codec(encode, decode, _OBJECT, (dict,), "dict")


def _key_converters(
    key: Codec, key_type: object
) -> tuple[Callable[[Any], str], Callable[[str], Any]]:
    if key.kinds == _STRING:
        return cast("Callable[[Any], str]", key.encode), key.decode
    if key.kinds == _INTEGER:
        encode_number: Encode = key.encode
        decode_number = key.decode

        def encode_key(value: Any) -> str:
            return str(encode_number(value))

        def decode_key(text: str) -> Any:
            try:
                number = int(text)
            except ValueError as error:  # no number, or more digits than Python reads
                raise wrong_json("digits as a key", text) from error
            if str(number) != text:  # each number has one form
                raise wrong_json("digits as a key", text)
            return decode_number(number)

        return encode_key, decode_key
    reason = (
        f"{type_shown(key_type)} cannot be the key of a JSON object; "
        "use str, int, UUID, a date or an enum, or send a list of pairs"
    )
    raise Misfit(reason)


def _locate_item(convert: Callable[[Any], object], members: Collection[Any]) -> None:
    """Find the member that does not convert, and raise its misfit with the index in its path."""
    for index, member in enumerate(members):
        try:
            convert(member)
        except Misfit as misfit:
            raise misfit.at(f"[{index}]") from misfit.__cause__


def _locate_member(
    convert_key: Callable[[Any], object],
    convert_item: Callable[[Any], object],
    members: dict[Any, Any],
) -> None:
    for key, member in members.items():
        try:
            convert_key(key)
        except Misfit as misfit:
            misfit.reason = f"as a key: {misfit.reason}"
            raise misfit.at(f"[{key!r}]") from misfit.__cause__
        try:
            convert_item(member)
        except Misfit as misfit:
            raise misfit.at(f"[{key!r}]") from misfit.__cause__


_SEQUENCES: Final = (list, tuple, deque)
_SETS: Final = (set, frozenset)

"""Unions: how the members are told apart in JSON.

Where the kind of JSON decides (`int | str | None`, `Order | None`, `int | datetime`), values travel
as they are. Where it does not (`Cat | Dog`, `str | datetime`, `list[int] | set[int]`), the members
that are not JSON's own scalars carry their name: an object gets one more key,
``{"$type": "Cat", ...}``, anything else is wrapped, ``{"$type": "datetime", "value": "..."}``. The
name is the class name, or the qualified name if two members share it. Which form is used depends on
the declared type alone, never on the value.

Strings, numbers, booleans and null always travel bare, told apart exactly: `True` is no `int` here.
"""

from collections import Counter
from enum import Enum
from typing import Any, Final, cast

from attrs import evolve

from aiki_sdk._error_info import type_name
from aiki_sdk._json import JsonValue
from aiki_sdk.payload._codec import (
    KIND_OF_CLASS,
    Codec,
    Decode,
    Encode,
    Kind,
    Misfit,
    kind_shown,
)

TAG_KEY: Final = "$type"
VALUE_KEY: Final = "value"

_NULL: Final = frozenset[Kind](("null",))
_OBJECT: Final = frozenset[Kind](("object",))
_LITERAL_CLASSES: Final = (str, int, Enum, bytes, type(None))


def union_codec(members: tuple[Codec, ...], shown: str) -> Codec:
    """Return the codec of a union.

    Args:
        members: the codecs of its members, in order of declaration.
        shown: the union as its annotation reads, for messages.

    Raises:
        Misfit: if two members cannot be told apart even by name.
    """
    optional = _optional_codec(members)
    if optional is not None:
        return optional
    members = _distinct_tags(members, shown)
    tagged = _needs_tag(members)
    kinds: frozenset[Kind] = frozenset[Kind]().union(
        *({"object"} if member in tagged else member.kinds for member in members)
    )
    classes = tuple(dict.fromkeys(cls for member in members for cls in member.classes))
    return Codec(
        _union_encoder(members, tagged, shown),
        _union_decoder(members, tagged, shown),
        kinds,
        classes,
        "union",
    )


def _optional_codec(members: tuple[Codec, ...]) -> Codec | None:
    """`T | None` is most unions, and needs no table."""
    rest = [member for member in members if member.kinds != _NULL]
    if len(members) != 2 or len(rest) != 1 or "null" in rest[0].kinds:
        return None
    encode_rest, decode_rest = rest[0].encode, rest[0].decode

    def encode(value: object) -> JsonValue:
        return None if value is None else encode_rest(value)

    def decode(json: object, _type: object = None) -> object:
        return None if json is None else decode_rest(json)

    return Codec(encode, decode, rest[0].kinds | _NULL, (*rest[0].classes, type(None)), rest[0].tag)


def _distinct_tags(members: tuple[Codec, ...], shown: str) -> tuple[Codec, ...]:
    counts = Counter(member.tag for member in members if member.tag)
    done: list[Codec] = []
    for member in members:
        tag = type_name(member.classes[0]) if counts[member.tag] > 1 else member.tag
        done.append(evolve(member, tag=tag))
    again = Counter(member.tag for member in done if member.tag)
    for tag, count in again.items():
        if count > 1:
            reason = (
                f"{shown}: {count} members are a {tag}, so their values cannot be told apart; "
                "put the union inside it, or give each a class of its own"
            )
            raise Misfit(reason)
    return tuple(done)


def _needs_tag(members: tuple[Codec, ...]) -> list[Codec]:
    named = [member for member in members if member.tag]
    tagged = [
        member
        for member in named
        if any(
            other is not member and other.literals is None and other.kinds & member.kinds
            for other in members
        )
    ]
    if not tagged:
        return []
    # A wrapped value is an object, so objects have to be told from it as well.
    return [member for member in named if member in tagged or "object" in member.kinds]


def _union_encoder(members: tuple[Codec, ...], tagged: list[Codec], shown: str) -> Encode:
    literals = {
        (value.__class__, value): member.encode
        for member in members
        for value in member.literals or ()
    }
    by_class = _encoders_by_class(members, tagged)

    def encode_union(value: Any) -> JsonValue:
        cls = value.__class__
        found = by_class.get(cls)
        if literals and isinstance(value, _LITERAL_CLASSES):
            found = literals.get((cls, value), found)
        if found is None:
            found = encoder_of_parent(value)
        return found(value)

    def encoder_of_parent(value: Any) -> Encode:
        if not isinstance(value, bool):  # True is an int to isinstance, but not to a reader
            for cls, encode in by_class.items():
                if isinstance(value, cls):
                    return encode
        reason = f"expected {shown}, got {type_name(value.__class__)}"
        raise Misfit(reason, value)

    return encode_union


def _encoders_by_class(members: tuple[Codec, ...], tagged: list[Codec]) -> dict[type, Encode]:
    by_class: dict[type, Encode] = {}
    for member in members:
        if member.literals is None:
            encode = _tagging(member) if member in tagged else member.encode
            for cls in member.classes:
                by_class.setdefault(cls, encode)
    if float in by_class:
        by_class.setdefault(int, by_class[float])
    return by_class


def _union_decoder(members: tuple[Codec, ...], tagged: list[Codec], shown: str) -> Decode:
    literals: dict[tuple[type, Any], Decode] = {}
    by_kind: dict[Kind, Decode] = {}
    for member in members:
        if member.literals is not None:
            literals.update(
                {(type(json), json): member.decode for json in map(member.encode, member.literals)}
            )
        elif member not in tagged:
            for kind in sorted(member.kinds):
                by_kind.setdefault(kind, member.decode)
    by_tag = {member.tag: _untagging(member) for member in tagged}
    if tagged:
        by_kind["object"] = _by_tag(by_tag, shown)
    if "float" in by_kind:
        by_kind.setdefault("int", by_kind["float"])

    def decode_union(json: Any, _type: object = None) -> Any:
        kind = KIND_OF_CLASS.get(json.__class__)
        found = by_kind.get(kind) if kind is not None else None
        if literals and kind not in ("array", "object"):
            found = literals.get((json.__class__, json), found)
        if found is None:
            reason = f"expected {shown}, got {kind_shown(json)}"
            raise Misfit(reason, json)
        return found(json)

    return decode_union


def _by_tag(by_tag: dict[str, Decode], shown: str) -> Decode:
    def decode_tagged(json: dict[str, Any]) -> Any:
        tag = json.get(TAG_KEY)
        found = by_tag.get(tag) if isinstance(tag, str) else None
        if found is None:
            reason = f"expected {shown}: {TAG_KEY!r} must be one of {', '.join(sorted(by_tag))}"
            raise Misfit(reason, json)
        return found(json)

    return decode_tagged


def _tagging(member: Codec) -> Encode:
    encode, tag = member.encode, member.tag
    if _is_class(member):
        return lambda value: {TAG_KEY: tag, **cast("dict[str, JsonValue]", encode(value))}
    return lambda value: {TAG_KEY: tag, VALUE_KEY: encode(value)}


def _untagging(member: Codec) -> Decode:
    decode = member.decode
    if _is_class(member):
        # Classes ignore keys that they do not know, but not all of them (pydantic may forbid them).
        def untag(json: dict[str, Any]) -> Any:
            return decode({key: member for key, member in json.items() if key != TAG_KEY})

        return untag

    def unwrap(json: dict[str, Any]) -> Any:
        if VALUE_KEY not in json:
            reason = "missing"
            raise Misfit(reason, json).at(f".{VALUE_KEY}")
        return decode(json[VALUE_KEY])

    return unwrap


def _is_class(member: Codec) -> bool:
    # A dict's own keys could hold "$type", so dicts are wrapped; a class's cannot.
    return member.kinds == _OBJECT and dict not in member.classes

"""Generated classes and values: what fits its type comes back equal, through real JSON."""

import string
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from types import GenericAlias
from typing import Any
from uuid import UUID

import attrs
from hypothesis import given, strategies as st

from aiki_sdk import PayloadConverter, PayloadError, canonical_json, dumps, loads

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8)
OFFSETS = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))


class Suit(Enum):
    HEARTS = "h"
    SPADES = "s"


class Rank(IntEnum):
    ACE = 1
    KING = 13


# Pairs of a type and a strategy for its values. Hashable ones may be members of sets.
HASHABLE: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, st.integers()),
    (str, TEXT),
    (bool, st.booleans()),
    (float, st.floats(allow_nan=False, allow_infinity=False)),
    (Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    (bytes, st.binary(max_size=8)),
    (timedelta, st.timedeltas()),
    (Suit, st.sampled_from(Suit)),
    (Rank, st.sampled_from(Rank)),
    (Suit | int | None, st.sampled_from(Suit) | st.integers() | st.none()),
    (datetime, st.datetimes(timezones=st.none() | st.just(UTC) | OFFSETS)),
    (date, st.dates()),
    (time, st.times()),
    (UUID, st.uuids()),
]
KEYS = [pair for pair in HASHABLE if pair[0] in (int, str, Suit, Rank, date, UUID, Decimal)]

Typed = tuple[Any, st.SearchStrategy[Any]]


def containers(inner: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    """Draw types that hold what `inner` draws, each with a strategy for its values."""

    def lists(one: Typed) -> Typed:
        return GenericAlias(list, (one[0],)), st.lists(one[1], max_size=3)

    def tuples(many: list[Typed]) -> Typed:
        types = tuple(one[0] for one in many)
        return GenericAlias(tuple, types), st.tuples(*(one[1] for one in many))

    def dicts(key: Typed, one: Typed) -> Typed:
        kind = GenericAlias(dict, (key[0], one[0]))
        return kind, st.dictionaries(key[1], one[1], max_size=3)

    def optional(one: Typed) -> Typed:
        return one[0] | None, one[1] | st.none()

    def classes(many: list[Typed]) -> Typed:
        names = string.ascii_lowercase[: len(many)]
        made = attrs.make_class(
            "Made",
            {name: attrs.field(type=one[0]) for name, one in zip(names, many, strict=True)},
            frozen=True,
        )
        return made, st.builds(made, *(one[1] for one in many))

    several = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        inner.map(lists),
        several.map(tuples),
        st.builds(dicts, st.sampled_from(KEYS), inner),
        inner.map(optional),
        several.map(classes),
    )


typed: st.SearchStrategy[Typed] = st.recursive(st.sampled_from(HASHABLE), containers, max_leaves=6)


@given(typed, st.data())
def test_every_value_comes_back_equal(one: Typed, data: st.DataObject) -> None:
    type_, values = one
    converter = PayloadConverter()
    value = data.draw(values)
    json = converter.to_json(value, type_)
    assert converter.from_json(loads(dumps(json)), type_) == value


@given(st.sampled_from(HASHABLE), st.data())
def test_equal_sets_have_one_form(one: Typed, data: st.DataObject) -> None:
    type_, values = one
    set_type = GenericAlias(set, (type_,))
    members = data.draw(st.lists(values, max_size=6, unique=True))
    converter = PayloadConverter()
    reverse: set[Any] = set()
    for member in reversed(members):
        reverse.add(member)
    forwards = converter.to_json(set(members), set_type)
    backwards = converter.to_json(reverse, set_type)
    assert canonical_json(forwards) == canonical_json(backwards)
    assert converter.from_json(loads(dumps(forwards)), set_type) == set(members)


@given(typed, st.data())
def test_converting_the_same_value_twice_gives_the_same_bytes(
    one: Typed, data: st.DataObject
) -> None:
    type_, values = one
    value = data.draw(values)
    first, second = (PayloadConverter().to_json(value, type_) for _ in range(2))
    assert canonical_json(first) == canonical_json(second)


@given(typed, TEXT | st.integers() | st.none() | st.lists(st.booleans()) | st.just({"a": 1}))
def test_foreign_json_is_converted_or_refused_but_never_breaks(one: Typed, json: Any) -> None:
    converter = PayloadConverter()
    try:
        value = converter.from_json(json, one[0])
    except PayloadError as error:
        assert error.path.startswith("value")  # noqa: PT017
    else:
        converter.to_json(value, one[0])

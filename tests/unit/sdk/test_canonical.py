"""Canonical JSON and input hashes: pinned by vectors, and equal whichever way they are computed."""

import hashlib
import json
import struct
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from attrs import frozen
from hypothesis import given, strategies as st

from aiki_sdk import CONVERTER, PayloadError, canonical_json, input_hash
from aiki_sdk._canonical import _write, format_number, hash_and_size
from aiki_sdk._json import JsonValue

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parent / "vectors" / "canonical.json").read_text(encoding="utf-8")
)


class Colour(Enum):
    RED = "red"


class Shape(Enum):
    ROUND = (1, 2)


@frozen
class Cat:
    name: str
    lives: float


@frozen
class Dog:
    name: str


TYPED: dict[str, tuple[object, Any]] = {
    "aware datetime": (datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), datetime),
    "datetime with offset": (
        datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2))),
        datetime,
    ),
    "naive datetime": (datetime(2026, 1, 2), datetime),  # noqa: DTZ001  # naive on purpose
    "date": (date(2026, 1, 2), date),
    "time": (time(1, 2, 3), time),
    "timedelta": (timedelta(days=1, microseconds=1), timedelta),
    "long timedelta": (timedelta(days=200_000, microseconds=1), timedelta),
    "uuid": (UUID("12345678-1234-5678-1234-567812345678"), UUID),
    "decimal": (Decimal("1.50"), Decimal),
    "bytes": (b"\x00\xff", bytes),
    "enum by value": (Colour.RED, Colour),
    "enum by name": (Shape.ROUND, Shape),
    "set": ({10, 9, 1}, set[int]),
    "set of strings": ({"b", "a", "\U0001f600", "\uffff"}, frozenset[str]),
    "tuple": ((1, "a"), tuple[int, str]),
    "dict with integer keys": ({2: "b", 10: "a"}, dict[int, str]),
    "class": (Cat("Tom", 9), Cat),
    "union of classes": (Dog("Rex"), Cat | Dog),
    "ambiguous union": (date(2026, 1, 2), str | date),
    "optional": (None, Cat | None),
}


@pytest.mark.parametrize("vector", VECTORS["numbers"], ids=lambda vector: vector["canonical"])
def test_numbers_are_written_as_rfc_8785_has_them(vector: dict[str, str]) -> None:
    (number,) = struct.unpack(">d", bytes.fromhex(vector["ieee754"]))
    assert format_number(number) == vector["canonical"]
    assert canonical_json(number) == vector["canonical"].encode()
    assert canonical_json({"x": number}) == b'{"x":%s}' % vector["canonical"].encode()


@pytest.mark.parametrize("vector", VECTORS["documents"], ids=lambda vector: vector["name"])
def test_documents_and_their_hashes_never_change(vector: dict[str, str]) -> None:
    value = json.loads(vector["json"])
    assert canonical_json(value).decode() == vector["canonical"]
    assert input_hash(value) == vector["sha256"]


@pytest.mark.parametrize("vector", VECTORS["inputs"], ids=lambda vector: vector["name"])
def test_the_form_of_each_type_never_changes(vector: dict[str, str]) -> None:
    value, type_ = TYPED[vector["name"]]
    converted = CONVERTER.to_json(value, type_)
    assert canonical_json(converted).decode() == vector["canonical"]
    assert input_hash({"x": converted}) == vector["sha256_as_argument_x"]


def test_every_type_has_a_vector() -> None:
    assert {vector["name"] for vector in VECTORS["inputs"]} == TYPED.keys()


numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers()
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
looks_like_numbers = st.sampled_from([":1.0,", "1e5", "[1.0]", ",-3E9", '":1.5e3'])
values: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | numbers | texts | looks_like_numbers,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_the_fast_way_and_the_exact_way_agree(value: JsonValue) -> None:
    assert canonical_json(value) == _write(value).encode()


@given(values)
def test_canonical_json_reads_back_as_the_same_value(value: JsonValue) -> None:
    """As ECMAScript reads it, which has only doubles."""
    as_doubles = json.loads(json.dumps(value), parse_int=float)
    assert json.loads(canonical_json(value), parse_int=float) == as_doubles


@given(values)
def test_hash_and_size_agree_with_the_canonical_text(value: JsonValue) -> None:
    data = canonical_json(value)
    assert hash_and_size(value) == (hashlib.sha256(data).hexdigest(), len(data))


@given(st.dictionaries(texts, st.integers(), min_size=2, max_size=6), st.randoms())
def test_the_order_of_keys_does_not_matter(value: dict[str, JsonValue], random: Any) -> None:
    keys = list(value)
    random.shuffle(keys)
    assert input_hash({key: value[key] for key in keys}) == input_hash(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_reads_back_exactly(number: float) -> None:
    assert float(format_number(number)) == number


@pytest.mark.parametrize("compute", [canonical_json, input_hash])
@pytest.mark.parametrize(
    "value", [float("nan"), [float("inf")], {"a": "\ud800"}, {"\ud800": 1}, "\x00", [1, object()]]
)
def test_what_cannot_be_json_has_no_canonical_form(
    value: Any, compute: Callable[[Any], object]
) -> None:
    with pytest.raises(PayloadError):
        compute(value)

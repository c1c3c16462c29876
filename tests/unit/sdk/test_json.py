"""`dumps` and `loads`: exact for every JSON value, and nothing else gets through."""

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from aiki_sdk import JsonValue, PayloadError, dumps, loads
from aiki_sdk._json import BIG_INT_MARK, DEPTH_MAX, check_json, check_written, dumps_finite

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
values: st.SearchStrategy[JsonValue] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(2**200), max_value=2**200)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def nested(levels: int) -> JsonValue:
    value: JsonValue = 1
    for _ in range(levels):
        value = [value]
    return value


@given(values)
def test_every_json_value_survives(value: JsonValue) -> None:
    assert loads(dumps(value)) == value
    assert json.loads(dumps(value)) == value


@given(values)
def test_text_and_bytes_read_alike(value: JsonValue) -> None:
    data = dumps(value)
    assert loads(data.decode()) == loads(bytearray(data)) == loads(memoryview(data)) == value


@pytest.mark.parametrize("number", [2**63 - 1, 2**64 - 1, -(2**63)])
def test_64_bit_integers_need_no_mark(number: int) -> None:
    assert not dumps({"n": number}).startswith(BIG_INT_MARK)


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**100])
def test_larger_integers_keep_every_digit(number: int) -> None:
    data = dumps({"n": [number]})
    assert data.startswith(BIG_INT_MARK)
    assert loads(data) == {"n": [number]}


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (float("nan"), "value"),
        ({"a": [1.0, float("inf")]}, "value['a'][1]"),
        ({"a": {"b": -float("inf")}}, "value['a']['b']"),
        ({"a": "x\ud800"}, "value['a']"),
        ({"a": ["\x00"]}, "value['a'][0]"),
        ({"a\x00": 1}, "a key of value"),
        ([2**70, "\udfff"], "value[1]"),
        ([2**70, float("nan")], "value[1]"),
        ([{1: 2}], "value[0]"),
        ({"a": object()}, "value['a']"),
        ([{1, 2}], "value[0]"),
    ],
)
def test_what_json_cannot_hold_is_refused_by_place(value: Any, path: str) -> None:
    with pytest.raises(PayloadError) as caught:
        dumps(value)
    assert caught.value.path == path
    assert path in str(caught.value)


def test_payloads_nest_up_to_the_limit_and_no_deeper() -> None:
    for value in (nested(DEPTH_MAX), [nested(DEPTH_MAX - 1)] * 3):
        check_json(value)
        check_written(value, dumps(value))
    for value in (nested(DEPTH_MAX + 1), [1, nested(DEPTH_MAX)]):
        with pytest.raises(PayloadError, match="nested deeper than 64 levels"):
            check_json(value)
        with pytest.raises(PayloadError, match="nested deeper than 64 levels"):
            check_written(value, dumps(value))


def test_a_message_may_carry_the_deepest_payload() -> None:
    message: JsonValue = {"entries": [{"body": nested(DEPTH_MAX)}, {"body": 2**70}]}
    assert loads(dumps(message)) == message


def test_a_document_beyond_all_limits_is_refused() -> None:
    for value in (nested(300), [nested(300), 2**70]):
        with pytest.raises(PayloadError, match="nested deeper than 200 levels"):
            dumps(value)


@given(values)
def test_a_finite_value_is_written_alike_without_the_look_for_nan(value: JsonValue) -> None:
    assert dumps_finite(value) == dumps(value)


@pytest.mark.parametrize("value", ["\x00", "\ud800", object()])
def test_without_the_look_for_nan_everything_else_is_refused_as_well(value: Any) -> None:
    with pytest.raises(PayloadError):
        dumps_finite([value])


def test_many_brackets_are_not_depth() -> None:
    value: JsonValue = [[] for _ in range(200)]
    check_written(value, dumps(value))
    assert loads(dumps(value)) == value


def test_a_nul_escape_in_a_string_that_holds_none_is_accepted() -> None:
    assert loads(dumps("\\u0000")) == "\\u0000"


@pytest.mark.parametrize("data", [b"", b"{", b"nul", b" NaN", b" [Infinity]", b"\xff", b"[1] 2"])
def test_what_is_not_json_is_refused(data: bytes) -> None:
    with pytest.raises(PayloadError, match="not a JSON document"):
        loads(data)

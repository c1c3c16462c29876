"""JSON from the network: what every reader reads alike is read, everything else is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, strategies as st

from aiki_gateway._strict_json import DEPTH_MAX, strict_json
from aiki_sdk import InvalidRequest, JsonValue
from aiki_sdk._json import dumps

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=5)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)


@given(JSON)
def test_what_this_project_writes_is_read_back(value: JsonValue) -> None:
    assert strict_json(dumps(value), "body") == value
    assert strict_json(json.dumps(value), "body") == value


@given(st.binary(max_size=40) | st.text('[]{}:,"\\u0dn1eE+-. ', max_size=40).map(str.encode))
def test_whatever_comes_is_read_or_refused(data: bytes) -> None:
    try:
        value = strict_json(data, "body")
    except InvalidRequest:
        return
    assert strict_json(dumps(value), "body") == value


@pytest.mark.parametrize("bracket", ["[]", '{"a":}'])
def test_nesting_is_allowed_up_to_its_limit(bracket: str) -> None:
    head, tail = bracket[:-1], bracket[-1]

    def nested(depth: int) -> str:
        return head * (depth - 1) + "[]" + tail * (depth - 1)

    assert strict_json(nested(DEPTH_MAX), "body")
    with pytest.raises(InvalidRequest, match="nested deeper"):
        strict_json(nested(DEPTH_MAX + 1), "body")

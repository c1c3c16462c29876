"""What is typed as an argument, and how mistakes in it are named."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from aiki_sdk import InvalidRequest, SystemClock
from aiki_trio.cli._values import json_argument, pairs_argument, span_argument, time_argument


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("90", timedelta(seconds=90)),
        ("90s", timedelta(seconds=90)),
        ("5m", timedelta(minutes=5)),
        ("1.5h", timedelta(hours=1.5)),
        ("3d", timedelta(days=3)),
    ],
)
def test_a_length_of_time_is_a_number_with_a_unit(text: str, span: timedelta) -> None:
    assert span_argument("delay", text) == span


@given(st.text())
def test_any_text_is_a_length_of_time_or_a_named_mistake(text: str) -> None:
    try:
        span = span_argument("delay", text)
    except InvalidRequest as error:
        span = None
        named = "--delay" in error.message
    else:
        named = True
    assert named
    assert span is None or isinstance(span, timedelta)


def test_a_time_has_a_zone_or_is_a_length_before_now() -> None:
    assert time_argument("since", "2026-01-31T12:00:00Z") == datetime(2026, 1, 31, 12, tzinfo=UTC)
    age = SystemClock().now() - time_argument("since", "2h")
    assert abs(age - timedelta(hours=2)) < timedelta(minutes=1)
    with pytest.raises(InvalidRequest, match="add the zone"):
        time_argument("since", "2026-01-31T12:00:00")


def test_json_comes_from_the_text_or_a_file(tmp_path: Path) -> None:
    path = tmp_path / "input.json"
    path.write_text('{"a": 1}')
    assert json_argument("input", '{"a": 1}') == {"a": 1}
    assert json_argument("input", f"@{path}") == {"a": 1}
    with pytest.raises(InvalidRequest, match=r"--input 'book' .* needs its quotes"):
        json_argument("input", "book")
    with pytest.raises(InvalidRequest, match="--data"):
        json_argument("data", f"@{tmp_path / 'none'}")


def test_labels_are_pairs() -> None:
    assert pairs_argument("label", ["team=blue", "x=a=b"]) == {"team": "blue", "x": "a=b"}
    with pytest.raises(InvalidRequest, match="NAME=VALUE"):
        pairs_argument("label", ["team"])

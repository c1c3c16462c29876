"""Which runs a sample holds, and what scrubbing leaves of a payload."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given, strategies as st

from aiki_sdk import JsonValue, RunStatus, RunSummary
from aiki_trio.cli._record import scrubbed, spread

AT = datetime(2026, 1, 1, tzinfo=UTC)

payloads = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def run(number: int, workflow: str, status: RunStatus) -> RunSummary:
    """Make a row of a list."""
    return RunSummary(
        id=f"run_{number}",
        namespace="default",
        workflow=workflow,
        version="1.0.0",
        status=status,
        created_at=AT,
    )


def test_a_sample_holds_one_of_each_kind_before_it_holds_two_of_any() -> None:
    runs = [run(number, "often", RunStatus.COMPLETED) for number in range(50)]
    runs += [run(50, "often", RunStatus.STALLED), run(51, "rare", RunStatus.SLEEPING)]
    sample = spread(runs, 4)
    assert {(one.workflow, one.status) for one in sample[:3]} == {
        ("often", RunStatus.COMPLETED),
        ("often", RunStatus.STALLED),
        ("rare", RunStatus.SLEEPING),
    }
    assert sample[3].id == "run_1"
    assert spread(runs, 100) == spread(list(runs), 100)
    assert len(spread(runs, 100)) == 52


@given(payloads)
def test_scrubbing_keeps_the_form_and_leaves_no_letter_and_no_digit_but_its_own(
    value: JsonValue,
) -> None:
    found = scrubbed("input", value)
    assert shape(found) == shape(value)
    for text in texts(found):
        assert not any(mark.isalpha() and mark != "x" for mark in text if mark != "T")
        assert not any(mark.isdecimal() and mark not in "0012" for mark in text)


def shape(value: JsonValue) -> object:
    """Return the form of a payload: keys, lengths, types."""
    if isinstance(value, dict):
        return {key: shape(member) for key, member in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value]
    return type(value)


def texts(value: JsonValue) -> list[str]:
    """Return every text of a payload, keys aside."""
    if isinstance(value, dict):
        return [text for member in value.values() for text in texts(member)]
    if isinstance(value, list):
        return [text for item in value for text in texts(item)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Alice Doe 42", "xxxxx xxx 00"),
        ("2026-02-03T10:00:00+00:00", "2000-01-01T00:00:00+00:00"),
        ("2026-02-03", "2000-01-01"),
        (1250, 1),
        (0, 0),
        (-2.5, 1.0),
        (True, True),
        (None, None),
    ],
)
def test_types_still_fit_what_is_left(value: JsonValue, expected: JsonValue) -> None:
    found = scrubbed("input", value)
    assert json.dumps(found) == json.dumps(expected)

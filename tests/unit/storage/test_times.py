"""Times and durations as JSON: exact, in one form."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given

from aiki_actors.engine import Micros
from aiki_actors.storage._times import (
    micros_from_iso,
    micros_from_seconds,
    micros_of,
    micros_to_iso,
    micros_to_seconds,
)
from tests.unit.storage.strategies import DURATION_MAX, TIME_MAX, durations, times


@given(times)
@example(Micros(-62_135_596_800_000_000))
@example(Micros(-1))
@example(Micros(TIME_MAX))
def test_a_time_is_read_back_to_the_microsecond(at: Micros) -> None:
    text = micros_to_iso(at)
    assert micros_from_iso(text) == at
    assert len(text) == len("2026-11-22T20:48:40.123456Z")


@given(durations)
@example(Micros(DURATION_MAX))
@example(Micros(100 * 366 * 86_400 * 1_000_000 - 1))
def test_a_duration_is_read_back_to_the_microsecond(duration: Micros) -> None:
    seconds = json.loads(json.dumps(micros_to_seconds(duration)))
    assert micros_from_seconds(seconds) == duration


def test_times_of_other_zones_are_understood() -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    assert micros_of(noon) == micros_of(datetime(2026, 1, 1, 10, tzinfo=UTC))
    assert micros_from_iso("2026-01-01T12:00:00+02:00") == micros_of(noon)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match=r"2026-01-01T00:00:00 has no time zone"):
        micros_of(datetime(2026, 1, 1))  # noqa: DTZ001


def test_what_cannot_be_written_exactly_is_refused() -> None:
    with pytest.raises(ValueError, match="years 1 to 9999"):
        micros_to_iso(Micros(TIME_MAX + 1))
    with pytest.raises(ValueError, match="136 years"):
        micros_to_seconds(Micros(DURATION_MAX + 1))

"""The surface of timeouts, fan-out and compensations: what is refused before anything happens."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any, cast

import pytest

from aiki_sdk import InvalidRequest, Run, task
from aiki_sdk._run import RunPort


class Port:
    """Keeps what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def timeout(self, name: str, micros: int, *, fails: bool) -> None:
        self.asked.append((name, micros, fails))

    async def map(self, function: object, items: object, limit: int | None) -> list[Any]:
        self.asked.append((function, items, limit))
        return []

    def as_completed(self, function: object, items: object, limit: int | None) -> None:
        self.asked.append((function, items, limit))


def a_run() -> tuple[Run, Port]:
    port = Port()
    return Run(cast("RunPort", port)), port


@task
async def undo(n: int) -> None:
    """Undo."""


def test_a_duration_is_a_timedelta_or_seconds() -> None:
    run, port = a_run()
    run.move_on_after("a", timedelta(hours=1))
    run.fail_after("b", 0.5)
    run.move_on_after("c", -1)
    expected = [("a", 3_600_000_000, False), ("b", 500_000, True), ("c", -1_000_000, False)]
    assert port.asked == expected


@pytest.mark.parametrize("delta", ["5", None, float("nan"), float("inf"), True])
def test_a_duration_that_is_none_is_refused_by_name(delta: Any) -> None:
    run, _port = a_run()
    with pytest.raises(InvalidRequest, match="timeout 'patience'"):
        run.move_on_after("patience", delta)


def test_a_duration_over_100_years_is_refused() -> None:
    run, _port = a_run()
    with pytest.raises(InvalidRequest, match="100 years"):
        run.fail_after("patience", timedelta(days=50_000))


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, "3"])
async def test_a_limit_is_at_least_one(limit: Any) -> None:
    run, _port = a_run()
    with pytest.raises(InvalidRequest, match=re.escape(f"limit={limit!r}")):
        await run.map(undo, [1], limit)
    with pytest.raises(InvalidRequest, match=re.escape(f"limit={limit!r}")):
        run.as_completed(undo, [1], limit)


async def test_the_limit_is_handed_on() -> None:
    run, port = a_run()
    assert await run.map(undo, (1, 2), limit=7) == []
    assert port.asked == [(undo, (1, 2), 7)]


def test_only_tasks_compensate_and_only_what_is_callable_waits_for_a_cancellation() -> None:
    run, _port = a_run()
    with pytest.raises(InvalidRequest, match="made with @task"):
        run.compensate(cast("Any", len), "x")
    with pytest.raises(InvalidRequest, match="a task or a function"):
        run.on_cancel(cast("Any", 5))

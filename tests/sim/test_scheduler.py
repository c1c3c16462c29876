"""Seeded scheduling: repeats itself, lets tasks starve, leaves Trio as it was."""

from __future__ import annotations

import trio
from trio._core import _run as scheduler
from trio.testing import MockClock

from aiki_trio.testing.sim._scheduler import (
    FLAG,
    SOURCE,
    StarvingRandom,
    deterministic,
    shape_problem,
)

TASKS = 5
STEPS = 10


def order_of_steps(seed: str, deferral: float = 0.0) -> list[int]:
    """Return the order in which tasks of equal rank take their steps."""
    order: list[int] = []

    async def walk(number: int) -> None:
        for _ in range(STEPS):
            order.append(number)
            await trio.lowlevel.checkpoint()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for number in range(TASKS):
                nursery.start_soon(walk, number)

    with deterministic(seed, deferral):
        trio.run(main, clock=MockClock(autojump_threshold=0))
    return order


def furthest_behind(order: list[int]) -> int:
    """Return how many steps a task ever was behind another."""
    done = [0] * TASKS
    worst = 0
    for number in order:
        done[number] += 1
        worst = max(worst, max(done) - min(done))
    return worst


def test_trio_has_the_shape_that_seeded_scheduling_needs() -> None:
    """Fails with a new Trio that schedules otherwise; then `_scheduler.py` is to be looked at."""
    assert shape_problem() is None


def test_a_changed_shape_is_told(monkeypatch: object) -> None:
    before = getattr(scheduler, SOURCE)
    setattr(scheduler, SOURCE, None)
    try:
        problem = shape_problem()
    finally:
        setattr(scheduler, SOURCE, before)
    assert problem is not None
    assert SOURCE in problem


def test_one_seed_is_one_order() -> None:
    orders = {tuple(order_of_steps("7", 0.5)) for _ in range(5)}
    assert len(orders) == 1


def test_many_seeds_are_many_orders() -> None:
    orders = {tuple(order_of_steps(str(seed))) for seed in range(30)}
    assert len(orders) == 30


def test_tasks_starve_only_when_some_are_deferred() -> None:
    fair = max(furthest_behind(order_of_steps(str(seed))) for seed in range(20))
    starving = max(furthest_behind(order_of_steps(str(seed), 0.8)) for seed in range(20))
    assert fair == 1
    assert starving > 4


def test_every_task_gets_to_its_end_however_many_are_deferred() -> None:
    assert sorted(order_of_steps("1", 0.95)) == sorted(list(range(TASKS)) * STEPS)


def test_trio_is_left_as_it_was() -> None:
    before = getattr(scheduler, FLAG), getattr(scheduler, SOURCE)
    with deterministic("1"):
        assert isinstance(getattr(scheduler, SOURCE), StarvingRandom)
        assert getattr(scheduler, FLAG) is True
    assert (getattr(scheduler, FLAG), getattr(scheduler, SOURCE)) == before

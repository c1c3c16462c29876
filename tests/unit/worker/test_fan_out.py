"""`run.map` and `run.as_completed`: order, limit, failure, names, memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import trio
from attrs import define

from aiki_actors import engine as e
from aiki_sdk import AnyWorkflow, Run, TaskFailed, task, workflow
from tests.unit.worker.fake_server import Plan, live


@define(eq=False)
class Gauge:
    """What goes on at once."""

    running: int = 0
    most: int = 0
    tasks_most: int = 0
    begun: int = 0


gauge = Gauge()


@task
async def work(n: int) -> int:
    """Return `n` after a while; every 13th is quick."""
    gauge.begun += 1
    gauge.running += 1
    gauge.most = max(gauge.most, gauge.running)
    gauge.tasks_most = max(gauge.tasks_most, trio.lowlevel.current_statistics().tasks_living)
    try:
        await trio.sleep(0.01 * (n % 13))
        if n < 0:
            message = f"no {n}"
            raise ValueError(message)
        return n
    finally:
        gauge.running -= 1


@workflow(name="many", version="1.0.0")
async def many(run: Run, n: int, limit: int | None) -> list[int]:
    """Map over so many."""
    return await run.map(work, range(n), limit)


@workflow(name="odd", version="1.0.0")
async def odd(run: Run, numbers: list[int]) -> str:
    """Map over an iterator of which some items fail."""

    def source() -> Iterator[int]:
        yield from numbers

    try:
        return str(await run.map(work, source(), limit=3))
    except TaskFailed as error:
        return error.error.message


@workflow(name="compound", version="1.0.0")
async def compound(run: Run, n: int) -> list[int]:
    """Map with a function of several steps, twice, beside other branches."""

    async def two(k: int) -> int:
        first = await work(k)
        await run.sleep("nap", seconds=0.01 * (n - k))
        return first + await work(k + 1)

    both = await run.gather(run.map(two, range(n), limit=2), run.map(two, range(n)))
    return [value for one in both for value in one]


@workflow(name="first-come", version="1.0.0")
async def first_come(run: Run, numbers: list[int], enough: int) -> list[list[int]]:
    """Take results as they come; do something durable for each."""
    found: list[list[int]] = []
    async with run.as_completed(work, numbers, limit=5) as results:
        async for item, value in results:
            found.append([item, value, await work(100 + len(found))])
            if len(found) == enough:
                break
    return found


def output(life_state: e.RunState) -> object:
    assert life_state.outcome is not None
    assert life_state.outcome.error is None, life_state.outcome.error
    return life_state.outcome.output


def begin() -> None:
    global gauge  # noqa: PLW0603  (tasks are module-level functions, and so is their gauge)
    gauge = Gauge()


@pytest.mark.parametrize(
    ("n", "limit", "most"), [(0, 3, 0), (1, 3, 1), (40, 7, 7), (120, None, 100)]
)
def test_results_come_in_the_order_of_the_items_and_the_limit_holds(
    n: int, limit: int | None, most: int
) -> None:
    begin()
    assert output(live(many, (n, limit), Plan(jitter=False)).state) == list(range(n))
    assert gauge.most == most


def test_each_item_has_a_branch_of_its_own_whoever_took_it() -> None:
    names = set()
    for seed in range(4):
        life = live(many, (20, 4), Plan(seed=seed))
        calls = [en.body.call for en in life.journal if isinstance(en.body, e.TaskSucceeded)]
        names.add(tuple(sorted(f"{call.branch} {call.address}" for call in calls)))
        assert sorted(call.branch for call in calls) == sorted(f"0.{n + 1}" for n in range(20))
    assert len(names) == 1


@pytest.mark.parametrize(
    ("workflow_", "args"),
    [(many, (12, 3)), (compound, (4,)), (first_come, ([5, 1, 9, 14, 3, 27], 99))],
    ids=["map", "compound", "first-come"],
)  # fmt: skip
def test_a_run_resumed_from_any_point_ends_alike(
    workflow_: AnyWorkflow, args: tuple[Any, ...]
) -> None:
    life = live(workflow_, args, Plan())
    cut = len(life.before_end)
    again = live(workflow_, args, Plan(), journal=life.journal[:cut], cuts=life.cuts, life=9)
    assert output(again.state) == output(life.state)
    for cut in life.cuts[:-1:3]:
        before = life.journal[:cut]
        resumed = live(workflow_, args, Plan(), journal=before, cuts=life.cuts, life=cut)
        result = output(resumed.state)
        assert isinstance(result, list)
        if workflow_ is not first_come:
            assert result == output(life.state)


def test_the_first_failure_cancels_the_rest_and_is_raised() -> None:
    begin()
    assert output(live(odd, ([9, 10, -12, 11, 12, -1, 5],), Plan()).state) == "no -12"
    assert gauge.running == 0
    assert gauge.begun < 7


@pytest.mark.parametrize("enough", [2, 99])
def test_results_are_taken_as_they_come_and_leaving_cancels_the_rest(enough: int) -> None:
    begin()
    found = output(live(first_come, ([12, 1, 6, 3], enough), Plan(jitter=False)).state)
    assert isinstance(found, list)
    assert [pair[0] for pair in found] == [1, 3, 6, 12][:enough]
    assert gauge.running == 0


def test_ten_thousand_items_need_no_ten_thousand_tasks() -> None:
    begin()
    assert output(live(many, (10_000, None), Plan(jitter=False)).state) == list(range(10_000))
    assert gauge.begun == 10_000
    assert gauge.tasks_most < 500

"""What type checkers see inside workflows and around them: mypy and pyright read it, and it runs.

`assert_type` fails in a type checker if an inferred type is not the one that is written. A
`type: ignore` says that the line *must* be refused: both checkers report one that is not needed.
The workflows are executed in the test kit, so that what is inferred is also what comes.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from logging import LoggerAdapter
from typing import Any, assert_type
from uuid import UUID

import pytest
import trio
from attrs import frozen

from aiki_sdk import (
    ChildRun,
    Client,
    Event,
    InvalidRequest,
    JsonValue,
    Retry,
    Run,
    RunHandle,
    Slept,
    SyncTask,
    Task,
    TaskContext,
    TimeoutScope,
    Workflow,
    current_task,
    task,
    workflow,
)
from aiki_trio import Runtime, open_runtime
from aiki_trio.testing import Aiki, TaskCall, run as run_in_virtual_time


@frozen
class Order:
    id: str
    amount: int


ORDER = Order("o-1", 500)
go = Event("go", Order)


@task
async def price(order: Order) -> int:
    return order.amount


@task(name="label", retry=Retry.fixed(max_attempts=2, delay=timedelta(seconds=1)), timeout=5)
def label(order: Order, *, loud: bool = False) -> str:
    return order.id.upper() if loud else order.id


@task(runtime="asyncio", heartbeat_timeout=timedelta(seconds=30))
async def in_asyncio(text: str) -> bytes:
    return text.encode()


@task(runtime="process", pool="heavy")
def in_process(number: int) -> float:
    return number / 2


@task
async def facts() -> dict[str, int]:
    context = current_task()
    assert_type(context, TaskContext)
    assert_type(context.attempt, int)
    assert_type(context.idempotency_key, str)
    assert_type(context.last_heartbeat, JsonValue)
    context.heartbeat({"done": 1})
    return {"attempt": context.attempt}


def test_tasks_keep_parameters_and_results() -> None:
    """A sync task says what it is in workflows, awaitable; its function says what it is outside."""
    takes_an_order: Task[[Order], int] = price.options(timeout=None)
    takes_text: Task[[str], bytes] = in_asyncio
    takes_a_number: SyncTask[[int], float] = in_process.options(pool=None)
    gives_text: Task[[str], str] = in_asyncio  # type: ignore[assignment]
    assert gives_text.name == takes_text.name
    assert_type(facts, Task[[], dict[str, int]])
    function: Callable[[Order], Coroutine[Any, Any, int]] = takes_an_order.function
    assert function is price.function
    assert takes_a_number.name == "in-process"
    assert_type(label.function(ORDER, loud=True), str)
    assert_type(in_process.function(5), float)


def test_wrong_options_and_calls_of_tasks_are_refused() -> None:
    with pytest.raises(InvalidRequest):
        price.options(timeout="5 s")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        label(ORDER, True)  # type: ignore[call-arg, unused-coroutine]
    with pytest.raises(InvalidRequest):
        task(runtime="threads")(label.function)  # type: ignore[call-overload]
    with pytest.raises(InvalidRequest):
        Retry.fixed(max_attempts=0, delay=1)
    assert_type(Retry.never(), Retry)
    assert_type(Retry.exponential(3, 0.5, factor=3, max_delay=timedelta(hours=1)), Retry)
    assert_type(Retry.jittered(3, 0.5, only=(OSError,), never=(ValueError,)), Retry)


@workflow("part", "1.0.0")
async def part(run: Run, order: Order, factor: int = 1) -> int:
    return await price(order) * factor


@workflow("whole", "1.0.0", events=[go])
async def whole(run: Run) -> list[int]:
    assert_type(run.id, str)
    assert_type(run.reference_id, str | None)
    assert_type(run.started_at, datetime)
    assert_type(run.replaying, bool)
    assert_type(run.now(), datetime)
    assert_type(run.uuid4(), UUID)
    assert_type(run.random("dice"), float)
    assert isinstance(run.logger, LoggerAdapter)
    await calls(run)
    await branches(run)
    await timeouts(run)
    return await children(run)


async def calls(run: Run) -> None:
    assert_type(await price(ORDER), int)
    assert_type(await label(ORDER, loud=True), str)
    assert_type(await label.options(timeout=1)(ORDER), str)
    assert_type(await facts(), dict[str, int])
    assert_type(await run.wait(go, timeout=5), Order)
    assert_type(await run.sleep("s", timedelta(seconds=1)), Slept)
    assert_type(await run.sleep("s", minutes=1, seconds=1), Slept)
    assert_type(await run.local("len", len, "four"), int)
    assert_type(await run.local("ticks", ticks, 5), float)


async def ticks(count: int) -> float:
    await trio.lowlevel.checkpoint()
    return count / 2


async def branches(run: Run) -> None:
    assert_type(await run.gather(price(ORDER), label(ORDER)), tuple[int, str])
    three = await run.gather(price(ORDER), label(ORDER), run.sleep("g", seconds=1))
    assert_type(three, tuple[int, str, Slept])
    four = await run.gather(price(ORDER), label(ORDER), facts(), part_of(ORDER))
    assert_type(four, tuple[int, str, dict[str, int], bool])
    assert_type(await run.gather(*[price(ORDER) for _ in range(5)]), tuple[int, ...])
    name, value = await run.race(price=price(ORDER), late=run.sleep("late", days=3))
    assert_type(name, str)
    assert_type(value, Any)
    assert_type(await run.map(price, [ORDER, ORDER], limit=2), list[int])
    assert_type(await run.map(label, (order for order in [ORDER])), list[str])
    assert_type(await run.map(part_of, [ORDER]), list[bool])
    async with run.as_completed(price, [ORDER, ORDER]) as results:
        async for item, result in results:
            assert_type(item, Order)
            assert_type(result, int)


async def part_of(order: Order) -> bool:
    return await price(order) > 5


async def timeouts(run: Run) -> None:
    with run.move_on_after("patience", 5) as scope:
        await run.sleep("long", days=1)
    checked: TimeoutScope = scope
    assert_type(checked.cancelled_caught, bool)
    with run.fail_after("limit", timedelta(seconds=5)):
        await price(ORDER)
    run.compensate(label, ORDER, loud=True)
    run.on_cancel(price, ORDER)


async def children(run: Run) -> list[int]:
    child = await run.start_child(part, ORDER, 2, reference_id="c", on_parent_end="cancel")
    assert_type(child, ChildRun[int])
    assert_type(await child.result(timeout=timedelta(hours=1)), int)
    assert_type(await run.call(part, ORDER, factor=3), int)
    return [await child.result(), await run.call(part, ORDER)]


@workflow("refused", "1.0.0", events=[go])
async def refused(run: Run) -> None:
    """What type checkers refuse; it is not executed."""
    await price("o-1")  # type: ignore[arg-type]
    await price()  # type: ignore[call-arg]
    await label(ORDER, loudly=True)  # type: ignore[call-arg]
    await run.call(part, "o-1")  # type: ignore[arg-type]
    await run.call(part, ORDER, factors=1)  # type: ignore[call-arg]
    await run.map(price, ["o-1"])  # type: ignore[arg-type]
    await run.sleep(5)  # type: ignore[arg-type]
    await run.wait("go")  # type: ignore[arg-type]
    run.compensate(label, "o-1")  # type: ignore[arg-type]
    run.compensate(part, ORDER)  # type: ignore[arg-type]
    count: str = await run.local("len", len, "four")  # type: ignore[arg-type]
    assert count


async def test_workflows_get_what_type_checkers_say(aiki: Aiki) -> None:
    handle = await aiki.start(whole, reference_id="whole-1")
    assert_type(handle, RunHandle[list[int]])
    assert_type(await aiki.start(part, ORDER), RunHandle[int])
    assert_type(await aiki.start(part, ORDER, delay=5), RunHandle[int])
    assert_type(aiki.client, Client)
    await handle.send(go, ORDER)
    assert await handle.result() == [1000, 500]
    assert_type(aiki.calls(price), list[TaskCall])
    aiki.mock(price, lambda order: 7)
    with pytest.raises(TypeError):
        await aiki.start(part, 5, 6, 7)  # type: ignore[misc, arg-type]


def test_the_kit_runs_functions_with_their_arguments() -> None:
    async def double(number: int) -> int:
        await trio.sleep(3600)
        return number * 2

    assert_type(run_in_virtual_time(double, 5), int)
    with pytest.raises(TypeError):
        run_in_virtual_time(double)  # type: ignore[arg-type]


async def test_a_runtime_has_a_typed_client() -> None:
    async with open_runtime("memory://", workflows=[part]) as runtime:
        assert_type(runtime, Runtime)
        handle = await runtime.client.start(part, ORDER, factor=2)
        assert_type(await handle.result(), int)
    taken: Workflow[..., object] = part
    assert taken is part

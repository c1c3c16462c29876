"""Random concurrent workflows: a program is a tree of JSON, and one workflow interprets it.

A program uses all that replay has to get right: nested nurseries, races, equal addresses, tasks
that fail and are retried, sleeps, events, children, cancel scopes around branches, shielded
cleanup, and a first-come-first-served channel between branches. What the code saw, in the order in
which it saw it, is kept in `Observed`, so that two executions can be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import trio
from attrs import Factory, define
from hypothesis import strategies as st

from aiki_sdk import (
    AikiError,
    Event,
    JsonValue,
    Retry,
    WaitTimeout,
    current_task,
    task,
    workflow,
)
from aiki_sdk._run import Run

Step: TypeAlias = "list[Any]"
TICK_S = 0.1
DELIVERED = ("work", "slow", "nap", "take", "local")
"""Steps whose value is delivered at a moment that the journal knows, in one delivery."""


@define(eq=False)
class Observed:
    """What happened outside the journal while a program was executed.

    Attributes:
        executed: idempotency keys of the task attempts that were begun, in order.
        finished: those that ran to their end.
        seen: what the workflow's code was given, in the order in which it was given.

    """

    executed: list[str] = Factory(lambda: list[str]())
    finished: list[str] = Factory(lambda: list[str]())
    seen: list[str] = Factory(lambda: list[str]())


observed = Observed()


def observe() -> Observed:
    """Begin to observe afresh."""
    global observed  # noqa: PLW0603  (workflows are module-level functions, and so is their diary)
    observed = Observed()
    return observed


class Broken(Exception):
    """What tasks of programs fail with."""


async def _work(n: int, ticks: int, failures: int) -> int:
    diary = observed
    context = current_task()
    diary.executed.append(context.idempotency_key)
    await trio.sleep(ticks * TICK_S)
    if context.attempt <= failures:
        message = f"attempt {context.attempt} of {n}"
        raise Broken(message)
    diary.finished.append(context.idempotency_key)
    return n


@task(name="work", retry=Retry.fixed(3, 0.05))
async def work(n: int, ticks: int, failures: int) -> int:
    """Return `n` after a while; short retry delays."""
    return await _work(n, ticks, failures)


@task(name="slow-work", retry=Retry.fixed(3, 0.35))
async def slow_work(n: int, ticks: int, failures: int) -> int:
    """Return `n` after a while; retry delays are waits of the run."""
    return await _work(n, ticks, failures)


go = Event("go", int)
stop = Event("stop", int)
EVENTS = {"go": go, "stop": stop}


@workflow(name="kid", version="1.0.0")
async def kid(run: Run, n: int, ticks: int, fails: bool) -> int:
    """Stand for a child; the fake server ends it by itself."""
    await run.sleep("life", seconds=ticks * TICK_S)
    if fails:
        raise Broken(str(n))
    return n


@workflow(name="program", version="1.0.0", events=[go, stop], cancel_grace=1_000)
async def program(run: Run, steps: list[Any]) -> list[Any]:
    """Interpret a program."""
    return await _body(run, steps, "")


async def _body(run: Run, steps: list[Any], path: str) -> list[Any]:
    results: list[Any] = []
    for number, step in enumerate(steps):
        here = f"{path}/{number}"
        value = await _step(run, step, here)
        if step[0] in DELIVERED:
            observed.seen.append(f"{here} {value!r}")
        results.append(value)
    return results


async def _step(run: Run, step: Step, path: str) -> JsonValue:  # noqa: C901, PLR0912
    kind, *rest = step
    match kind:
        case "work" | "slow":
            n, ticks, failures, caught = rest
            function = work if kind == "work" else slow_work
            try:
                return await function(n, ticks, failures)
            except AikiError as error:
                if not caught:
                    raise
                return type(error).__name__
        case "nap":
            name, ticks = rest
            return str(await run.sleep(name, seconds=ticks * TICK_S))
        case "take":
            name, ticks = rest
            try:
                return await run.wait(EVENTS[name], None if ticks is None else ticks * TICK_S)
            except AikiError as error:
                return type(error).__name__
        case "kid":
            n, ticks, fails, timeout, first = rest
            child = await run.start_child(kid, n, ticks, fails)
            if first is not None:
                await run.sleep("first", seconds=first * TICK_S)
            try:
                return await child.result(None if timeout is None else timeout * TICK_S)
            except AikiError as error:
                return type(error).__name__
        case "local":
            return await run.local(f"local{rest[0]}", lambda: rest[0])
        case "chance":
            return run.random() + len(str(run.uuid4()))
        case "now":
            return run.now().isoformat()
        case "gather":
            return list(
                await run.gather(*(_body(run, b, f"{path}.{i}") for i, b in enumerate(rest)))
            )
        case "race":
            bodies = {f"r{i}": _body(run, b, f"{path}.{i}") for i, b in enumerate(rest)}
            return list(await run.race(**bodies))
        case "nursery":
            return await _nursery(run, rest, path)
        case "first":
            return await _first_come(run, rest, path)
        case "deadline":
            return await _deadline(run, rest[0], rest[1], path)
        case "patience" | "must":
            return await _in_time(run, kind, rest[0], rest[1], path)
        case "guard":
            return await _guard(run, rest[0], rest[1], path)
        case _:
            raise AssertionError(kind)


async def _nursery(run: Run, bodies: list[Any], path: str) -> JsonValue:
    """Run bodies in a nursery of the user's own, each behind another nursery."""
    found: dict[str, JsonValue] = {}

    async def inner(number: int) -> None:
        found[str(number)] = await _body(run, bodies[number], f"{path}.{number}")

    async def outer(number: int) -> None:
        async with trio.open_nursery() as nested:
            nested.start_soon(inner, number)

    async with trio.open_nursery() as nursery:
        for number in range(len(bodies)):
            nursery.start_soon(outer, number)
    return [found[str(number)] for number in range(len(bodies))]


async def _first_come(run: Run, bodies: list[Any], path: str) -> JsonValue:
    """Take the results of branches in the order in which they come."""
    send, receive = trio.open_memory_channel[JsonValue](0)

    async def put(number: int) -> None:
        # Two branches that are given nothing before they meet would meet as Trio likes.
        await work(number % 2, 1, 0)
        value = await _body(run, bodies[number], f"{path}.{number}")
        await send.send([number, value])

    found: list[JsonValue] = []
    async with trio.open_nursery() as nursery:
        for number in range(len(bodies)):
            nursery.start_soon(put, number)
        for _ in bodies:
            found.append(await receive.receive())
            # What the code does next depends on who came first.
            found.append(await work(len(found), 1, 0))
    return found


async def _deadline(run: Run, ticks: int, steps: list[Any], path: str) -> JsonValue:
    """Give a body so much time: a durable sleep cancels its scope."""
    result: list[JsonValue] = []
    async with trio.open_nursery() as nursery:

        async def timer() -> None:
            await run.sleep("deadline", seconds=ticks * TICK_S)
            nursery.cancel_scope.cancel()

        nursery.start_soon(timer)
        result.append(await _body(run, steps, path))
        nursery.cancel_scope.cancel()
    return result[0] if result else "late"


async def _in_time(run: Run, kind: str, ticks: int, steps: list[Any], path: str) -> JsonValue:
    """Give a body so much time: a durable timeout."""
    if kind == "patience":
        result: JsonValue = "late"
        with run.move_on_after("patience", ticks * TICK_S) as scope:
            result = await _body(run, steps, path)
        observed.seen.append(f"{path} caught {scope.cancelled_caught}")
        return result
    try:
        result = "late"
        with run.fail_after("must", ticks * TICK_S):
            result = await _body(run, steps, path)
    except WaitTimeout:
        observed.seen.append(f"{path} failed")
        return "failed"
    return result


async def _guard(run: Run, n: int, steps: list[Any], path: str) -> JsonValue:
    """Clean up durably when cancelled."""
    try:
        return await _body(run, steps, path)
    except trio.Cancelled:
        with trio.CancelScope(shield=True):
            await work(n, 1, 0)
        raise


_ticks = st.integers(0, 4)
_few = st.integers(0, 2)
_leaves: st.SearchStrategy[Step] = st.one_of(
    st.builds(
        lambda n, t, f, c: ["work", n, t, f, c],
        _few,
        _ticks,
        st.sampled_from([0, 0, 0, 1, 3]),
        st.sampled_from([True, True, True, False]),
    ),
    st.builds(
        lambda n, t, f, c: ["slow", n, t, f, c],
        _few,
        _ticks,
        st.sampled_from([0, 1, 2]),
        st.just(True),
    ),
    st.builds(lambda n, t: ["nap", n, t], st.sampled_from(["a", "b"]), st.integers(-1, 5)),
    st.builds(
        lambda n, t: ["take", n, t], st.sampled_from(["go", "stop"]), st.none() | st.integers(0, 6)
    ),
    st.builds(
        lambda n, t, f, o, w: ["kid", n, t, f, o, w],
        _few,
        _ticks,
        st.booleans(),
        st.none() | st.integers(0, 4),
        st.none() | st.integers(0, 4),
    ),
    st.builds(lambda n: ["local", n], _few),
    st.just(["chance"]),
    st.just(["now"]),
)


def _several(body: st.SearchStrategy[list[Step]]) -> st.SearchStrategy[Step]:
    kinds = st.sampled_from(["gather", "race", "nursery", "first"])
    return st.builds(lambda k, b: [k, *b], kinds, st.lists(body, min_size=2, max_size=3))


def _timed(steps: st.SearchStrategy[Step]) -> st.SearchStrategy[Step]:
    body = st.lists(steps, min_size=1, max_size=3)
    kinds = st.sampled_from(["patience", "patience", "must"])
    timed = st.builds(lambda k, t, b: [k, t, b], kinds, st.integers(0, 9), body)
    return st.one_of(timed, timed, _nested(steps))


def timed_programs() -> st.SearchStrategy[list[Step]]:
    """Return programs in which durable timeouts are the rule, nested and around anything."""
    steps = st.recursive(_leaves, _timed, max_leaves=10)
    return st.lists(steps, min_size=1, max_size=3)


def _nested(steps: st.SearchStrategy[Step]) -> st.SearchStrategy[Step]:
    body = st.lists(steps, min_size=1, max_size=3)
    return st.one_of(
        _several(body),
        _several(body),
        st.builds(lambda t, b: ["deadline", t, b], _ticks, body),
        st.builds(lambda n, b: ["guard", n, b], _few, body),
    )


def programs() -> st.SearchStrategy[list[Step]]:
    """Return programs of up to about twenty steps."""
    steps = st.recursive(_leaves, _nested, max_leaves=12)
    return st.lists(steps, min_size=1, max_size=4)


Latency: TypeAlias = Callable[[], float]

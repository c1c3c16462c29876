"""Random workflows: a program is a tree of JSON, and one workflow interprets it.

Programs use what workflows can do: tasks that fail, are retried, time out, send heartbeats or may
run only once; sleeps, events, races, gatherings, nurseries, maps, durable timeouts, compensations,
children, questions, published values, events to other runs, local values, continuing as new, and
cleaning up after a cancellation.

Invariant: what a task returns follows from its arguments, and the code checks what it is given.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

import trio

from aiki_sdk import (
    AikiError,
    Event,
    JsonValue,
    Question,
    Retry,
    Run,
    WaitTimeout,
    current_task,
    task,
    workflow,
)

Step: TypeAlias = "list[Any]"
TICK_S: Final = 0.1


class Refused(Exception):
    """What tasks of programs fail with."""


async def _work(n: int, ticks: int, failures: int) -> int:
    await trio.sleep(ticks * TICK_S)
    attempt = current_task().attempt
    if attempt <= failures:
        message = f"attempt {attempt} of {n}"
        raise Refused(message)
    return n


@task(name="sim-work", retry=Retry.fixed(3, 0.05))
async def work(n: int, ticks: int, failures: int) -> int:
    """Return `n` after a while; retries come at once."""
    return await _work(n, ticks, failures)


@task(name="sim-slow", retry=Retry.fixed(4, 0.7))
async def slow(n: int, ticks: int, failures: int) -> int:
    """Return `n` after a while; retries are waits of the run."""
    return await _work(n, ticks, failures)


@task(name="sim-strict", timeout=0.3, retry=Retry.exponential(3, 0.2))
async def strict(n: int, ticks: int) -> int:
    """Return `n`, unless that takes too long."""
    await trio.sleep(ticks * TICK_S)
    return n


@task(name="sim-once", at_most_once=True)
async def once(n: int, ticks: int) -> int:
    """Return `n`; begun once at most."""
    await trio.sleep(ticks * TICK_S)
    return n


@task(name="sim-beating", heartbeat_timeout=1.0, retry=Retry.fixed(3, 0.2))
async def beating(n: int, beats: int) -> int:
    """Return `n`, and say now and then how far it is."""
    context = current_task()
    done = context.last_heartbeat
    for beat in range(done if isinstance(done, int) else 0, beats):
        await trio.sleep(0.5)
        context.heartbeat(beat + 1)
    return n


@task(name="sim-undo", retry=Retry.fixed(2, 0.05))
async def undo(n: int) -> int:
    """Undo something."""
    await trio.lowlevel.checkpoint()
    return n


go = Event("go", int)
stop = Event("stop", int)
EVENTS: Final[Mapping[str, Event[int]]] = {"go": go, "stop": stop}
doubled = Question("doubled", int, int)


@workflow(
    name="sim-program",
    version="1.0.0",
    events=[go, stop],
    questions=[doubled],
    cancel_grace=20.0,
    retry=Retry.fixed(2, 0.5),
)
async def program(run: Run, steps: list[Any], links: list[str]) -> list[Any]:
    """Interpret a program; `links` are runs that it knows."""
    return await _body(run, steps, links)


async def _body(run: Run, steps: list[Any], links: list[str]) -> list[Any]:
    return [await _STEPS[kind](run, rest, links) for kind, *rest in steps]


async def _caught(awaitable: Awaitable[Any]) -> JsonValue:
    try:
        value: JsonValue = await awaitable
    except AikiError as error:
        return type(error).__name__
    return value


def _expect(given: object, wanted: object) -> None:
    assert given == wanted, f"the code was given {given!r} instead of {wanted!r}"


async def _do_work(_run: Run, rest: Step, _links: list[str]) -> JsonValue:
    kind, n, ticks, failures, caught = rest
    function = work if kind == "work" else slow
    if not caught:
        value = await function(n, ticks, failures)
        _expect(value, n)
        return value
    return await _caught(function(n, ticks, failures))


async def _do_strict(_run: Run, rest: Step, _links: list[str]) -> JsonValue:
    return await _caught(strict(rest[0], rest[1]))


async def _do_once(_run: Run, rest: Step, _links: list[str]) -> JsonValue:
    return await _caught(once(rest[0], rest[1]))


async def _do_beat(_run: Run, rest: Step, _links: list[str]) -> JsonValue:
    return await _caught(beating(rest[0], rest[1]))


async def _do_nap(run: Run, rest: Step, _links: list[str]) -> JsonValue:
    return str(await run.sleep(rest[0], seconds=rest[1] * TICK_S))


async def _do_take(run: Run, rest: Step, _links: list[str]) -> JsonValue:
    name, ticks = rest
    return await _caught(run.wait(EVENTS[name], None if ticks is None else ticks * TICK_S))


async def _do_answer(run: Run, rest: Step, _links: list[str]) -> JsonValue:
    with run.move_on_after("asked", rest[0] * TICK_S):
        ask = await run.answer(doubled, lambda n: 2 * n)
        return ask.data
    return None


async def _do_kid(run: Run, rest: Step, links: list[str]) -> JsonValue:
    steps, how, reference, ticks = rest
    if how == "call":
        return await _caught(run.call(program, steps, links))
    child = await run.start_child(
        program,
        steps,
        [*links, run.id],
        reference_id=None if reference is None else f"{run.id}/{reference}",
        on_parent_end="cancel" if how == "cancel" else "abandon",
        on_conflict="return_existing",
    )
    if how == "forget":
        return None
    timeout = None if ticks is None else ticks * TICK_S
    return await _caught(child.result(timeout))


async def _do_local(run: Run, rest: Step, _links: list[str]) -> JsonValue:
    value: JsonValue = await run.local(f"local{rest[0]}", lambda: rest[0])
    _expect(value, rest[0])
    return value


async def _do_chance(run: Run, _rest: Step, _links: list[str]) -> JsonValue:
    await trio.lowlevel.checkpoint_if_cancelled()
    return f"{run.random():.6f} {run.uuid4()} {run.now().isoformat()}"


async def _do_publish(run: Run, rest: Step, _links: list[str]) -> JsonValue:
    await run.publish(rest[0], rest[1])
    return None


async def _do_tell(run: Run, rest: Step, links: list[str]) -> JsonValue:
    name, n = str(rest[0]), int(rest[1])
    target = links[n % len(links)] if links else run.id
    await run.send(target, EVENTS[name], n)
    return None


async def _do_gather(run: Run, rest: Step, links: list[str]) -> JsonValue:
    return list(await run.gather(*(_body(run, steps, links) for steps in rest)))


async def _do_race(run: Run, rest: Step, links: list[str]) -> JsonValue:
    bodies = {f"r{i}": _body(run, steps, links) for i, steps in enumerate(rest)}
    return list(await run.race(**bodies))


async def _do_nursery(run: Run, rest: Step, links: list[str]) -> JsonValue:
    found: dict[int, JsonValue] = {}

    async def branch(number: int) -> None:
        found[number] = await _body(run, rest[number], links)

    async with trio.open_nursery() as nursery:
        for number in range(len(rest)):
            nursery.start_soon(branch, number)
    return [found[number] for number in range(len(rest))]


async def _do_map(run: Run, rest: Step, _links: list[str]) -> JsonValue:
    count, limit, ticks = rest

    async def one(n: int) -> int:
        return await work(n, ticks, 0)

    values = await run.map(one, range(count), limit)
    _expect(values, list(range(count)))
    return len(values)


async def _do_patience(run: Run, rest: Step, links: list[str]) -> JsonValue:
    ticks, steps = rest
    with run.move_on_after("patience", ticks * TICK_S):
        return await _body(run, steps, links)
    return "late"


async def _do_must(run: Run, rest: Step, links: list[str]) -> JsonValue:
    ticks, steps = rest
    results: list[Any] = []
    try:
        with run.fail_after("must", ticks * TICK_S):
            results = await _body(run, steps, links)
    except WaitTimeout:
        return "failed"
    return results


async def _do_guard(run: Run, rest: Step, links: list[str]) -> JsonValue:
    n, steps = rest
    try:
        return await _body(run, steps, links)
    except trio.Cancelled:
        with trio.CancelScope(shield=True):
            await work(n, 1, 0)
        raise


async def _do_saga(run: Run, rest: Step, links: list[str]) -> JsonValue:
    n, steps = rest
    run.compensate(undo, n)
    return await _body(run, steps, links)


async def _do_fail(_run: Run, rest: Step, _links: list[str]) -> JsonValue:
    await trio.lowlevel.checkpoint_if_cancelled()
    message = f"as planned, {rest[0]}"
    raise Refused(message)


async def _do_again(run: Run, rest: Step, links: list[str]) -> JsonValue:
    await run.continue_as_new(rest[0], links)


_STEPS: Final[Mapping[str, Callable[[Run, Step, list[str]], Awaitable[JsonValue]]]] = {
    "task": _do_work,
    "strict": _do_strict,
    "once": _do_once,
    "beat": _do_beat,
    "nap": _do_nap,
    "take": _do_take,
    "answer": _do_answer,
    "kid": _do_kid,
    "local": _do_local,
    "chance": _do_chance,
    "publish": _do_publish,
    "tell": _do_tell,
    "gather": _do_gather,
    "race": _do_race,
    "nursery": _do_nursery,
    "map": _do_map,
    "patience": _do_patience,
    "must": _do_must,
    "guard": _do_guard,
    "saga": _do_saga,
    "fail": _do_fail,
    "again": _do_again,
}

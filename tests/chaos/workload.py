"""What the rigs run: a workflow for each kind of wait and end, and how each of its runs must end.

Every task notes its beginning and its end outside the database. A kind says how the n-th run of it
is started, what it is sent, and how it ends whatever was killed meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import trio
from attrs import field, frozen

from aiki_sdk import (
    AnyWorkflow,
    ChildFailed,
    Event,
    JsonValue,
    NonRetryable,
    OutcomeUnknown,
    Retry,
    Run,
    SystemClock,
    current_task,
    task,
    workflow,
)
from aiki_sdk.client import StartKwargs
from aiki_sdk.protocol import RunStatus

from .records import RecordLog

item = Event("item", int)
greeting = Event("greeting", str)

sinks: list[RecordLog] = []
"""Where effects are noted: the last one; none while nobody looks."""

clock: Final = SystemClock()


@contextmanager
def effect() -> Generator[None]:
    """Note that a task's function begins, and how it ends."""
    if not sinks:
        yield
        return
    _note("begin")
    try:
        yield
    except trio.Cancelled:
        _note("cancelled")
        raise
    except BaseException:
        _note("failed")
        raise
    _note("ok")


def _note(phase: str) -> None:
    context = current_task()
    sinks[-1].append(
        phase=phase,
        key=context.idempotency_key,
        run=context.run_id,
        task=context.name,
        attempt=context.attempt,
        pid=os.getpid(),
        at=round(clock.now().timestamp() * 1_000_000),
    )


# --- Tasks ----------------------------------------------------------------------------------------


@task
async def add(n: int, more: int) -> int:
    """Add in the loop."""
    with effect():
        await trio.sleep(0.002)
        return n + more


@task
def threaded(n: int) -> int:
    """Add in a thread."""
    with effect():
        return n + 100


@task(retry=Retry.fixed(3, 0.12))
async def flaky(n: int) -> int:
    """Fail at first; the next attempt is a wait of the run."""
    with effect():
        if current_task().attempt == 1:
            message = "the first attempt"
            raise ConnectionError(message)
        return n * 10


@task
async def hopeless(n: int) -> int:
    """Fail for good."""
    with effect():
        message = f"{n} cannot be"
        raise NonRetryable(message)


@task
async def book(what: str) -> str:
    """Do what is undone later."""
    with effect():
        return what


@task(retry=Retry.fixed(5, 0.01))
async def unbook(what: str) -> str:
    """Undo it."""
    with effect():
        return what


@task(at_most_once=True)
async def charge(n: int) -> int:
    """Do what must not happen twice."""
    with effect():
        await trio.sleep(0.002)
        return n


@task
async def linger(n: int) -> int:
    """Take so long that a stop finds it running."""
    with effect():
        await trio.sleep(0.4)
        return n


# --- Workflows ------------------------------------------------------------------------------------


@workflow(name="kid", version="1.0.0")
async def kid(run: Run, n: int) -> int:
    """Sleep and add."""
    await run.sleep("nap", seconds=0.01)
    return await add(n, 1)


@workflow(name="mixed", version="1.0.0", events=[item])
async def mixed(run: Run, n: int) -> list[Any]:
    """Do a little of everything."""
    first = await add(n, 1)
    second = await flaky(first)
    await run.sleep("nap", seconds=0.02)
    third, fourth = await run.gather(threaded(second), add(second, 1))
    child = await run.start_child(kid, fourth)
    winner, value = await run.race(paid=run.wait(item), late=run.sleep("late", seconds=60))
    return [first, second, third, fourth, await child.result(), winner, value]


@workflow(name="listener", version="1.0.0", events=[item])
async def listener(run: Run, count: int) -> list[int]:
    """Take events one by one, and do something with each."""
    taken: list[int] = []
    for _ in range(count):
        number = await run.wait(item)
        taken.append(await add(number, 0))
    return taken


@workflow(name="broken", version="1.0.0")
async def broken(run: Run, n: int) -> int:
    """Fail after a while."""
    await run.sleep("nap", seconds=0.01)
    return await hopeless(n)


@workflow(name="family", version="1.0.0")
async def family(run: Run, n: int) -> list[Any]:
    """Have children side by side, one of which fails."""
    children = [await run.start_child(kid, n + number) for number in range(3)]
    failing = await run.start_child(broken, n)
    results: list[Any] = list(await run.gather(*(child.result() for child in children)))
    try:
        results.append(await failing.result())
    except ChildFailed:
        results.append("failed")
    return results


@workflow(name="saga", version="1.0.0")
async def saga(run: Run, n: int) -> str:
    """Book twice, fail, and undo both."""
    for what in ("train", "hotel"):
        run.compensate(unbook, f"{what} {n}")
        await book(f"{what} {n}")
        await run.sleep(f"after-{what}", seconds=0.01)
    await hopeless(n)
    return "booked"


@workflow(name="deadline", version="1.0.0", events=[item])
async def deadline(run: Run, n: int) -> str:
    """Wait in vain inside a durable timeout."""
    with run.move_on_after("patience", 0.08):
        number = await run.wait(item)
        return f"got {number}"
    return f"late {await add(n, 0)}"


@workflow(name="vain", version="1.0.0", events=[item])
async def vain(run: Run) -> int:
    """Wait for what never comes."""
    return await run.wait(item)


@workflow(name="doomed", version="1.0.0")
async def doomed(run: Run, depth: int) -> int:
    """Have two children that have two children, all of which wait; it is cancelled."""
    for _ in range(2):
        if depth:
            await run.start_child(doomed, depth - 1, on_parent_end="cancel")
        else:
            await run.start_child(vain, on_parent_end="cancel")
    await run.sleep("until-cancelled", days=1)
    return depth


@workflow(name="endless", version="1.0.0")
async def endless(run: Run, n: int, rounds: int) -> int:
    """Go on as another run, a few times."""
    n = await add(n, 1)
    if rounds:
        return await run.continue_as_new(n, rounds - 1)
    return n


@workflow(name="once", version="1.0.0")
async def once(run: Run, n: int) -> int | str:
    """Make a call that is made once or not at all."""
    try:
        return await charge(n)
    except OutcomeUnknown:
        return "unknown"


@workflow(name="greeter", version="1.0.0")
async def greeter(run: Run, host: str, name: str) -> None:
    """Send an event to another run."""
    await run.send(host, greeting, await book(name))


@workflow(name="host", version="1.0.0", events=[greeting])
async def host(run: Run, n: int) -> list[str]:
    """Be greeted by two other runs."""
    for name in ("ann", "bo"):
        await run.start_child(greeter, run.id, f"{name} {n}")
    return sorted([await run.wait(greeting) for _ in range(2)])


@workflow(name="busy", version="1.0.0")
async def busy(run: Run, n: int) -> int:
    """Be in the midst of a task for long."""
    return await linger(await linger(n))


WORKFLOWS: Final[tuple[AnyWorkflow, ...]] = (
    kid,
    mixed,
    listener,
    broken,
    family,
    saga,
    deadline,
    vain,
    doomed,
    endless,
    once,
    greeter,
    host,
    busy,
)


# --- How each must end ----------------------------------------------------------------------------


@frozen
class Kind:
    """One kind of runs.

    Attributes:
        workflow: what is started.
        args: its arguments, for the n-th run.
        status: how it ends; the status it waits in for ever where `stays`.
        output: what it returns, one of these; empty: that is not looked at.
        items: what it is sent, in this order.
        cancelled: it is cancelled when everything was sent.
        stays: it never ends.
        options: how it is started.

    """

    workflow: AnyWorkflow
    args: Callable[[int], tuple[Any, ...]]
    status: RunStatus = RunStatus.COMPLETED
    output: Callable[[int], tuple[JsonValue, ...]] = lambda _n: ()
    items: Callable[[int], tuple[int, ...]] = lambda _n: ()
    cancelled: bool = False
    stays: bool = False
    options: StartKwargs = field(factory=StartKwargs)

    @property
    def name(self) -> str:
        """The workflow's name."""
        return self.workflow.name


def _mixed_output(n: int) -> tuple[JsonValue, ...]:
    first = n + 1
    second = first * 10
    return ([first, second, second + 100, second + 1, second + 2, "paid", n],)


KINDS: Final[Mapping[str, Kind]] = {
    kind.name: kind
    for kind in (
        Kind(mixed, lambda n: (n,), output=_mixed_output, items=lambda n: (n,)),
        Kind(
            listener,
            lambda _n: (4,),
            output=lambda n: ([n, n + 1, n + 2, n + 3],),
            items=lambda n: (n, n + 1, n + 2, n + 3),
        ),
        Kind(family, lambda n: (n,), output=lambda n: ([n + 1, n + 2, n + 3, "failed"],)),
        Kind(saga, lambda n: (n,), RunStatus.FAILED),
        Kind(deadline, lambda n: (n,), output=lambda n: (f"late {n}",)),
        Kind(doomed, lambda _n: (1,), RunStatus.CANCELLED, cancelled=True),
        Kind(endless, lambda n: (n, 2), output=lambda n: (n + 3,)),
        Kind(once, lambda n: (n,), output=lambda n: (n, "unknown")),
        Kind(host, lambda n: (n,), output=lambda n: ([f"ann {n}", f"bo {n}"],)),
        Kind(vain, lambda _n: (), RunStatus.AWAITING_EVENT, stays=True),
        Kind(
            kid,
            lambda n: (n,),
            output=lambda n: (n + 1,),
            options=StartKwargs(delay=0.05, priority="high"),
        ),
        Kind(busy, lambda n: (n,), output=lambda n: (n,), options=StartKwargs(timeout=60.0)),
    )
}

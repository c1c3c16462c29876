"""The random workload: runs of random programs, and clients that do to them what clients do.

While faults happen, runs are started (twice, with reference ids that name others, delayed, with
timeouts), are sent events (twice), asked, paused, resumed, woken, cancelled, terminated, retried,
forked and watched. When no more faults happen, the operator does what lets every run end.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final

import trio

from aiki_actors import engine as e
from aiki_sdk import AikiError, RunHandle
from aiki_sdk.protocol import OnConflict, Update

from ._disk import short
from ._drawing import draw_program
from ._programs import EVENTS, doubled, go, program

if TYPE_CHECKING:
    from ._simulation import Simulation

QUESTION_MARK: Final = "?"
LOOK_S: Final = 2.0
"""How often the operator looks for runs that wait for somebody."""


async def random_workload(sim: Simulation) -> None:
    """Start runs, interfere with them, and see them end."""
    options = sim.options
    known: list[str] = []
    async with trio.open_nursery() as nursery:
        for number in range(options.runs):
            rng = sim.random(f"client{number}")
            nursery.start_soon(_client, sim, number, rng, known)
        await sim.calm()
        await _operate(sim, nursery)


async def _client(sim: Simulation, number: int, rng: random.Random, known: list[str]) -> None:
    """Start a run and interfere with it, for as long as faults happen."""
    safety_s = sim.options.safety_s
    await trio.sleep(rng.random() * safety_s * 0.7)
    handle = await _start(sim, number, rng, known)
    if handle is None:
        return
    known.append(handle.id)
    async with trio.open_nursery() as nursery:
        if rng.random() < 0.3:
            nursery.start_soon(_watch, sim, handle)
        if rng.random() < 0.3:
            nursery.start_soon(_result, sim, handle)
        for count in range(rng.choice([0, 0, 1, 2, 3, 5])):
            nursery.start_soon(_interfere, sim, rng, handle, f"{number}.{count}")


async def _start(
    sim: Simulation, number: int, rng: random.Random, known: list[str]
) -> RunHandle[Any] | None:
    # A few reference ids name more than one start; the same input makes them the same run.
    reference = f"ref{number if rng.random() < 0.8 else rng.randrange(3)}"
    drawing = random.Random(f"{sim.seed}/{reference}") if rng.random() < 0.8 else rng  # noqa: S311
    steps = draw_program(drawing)
    starter = sim.client.options(
        reference_id=None if rng.random() < 0.1 else reference,
        on_conflict=rng.choice(list(OnConflict)),
        delay=rng.choice([None, None, None, 0.5, 5.0]),
        timeout=rng.choice([None, None, None, 1.0, 30.0]),
    )
    links = [rng.choice(known)] if known and rng.random() < 0.5 else []
    handle: RunHandle[Any] | None = None
    for _ in range(rng.choice([1, 1, 1, 2])):
        try:
            handle = await starter.start(program, steps, links)
        except AikiError as error:
            sim.note(f"start {number} was refused: {type(error).__name__}")
    return handle


async def _watch(sim: Simulation, handle: RunHandle[Any]) -> None:
    """Read a run's updates to its end: each entry once, in order, and durable when it is shown."""
    last = 0
    while True:
        try:
            async for update in handle.updates(after=last):
                last = _check_update(sim, handle.id, last, update)
        except AikiError as error:
            sim.note(f"{short(handle.id)} cannot be watched: {type(error).__name__}")
            if handle.id in sim.disk.rewound:
                return
        oracle = sim.disk.oracles.get(handle.id)
        if oracle is None or handle.id in sim.disk.rewound or oracle.phase.terminal:
            return
        await trio.sleep(0.2)


def _check_update(sim: Simulation, run_id: str, last: int, update: Update) -> int:
    if run_id in sim.disk.rewound:
        return last
    if update.seq > len(sim.disk.journals.get(run_id, [])):
        sim.broken("P10", f"run {run_id}: update {update.seq} was shown before it was durable")
    if update.live:
        return last
    if update.seq != last + 1:
        sim.broken("P10", f"run {run_id}: update {update.seq} was shown after {last}")
    return update.seq


async def _result(sim: Simulation, handle: RunHandle[Any]) -> None:
    """Wait for a run's end."""
    try:
        await handle.result()
    except AikiError as error:
        sim.note(f"{short(handle.id)} ended: {type(error).__name__}")


async def _interfere(
    sim: Simulation, rng: random.Random, handle: RunHandle[Any], name: str
) -> None:
    await trio.sleep(rng.choice([0.05, 0.5, 3.0, 20.0]) * rng.random())
    try:
        await _act(sim, rng, handle, name)
    except AikiError as error:
        sim.note(f"{short(handle.id)} refused {name}: {type(error).__name__}")


async def _act(sim: Simulation, rng: random.Random, handle: RunHandle[Any], name: str) -> None:
    match rng.choice(
        ["send", "send", "send", "ask", "pause", "wake", "cancel", "terminate", "retry", "fork"]
    ):
        case "send":
            for _ in range(rng.choice([1, 1, 2])):
                event = EVENTS[rng.choice(["go", "stop"])]
                reference = rng.choice([name, name, None])
                await handle.send(event, rng.randrange(1000), reference_id=reference)
        case "ask":
            with trio.move_on_after(30):
                answer = await handle.ask(doubled, 21, reference_id=name)
                if answer != 42:
                    sim.broken("P5", f"run {handle.id} answered {answer!r} to 21 doubled")
        case "pause":
            await handle.pause("a test")
            await trio.sleep(rng.random() * 5)
            await handle.resume()
        case "wake":
            await handle.wake()
        case "cancel":
            await handle.cancel("a test")
        case "terminate":
            await handle.terminate("a test")
        case "retry":
            await trio.sleep(rng.random() * 10)
            await handle.retry()
        case _:
            info = await handle.info()
            await handle.fork(rng.randint(1, max(1, info.seq)))


async def _operate(sim: Simulation, clients: trio.Nursery) -> None:
    """Do what runs wait for, until all have ended."""
    number = 0
    while True:
        open_runs = [sim.disk.oracles[run_id] for run_id in sim.disk.going]
        if not open_runs and not clients.child_tasks:
            return
        for oracle in open_runs:
            number += 1
            try:
                handle: RunHandle[Any] = await sim.handle(oracle.run_id)
                await _help(handle, number, oracle.paused, _wanted(oracle.waits))
            except AikiError as error:
                sim.note(f"{short(oracle.run_id)} refused help: {type(error).__name__}")
        # Not in step with the server's own sweeps, which pass over what somebody looks at just now.
        await trio.sleep(LOOK_S * (0.5 + sim.random("operator").random()))


def _wanted(waits: dict[e.Call, Any]) -> str | None:
    """Return the name of an event that nothing but somebody's sending it will bring."""
    for wait in waits.values():
        if wait.kind == "event" and wait.due_at is None:
            name: str = wait.name
            return name
    return None


async def _help(handle: RunHandle[Any], number: int, paused: bool, wanted: str | None) -> None:
    if paused:
        await handle.resume()
    elif wanted is not None and not wanted.startswith(QUESTION_MARK):
        await handle.send(EVENTS.get(wanted, go), number, reference_id=f"help{number}")

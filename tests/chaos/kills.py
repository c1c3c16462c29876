"""Kill tests: at each fault point once, by script; and at random moments, under load."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from functools import partial
from typing import Final

from attrs import evolve

from aiki_actors.faults import FAULT_POINTS

from .processes import Child
from .program import Life, Report
from .scenario import Named, Stage

ROUNDS: Final = 2
"""How often each kind of run is played in a scenario with a scripted kill."""

BEFORE: Final = {
    "recovery.claims": "task.begun:7",
    "run.replayed": "task.done:25",
    "recovery.notices": "notice.owed:2",
}
"""Points that only a process after a crash passes: how the one before it is killed."""

PASSINGS: Final = {
    "schema.migrating": (1, 2),
    "worker.stopping": (1,),
    "run.released": (1,),
    "retention.deleting": (1, 2),
    "recovery.claims": (1, 2),
    "recovery.notices": (1,),
    "run.replayed": (1, 2),
    "control.committed": (1,),
    "queue.offered": (1, 2),
}
"""Passings at which a point is struck, where it is not passed often enough for the usual ones."""

ALONE: Final = frozenset({"queue.offered"})
"""Points that are passed only while a worker has a free slot: one case at a time is played."""

STOPPING: Final = frozenset({"worker.stopping", "run.released"})
"""Points that are passed when a process stops while runs are under way."""

LINGER_S: Final = 2.0
"""How long a process stays that was not killed although it was asked everything."""

USUAL: Final = (1, 3, 8)
POINTS: Final = tuple(point for point in FAULT_POINTS if point.embedded)
"""Points that an embedded runtime passes."""


def scripted(*, every: bool) -> Iterator[Named]:
    """Kill at each fault point: once, or (`every`) at several of its passings."""
    for point in POINTS:
        passings = PASSINGS.get(point.name, USUAL)
        for number in passings if every else passings[:1] if len(passings) < 3 else passings[1:2]:
            plan = f"{point.name}:{number}"
            first = BEFORE.get(point.name)
            plans = (plan,) if first is None else (first, plan)
            life = Life(
                rounds=ROUNDS,
                parallel=1 if point.name in ALONE else Life().parallel,
                linger_s=0.0 if point.name in STOPPING else LINGER_S,
            )
            yield Named(f"kill at {plan}", partial(_killed_at, plans=plans, life=life))


def _killed_at(stage: Stage, *, plans: tuple[str, ...], life: Life) -> Report:
    """Serve under each plan in turn, each of which must kill, and finish."""
    for plan in plans:
        with stage.serve(evolve(life, plan=plan)) as child:
            code = child.wait(20.0)
        stage.expect(code == -signal.SIGKILL, f"{plan} did not kill: the process ended with {code}")
    return stage.finish()


def random_round(stage: Stage, *, seconds: float) -> Report:
    """Serve, and do something to the process every 0.2 to 3 s, for so long; then finish."""
    deadline = time.monotonic() + seconds
    done: dict[str, int] = {}
    while time.monotonic() < deadline:
        what = _one_fault(stage, deadline)
        done[what] = done.get(what, 0) + 1
    stage.notes.append(", ".join(f"{times} times {what}" for what, times in sorted(done.items())))
    return stage.finish()


def _one_fault(stage: Stage, deadline: float) -> str:
    """Let one process live for a while, and end it in one way or another; say in which."""
    chance = stage.chance
    lives_s = min(chance.uniform(0.2, 3.0), max(0.2, deadline - time.monotonic()))
    draw = chance.random()
    if draw < 0.35:
        point = chance.choice([point.name for point in POINTS])
        number = round(2 ** chance.uniform(0, 9))
        with stage.serve(Life(plan=f"{point}:{number}")) as child:
            return "killed at a point" if _ended_by(child, lives_s) else "killed after all"
    with stage.serve() as child:
        if draw < 0.45:
            time.sleep(lives_s / 2)
            child.signal(signal.SIGSTOP)
            time.sleep(chance.uniform(0.05, 0.8))
            child.signal(signal.SIGCONT)
            time.sleep(lives_s / 2)
            return "stopped, continued and killed"
        time.sleep(lives_s)
        if draw < 0.6:
            child.signal(signal.SIGTERM)
            if chance.random() < 0.5:
                stage.expect(child.wait(20.0) == 0, f"SIGTERM led to exit code {child.code}")
                return "told to end"
            time.sleep(chance.uniform(0.0, 0.3))
            return "killed while it ended"
        died = child.poll()
        stage.expect(died is None, f"a process ended by itself, with code {died}")
    return "killed"


def _ended_by(child: Child, within_s: float) -> bool:
    """Tell whether a child ended by itself in time."""
    deadline = time.monotonic() + within_s
    while child.poll() is None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True

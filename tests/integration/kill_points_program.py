"""A program that is killed: at every write of its journal, right before and right after it.

Run as `python kill_points_program.py FOLDER`. Everything is imported once; each life of the run is
then a fork of this process, so that hundreds of kills take seconds. A life is killed by SIGKILL at
its n-th `Storage.append`, and the next one goes on with the same file. Prints what it did; the exit
code is 1 if a promise was broken.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import trio

from aiki_actors import engine as e
from aiki_actors.storage import AppendResult, Change, SqliteSettings, Storage, open_sqlite
from aiki_actors.worker import idempotency_key
from aiki_sdk import Event, Retry, current_task, task, workflow
from aiki_sdk._run import Run
from aiki_trio import RuntimeSettings
from aiki_trio._runtime import open_runtime

pay = Event("pay", int)
effects = Path()


def effect() -> int:
    """Leave a trace of a task that has ended, which a kill cannot take back; return the attempt."""
    context = current_task()
    with effects.open("a") as file:
        file.write(f"{context.idempotency_key} {context.attempt}\n")
    return context.attempt


def effect_lines() -> list[str]:
    """Return the traces that all lives have left so far."""
    return effects.read_text().splitlines() if effects.exists() else []


@task
async def add(n: int) -> int:
    """Return n + 1."""
    effect()
    return n + 1


@task(retry=Retry.fixed(3, 0.12))
async def flaky(n: int) -> int:
    """Fail once, with a delay that is a wait of the run."""
    if effect() == 1:
        message = "the first attempt"
        raise ConnectionError(message)
    return n * 10


@task
def threaded(n: int) -> int:
    """Return n + 100, in a thread."""
    effect()
    return n + 100


@workflow(name="kid", version="1.0.0")
async def kid(run: Run, n: int) -> int:
    """Sleep and add."""
    await run.sleep("nap", seconds=0.01)
    return await add(n)


@workflow(name="small", version="1.0.0", events=[pay])
async def small(run: Run, n: int) -> list[Any]:
    """Do a little of everything."""
    first = await add(n)
    second = await flaky(first)
    await run.sleep("nap", seconds=0.01)
    third, fourth = await run.gather(threaded(second), add(second))
    child = await run.start_child(kid, fourth)
    winner, paid = await run.race(paid=run.wait(pay), late=run.sleep("late", seconds=30))
    return [first, second, third, fourth, await child.result(), winner, paid]


EXPECTED = [2, 20, 120, 21, 22, "paid", 7]
SETTINGS = RuntimeSettings(blocked_after=None, sqlite=SqliteSettings(synchronous="normal"))


def kill_at(kind: Any, number: int, *, after: bool) -> None:
    """Kill this process at the n-th write to a storage of this kind."""
    append = kind.append
    count = 0

    async def counted(self: Any, changes: Sequence[Change]) -> list[AppendResult]:
        nonlocal count
        count += 1
        if count == number and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        results: list[AppendResult] = await append(self, changes)
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return results

    kind.append = counted


async def finished(storage: Storage) -> set[str]:
    """Return the keys of the task calls that have an outcome, and check every journal."""
    from aiki_actors.storage import RunFilter

    keys: set[str] = set()
    page = await storage.runs(RunFilter("default"), limit=100)
    for row in page.runs:
        entries = await storage.journal(row.run_id)
        state = e.fold(row.run_id, entries)
        assert state.seq == len(entries)
        for entry in entries:
            if isinstance(entry.body, e.TaskSucceeded | e.TaskFailed):
                keys.add(idempotency_key(row.run_id, entry.body.call))
    return keys


async def live(path: Path, number: int, after: bool) -> None:
    """Live once, from whatever is in the file; `number` 0: to the end."""
    async with open_sqlite(path, SETTINGS.sqlite) as storage:
        before = await finished(storage)
        if number:
            kill_at(type(storage), number, after=after)
    lines = effect_lines()
    async with open_runtime(
        f"sqlite:///{path}", workflows=[small, kid], settings=SETTINGS
    ) as runtime:
        handle = await runtime.client.options(reference_id="one").start(small, 1)
        await handle.send(pay, 7, reference_id="one")
        with trio.fail_after(20):
            result = await handle.result()
        assert result == EXPECTED, result
    done = {line.split()[0] for line in effect_lines()[len(lines) :]}
    assert not before & done, f"finished tasks ran again: {before & done}"
    async with open_sqlite(path, SETTINGS.sqlite) as storage:
        await finished(storage)


def life(path: Path, number: int, *, after: bool) -> bool:
    """Live in a fork; return whether it was killed."""
    child = os.fork()
    if child == 0:
        try:
            trio.run(partial(live, path, number, after))
        except BaseException:  # noqa: BLE001  (this fork must not go on in its parent's code)
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    _pid, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL, status
        return True
    assert os.WEXITSTATUS(status) == 0, f"a promise was broken at write {number}, after={after}"
    return False


def main(folder: Path) -> None:
    """Kill at every write: once before and once after it, and again in the life after that."""
    global effects  # noqa: PLW0603
    kills = 0
    for after in (False, True):
        number = 0
        killed = True
        while killed:
            number += 1
            path = folder / f"{number}-{after}.db"
            effects = folder / f"{number}-{after}.txt"
            killed = life(path, number, after=after)
            kills += killed
            # The life after is killed as well, at a write that moves on with the first.
            kills += killed and life(path, 1 + number % 7, after=not after)
            life(path, 0, after=False)
    sys.stdout.write(f"{kills} kills\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

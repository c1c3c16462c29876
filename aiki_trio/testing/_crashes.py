"""`crash_everywhere`: kill the runtime at every durable write in turn, and compare how runs end.

One run without a kill counts the writes. Then, for each write, two more: killed just before it
reaches the disk (what was done but not recorded is done again) and just after (what is recorded
must not be done again, though nobody was told). Every run is a world of its own, with its own disk.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeGuard, cast

import trio
from attrs import Factory, define, field, frozen

from aiki_actors import engine as e
from aiki_actors.storage import RunFilter, Storage
from aiki_actors.worker._attempt import idempotency_key
from aiki_sdk import AnyWorkflow, Duration, Event, InvalidRequest, JsonValue, RunHandle, dumps
from aiki_sdk._durations import seconds
from aiki_sdk.protocol import Outcome, RunStatus

from ._disk import KillPlan
from ._kit import Aiki
from ._run import run

REFERENCE: Final = "crash-everywhere"
SHOWN_MAX: Final = 10
"""Kills that a failure lists."""

Sending = tuple[Event[Any], Any] | tuple[Duration, Event[Any], Any]
"""An event to send: `(event, data)` right after the start, or `(delay, event, data)`."""


class OutcomeDiffers(AssertionError):
    """A run ended otherwise after a crash, or did again what it had completed."""


@frozen
class EndState:
    """How a run ended, as far as it must not depend on crashes."""

    status: RunStatus
    output: JsonValue
    error_type: str | None
    error_message: str | None
    reason: str | None

    def __str__(self) -> str:
        if self.error_type is not None:
            return f"{self.status} with {self.error_type}: {self.error_message}"
        if self.status is RunStatus.COMPLETED:
            return f"{self.status} with {dumps(self.output).decode().strip()}"
        return f"{self.status}{f': {self.reason}' if self.reason else ''}"


@frozen
class CrashReport:
    """What `crash_everywhere` did.

    Attributes:
        outcome: how every one of the runs ended.
        writes: durable writes of the run without a crash.
        kills: how often the runtime was killed, each time in a world of its own.

    """

    outcome: EndState
    writes: int
    kills: int


@define(eq=False)
class _Trial:
    """One world: a run of the workflow, killed as planned."""

    storage: str
    workflow: AnyWorkflow
    args: tuple[Any, ...]
    sendings: Sequence[tuple[float, Event[Any], Any]]
    setup: Callable[[Aiki], object] | None
    plan: KillPlan
    end: EndState | None = field(default=None, init=False)
    repeated: list[str] = field(factory=lambda: list[str](), init=False)
    _completed: set[str] = field(factory=lambda: set[str](), init=False)

    async def carry_out(self) -> None:
        """Start the run, send it its events, and see how it ends."""
        aiki = Aiki(self.storage, plan=self.plan, between_lives=self._note_completed)
        if self.setup is not None:
            self.setup(aiki)
        async with aiki:
            aiki.register(self.workflow)
            starter = aiki.client.options(reference_id=REFERENCE)
            handle = await starter.start(self.workflow, *self.args)
            async with trio.open_nursery() as nursery:
                for number, sending in enumerate(self.sendings):
                    nursery.start_soon(self._send, handle, number, *sending)
                self.end = await self._ended(aiki, handle)
                nursery.cancel_scope.cancel()
        self.repeated = [
            f"task {call.task!r} (attempt {call.attempt})"
            for call in aiki.all_calls
            if call.life > 1 and call.idempotency_key in self._completed
        ]

    async def _send(
        self, handle: RunHandle[Any], number: int, delay_s: float, event: Event[Any], data: Any
    ) -> None:
        await trio.sleep(delay_s)
        await handle.send(event, data, reference_id=f"{REFERENCE}-{number}")

    async def _ended(self, aiki: Aiki, handle: RunHandle[Any]) -> EndState:
        run_id = handle.id
        while True:
            outcome: Outcome | None = await aiki.port.result(run_id, wait_s=None)
            if outcome is None:
                continue
            if outcome.continued_as is not None:
                run_id = outcome.continued_as
                continue
            error = outcome.error
            return EndState(
                outcome.status,
                outcome.output,
                None if error is None else error.type,
                None if error is None else error.message,
                outcome.reason,
            )

    async def _note_completed(self, storage: Storage) -> None:
        """Note which calls are recorded as successful: those must not run again."""
        cursor: str | None = None
        while True:
            page = await storage.runs(RunFilter("default"), limit=500, cursor=cursor)
            for row in page.runs:
                for entry in await storage.journal(row.run_id):
                    if isinstance(entry.body, e.TaskSucceeded):
                        self._completed.add(idempotency_key(row.run_id, entry.body.call))
            cursor = page.cursor
            if cursor is None:
                return


@define(eq=False)
class _Comparison:
    """The expected end, and what differed from it."""

    expected: EndState
    problems: list[str] = Factory(lambda: list[str]())

    def look_at(self, trial: _Trial) -> None:
        """Compare one trial with the run that nobody killed."""
        plan = trial.plan
        when = "before" if plan.before else "after"
        where = f"killed {when} write {plan.at} ({plan.killed})"
        if trial.end != self.expected:
            self.problems.append(f"{where}:\n    it ended as {trial.end}")
        for repeated in dict.fromkeys(trial.repeated):
            self.problems.append(f"{where}:\n    {repeated} was recorded as done, and ran again")

    def check(self, kills: int) -> None:
        """Raise what was found."""
        if not self.problems:
            return
        lines = [
            f"{len(self.problems)} of {kills} crashes showed in the result.",
            f"Without a crash the run ended as {self.expected}.",
            *self.problems[:SHOWN_MAX],
        ]
        if len(self.problems) > SHOWN_MAX:
            lines.append(f"… and {len(self.problems) - SHOWN_MAX} more")
        lines.append(
            "A task may run again if its result was not recorded: make its effect idempotent "
            "(`current_task().idempotency_key`). Workflow code runs again in every life: it must "
            "take time, chance and data from `run` and from tasks alone."
        )
        raise OutcomeDiffers("\n".join(lines))


def crash_everywhere(
    workflow: AnyWorkflow,
    *args: Any,
    events: Sequence[Sending] = (),
    storage: str = "memory://",
    setup: Callable[[Aiki], object] | None = None,
) -> CrashReport:
    """Kill the runtime before and after each durable write of a run, and require the same end.

    A plain function, for plain tests; inside Trio it works too, and blocks the loop meanwhile. The
    workflow is run twice per write plus once, so tasks with real effects want a mock.

    Args:
        workflow: what to run.
        args: its positional arguments.
        events: what to send it: `(event, data)` at the start, or `(delay, event, data)`.
        storage: `memory://`, `sqlite://` (in memory) or `sqlite:///name.db`: a file in a fresh
            temporary folder for every run.
        setup: called with the kit before each run: the place for `aiki.mock` and `aiki.fail`.

    Raises:
        OutcomeDiffers: naming the writes at which a kill changed how the run ended, or made a task
            run again that was recorded as done.
        InvalidRequest: what is wrong with an event.
    """
    sendings = [_sending(given) for given in events]

    def carried_out(plan: KillPlan) -> _Trial:
        with _disk(storage) as url:
            trial = _Trial(url, workflow, args, sendings, setup, plan)
            run(trial.carry_out)
        return trial

    clean = carried_out(KillPlan())
    assert clean.end is not None, "a trial ends with how the run ended, or raises"
    comparison = _Comparison(clean.end)
    kills = 0
    for at in range(1, clean.plan.writes + 1):
        for before in (True, False):
            trial = carried_out(KillPlan(at, before))
            if trial.plan.killed is not None:
                kills += 1
                comparison.look_at(trial)
    comparison.check(kills)
    return CrashReport(clean.end, clean.plan.writes, kills)


def _sending(given: Sending) -> tuple[float, Event[Any], Any]:
    parts = cast("tuple[Any, ...]", given)
    if len(parts) == 2:
        parts = (0.0, *parts)
    event: object = parts[1] if len(parts) == 3 else None
    if _is_event(event):
        return seconds("delay", parts[0]), event, parts[2]
    message = f"{given!r} is not valid in events=: pass (event, data) or (delay, event, data)"
    raise InvalidRequest(message)


def _is_event(value: object) -> TypeGuard[Event[Any]]:
    return isinstance(value, Event)


@contextmanager
def _disk(storage: str) -> Generator[str]:
    """Give a world a disk of its own."""
    if not storage.startswith("sqlite:///"):
        yield storage
        return
    with tempfile.TemporaryDirectory(prefix="aiki-") as folder:
        yield f"sqlite:///{Path(folder) / Path(storage.removeprefix('sqlite:///')).name}"

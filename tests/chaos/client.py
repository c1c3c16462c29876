"""The load: a client that starts runs, sends them events, cancels some, and notes what it is told.

What is noted was acknowledged; it is never asked for again. What was asked for and not acknowledged
(the process was killed in between, or the answer was an error) is asked for again under the same
reference id, by this client or by the one in the next process.

Invariant: a record is appended only after the call that it tells of has returned.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, Final, TypeVar

import trio
from attrs import Factory, define

from aiki_sdk import (
    AikiError,
    Client,
    NotFound,
    ResultTimeout,
    RunCancelled,
    RunEnded,
    RunFailed,
    RunHandle,
    Unavailable,
)
from aiki_sdk.client import StartKwargs
from aiki_sdk.protocol import RunStatus

from .records import Record, RecordLog
from .workload import KINDS, Kind, item

LOGGER: Final = logging.getLogger("tests.chaos")

AGAIN_S: Final = 0.05
T = TypeVar("T")


@define(eq=False)
class Memory:
    """What earlier processes were told, by reference id."""

    started: dict[str, str] = Factory(lambda: dict[str, str]())
    sent: set[str] = Factory(lambda: set[str]())
    cancelled: set[str] = Factory(lambda: set[str]())
    cases: dict[str, int] = Factory(lambda: dict[str, int]())
    """Per kind, how many cases were begun (acknowledged or not)."""

    @classmethod
    def of(cls, records: Iterable[Record]) -> Memory:
        """Read what was noted."""
        memory = cls()
        for record in records:
            reference = str(record["ref"])
            match record["what"]:
                case "begin":
                    kind, number = str(record["kind"]), record["n"]
                    assert isinstance(number, int), record
                    memory.cases[kind] = max(memory.cases.get(kind, 0), number + 1)
                case "start":
                    memory.started[reference] = str(record["run"])
                case "send":
                    memory.sent.add(str(record["reference"]))
                case "cancel":
                    memory.cancelled.add(reference)
                case _:
                    message = f"{record!r} is no acknowledgement; the file is not ours"
                    raise ValueError(message)
        return memory

    def unfinished(self) -> Iterator[tuple[Kind, int]]:
        """Yield the cases of which something was not acknowledged."""
        for name, count in self.cases.items():
            kind = KINDS[name]
            for number in range(count):
                if not self.told_all(kind, number):
                    yield kind, number

    def told_all(self, kind: Kind, number: int) -> bool:
        """Tell whether nothing is left to be asked for a case."""
        reference = reference_of(kind, number)
        items = range(len(kind.items(number)))
        return (
            reference in self.started
            and all(f"{reference}/{place}" in self.sent for place in items)
            and (reference in self.cancelled or not kind.cancelled)
        )


def reference_of(kind: Kind, number: int) -> str:
    """Return the reference id of the n-th run of a kind."""
    return f"{kind.name}-{number}"


@define(eq=False)
class LoadClient:
    """Plays cases against one runtime.

    Attributes:
        memory: what was acknowledged so far, by this client as well.
        acknowledged: where acknowledgements go.
        refused: answers that were errors, by their class; each was asked again.

    """

    client: Client
    memory: Memory
    acknowledged: RecordLog
    refused: dict[str, int] = Factory(lambda: dict[str, int]())

    async def play(self, kind: Kind, number: int) -> None:
        """Ask for everything of one case that was not acknowledged yet."""
        reference = reference_of(kind, number)
        names = {"kind": kind.name, "n": number, "ref": reference}
        if number >= self.memory.cases.get(kind.name, 0):
            self.memory.cases[kind.name] = number + 1
            self.acknowledged.append(what="begin", **names)
        run_id = self.memory.started.get(reference)
        if run_id is None:
            options: StartKwargs = {**kind.options, "reference_id": reference}
            starter = self.client.options(**options)
            started = await self._insist(lambda: starter.start(kind.workflow, *kind.args(number)))
            run_id = self.memory.started[reference] = started.id
            self.acknowledged.append(what="start", run=run_id, **names)
        handle = await self._insist(lambda: self.client.get(run_id))
        for place, data in enumerate(kind.items(number)):
            await self._send(handle, f"{reference}/{place}", data, names)
        if kind.cancelled and reference not in self.memory.cancelled:
            with trio.move_on_after(0.05), suppress(RunEnded):
                await handle.wait([RunStatus.SLEEPING])
            await self._insist(lambda: handle.cancel("chaos"))
            self.memory.cancelled.add(reference)
            self.acknowledged.append(what="cancel", run=run_id, **names)

    async def see_end(self, kind: Kind, number: int, within_s: float) -> None:
        """Wait for the end of a case that ends, so that no more are under way than are played."""
        if not kind.stays:
            run_id = self.memory.started[reference_of(kind, number)]
            handle = await self._insist(lambda: self.client.get(run_id))
            # Not found: it goes on as another run, whose creation is owed (after a crash, say).
            with suppress(RunFailed, RunCancelled, ResultTimeout, Unavailable, NotFound):
                await handle.result(within_s)

    async def _send(
        self, handle: RunHandle[Any], reference: str, data: int, names: dict[str, Any]
    ) -> None:
        if reference in self.memory.sent:
            return
        await self._insist(lambda: handle.send(item, data, reference_id=reference))
        self.memory.sent.add(reference)
        self.acknowledged.append(
            what="send", run=handle.id, event=item.name, data=data, reference=reference, **names
        )

    async def _insist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask until there is an answer; what is refused for good is an error of the rig."""
        while True:
            try:
                return await ask()
            except AikiError as error:
                name = type(error).__name__
                self.refused[name] = self.refused.get(name, 0) + 1
                if not error.retryable:
                    raise
                LOGGER.info("asking again: %s", error)
                await trio.sleep(AGAIN_S)

"""What a worker and a server say to each other about runs, whatever lies between them.

In one process these are method calls; over a websocket they are frames. Everything a server tells
a worker about a run is journal entries in order of seq; everything a worker tells a server is
commands under a claim. Both sides survive hearing a thing twice.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import Any, Protocol

from attrs import frozen

from aiki_actors.engine import ClaimRef, Entry, WorkerCommand
from aiki_sdk import JsonValue


@frozen
class Assignment:
    """A run this worker now holds the claim of, with the entries it has not seen yet."""

    run_id: str
    claim: ClaimRef
    entries: tuple[Entry, ...]


class WorkerInbox(Protocol):
    """What a server tells a worker; none of these blocks or raises."""

    def assign(self, assignment: Assignment) -> None:
        """Execute a run, or go on with one that is kept warm."""
        ...

    def push(self, run_id: str, entries: tuple[Entry, ...]) -> None:
        """Something happened to a run that this worker executes."""
        ...

    def drop(self, run_id: str, reason: str) -> None:
        """The claim of a run does not count any more: end its execution at once."""
        ...

    def cool(self, run_id: str) -> None:
        """A parked run goes on elsewhere, or has ended: keep it warm no more."""
        ...

    def forget_warm(self) -> None:
        """Nobody knows of the runs that are kept warm here any more: keep none of them."""
        ...


class ServerPort(Protocol):
    """What a worker asks of a server."""

    def submit(
        self, run_id: str, commands: tuple[WorkerCommand, ...]
    ) -> Coroutine[Any, Any, tuple[Entry, ...]]:
        """Carry out commands in order, as one change; return the durable entries they made.

        Once it has begun this is not cancelled: whatever asks for that, it returns or raises what
        became of the commands, within the server's own deadlines.

        Raises:
            StaleClaim: the claim does not count any more: drop the run without side effects.
            AikiError: the first command that was refused; what stands before it took effect.

        """
        ...

    async def reclaim(self, run_id: str) -> None:
        """Ask for the claim of a parked run whose code goes on by itself; it is pushed."""
        ...

    def lost(self, run_id: str, epoch: int, reason: str) -> None:
        """Say that the execution under this claim broke down; the run is to be claimed again."""
        ...

    def progress(self, run_id: str, kind: str, body: Mapping[str, JsonValue]) -> None:
        """Show something to whoever watches the run; never waits, and nothing of it is kept."""
        ...

    def join(self) -> None:
        """Take runs from now on, as many as the worker's settings say."""
        ...

    def leave(self) -> None:
        """Take no more runs."""
        ...

    def dropped(self, run_id: str) -> None:
        """Say that a parked run is not kept warm any more."""
        ...

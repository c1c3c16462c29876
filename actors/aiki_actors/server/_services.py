"""What every run actor needs of the rest of the runtime, and the messages that it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from attrs import define, frozen

from aiki_actors import engine as e
from aiki_actors.kernel import ActorRef, Reply
from aiki_actors.storage import Storage
from aiki_sdk import AikiError, JsonValue
from aiki_sdk.protocol import Outcome, RunInfo

from ._dispatcher import Dispatcher
from ._hub import Hub
from ._storage_actor import Write


class TimersPort(Protocol):
    """Wakes runs when something of them is due."""

    def set(self, run_id: str, due_at: e.Micros) -> None:
        """Wake the run at that time."""
        ...

    def clear(self, run_id: str) -> None:
        """Nothing of the run is due any more."""
        ...


@define(eq=False)
class Services:
    """The parts of the runtime that run actors use."""

    storage: Storage
    writer: ActorRef[Write]
    hub: Hub[Outcome]
    timers: TimersPort
    dispatcher: Dispatcher
    now: Callable[[], e.Micros]
    limits: e.EngineLimits
    deliver: Callable[[e.Notice], None]
    check_event: Callable[[e.RunCreated, e.AcceptEvent], AikiError | None]


Entries = tuple[e.Entry, ...]


@frozen
class Do:
    """Carry one command out; `notice` is settled with it, `warm` goes with a claim.

    `namespace`: whose the run must be, for commands of clients; another's is not found.
    `pulled`: a worker asks for this claim by itself, having come by a message.
    """

    command: e.Command
    reply: Reply[Entries] | None = None
    notice: e.Notice | None = None
    namespace: str | None = None
    supersedes: str | None = None
    warm: bool = False
    pulled: bool = False


@frozen
class Submit:
    """Carry a worker's commands out, as one change."""

    commands: tuple[e.WorkerCommand, ...]
    reply: Reply[Entries]


@frozen
class View:
    """Describe the run; None if it does not exist."""

    reply: Reply[RunInfo | None]


@frozen
class Ending:
    """How a run ended, None if it has not; and whose it is."""

    namespace: str
    outcome: Outcome | None


@frozen
class ViewEnd:
    """Say how the run ended; None if it does not exist. Cheaper than describing it."""

    reply: Reply[Ending | None]


@frozen
class Show:
    """Show something of the run to whoever watches it; nothing of it is kept."""

    kind: str
    body: Mapping[str, JsonValue]
    reply: None = None


RunMessage = Do | Submit | View | ViewEnd | Show

"""What is said in a session, as values; `_codec.py` writes and reads them.

Everything here may be heard once only (the link sees to that), and in the order in which it was
said. A session that could not be resumed begins anew: then the worker first names its claims.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from attrs import frozen

from aiki_actors.engine import ClaimRef, Entry, WorkerCommand
from aiki_sdk import JsonValue

# --- The worker's --------------------------------------------------------------------------------


@frozen
class Submitted:
    """Carry out commands as one change, and answer under this number."""

    number: int
    run_id: str
    claim: ClaimRef
    commands: tuple[WorkerCommand, ...]


@frozen
class Reclaim:
    """Give the claim of a parked run back to this worker, whose code goes on; answer."""

    number: int
    run_id: str


@frozen
class Claim:
    """A message of the queue led here: give this worker the claim of the run, and answer.

    The answer has no entries; the assignment follows it.
    """

    number: int
    run_id: str


@frozen
class Poisoned:
    """A run's message was delivered too often: take the run out of delivery, and answer."""

    number: int
    run_id: str
    deliveries: int


@frozen
class Pulls:
    """Whether the worker takes runs from a message queue; if so, it is handed only warm ones."""

    pulls: bool


@frozen
class MessagesLost:
    """Messages of the queue are lost: what is published there is to be looked after now."""


@frozen
class Broken:
    """The execution under this claim broke down."""

    run_id: str
    epoch: int
    reason: str


@frozen
class Dropped:
    """A parked run is not kept warm any more."""

    run_id: str


@frozen
class Progress:
    """Show something to whoever watches the run."""

    run_id: str
    kind: str
    body: Mapping[str, JsonValue]


@frozen
class Announce:
    """Workflows that the worker has the code of, as definitions in JSON."""

    definitions: tuple[JsonValue, ...]


@frozen
class Holds:
    """In a session that begins anew: a claim that the worker holds, and how far it has heard.

    `claimed_seq` is the seq of the entry that made the claim, `seq` of the last one it knows.
    """

    run_id: str
    claim: ClaimRef
    claimed_seq: int
    seq: int


@frozen
class Serve:
    """Give the worker runs from now on: of these workflows, from these pools, so many at once."""

    workflows: tuple[tuple[str, str], ...]
    pools: tuple[str, ...]
    slots: int


@frozen
class Slots:
    """How many runs the worker can hold from now on; 0: it takes no more."""

    slots: int


@frozen
class Beating:
    """Claims that the worker holds, said with a heartbeat: which of them do not count?"""

    claims: tuple[tuple[str, int], ...]


@frozen
class Goodbye:
    """The worker has ended; what it still holds is lost at once."""


# --- The server's --------------------------------------------------------------------------------


@frozen
class Done:
    """A submission took effect, with these entries."""

    number: int
    entries: tuple[Entry, ...]


@frozen
class Refused:
    """A submission was refused."""

    number: int
    code: str
    message: str
    details: Mapping[str, JsonValue]


@frozen
class Assigned:
    """Execute a run; its entries come in several of these, the last of which says so."""

    run_id: str
    claim: ClaimRef
    entries: tuple[Entry, ...]
    last: bool


@frozen
class Pushed:
    """Something happened to a run that the worker executes."""

    run_id: str
    entries: tuple[Entry, ...]


class Held(StrEnum):
    """What has become of a claim that a worker named."""

    HELD = "held"
    """It counts; the entries are those that the worker has not seen."""
    OVER = "over"
    """It has ended with the last of the entries."""
    LOST = "lost"
    """It does not count, and it is not known why."""


@frozen
class Answered:
    """What has become of a claim."""

    run_id: str
    epoch: int
    held: Held
    entries: tuple[Entry, ...]


@frozen
class Gone:
    """Claims that do not count any more: their executions are to be ended at once."""

    claims: tuple[tuple[str, int], ...]


@frozen
class Cold:
    """A parked run goes on elsewhere, or has ended: it is not to be kept warm any more."""

    run_id: str


WorkerMessage = (
    Submitted
    | Reclaim
    | Claim
    | Poisoned
    | Pulls
    | MessagesLost
    | Broken
    | Dropped
    | Progress
    | Announce
    | Holds
    | Serve
    | Slots
    | Beating
    | Goodbye
)
ServerMessage = Done | Refused | Assigned | Pushed | Answered | Gone | Cold

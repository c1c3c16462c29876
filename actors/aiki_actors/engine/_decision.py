"""What a decision is, and the few rules that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from attrs import frozen

from . import _entries as e  # pyright: ignore[reportPrivateUsage]
from ._entries import Body, Micros
from ._limits import DEFAULT_LIMITS, EngineLimits
from ._state import RunState, status_of
from ._transitions import Phase


@frozen
class Rejected:
    """Why a command is refused: a stable code and a sentence for people."""

    code: str
    message: str


@frozen
class ClaimOffer:
    """A worker with a free slot that takes the run at once, should it become ready."""

    worker_id: str
    claim_id: str


@frozen
class Circumstances:
    """What a decision depends on besides the run itself."""

    now: Micros
    offer: ClaimOffer | None = None
    limits: EngineLimits = DEFAULT_LIMITS


QUESTION_MARK: Final = "?"
"""Before its name, it makes a mailbox that of a question."""

Decision = tuple[Body, ...] | Rejected
Rule = Callable[[RunState, Any, Circumstances], Decision]
NOTHING: Final[tuple[Body, ...]] = ()


def illegal(state: RunState, what: str, instead: str = "") -> Rejected:
    """Refuse a command because of the run's status, which the message names."""
    hint = f"; {instead}" if instead else ""
    message = f"cannot {what} run {state.run_id}: it is {status_of(state)}{hint}"
    return Rejected("illegal-transition", message)


def undeclared(state: RunState, mailbox: str, what: str) -> Rejected:
    """Refuse an event or a question (its name begins with a mark) that nobody declared."""
    name = mailbox.removeprefix(QUESTION_MARK)
    asked = name != mailbox
    kind = "question" if asked else "event"
    known = [n for n in state.spec.events or () if n.startswith(QUESTION_MARK) == asked]
    names = ", ".join(n.removeprefix(QUESTION_MARK) for n in known) or "none"
    message = (
        f"{kind} {name!r} {what}, but workflow {state.spec.workflow!r} declares no such {kind}; "
        f"it declares: {names}; add it to {kind}s=[…]"
    )
    return Rejected(f"unknown-{kind}", message)


def become_ready(state: RunState, reason: str, by: Circumstances) -> tuple[Body, ...]:
    """Return the entry that makes a waiting or scheduled run ready: claimed at once, or queued."""
    if by.offer is not None and not state.paused:
        return (e.RunClaimed(by.offer.worker_id, state.epoch + 1, by.offer.claim_id),)
    return (e.RunQueued(reason),)


def wake(state: RunState, resolved: tuple[Body, ...], reason: str, by: Circumstances) -> Decision:
    """Add to resolved waits what makes a parked run ready; a running one just goes on."""
    if resolved and state.phase is Phase.WAITING:
        return (*resolved, *become_ready(state, reason, by))
    return resolved

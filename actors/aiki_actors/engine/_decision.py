"""What a decision is, and the few rules that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from attrs import Factory, frozen

from aiki_sdk import JsonValue

from . import _entries as e  # pyright: ignore[reportPrivateUsage]
from ._entries import Body, Micros
from ._limits import DEFAULT_LIMITS, EngineLimits
from ._state import RunState, status_of
from ._transitions import Phase


@frozen
class Rejected:
    """Why a command is refused: a stable code, a sentence for people, its facts for programs."""

    code: str
    message: str
    details: Mapping[str, JsonValue] = Factory(lambda: dict[str, JsonValue]())


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
    return forbidden(state, what, message)


def forbidden(state: RunState, what: str, message: str) -> Rejected:
    """Refuse what the run's status forbids; a run that has ended is told apart."""
    code = "run-ended" if state.phase.terminal else "illegal-transition"
    details = {"command": what, "status": str(status_of(state)), "run_id": state.run_id}
    return Rejected(code, message, details)


def _mailbox(mailbox: str) -> tuple[str, str]:
    """Return whether a mailbox is that of an `event` or a `question`, and the name of that."""
    name = mailbox.removeprefix(QUESTION_MARK)
    return ("event" if name == mailbox else "question"), name


def mailbox_words(mailbox: str) -> str:
    """Name what is sent to a mailbox: `event 'paid'`, `question 'status'`."""
    kind, name = _mailbox(mailbox)
    return f"{kind} {name!r}"


def undeclared(state: RunState, mailbox: str, what: str) -> Rejected:
    """Refuse an event or a question (its name begins with a mark) that nobody declared."""
    kind, name = _mailbox(mailbox)
    asked = kind == "question"
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

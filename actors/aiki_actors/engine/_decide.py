"""`decide`: is this command legal now, and what has happened because of it?

All the rules of runs live here and nowhere else: which command is legal in which phase, what a
wait, an event, a retry or a cancellation means, in which order entries follow. No I/O, no clock,
no randomness: time, chance and the worker that could take the run at once come as arguments.

A decision is a tuple of entry bodies (empty: the command already took effect, or means nothing
here) or a `Rejected` that says why not; a refusal leaves the journal untouched. `decide` never
changes the state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from . import _commands as c  # pyright: ignore[reportPrivateUsage]
from ._decide_client import CLIENT_RULES
from ._decide_worker import WORKER_RULES, stale
from ._decision import Circumstances, ClaimOffer, Decision, Rejected, Rule
from ._entries import Micros
from ._limits import DEFAULT_LIMITS, EngineLimits
from ._state import RunState
from ._transitions import Phase

RULES: Final[Mapping[type[Any], Rule]] = {**CLIENT_RULES, **WORKER_RULES}
"""One rule per command; the type checker cannot pair them, a test does."""


def decide(
    state: RunState,
    command: c.Command | c.WorkerCommand,
    now: Micros,
    *,
    offer: ClaimOffer | None = None,
    limits: EngineLimits = DEFAULT_LIMITS,
) -> Decision:
    """Return the entries that `command` means for the run at `now`, or why it is refused.

    Args:
        state: the run; not changed.
        command: what is asked.
        now: the time of the decision.
        offer: a worker that takes the run at once if it becomes ready; None: it is queued.
        limits: the bounds to hold.

    """
    rule = RULES[type(command)]
    if state.phase is Phase.NEW and not isinstance(command, c.CreateRun | c.ForkRun):
        return Rejected("not-found", f"run {state.run_id} does not exist")
    if isinstance(command, c.WorkerCommand) and stale(state, command):
        message = (
            f"the claim (epoch {command.claim.epoch}) on run {state.run_id} is not held any more; "
            "drop the run"
        )
        return Rejected("stale-claim", message)
    return rule(state, command, Circumstances(now, offer, limits))

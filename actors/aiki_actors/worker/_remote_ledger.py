"""What a remote worker holds and has said: its claims, and submissions without an answer yet.

Plain state, changed by what the session brings. A claim is noted when its assignment comes, and
struck off by the entry that ends it, in whichever message that stands.

Invariant: every open submission is under a claim that counts, or is the wish to have one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from attrs import Factory, define, field

from aiki_actors import engine as e
from aiki_actors.kernel import Reply
from aiki_actors.session import CLAIM_ENDS
from aiki_sdk import AikiError, JsonValue, StaleClaim

Entries = tuple[e.Entry, ...]

_OWN_ENDS: Final[Mapping[type[e.WorkerCommand], tuple[type[e.Body], ...]]] = {
    e.ParkRun: (e.RunParked,),
    e.ReleaseClaim: (e.ClaimReleased,),
    e.CompleteRun: (e.RunCompleted,),
    e.FailRun: (e.RunFailed, e.RunAttemptFailed, e.RunCancelled),
    e.ContinueRun: (e.RunContinued, e.RunCancelled),
    e.Diverge: (e.RunFailed, e.RunStalled),
    e.FinishCancel: (e.RunCancelled,),
}
"""The entries by which a worker's own command ends its claim."""


@define(eq=False)
class Claimed:
    """A claim that counts, as far as the worker can know.

    Attributes:
        claimed_seq: seq of the entry that made it.
        seq: of the last entry of the run that was heard without a gap.
        confirmed: whether the server knows of it; not yet in a session that has just begun.

    """

    ref: e.ClaimRef
    claimed_seq: int
    seq: int
    confirmed: bool = True
    _early: set[int] = Factory(lambda: set[int]())

    def heard(self, entries: Sequence[e.Entry]) -> None:
        """Note entries; they may come a little out of order."""
        for entry in entries:
            if entry.seq == self.seq + 1:
                self.seq += 1
            elif entry.seq > self.seq:
                self._early.add(entry.seq)
        while self._early and self.seq + 1 in self._early:
            self.seq += 1
            self._early.discard(self.seq)


@define(eq=False)
class Pending:
    """A submission without an answer yet; no claim: the wish to have one, or to have one back.

    Attributes:
        fresh: it asks for a run of which the worker has nothing.
        missed: entries that were made while nobody was connected; they belong to its answer.

    """

    number: int
    run_id: str
    claim: e.ClaimRef | None
    commands: tuple[e.WorkerCommand, ...]
    fresh: bool = False
    reply: Reply[Entries] = Factory(lambda: Reply[Entries]())
    missed: Entries = ()


@define(eq=False)
class Ledger:
    """The claims and open submissions of one worker.

    Attributes:
        claims: by run.
        parked: runs that the server believes to be kept warm here.
        let_go: told of each claim that is struck off, and whether it was lost.

    """

    claims: dict[str, Claimed] = field(factory=lambda: dict[str, Claimed](), init=False)
    let_go: Callable[[str, bool], None] = field(default=lambda _run_id, _lost: None)
    parked: dict[str, None] = field(factory=lambda: dict[str, None](), init=False)
    pending: dict[int, Pending] = field(factory=lambda: dict[int, Pending](), init=False)
    _number: int = field(default=0, init=False)

    def open(
        self,
        run_id: str,
        claim: e.ClaimRef | None,
        commands: tuple[e.WorkerCommand, ...],
        *,
        fresh: bool = False,
    ) -> Pending:
        """Note a submission, under a number of its own."""
        self._number += 1
        pending = Pending(self._number, run_id, claim, commands, fresh)
        self.pending[self._number] = pending
        return pending

    def settle(self, pending: Pending, outcome: Entries | AikiError) -> None:
        """Answer a submission."""
        self.pending.pop(pending.number, None)
        if isinstance(outcome, AikiError):
            pending.reply.fail(outcome)
        else:
            pending.reply.send(outcome)

    def refused(self, pending: Pending, error: AikiError) -> None:
        """Answer a submission that was refused; a claim that is stale counts no more."""
        held = self.claims.get(pending.run_id)
        if isinstance(error, StaleClaim) and held is not None and held.ref == pending.claim:
            del self.claims[pending.run_id]
            self.let_go(pending.run_id, True)
        self.settle(pending, error)

    def assigned(self, run_id: str, claim: e.ClaimRef, entries: Entries) -> bool:
        """Note an assignment; False if no entry of it makes a claim."""
        self.parked.pop(run_id, None)
        claimed = [one.seq for one in entries if isinstance(one.body, e.RunClaimed)]
        if not claimed:
            return False
        self.claims[run_id] = Claimed(claim, claimed[-1], entries[-1].seq)
        return True

    def heard(self, run_id: str, entries: Sequence[e.Entry]) -> None:
        """Note entries of a run, and whether its claim has ended by them."""
        held = self.claims.get(run_id)
        if held is None:
            return
        held.heard(entries)
        for entry in entries:
            if type(entry.body) in CLAIM_ENDS:
                if isinstance(entry.body, e.RunParked):
                    self.parked[run_id] = None
                del self.claims[run_id]
                self.let_go(run_id, isinstance(entry.body, e.ClaimLost))
                return

    def under(self, run_id: str, claim: e.ClaimRef) -> list[Pending]:
        """Return the open submissions under a claim, in order."""
        return [one for one in self.pending.values() if one.run_id == run_id and one.claim == claim]

    def over(self, run_id: str, entries: Entries) -> None:
        """Strike a claim off that has ended, with the last of these, while nobody was connected.

        What was submitted before the command that ended it took effect, and is among the entries.
        """
        held = self.claims.pop(run_id)
        self.let_go(run_id, False)
        pending = self.under(run_id, held.ref)
        end = type(entries[-1].body)
        by = [
            at
            for at, one in enumerate(pending)
            if any(end in _OWN_ENDS.get(type(command), ()) for command in one.commands)
        ]
        through = by[-1] if by else -1
        for at, one in enumerate(pending):
            if at <= through:
                self.settle(one, entries)
            else:
                self.settle(one, StaleClaim(f"the claim on run {run_id} has ended"))

    def drop(self, run_id: str, reason: str) -> None:
        """Strike a claim off that does not count any more."""
        held = self.claims.pop(run_id)
        self.let_go(run_id, True)
        for pending in self.under(run_id, held.ref):
            self.settle(pending, StaleClaim(f"run {run_id}: {reason}"))

    def named_by(self, document: Sequence[JsonValue]) -> tuple[str, int] | None:
        """Return the run and the epoch that a server's message is about, read or not."""
        match document:
            case ["assign", str(run_id), int(epoch), *_]:
                return run_id, epoch
            case ["push", str(run_id), *_] if run_id in self.claims:
                return run_id, self.claims[run_id].ref.epoch
            case ["done", int(number), *_] if number in self.pending:
                run_id = self.pending[number].run_id
                held = self.claims.get(run_id)
                return None if held is None else (run_id, held.ref.epoch)
            case _:
                return None

    def wishes(self) -> list[Pending]:
        """Return the open wishes to have a claim."""
        return [one for one in self.pending.values() if one.claim is None]

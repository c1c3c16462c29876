"""The disk: what outlasts every process of a simulation, and the truth that promises are about.

Everything that becomes durable is shown to the oracles in the very step in which it does, so that
a broken promise is found where it is broken, and with the trace that led there. The disk keeps its
commits in order, for a failover can lose the last of them.

Invariant: `oracles` holds exactly what the journals say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import trio
from attrs import define, field

from aiki_actors import engine as e
from aiki_actors.storage import AppendResult, Change
from aiki_actors.storage._changes import EncodedChange, encode_change
from aiki_actors.storage._memory import MemoryStorage

from ._breach import Broken
from ._oracle import RunOracle
from ._trace import Trace

ENTRIES_MAX: Final = 2_000
"""No program of a simulation has a tenth of this to say."""


@define(eq=False)
class WatchedMemory(MemoryStorage):
    """A memory storage that tells of each change in the step in which it is applied."""

    on_applied: Callable[[Change], None] = field(kw_only=True)

    def apply(self, change: Change) -> None:
        """Apply a change that was accepted before."""
        self._apply(encode_change(change))

    def _apply(self, one: EncodedChange) -> None:
        super()._apply(one)
        self.on_applied(one.change)


@define(eq=False)
class Disk:
    """Runs, and what was lost of them.

    Attributes:
        report: hears of broken promises.
        storage: the runs.
        oracles: what each run's journal says, read independently.
        rewound: per run the lowest seq that a failover lost; what was said of it does not hold.
        commits: how many there were.
        born: per run the number of the change that created it.
        ended: per run the number of the change that ended it first.
        ended_s, cancelled_s: when that was first, in virtual seconds.
        going: runs that have not ended.
        lost_max: claims that a run may lose in a row.
        punctual_from: what is due from this time on (of the server's clock) has to be in time.

    """

    trace: Trace
    report: Callable[[str, str], None]
    oracles: dict[str, RunOracle] = field(factory=lambda: dict[str, RunOracle](), init=False)
    journals: dict[str, list[e.Entry]] = field(
        factory=lambda: dict[str, list[e.Entry]](), init=False
    )
    rewound: dict[str, int] = field(factory=lambda: dict[str, int](), init=False)
    born: dict[str, int] = field(factory=lambda: dict[str, int](), init=False)
    ended: dict[str, int] = field(factory=lambda: dict[str, int](), init=False)
    punctual_from: int | None = field(default=None, init=False)
    ended_s: dict[str, float] = field(factory=lambda: dict[str, float](), init=False)
    cancelled_s: dict[str, float] = field(factory=lambda: dict[str, float](), init=False)
    going: dict[str, None] = field(factory=lambda: dict[str, None](), init=False)
    lost_max: int = field(default=1 << 30, init=False)
    storage: WatchedMemory = field(init=False)
    _changes: int = field(default=0, init=False)
    _rested: trio.Event = field(factory=trio.Event, init=False)
    _log: list[list[Change]] = field(factory=lambda: list[list[Change]](), init=False)
    _open: list[Change] = field(factory=lambda: list[Change](), init=False)

    def __attrs_post_init__(self) -> None:
        """Begin empty."""
        self.storage = WatchedMemory(on_applied=self._applied)

    @property
    def commits(self) -> int:
        """How many commits there are."""
        return len(self._log)

    async def append(self, who: str, changes: Sequence[Change]) -> list[AppendResult]:
        """Make changes durable."""
        self._open = []
        results = await self.storage.append(changes)
        for change in changes:
            kinds = ",".join(entry.body.kind for entry in change.entries) or "settled"
            self.trace.note(who, f"wrote {short(change.run_id)} {change.first_seq}: {kinds}")
        return results

    def _applied(self, change: Change) -> None:
        if not self._open:
            self._log.append(self._open)
        self._open.append(change)
        self._read(change)

    def _read(self, change: Change) -> None:
        run_id = change.run_id
        if not change.entries:
            return
        oracle = self.oracles.get(run_id)
        self._changes += 1
        if oracle is None:
            oracle = self.oracles[run_id] = RunOracle(run_id, lost_max=self.lost_max)
            self.born[run_id] = self._changes
        oracle.punctual_from, oracle.rewound = self.punctual_from, run_id in self.rewound
        had_ended, was_cancelled = oracle.end is not None, oracle.cancelled
        journal = self.journals.setdefault(run_id, [])
        try:
            for entry in change.entries:
                oracle.take(entry)
                journal.append(entry)
            oracle.after_change()
            if len(journal) > ENTRIES_MAX:
                raise Broken("P9", f"its journal grows and grows: {len(journal)} entries")
        except Broken as broken:
            self.report(broken.promise, f"run {run_id}: {broken.what}")
        if oracle.end is not None and not had_ended:
            # A run that is retried after its end has lost its reference id to whoever took it.
            self.ended.setdefault(run_id, self._changes)
            self.ended_s.setdefault(run_id, trio.current_time())
        if oracle.cancelled and not was_cancelled:
            self.cancelled_s.setdefault(run_id, trio.current_time())
        if not oracle.phase.terminal:
            self.going[run_id] = None
        elif self.going.pop(run_id, self) is None and not self.going:
            self._rested.set()

    async def rest(self) -> None:
        """Wait until every run has ended."""
        while self.going:
            self._rested = trio.Event()
            await self._rested.wait()

    def lose(self, commits: int) -> None:
        """Forget the last commits, as a failover to a late replica does."""
        kept = len(self._log) - min(commits, len(self._log))
        lost, self._log = self._log[kept:], self._log[:kept]
        for change in (change for commit in lost for change in commit):
            if change.entries:
                first = min(change.first_seq, self.rewound.get(change.run_id, change.first_seq))
                self.rewound[change.run_id] = first
        self.trace.note("disk", f"lost its last {len(lost)} commits")
        self.oracles, self.journals, self.born, self.ended = {}, {}, {}, {}
        self.going = {}
        replica = WatchedMemory(on_applied=self._read)
        for change in (change for commit in self._log for change in commit):
            replica.apply(change)
        replica.on_applied = self._applied
        self.storage = replica

    def durable(self, run_id: str, entries: Sequence[e.Entry]) -> bool:
        """Tell whether all of these entries stand in the run's journal."""
        journal = self.journals.get(run_id, [])
        return all(
            entry.seq <= len(journal) and journal[entry.seq - 1] == entry for entry in entries
        )


def short(run_id: str) -> str:
    """Return the end of a run's id, which is enough to tell runs apart in a trace."""
    return run_id[-6:]

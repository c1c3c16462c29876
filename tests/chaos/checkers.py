"""What must hold when the faults are over, whatever they were: journals against outside witnesses.

`read_world` collects what is known: every run's row and journal from a `Storage` (any adapter), the
clients' acknowledgements, the tasks' effects. `violations` compares them, and returns a line for
each promise that was broken. Nothing here depends on how the processes were run, or on the
database.

The checks, by the properties of the reliability plan: `P1` acknowledged starts, `P2` results, `P4`
journals and rows, `P5` events, `P6`/`P7` nothing owed or forgotten, `P8` reference ids.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

from attrs import field, frozen

from aiki_actors import engine as e
from aiki_actors.storage import RunFilter, Storage
from aiki_actors.worker import idempotency_key
from aiki_sdk import AikiError, JsonValue
from aiki_sdk.protocol import OnConflict, RunStatus

from .records import Record

PAGE: Final = 500

Judge: TypeAlias = Callable[["World", Record], str | None]
"""Says what is wrong with how an acknowledged start ended; None: nothing."""


@frozen
class RunRecord:
    """One run: its row and its journal, and what the journal folds to."""

    row: e.Projection
    entries: tuple[e.Entry, ...]
    state: e.RunState | None
    unreadable: str | None = None

    def bodies(self, *kinds: type[e.Body]) -> Iterator[tuple[e.Entry, e.Body]]:
        """Yield the entries of these kinds."""
        for entry in self.entries:
            if isinstance(entry.body, kinds):
                yield entry, entry.body


@frozen
class World:
    """Everything that is known when all is quiet.

    Attributes:
        runs: by run id.
        notices: how many notices are owed still.
        acknowledged: what clients were told, in order; `what` is `start`, `send` or `cancel`.
        effects: when tasks' functions began and ended, in order.
        zombies: whether a process may have executed a run that it had lost without knowing: then
            a finished task may begin once more in another process than the one that finished it.
        doubts: whether writes may have had an unknown outcome: then a process may repeat an
            attempt of its own whose result it could not make durable.

    """

    runs: Mapping[str, RunRecord]
    notices: int
    acknowledged: Sequence[Record]
    effects: Sequence[Record]
    zombies: bool = False
    doubts: bool = False


@frozen
class _Outcome:
    """An attempt's outcome in a journal; `final`: the call is done with it."""

    run_id: str
    task: str
    attempt: int
    at: int
    succeeded: bool
    final: bool = field(default=True)


async def read_world(
    storage: Storage,
    acknowledged: Sequence[Record],
    effects: Sequence[Record],
    *,
    namespace: str = "default",
    zombies: bool = False,
    doubts: bool = False,
) -> World:
    """Read every run of a namespace, and put the outside witnesses beside them."""
    runs: dict[str, RunRecord] = {}
    cursor: str | None = None
    while True:
        page = await storage.runs(RunFilter(namespace), limit=PAGE, cursor=cursor)
        for row in page.runs:
            entries = tuple(await storage.journal(row.run_id))
            runs[row.run_id] = _record(row, entries)
        cursor = page.cursor
        if cursor is None:
            break
    owed = await storage.notices(limit=PAGE)
    return World(runs, len(owed), acknowledged, effects, zombies, doubts)


def _record(row: e.Projection, entries: tuple[e.Entry, ...]) -> RunRecord:
    try:
        return RunRecord(row, entries, e.fold(row.run_id, list(entries)))
    except (AikiError, AssertionError, ValueError, KeyError) as error:
        return RunRecord(row, entries, None, f"{type(error).__name__}: {error}")


def violations(world: World, judge: Judge | None = None) -> list[str]:
    """Return what is wrong, a line each; `judge` knows how each acknowledged start must end."""
    found: list[str] = []
    for check in CHECKS:
        found += check(world)
    if judge is not None:
        for record in world.acknowledged:
            if record["what"] == "start":
                wrong = judge(world, record)
                if wrong is not None:
                    found.append(f"P1 {record['kind']} {record['n']}, {record['run']}: {wrong}")
    return found


# --- The checks -----------------------------------------------------------------------------------


def journals_are_legal(world: World) -> Iterator[str]:
    """Each journal is gapless, a path of the transition table, and what its row summarises."""
    for run_id, run in world.runs.items():
        if run.state is None:
            yield f"P4 {run_id}: its journal cannot be folded: {run.unreadable}"
            continue
        seqs = [entry.seq for entry in run.entries]
        if seqs != list(range(1, len(seqs) + 1)):
            yield f"P4 {run_id}: its seqs are {seqs}"
        phase = e.Phase.NEW
        for entry in run.entries:
            following = e.next_phase(phase, entry.body)
            if following is None:
                yield f"P4 {run_id}: {entry.body.kind} (seq {entry.seq}) in phase {phase}"
                break
            phase = following
        if e.project(run.state) != run.row:
            yield f"P4 {run_id}: its row is {run.row}, its journal says {e.project(run.state)}"


def claims_follow_each_other(world: World) -> Iterator[str]:
    """Each claim has a higher epoch than the one before, and a claim id of its own."""
    seen: dict[str, str] = {}
    for run_id, run in world.runs.items():
        epoch = 0
        for entry, body in run.bodies(e.RunClaimed):
            assert isinstance(body, e.RunClaimed)
            if body.epoch <= epoch:
                yield f"P3 {run_id}: epoch {body.epoch} (seq {entry.seq}) after epoch {epoch}"
            epoch = body.epoch
            if seen.setdefault(body.claim_id, run_id) != run_id:
                yield f"P3 {run_id}: claim {body.claim_id} was of run {seen[body.claim_id]} as well"


def starts_are_there(world: World) -> Iterator[str]:
    """An acknowledged start is a run, one per reference id, with the input that was given."""
    by_reference: dict[object, object] = {}
    for record in world.acknowledged:
        if record["what"] != "start":
            continue
        run = world.runs.get(str(record["run"]))
        if run is None:
            yield f"P1 start {record['ref']} was acknowledged as {record['run']}, which is no run"
        elif run.row.workflow != record["kind"]:
            yield f"P1 {record['run']} is a run of {run.row.workflow!r}, not {record['kind']!r}"
        first = by_reference.setdefault(record["ref"], record["run"])
        if first != record["run"]:
            yield f"P8 start {record['ref']} was acknowledged as {first}, then as {record['run']}"


def everything_has_ended_or_waits(world: World) -> Iterator[str]:
    """A live run waits for something that can be named; nothing is ready, claimed or owed."""
    if world.notices:
        yield f"P7 {world.notices} notices are owed still"
    for run_id, run in world.runs.items():
        state = run.state
        if state is None or state.phase.terminal:
            continue
        if state.phase is e.Phase.WAITING and state.waits and state.claim is None:
            continue
        if state.phase is e.Phase.SCHEDULED:
            continue
        yield f"P1 {run_id} ({run.row.workflow}) is {e.status_of(state)} and nobody executes it"


def events_are_taken_once_in_order(world: World) -> Iterator[str]:
    """Each acknowledged event is in the journal once; items of a name are taken in their order."""
    for run_id, run in world.runs.items():
        accepted = Counter(
            (body.name, body.reference_id)
            for _, body in run.bodies(e.EventAccepted)
            if isinstance(body, e.EventAccepted) and body.reference_id is not None
        )
        for (name, reference), times in accepted.items():
            if times > 1:
                yield f"P5 {run_id}: event {name!r} {reference!r} was accepted {times} times"
        yield from _consumption(run_id, run)
    last: dict[tuple[object, object], int] = {}
    for record in world.acknowledged:
        if record["what"] != "send":
            continue
        receiver = world.runs.get(str(record["run"]))
        found = [] if receiver is None else _accepted(receiver, record)
        if len(found) != 1:
            yield f"P5 {record['run']}: acknowledged event {record['reference']} is there {found}"
            continue
        place = (record["run"], record["event"])
        if found[0] <= last.get(place, 0):
            yield f"P5 {record['run']}: {record['reference']} stands before the one sent earlier"
        last[place] = found[0]


def _accepted(run: RunRecord, record: Record) -> list[int]:
    return [
        entry.seq
        for entry, body in run.bodies(e.EventAccepted)
        if isinstance(body, e.EventAccepted) and body.reference_id == record["reference"]
    ]


def _consumption(run_id: str, run: RunRecord) -> Iterator[str]:
    """Items leave each mailbox in order; one that was returned may be taken again."""
    unread: dict[str, list[int]] = {}
    for entry in run.entries:
        body = entry.body
        if isinstance(body, e.EventAccepted):
            unread.setdefault(body.name, []).append(entry.seq)
        elif isinstance(body, e.EventReturned):
            unread.setdefault(body.event, []).insert(0, body.item)
        elif isinstance(body, e.EventConsumed):
            items = unread.get(body.event, [])
            if not items or min(items) != body.item:
                yield f"P5 {run_id}: seq {entry.seq} takes item {body.item}, unread were {items}"
            if body.item in items:
                items.remove(body.item)


def _outcomes(world: World) -> dict[str, list[_Outcome]]:
    """Return what the journals say of attempts, by the calls' idempotency keys."""
    found: dict[str, list[_Outcome]] = {}
    for run_id, run in world.runs.items():
        for entry, body in run.bodies(e.TaskSucceeded, e.TaskFailed, e.AttemptFailed):
            assert isinstance(body, e.TaskSucceeded | e.TaskFailed | e.AttemptFailed)
            outcome = _Outcome(
                run_id,
                body.call.address,
                body.attempt,
                entry.at,
                isinstance(body, e.TaskSucceeded),
                not isinstance(body, e.AttemptFailed),
            )
            found.setdefault(idempotency_key(run_id, body.call), []).append(outcome)
    return found


def calls_end_once(world: World) -> Iterator[str]:
    """A task call has one final outcome at most, and attempts are counted up."""
    for key, outcomes in _outcomes(world).items():
        what = f"{outcomes[0].run_id}: {outcomes[0].task} ({key})"
        if sum(outcome.final for outcome in outcomes) > 1:
            yield f"P2 {what} has more than one outcome"
        attempts = [outcome.attempt for outcome in outcomes]
        if attempts != list(range(1, len(attempts) + 1)):
            yield f"P2 {what} has outcomes of the attempts {attempts}"


def outcomes_happened(world: World) -> Iterator[str]:
    """What a journal calls a success was one: the task's function returned."""
    returned = Counter((str(r["key"]), r["attempt"]) for r in world.effects if r["phase"] == "ok")
    known = {str(record["key"]) for record in world.effects}
    for key, outcomes in _outcomes(world).items():
        for outcome in outcomes:
            if outcome.succeeded and key in known and not returned[key, outcome.attempt]:
                yield f"P2 {outcome.run_id}: {outcome.task} succeeded and never returned"


def nothing_recorded_ran_again(world: World) -> Iterator[str]:
    """No attempt began after its outcome, or that of a later one, was written.

    An entry's time is taken when it is decided, which is before it is durable; an entry that is
    there was durable in the life that decided it. So whatever begins later repeats it.
    """
    outcomes = _outcomes(world)
    for record in world.effects:
        if record["phase"] != "begin":
            continue
        began, attempt = _number(record["at"]), _number(record["attempt"])
        for outcome in outcomes.get(str(record["key"]), ()):
            if outcome.at < began and attempt <= outcome.attempt and not world.zombies:
                late = (began - outcome.at) / 1_000
                yield (
                    f"P2 {outcome.run_id}: {outcome.task} attempt {attempt} began {late:g} ms "
                    f"after its outcome was written (process {record['pid']})"
                )


def a_process_runs_an_attempt_once(world: World) -> Iterator[str]:
    """Only the end of a process makes an attempt begin again."""
    if world.doubts:
        return
    begun = Counter(
        (str(r["run"]), str(r["task"]), str(r["key"]), r["attempt"], r["pid"])
        for r in world.effects
        if r["phase"] == "begin"
    )
    for (run_id, task, key, attempt, pid), times in begun.items():
        if times > 1:
            yield f"P2 {run_id}: {task} ({key}) attempt {attempt} ran {times} times in {pid}"


def cancellations_reach_everybody(world: World) -> Iterator[str]:
    """A cancellation that was acknowledged ends the run and all of its descendants."""
    children: dict[str, list[str]] = {}
    for run_id, run in world.runs.items():
        if run.row.parent_id is not None:
            children.setdefault(run.row.parent_id, []).append(run_id)
    for record in world.acknowledged:
        if record["what"] != "cancel":
            continue
        waiting = [str(record["run"])]
        while waiting:
            run_id = waiting.pop()
            waiting += children.get(run_id, [])
            reached = world.runs.get(run_id)
            if reached is not None and not reached.row.status.terminal:
                yield f"P7 {run_id} is {reached.row.status} although {record['run']} was cancelled"


def parents_heard_of_their_children(world: World) -> Iterator[str]:
    """Each child that was started exists; its end is in its live parent's journal once."""
    for run_id, run in world.runs.items():
        ended = Counter(
            body.child_id for _, body in run.bodies(e.ChildEnded) if isinstance(body, e.ChildEnded)
        )
        for child_id, times in ended.items():
            if times > 1:
                yield f"P7 {run_id} was told {times} times that {child_id} ended"
        for _, body in run.bodies(e.ChildStarted):
            assert isinstance(body, e.ChildStarted)
            if body.on_conflict is not OnConflict.ERROR or body.spec.reference_id is not None:
                continue
            child = world.runs.get(body.child_id)
            if child is None:
                yield f"P7 {run_id} started {body.child_id}, which is no run"


def _number(value: object) -> int:
    assert isinstance(value, int), f"{value!r} is no whole number"
    return value


CHECKS: Final[tuple[Callable[[World], Iterator[str]], ...]] = (
    journals_are_legal,
    claims_follow_each_other,
    starts_are_there,
    everything_has_ended_or_waits,
    events_are_taken_once_in_order,
    calls_end_once,
    outcomes_happened,
    nothing_recorded_ran_again,
    a_process_runs_an_attempt_once,
    cancellations_reach_everybody,
    parents_heard_of_their_children,
)


def ended_as(
    world: World, run_id: str, status: RunStatus, outputs: Sequence[JsonValue]
) -> str | None:
    """Say what is wrong with a run's end, or that of the run it goes on as; no outputs: any."""
    run = world.runs.get(run_id)
    while run is not None and run.state is not None:
        outcome = run.state.outcome
        if outcome is not None and outcome.continued_as is not None:
            run_id, run = outcome.continued_as, world.runs.get(outcome.continued_as)
            continue
        if run.row.status is not status:
            return f"{run_id} is {run.row.status}, and must be {status}"
        if outputs and (outcome is None or outcome.output not in outputs):
            got = None if outcome is None else outcome.output
            return f"{run_id} returned {got!r}, and must return one of {list(outputs)!r}"
        return None
    return f"{run_id} is no run that can be read"

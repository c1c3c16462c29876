"""The proofs: from the journals and the tasks' own log, that the crashes did no harm.

Each proof is a function that returns what speaks against its claim: one text per violation, none if
the claim holds. Nothing is taken on trust from the runtime's state: the journals say what was
decided, the log says what ran, the plan says what had to come out, and the three must agree.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Final

from attrs import frozen

from aiki_sdk import RunStatus

from .costs import Recovery, Repeats, recovery_of, repeats_of
from .effects import Execution, Phase, executions_of
from .evidence import ENDS, Evidence, History, task_outcomes
from .plan import Fate
from .workflows import Receipt, process_order, ship

SIGKILL: Final = 9


@frozen
class Proof:
    """A claim, how many things it was checked on, and what speaks against it."""

    claim: str
    checked: int
    violations: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.violations


@frozen
class Report:
    """The outcome of the verification."""

    proofs: tuple[Proof, ...]
    endings: Counter[str]
    entries: int
    task_calls: int
    executions: int
    shipments: int
    repeats: Repeats
    recoveries: tuple[Recovery, ...]

    @property
    def holds(self) -> bool:
        """Whether every claim is proven."""
        return all(proof.holds for proof in self.proofs)


def verify(evidence: Evidence) -> Report:
    """Prove every claim, or say what speaks against it."""
    executions = executions_of(evidence.lines)
    checks = (*CHECKS, *CHECKS_OF_KILLS) if evidence.kills else CHECKS
    outcomes = list(task_outcomes(evidence.journals))
    shipments = _runs(evidence, ship.name)
    return Report(
        proofs=tuple(check(evidence, executions) for check in checks),
        endings=Counter(str(planned.fate) for planned in evidence.plan),
        entries=sum(len(history.entries) for history in evidence.journals.values()),
        task_calls=sum(outcome.final for outcome in outcomes),
        executions=len(executions),
        shipments=len(shipments),
        repeats=repeats_of(evidence, executions),
        recoveries=tuple(recovery_of(evidence, kill) for kill in evidence.kills),
    )


Check = Callable[[Evidence, list[Execution]], Proof]


def _runs(evidence: Evidence, workflow: str) -> list[History]:
    return [run for run in evidence.journals.values() if run.info.workflow == workflow]


# --- How the orders ended -------------------------------------------------------------------------


def _every_order_ended_right(evidence: Evidence, _executions: list[Execution]) -> Proof:
    wrong: list[str] = []
    for planned in evidence.plan:
        order, history = planned.order, evidence.order(planned)
        if history is None:
            wrong.append(f"{order.id} was lost")
            continue
        info, ending = history.info, planned.fate.ending
        status = RunStatus.CANCELLED if ending is None else RunStatus.COMPLETED
        if info.status is not status:
            wrong.append(f"{order.id} is {info.status}, not {status}: {info.error or info.reason}")
        elif ending is not None:
            tracking = f"parcel-{order.id}-signed" if planned.fate is Fate.DELIVERED else None
            receipt = process_order.decode_output(info.output)
            expected = Receipt(order.id, ending, planned.total_cents, tracking)
            if receipt != expected:
                wrong.append(f"{order.id} returned {receipt}, not {expected}")
    runs = len(_runs(evidence, process_order.name))
    if runs != len(evidence.plan):
        wrong.append(f"there are {runs} runs for {len(evidence.plan)} orders")
    return Proof("every order ended as it had to, with the right receipt", runs, tuple(wrong))


def _every_shipment_ended(evidence: Evidence, _executions: list[Execution]) -> Proof:
    wrong: list[str] = []
    shipments = _runs(evidence, ship.name)
    fates = {f"{planned.order.id}-parcel": planned for planned in evidence.plan}
    for history in shipments:
        info = history.info
        planned = fates.pop(info.reference_id or "", None)
        order = None if planned is None else evidence.order(planned)
        if planned is None or order is None or order.info.id != info.parent_id:
            wrong.append(f"shipment {info.reference_id} belongs to no order, or exists twice")
            continue
        delivered = planned.fate is Fate.DELIVERED
        expected = RunStatus.COMPLETED if delivered else RunStatus.CANCELLED
        if info.status is not expected:
            wrong.append(f"shipment {info.reference_id} is {info.status}, not {expected}")
    missing = [p for p in fates.values() if p.fate in {Fate.DELIVERED, Fate.RECALLED}]
    wrong += [f"{planned.order.id} was never shipped" for planned in missing]
    return Proof("every shipment is some order's only one, and ended", len(shipments), tuple(wrong))


def _stock_was_given_back(evidence: Evidence, _executions: list[Execution]) -> Proof:
    """Whoever reserved stock and was not delivered must have released it, and nobody else."""
    done = {(o.run, o.task) for o in task_outcomes(evidence.journals) if o.succeeded}
    wrong: list[str] = []
    checked = 0
    for planned in evidence.plan:
        history = evidence.order(planned)
        if history is None:
            continue
        run_id = history.info.id
        sold = planned.fate in {Fate.DELIVERED, Fate.RECALLED}
        released = (run_id, "release-stock") in done
        reserved = (run_id, "reserve-stock") in done
        checked += reserved or released
        if sold and released:
            wrong.append(f"{planned.order.id} was sold, but its stock was released")
        elif not sold and reserved and not released:
            wrong.append(f"{planned.order.id} ended, but its stock is still reserved")
    return Proof("stock of orders that came to nothing was given back", checked, tuple(wrong))


def _every_payment_counts_once(evidence: Evidence, _executions: list[Execution]) -> Proof:
    wrong: list[str] = []
    checked = 0
    for planned in evidence.plan:
        history = evidence.order(planned)
        if history is None or not planned.fate.pays:
            continue
        checked += 1
        accepted = len(history.of_kind("event-accepted"))
        consumed = len(history.of_kind("event-consumed")) - len(history.of_kind("event-returned"))
        if (accepted, consumed) != (1, 1):
            wrong.append(f"{planned.order.id}: {accepted} payments accepted, {consumed} taken")
    return Proof("every payment was accepted once and taken once", checked, tuple(wrong))


# --- What ran -------------------------------------------------------------------------------------


def _journals_are_whole(evidence: Evidence, _executions: list[Execution]) -> Proof:
    wrong: list[str] = []
    for run_id, history in evidence.journals.items():
        if [entry.seq for entry in history.entries] != list(range(1, len(history.entries) + 1)):
            wrong.append(f"the journal of {run_id} has a gap or a double entry")
        ends = history.of_kind(*sorted(ENDS))
        if len(ends) != 1 or history.entries[-1] is not ends[0]:
            wrong.append(f"the journal of {run_id} has {len(ends)} ends, or goes on after its end")
    return Proof("every journal is without gap and ends once", len(evidence.journals), tuple(wrong))


def _every_call_has_one_outcome(evidence: Evidence, executions: list[Execution]) -> Proof:
    """Of every task call whose code ended without being cancelled, one outcome is recorded."""
    outcomes = Counter(o.key for o in task_outcomes(evidence.journals) if o.final)
    wrong = [f"call {key} has {n} outcomes in the journal" for key, n in outcomes.items() if n > 1]
    cancelled = {
        run_id
        for run_id, history in evidence.journals.items()
        if history.info.status is RunStatus.CANCELLED
    }
    begun = {execution.begun.key: execution.begun for execution in executions}
    wrong += [
        f"{line.task} of {line.run} ran, but the journal knows no outcome of it"
        for key, line in begun.items()
        if key not in outcomes and line.run not in cancelled
    ]
    return Proof("every task call has exactly one outcome", len(outcomes), tuple(wrong))


def _every_outcome_was_earned(evidence: Evidence, executions: list[Execution]) -> Proof:
    """An outcome in the journal needs an execution in the log that ended so, and before."""
    ended: defaultdict[tuple[str, int, bool], list[int]] = defaultdict(list)
    for execution in executions:
        line = execution.ended
        if line is not None and line.phase is not Phase.CANCELLED:
            ended[line.key, line.attempt, line.phase is Phase.OK].append(line.at)
    wrong: list[str] = []
    checked = 0
    for outcome in task_outcomes(evidence.journals):
        checked += 1
        times = ended[outcome.key, outcome.attempt, outcome.succeeded]
        if not times or min(times) > outcome.at:
            wrong.append(
                f"the journal has an outcome of {outcome.task} of {outcome.run}, attempt "
                f"{outcome.attempt}, but the log does not show that it ran before"
            )
    return Proof("every recorded outcome really happened", checked, tuple(wrong))


def _nothing_finished_ran_twice(evidence: Evidence, executions: list[Execution]) -> Proof:
    """An attempt whose outcome is durable never begins again, nor one before it."""
    done_at: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for outcome in task_outcomes(evidence.journals):
        done_at[outcome.key].append((outcome.attempt, outcome.at))
    wrong = [
        f"{execution.begun.task} of {execution.begun.run} began again in process "
        f"{execution.begun.pid}, although attempt {attempt} had its outcome"
        for execution in executions
        for attempt, at in done_at[execution.begun.key]
        if execution.begun.attempt <= attempt and execution.begun.at > at
    ]
    return Proof("nothing finished ran twice", len(executions), tuple(wrong))


def _repeats_are_explained(evidence: Evidence, executions: list[Execution]) -> Proof:
    """An attempt runs once; again only if a process that was killed began it before."""
    killed = evidence.killed_workers
    same: defaultdict[tuple[str, int], list[Execution]] = defaultdict(list)
    for execution in executions:
        same[execution.begun.key, execution.begun.attempt].append(execution)
    wrong: list[str] = []
    for times in same.values():
        by_process = Counter(execution.begun.pid for execution in times)
        if max(by_process.values()) > 1 or set(by_process) - {times[-1].begun.pid} - killed:
            begun = times[0].begun
            wrong.append(
                f"attempt {begun.attempt} of {begun.task} of {begun.run} ran "
                f"{len(times)} times: {dict(by_process)}"
            )
    wrong += [
        f"{execution.begun.task} of {execution.begun.run} began in process "
        f"{execution.begun.pid}, which was not killed, and never ended"
        for execution in executions
        if execution.ended is None and execution.begun.pid not in killed
    ]
    return Proof("no attempt ran twice but for a kill", len(same), tuple(wrong))


def _ended_in_order(evidence: Evidence, _executions: list[Execution]) -> Proof:
    codes = evidence.exit_codes
    wrong = tuple(f"{part} ended with exit code {code}" for part, code in codes.items() if code)
    return Proof("what was stopped in good order stopped cleanly", len(codes), wrong)


# --- What the kills did ---------------------------------------------------------------------------


def _were_killed(evidence: Evidence, executions: list[Execution]) -> Proof:
    wrong: list[str] = []
    last = {execution.begun.pid: execution.begun.at for execution in executions}
    for kill in evidence.kills:
        if kill.signal != SIGKILL:
            by = kill.signal or "itself"
            wrong.append(
                f"{kill.part}, process {kill.pid}, was to die by SIGKILL, but ended by {by}"
            )
        if kill.works and kill.pid not in last:
            wrong.append(f"{kill.part}, process {kill.pid}, was killed before it did anything")
        died_at = round(kill.died_at.timestamp() * 1_000_000)
        if not any(at > died_at for at in last.values()):
            wrong.append(f"all was done when {kill.part}, process {kill.pid}, was killed")
    return Proof("every kill was a SIGKILL in the middle", len(evidence.kills), tuple(wrong))


def _nothing_durable_was_lost(evidence: Evidence, _executions: list[Execution]) -> Proof:
    """What the journals held when a process died is still there, unchanged."""
    wrong: list[str] = []
    entries = 0
    for kill in evidence.kills:
        for run_id, before in kill.journals.items():
            entries += len(before.entries)
            after = evidence.journals.get(run_id)
            if after is None or after.entries[: len(before.entries)] != before.entries:
                wrong.append(f"the journal of {run_id} does not continue what {kill.part} left")
    return Proof("no entry that was durable at a kill was lost", entries, tuple(wrong))


def _finished_stayed_finished(evidence: Evidence, executions: list[Execution]) -> Proof:
    """What the journals that a kill left call finished was left alone from then on."""
    wrong: list[str] = []
    checked = 0
    for kill in evidence.kills:
        finished = {(o.key, o.attempt) for o in task_outcomes(kill.journals)}
        checked += len(finished)
        died_at = round(kill.died_at.timestamp() * 1_000_000)
        wrong += [
            f"{execution.begun.task} of {execution.begun.run} ran again after {kill.part} died"
            for execution in executions
            if execution.begun.at > died_at
            and (execution.begun.key, execution.begun.attempt) in finished
        ]
    return Proof("what was finished at a kill was left alone", checked, tuple(wrong))


CHECKS: Final[tuple[Check, ...]] = (
    _every_order_ended_right,
    _every_shipment_ended,
    _stock_was_given_back,
    _every_payment_counts_once,
    _journals_are_whole,
    _every_call_has_one_outcome,
    _every_outcome_was_earned,
    _nothing_finished_ran_twice,
    _repeats_are_explained,
    _ended_in_order,
)
CHECKS_OF_KILLS: Final[tuple[Check, ...]] = (
    _were_killed,
    _nothing_durable_was_lost,
    _finished_stayed_finished,
)

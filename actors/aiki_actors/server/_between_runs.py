"""What happens between two runs where it is not one run's own affair: successors and claimed names.

A run that continued as new is still known to others by its old id, so what they have to say to it
is passed on to its successor. A child whose reference id names a run already is linked to that run,
takes the name over from it, or is refused, as its parent said.
"""

from __future__ import annotations

from typing import Final

from attrs import evolve

from aiki_actors import engine as e
from aiki_actors.storage import ReferenceTaken, Storage
from aiki_sdk import ErrorInfo, ReferenceConflict
from aiki_sdk.protocol import OnConflict, RunStatus

_PASSED_ON: Final = (e.AcceptEvent, e.CancelRun, e.WatchRun)
"""What is for whoever goes on in a run's place. The end of a child is not: it was that run's."""


def passed_on(state: e.RunState, notice: e.Notice) -> e.Notice | None:
    """Return the notice as the run's successor gets it; None: it is for this run."""
    outcome, command = state.outcome, notice.command
    if outcome is None or outcome.continued_as is None or not isinstance(command, _PASSED_ON):
        return None
    # Taken before the run continued; delivered again, it must not reach the successor too.
    if isinstance(command, e.AcceptEvent) and _taken(state, command):
        return None
    return evolve(notice, id=f"{notice.id}+", target_id=outcome.continued_as)


def _taken(state: e.RunState, event: e.AcceptEvent) -> bool:
    reference = event.reference_id
    return reference is not None and (event.name, reference) in state.references


async def superseded(storage: Storage, create: e.CreateRun) -> str | None:
    """Return the ended run that gives its reference id up to the one that is created here.

    That is the run which this one continues; or, for a child, an ended run of the same parent, or
    any ended run if the parent said `restart_if_ended`.
    """
    spec = create.spec
    if spec.continued_from is not None or spec.parent is None or spec.reference_id is None:
        return spec.continued_from
    row = await storage.find(spec.namespace, spec.workflow, spec.reference_id)
    if row is None or not row.status.terminal:
        return None
    own = row.parent_id == spec.parent.run_id
    restart = create.on_conflict is OnConflict.RESTART_IF_ENDED
    return row.run_id if own or restart else None


async def answer_to_conflict(
    storage: Storage, notice: e.Notice, create: e.CreateRun, taken: ReferenceTaken
) -> e.Notice:
    """Return what follows for a child that cannot be created: it is linked, or has failed.

    Linked: the run that has the reference id tells this parent too how it ends. That is what
    `return_existing` asks for, and what a parent means that starts its own live child again.
    """
    spec = create.spec
    row = await storage.run(taken.run_id)
    parent_id = None if spec.parent is None else spec.parent.run_id
    own = row is not None and row.parent_id == parent_id and row.input_hash == spec.input_hash
    if own or create.on_conflict is OnConflict.RETURN_EXISTING:
        link = e.WatchRun(notice.source_id, notice.target_id)
        return e.Notice(f"{notice.id}:linked", notice.target_id, taken.run_id, link)
    message = (
        f"child {notice.target_id} of run {notice.source_id} was not started: reference id "
        f"{spec.reference_id!r} of workflow {spec.workflow!r} names run {taken.run_id}; use "
        "another reference id, or on_conflict='return_existing' to wait for that run"
    )
    error = ErrorInfo.from_exception(
        ReferenceConflict(message, details={"run_id": taken.run_id, "child_id": notice.target_id})
    )
    failed = e.EndChild(notice.target_id, RunStatus.FAILED, error=error)
    return e.Notice(f"{notice.id}:refused", notice.target_id, notice.source_id, failed)

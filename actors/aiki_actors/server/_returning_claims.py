"""What a worker's claims are worth when it comes back: looked up in the journals.

A worker whose session could not be resumed names each claim that it holds. What it does not name
although the database has it under the worker's name, the worker has given up by itself.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import trio

from aiki_actors import engine as e
from aiki_actors.session import CLAIM_ENDS, messages as m
from aiki_sdk import AikiError

from ._services import Do

if TYPE_CHECKING:
    from ._worker_session import WorkerSession

LOGGER: Final = logging.getLogger("aiki.server")

CLAIMED_PAGE: Final = 500
SETTLE_AGAIN_S: Final = 0.5


async def join_after_settling(session: WorkerSession) -> None:
    """Lose what the worker held according to the database and no longer named; then join it.

    It gave these up by itself, when it had not heard of the server for too long.
    """
    while not session.ended:
        try:
            await _lose_forgotten(session)
        except AikiError as error:
            LOGGER.warning("worker %s is given no runs yet: %s", session.worker_id, error)
            await trio.sleep(SETTLE_AGAIN_S)
        else:
            session.joined = True
            session.join(len(session.claims))
            return


async def _lose_forgotten(session: WorkerSession) -> None:
    after: str | None = None
    while True:
        page = await session.sessions.storage.claimed(limit=CLAIMED_PAGE, after=after)
        for run in page:
            if run.worker_id == session.worker_id and run.run_id not in session.claims:
                reason = f"worker {session.worker_id} had given it up"
                session.sessions.runs.tell(run.run_id, Do(e.LoseClaim(run.epoch, reason)))
        if len(page) < CLAIMED_PAGE:
            return
        after = page[-1].run_id


async def settle(session: WorkerSession, gone: list[tuple[str, int]]) -> None:
    """Make sure that nobody keeps a claim of this worker which the worker was told is lost."""
    for run_id, epoch in gone:
        row = await session.sessions.storage.run(run_id)
        mine = row is not None and (row.worker_id, row.epoch) == (session.worker_id, epoch)
        if mine and run_id not in session.claims:
            reason = f"worker {session.worker_id} had lost it"
            session.sessions.runs.tell(run_id, Do(e.LoseClaim(epoch, reason)))


async def verify(session: WorkerSession, named: m.Holds) -> None:
    """Find out whether a claim of a worker that came back counts, and what it has missed.

    The worker hears what happens from now on already, for the run's actor finds this session.
    """
    run_id, claim = named.run_id, named.claim
    held, missed = m.Held.LOST, list[e.Entry]()
    try:
        held, missed = await _look_up(session, named)
    except AikiError as error:
        LOGGER.warning("claim %d of run %s is lost: %s", claim.epoch, run_id, error)
    finally:
        ended = session.verifying.pop(run_id, False)
    if session.ended:
        return
    if held is m.Held.HELD and not ended:
        session.claims[run_id] = claim
    elif held is m.Held.HELD:
        held = m.Held.LOST  # what ended it was pushed meanwhile
    session.send(m.Answered(run_id, claim.epoch, held, tuple(missed)))
    if held is m.Held.LOST:
        await settle(session, [(run_id, claim.epoch)])


async def _look_up(session: WorkerSession, named: m.Holds) -> tuple[m.Held, list[e.Entry]]:
    storage, run_id = session.sessions.storage, named.run_id
    if not 1 <= named.claimed_seq <= named.seq:
        return m.Held.LOST, []
    row = await storage.run(run_id)
    if row is None or row.namespace != session.hello.namespace:
        return m.Held.LOST, []
    first = await storage.journal(run_id, after=named.claimed_seq - 1, limit=1)
    claimed = e.RunClaimed(session.worker_id, named.claim.epoch, named.claim.claim_id)
    if not first or first[0].body != claimed:
        return m.Held.LOST, []
    rest = await storage.journal(run_id, after=named.seq - 1)
    if not rest:
        return m.Held.LOST, []  # the database has forgotten what the worker knows
    missed = rest[1:]
    for at, entry in enumerate(missed, 1):
        if type(entry.body) in CLAIM_ENDS:
            return m.Held.OVER, missed[:at]
    return m.Held.HELD, missed

"""The end of a test that waits for what never comes.

With time that skips itself, a test that waits for ever would not fail but hang. So something is
always due, long after anything a workflow may wait for; when that time comes, nothing else can.
"""

from __future__ import annotations

from typing import Final

from aiki_actors import engine as e
from aiki_actors.storage import RunFilter, Storage
from aiki_sdk.protocol import RunStatus

PATIENCE_S: Final = 500 * 365 * 86_400.0
"""500 years: no wait of a workflow is longer than 100."""

SHOWN_MAX: Final = 20
"""Runs that the message lists."""


class NothingHappens(AssertionError):
    """The test waits, and nothing that it could wait for can ever happen."""


async def nothing_happens(storage: Storage, namespace: str) -> NothingHappens:
    """Describe what every open run waits for."""
    live = tuple(status for status in RunStatus if not status.terminal)
    page = await storage.runs(RunFilter(namespace, status=live), limit=SHOWN_MAX)
    lines = [
        "the test waits, but nothing can happen any more: no timer is due, no task runs.",
        *(["Open runs:"] if page.runs else ["No run is open."]),
    ]
    for row in page.runs:
        state = e.fold(row.run_id, await storage.journal(row.run_id))
        waits = ", ".join(f"{wait.kind} {wait.name!r}" for wait in state.waits.values())
        status = e.status_of(state)
        lines.append(f"  {row.run_id} of {row.workflow!r}: {status} ({waits or 'no wait'})")
    lines.append(
        "Send the event that is waited for, or give the wait a timeout. If the test waits for a "
        "socket or a thread of its own, do that in `with aiki.hold_time():`."
    )
    return NothingHappens("\n".join(lines))

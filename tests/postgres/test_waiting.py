"""A run that waits costs nothing to the others, however many they are."""

from __future__ import annotations

from tests.bench.postgres_waiting import ALONE, measure
from tests.servers.postgres import postgres_server


def test_waking_a_run_touches_no_more_pages_beside_twenty_times_the_waiting_runs() -> None:
    """Counted in pages, not in seconds; a read through a table would touch hundreds more."""
    with postgres_server(None, *ALONE) as server:
        few, many = measure(server, (1_000, 20_000))
    assert 0 < many.wake_pages < 2 * few.wake_pages

"""A server and its workers are killed at the fault points that only a cluster passes, for real."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiki_actors.faults import FAULT_POINTS
from tests.chaos.test_chaos import chaos

pytestmark = pytest.mark.slow  # Processes live and die at one point after another.


def test_a_cluster_killed_at_leases_answers_and_messages_loses_nothing(tmp_path: Path) -> None:
    """With Redis; the points that one process passes too are struck in a cluster by hand."""
    told = chaos(tmp_path, "--only", "points", "--match", "its own", within_s=600)
    assert "every promise was kept" in told, told
    for point in FAULT_POINTS:
        assert point.embedded or point.name in told, told

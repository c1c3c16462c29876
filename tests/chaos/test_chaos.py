"""Processes are killed at every fault point, met with trouble, and killed at random, for real.

A short form of `python -m tests.chaos`, which runs for as long as it is told to.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from aiki_actors.faults import FAULT_POINTS
from tests.chaos.kills import NOT_EMBEDDED

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow  # Scores of processes live and die, in real time.


def chaos(folder: Path, *arguments: str) -> str:
    """Run the rig as a user does; what it prints is the message of a failure."""
    command = [sys.executable, "-m", "tests.chaos", "--folder", str(folder), *arguments]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "every promise was kept" in done.stdout
    return done.stdout


def test_a_process_killed_at_any_fault_point_loses_nothing_and_repeats_nothing_recorded(
    tmp_path: Path,
) -> None:
    """Each point is struck once; a plan that did not kill would be a failure of its own."""
    told = chaos(tmp_path, "--only", "scripted")
    for point in FAULT_POINTS:
        assert (f"kill at {point.name}:" in told) is (point.name not in NOT_EMBEDDED), told


@pytest.mark.parametrize(
    "trouble", ["full disk", "read-only database", "locked database", "stopped process"]
)
def test_trouble_of_the_database_is_refused_and_survived(trouble: str, tmp_path: Path) -> None:
    told = chaos(tmp_path, "--only", "trouble", "--match", trouble)
    assert trouble in told


def test_a_process_told_to_end_under_load_ends_within_its_grace_and_repeats_nothing(
    tmp_path: Path,
) -> None:
    chaos(tmp_path, "--only", "trouble", "--match", "told to end")


def test_random_kills_under_load_lose_nothing(tmp_path: Path) -> None:
    """Two rounds of a few seconds, with another seed each time; it is in the message."""
    told = chaos(tmp_path, "--only", "random", "--minutes", "0.15", "--parallel", "2")
    assert "random 1" in told

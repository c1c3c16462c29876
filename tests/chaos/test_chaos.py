"""Processes are killed at every fault point, met with trouble, and killed at random, for real.

A short form of `python -m tests.chaos`, which runs for as long as it is told to.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.chaos.kills import POINTS

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow  # Scores of processes live and die, in real time.


def chaos(folder: Path, *arguments: str, within_s: float = 180) -> str:
    """Run the rig as a user does; return what it prints."""
    command = [sys.executable, "-m", "tests.chaos", "--folder", str(folder), *arguments]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=within_s, check=False
    )
    assert done.returncode in {0, 1}, f"{done.stdout}\n{done.stderr}"
    assert ("every promise was kept" in done.stdout) is (done.returncode == 0)
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def troubles(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Meet every kind of trouble, several at a time, and give what was printed."""
    return chaos(tmp_path_factory.mktemp("trouble"), "--only", "trouble")


def test_a_process_killed_at_any_fault_point_loses_nothing_and_repeats_nothing_recorded(
    tmp_path: Path,
) -> None:
    """Each point is struck once; a plan that did not kill would be a failure of its own."""
    told = chaos(tmp_path, "--only", "scripted")
    assert "every promise was kept" in told, told
    for point in POINTS:
        assert f"kill at {point.name}:" in told, told


@pytest.mark.parametrize(
    "trouble",
    ["full disk", "full disk and kill", "read-only database", "locked database", "stopped process"],
)
def test_trouble_with_the_database_is_refused_and_survived(trouble: str, troubles: str) -> None:
    assert re.search(rf"^ok .* {trouble}:", troubles, re.MULTILINE), troubles


def test_a_process_told_to_end_under_load_ends_within_its_grace_and_repeats_nothing(
    troubles: str,
) -> None:
    assert re.search(r"^ok .* told to end:", troubles, re.MULTILINE), troubles


def test_random_kills_under_load_lose_nothing(tmp_path: Path) -> None:
    """Rounds of a few seconds, with another seed each time, which is printed."""
    told = chaos(tmp_path, "--only", "random", "--minutes", "0.15", "--parallel", "2")
    assert "every promise was kept" in told, told
    assert "random 1" in told


def test_a_cluster_whose_processes_are_killed_and_frozen_under_load_loses_nothing(
    tmp_path: Path,
) -> None:
    """A server and two workers, for seconds."""
    told = chaos(tmp_path, "--only", "cluster", "--minutes", "0.1")
    assert "every promise was kept" in told, told


def test_the_whole_cluster_loses_nothing_when_postgresql_and_redis_are_killed_too() -> None:
    """The same on PostgreSQL and Redis, which forgets all that it has now and then."""
    # pytest's own folders are closed to the user that PostgreSQL runs as.
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        told = chaos(folder, "--only", "cluster", "--minutes", "0.2", "--postgres", "--redis")
    assert "every promise was kept" in told, told

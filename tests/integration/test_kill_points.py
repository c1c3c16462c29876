"""A process killed at any write of its journal resumes, and repeats nothing that was recorded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("kill_points_program.py")


@pytest.mark.slow  # It waits for real retry delays, in some eighty lives.
def test_a_run_survives_a_kill_right_before_and_right_after_every_write(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, str(PROGRAM), str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert result.returncode == 0, result.stdout + result.stderr
    kills = int(result.stdout.split()[0])
    assert kills > 40, result.stdout

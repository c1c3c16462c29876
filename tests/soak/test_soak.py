"""A soak of seconds shows that the rig works; what it says of leaks takes minutes."""

from __future__ import annotations

import csv
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.soak.samples import APART, EMBEDDED, Series, fit, judge

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow  # Ten seconds of load, in real time, with a fault every two.
def test_a_short_soak_ends_every_case_and_writes_its_report(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.soak", "--minutes", "0.17", "--samples", "50"]
    done = subprocess.run(
        [*command, "--fault-every", "2", "--out", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    report = json.loads((tmp_path / "soak.json").read_text())
    assert report["problems"] == []
    assert {"kill worker", "cancel some", "lock database"} <= {what for _, what in report["marks"]}
    assert report["series"]["ended"]["growth"] > 20
    rows = list(csv.reader((tmp_path / "soak.csv").read_text().splitlines()))
    assert rows[0] == ["seconds", *(series.name for series in EMBEDDED)]
    assert len(rows) > 10
    picture = ET.parse(tmp_path / "soak.svg").getroot()
    drawn = [element for element in picture if element.tag.endswith("polyline")]
    assert len(drawn) == len(EMBEDDED)


@pytest.mark.slow  # Three processes and ten seconds of load, in real time.
def test_a_server_and_workers_are_soaked_as_processes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.soak", "--processes", "--minutes", "0.17"]
    done = subprocess.run(
        [*command, "--samples", "20", "--fault-every", "3", "--rate", "5", "--out", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert (tmp_path / "soak.json").exists(), f"{done.stdout}\n{done.stderr}"
    report = json.loads((tmp_path / "soak.json").read_text())
    assert report["problems"] == [], f"{done.stdout}\n{done.stderr}"
    assert "kill worker" in {what for _, what in report["marks"]}
    assert list(report["series"]) == [series.name for series in APART]
    assert report["series"]["rss"]["start"] > 10 * 2**20, "the server was measured"


MEMORY = Series("memory", "memory", noise=10.0, per_hour=5.0)


def series_of(slope: float, noise: float) -> tuple[list[float], list[float]]:
    """Return 300 samples over 300 s that grow by so much a second, and jump about."""
    chance = random.Random(7)
    times = [float(second) for second in range(300)]
    return times, [100 + slope * t + chance.uniform(-noise, noise) for t in times]


def test_what_grows_is_told_from_what_jumps_about() -> None:
    assert not judge(MEMORY, *series_of(0.1, 3.0)).holds
    assert judge(MEMORY, *series_of(0.0, 30.0)).holds
    assert judge(MEMORY, *series_of(0.001, 0.1)).holds, "less than the noise in the window"
    assert "GROWS" in str(judge(MEMORY, *series_of(0.1, 3.0)))


def test_warming_up_does_not_count() -> None:
    times, values = series_of(0.0, 0.1)
    warming = [
        value - 500 if time < 50 else value for time, value in zip(times, values, strict=True)
    ]
    assert judge(MEMORY, times, warming).holds


def test_a_fit_finds_the_line() -> None:
    times, values = series_of(2.0, 0.0)
    line = fit(times, values)
    assert line.slope == pytest.approx(2.0)
    assert line.error == pytest.approx(0.0, abs=1e-9)
    assert line.at(299.0) == pytest.approx(698.0)


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="measure longer"):
        fit([0.0, 1.0], [1.0, 1.0])

"""The benchmark's command line works end to end, on sizes that measure nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench._peers import compare
from tests.bench._runner import main

ROOT = Path(__file__).parents[3]


@pytest.mark.slow  # starts four interpreters
def test_a_quick_run_prints_one_json_object_per_workload_and_a_table(tmp_path: Path) -> None:
    out = tmp_path / "lines.jsonl"
    places = ("--dir", str(tmp_path), "--out", str(out))
    ended = subprocess.run(
        [sys.executable, "-m", "tests.bench", "--quick", "--reps", "1", "--only", "w1,w2", *places],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [line["workload"] for line in lines] == ["w1", "w2"]
    assert out.read_text() == ended.stdout
    for line in lines:
        assert line["durability"] == {
            "database": "sqlite",
            "journal_mode": "wal",
            "synchronous": "full",
        }
        assert {"aiki-trio", "python", "sqlite", "trio"} == set(line["versions"])
        assert line["machine"]["cores"] >= 1
        assert line["repetitions"] == 1
        for spread in line["figures"].values():
            assert spread["min"] <= spread["median"] <= spread["max"]
    assert lines[0]["figures"]["tasks_per_s"]["median"] > 0
    assert "| w2 | p50_ms" in ended.stderr
    assert list(tmp_path.iterdir()) == [out], "the databases are removed"


@pytest.mark.slow  # starts four interpreters
def test_a_workload_runs_on_a_server_and_a_worker_of_their_own(tmp_path: Path) -> None:
    options = ("--quick", "--reps", "1", "--topology", "split", "--only", "w1")
    ended = subprocess.run(
        [sys.executable, "-m", "tests.bench", *options, "--dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout)
    assert report["topology"] == "split"
    figures = report["figures"]
    assert figures["tasks_per_s"]["median"] > 0
    assert figures["server_cpu_s"]["median"] > 0, "the server is a process of its own"
    assert figures["worker_1_cpu_s"]["median"] > 0, "the worker is a process of its own"


def test_a_workload_that_needs_one_process_is_refused_for_several(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["--topology", "split", "--only", "w1,w7"])
    assert refused.value.code == 2
    assert "w7; split there are w1,w2,w3,w4,w5,w6,w8" in capsys.readouterr().err


def test_an_unknown_workload_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["--only", "w1,w99"])
    assert refused.value.code == 2
    assert "w99" in capsys.readouterr().err


def test_peers_that_are_not_installed_are_named_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("DBOS_PYTHON", "RESTATE_PYTHON", "CELERY_PYTHON", "AIKI_MODULES"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PEERS_HOME", str(tmp_path))
    report = {"workload": "w1", "figures": {"tasks_per_s": {"median": 10.0}}}
    assert list(compare([report], tmp_path, 1, quick=True)) == []
    said = capsys.readouterr().err
    assert "dbos-sqlite-async: not installed" in said
    assert "restate-py: not installed" in said


def test_a_peers_figures_are_merged_as_ratios(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "restate" / "bench.py"
    script.parent.mkdir()
    script.write_text('print(\'{"peer": "fake", "tasks_per_s": 5.0}\')')
    monkeypatch.setenv("PEERS_HOME", str(tmp_path / "none"))
    monkeypatch.setenv("RESTATE_PYTHON", sys.executable)
    report = {"workload": "w1", "figures": {"tasks_per_s": {"median": 10.0}}}
    assert list(compare([report], tmp_path, 1, quick=True)) == [
        {
            "workload": "w1",
            "peer": "restate-py",
            "figures": {"tasks_per_s": 5.0},
            "ratios": {"tasks_per_s": 2.0},
        }
    ]

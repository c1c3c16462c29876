"""A soak: `python -m tests.soak --minutes N [--processes] [--out DIR]`.

Of an embedded runtime; with `--processes` of a server and workers in processes of their own.

Writes `soak.csv`, `soak.json` and `soak.svg` into DIR, and prints a line for each thing measured:
how much it was, and what a straight line through the last 80 % of it says. The exit code is 1 if
something grows, or a run did not end as it must.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import trio

from .plot import svg
from .rig import Plan, Recording, soak
from .samples import HOUR_S, Verdict, judge

SHOWN_MAX: Final = 20
"""Problems that are printed; the file has all of them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="how long (default: 5)")
    parser.add_argument("--out", type=Path, default=Path("soak"), help="folder (default: soak)")
    parser.add_argument("--rate", type=float, default=Plan(seconds=0).rate, help="cases a second")
    parser.add_argument("--fault-every", type=float, default=20.0, help="seconds between faults")
    parser.add_argument("--seed", default="1", help="of the choices (default: 1)")
    parser.add_argument(
        "--samples", type=int, default=300, help="how many samples are taken (default: 300)"
    )
    parser.add_argument(
        "--processes", action="store_true", help="soak a server and workers, each a process"
    )
    parser.add_argument("--workers", type=int, default=2, help="how many of them (default: 2)")
    given = parser.parse_args(arguments)
    if given.workers < 2:
        parser.error(f"--workers is {given.workers}; one of at least 2 is killed again and again")
    logging.basicConfig(level=logging.ERROR)
    out: Path = given.out
    out.mkdir(parents=True, exist_ok=True)
    plan = Plan(
        seconds=given.minutes * 60,
        rate=given.rate,
        fault_every_s=given.fault_every,
        samples=given.samples,
        seed=given.seed,
    )
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        workers = given.workers if given.processes else 0
        recording = trio.run(partial(soak, plan, Path(folder) / "soak.db", workers))
    verdicts = [judge(s, recording.times, recording.columns[s.name]) for s in recording.series]
    write(out, recording, verdicts)
    for verdict in verdicts:
        print(verdict)
    for time_s, what in recording.marks:
        print(f"at {time_s:6.1f} s: {what}")
    for problem in recording.problems[:SHOWN_MAX]:
        print(f"PROBLEM  {problem}")
    if len(recording.problems) > SHOWN_MAX:
        print(f"PROBLEM  and {len(recording.problems) - SHOWN_MAX} more")
    print(f"{recording.columns['ended'][-1]:.0f} cases ended; see {out / 'soak.svg'}")
    return 0 if not recording.problems and all(v.holds for v in verdicts) else 1


def write(out: Path, recording: Recording, verdicts: Sequence[Verdict]) -> None:
    """Write the samples, the verdicts and the plot."""
    names = [verdict.series.name for verdict in verdicts]
    with (out / "soak.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["seconds", *names])
        columns = [recording.columns[name] for name in names]
        rows.writerows(zip(recording.times, *columns, strict=True))
    said = {
        verdict.series.name: {
            "holds": verdict.holds,
            "start": verdict.fit.start,
            "growth": verdict.fit.growth,
            "per_hour": verdict.fit.slope * HOUR_S,
            "per_hour_error": verdict.fit.error * HOUR_S,
        }
        for verdict in verdicts
    }
    report = {"series": said, "marks": recording.marks, "problems": recording.problems}
    (out / "soak.json").write_text(json.dumps(report, indent=1))
    picture = svg(recording.times, recording.columns, verdicts, recording.marks)
    (out / "soak.svg").write_text(picture)


if __name__ == "__main__":
    sys.exit(main())

"""The demo: start the service, see it killed, start it again, verify, and print the summary.

`python -m examples.orders --help` says what can be chosen. The exit code is 1 if any claim of the
summary could not be proven.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import trio
from attrs import evolve, frozen

from aiki_sdk import SystemClock

from .cluster_demo import ClusterDemo
from .effects import read_lines
from .evidence import Evidence, Kill, copy_database, read_journals
from .plan import make_plan
from .service import Service
from .verify import Proof, Report, verify

ROOT: Final = Path(__file__).resolve().parents[2]
SHOW_CURSOR: Final = "\x1b[?25h"
VIOLATIONS_SHOWN: Final = 5


@frozen
class Ended:
    """A process of the service that has ended."""

    pid: int
    code: int


@frozen
class Demo:
    """One run of the demo.

    Attributes:
        service: what the process is told that is not to be killed.
        kill_at: the part of all task executions after which it kills itself; None: never.
        folder: where the database as the kill left it is put.

    """

    service: Service
    kill_at: float | None
    folder: Path

    def run(self) -> Evidence:
        """Run the service, through its crash, and collect what is to be known of it."""
        service = self.service
        clock = SystemClock()
        plan = make_plan(service.orders, service.seed)
        kills: tuple[Kill, ...] = ()
        if self.kill_at is not None:
            lines = round(2 * self.kill_at * sum(planned.executions for planned in plan))
            first = self._process(evolve(service, kill_at=max(1, lines)))
            died_at = clock.now()
            copy = self.folder / "at-kill.db"
            copy_database(service.database, copy)
            died_by = -first.code if first.code < 0 else 0
            self._say(f"process {first.pid} died by {_signal_name(died_by)}; starting it again")
            restarted_at = clock.now()
            last = self._process(service)
            journals = trio.run(lambda: read_journals(copy, until=died_at))
            part = "the first process"
            kills = (Kill(part, True, first.pid, died_by, died_at, restarted_at, journals),)
        else:
            last = self._process(service)
        journals = trio.run(read_journals, service.database)
        codes = {"the last process": last.code}
        return Evidence(plan, journals, read_lines(service.effects), codes, kills)

    def _process(self, service: Service) -> Ended:
        """Run the service in a process of its own until that ends, however it does."""
        with subprocess.Popen(service.command(), cwd=ROOT) as process:
            code = process.wait()
        if code < 0 and sys.stdout.isatty():
            print(SHOW_CURSOR)  # a killed process cannot give the cursor back
        return Ended(process.pid, code)

    def _say(self, text: str) -> None:
        if not self.service.quiet:
            print(text, flush=True)


def _signal_name(number: int) -> str:
    return signal.Signals(number).name if number else "no signal"


def summary_of(report: Report) -> str:
    """Write the summary; every number in it was counted."""
    endings = ", ".join(f"{count} {ending}" for ending, count in report.endings.most_common())
    lines = [
        "",
        f"{report.endings.total()} orders planned: {endings}",
        f"{report.shipments} shipments, {report.task_calls} task calls",
        f"{report.executions} executions of task code, {report.entries} journal entries",
        "",
        *(line for proof in report.proofs for line in _lines_of(proof)),
        "",
    ]
    if report.recoveries:
        repeats = report.repeats
        lines += [
            f"unfinished attempts that were repeated: {repeats.cut_off + repeats.not_durable}",
            f"  cut off in the middle: {repeats.cut_off}",
            f"  ended, but their outcome was not durable yet: {repeats.not_durable}",
        ]
    for recovery in report.recoveries:
        lines += [
            f"recovery of {recovery.kill.part}, from starting it again:",
            f"  to the next journal entry: {recovery.first_entry_s:.2f} s",
        ]
        if recovery.kill.works and len(report.recoveries) == 1:
            lines.append(
                f"  to all {recovery.interrupted} cut off runs going on: "
                f"{recovery.all_going_s:.2f} s"
            )
    failed = sum(not proof.holds for proof in report.proofs)
    vacant = sum(proof.holds and not proof.checked for proof in report.proofs)
    if failed:
        lines.append(f"{failed} claims NOT PROVEN")
    else:
        lines.append(f"all claims proven, but {vacant} vacant" if vacant else "all claims proven")
    return "\n".join(lines)


def _lines_of(proof: Proof) -> list[str]:
    word = "FAILED" if not proof.holds else "proven" if proof.checked else "vacant"
    lines = [f"{word}  {proof.checked:5d}  {proof.claim}"]
    shown = proof.violations[:VIOLATIONS_SHOWN]
    lines += [f"               - {violation}" for violation in shown]
    if len(proof.violations) > len(shown):
        lines.append(f"               - and {len(proof.violations) - len(shown)} more")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m examples.orders", description=__doc__)
    parser.add_argument("--orders", type=int, default=100, help="how many (default: 100)")
    parser.add_argument("--seed", type=int, default=1, help="another plan for another seed")
    parser.add_argument("--quiet", action="store_true", help="print the summary only")
    parser.add_argument("--database", type=Path, help="keep the database in this new file")
    parser.add_argument("--kill", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument(
        "--kill-at", type=float, default=0.5, help="part of the work before it (default: 0.5)"
    )
    parser.add_argument(
        "--processes", action="store_true", help="on a server and workers, killed in turn"
    )
    parser.add_argument(
        "--cluster", action="store_true", help="the same with PostgreSQL and Redis, killed too"
    )
    given = parser.parse_args(arguments)
    if given.orders < 1 or not 0 < given.kill_at < 1:
        parser.error("--orders must be at least 1, and --kill-at between 0 and 1")
    folder = Path(tempfile.mkdtemp(prefix="orders-"))
    if given.processes or given.cluster:
        tell = no_news if given.quiet else print
        demo = ClusterDemo(
            given.orders,
            given.seed,
            folder,
            postgres=given.cluster,
            redis=given.cluster,
            tell=tell,
        )
        return conclude(verify(demo.run()), folder, folder)
    database: Path = (given.database or folder / "orders.db").resolve()
    if database.exists():
        parser.error(f"--database {database} exists; name a new file, or remove it")
    effects = database.with_suffix(".effects.jsonl")
    effects.unlink(missing_ok=True)
    service = Service(database, effects, given.orders, given.seed, given.quiet)
    report = verify(Demo(service, given.kill_at if given.kill else None, folder).run())
    return conclude(report, folder, database)


def no_news(_line: str) -> None:
    """Tell nobody."""


def conclude(report: Report, folder: Path, kept: Path) -> int:
    """Print the summary, tidy up if all is proven, and return the exit code."""
    print(summary_of(report))
    if report.holds:
        shutil.rmtree(folder)
        return 0
    print(f"what the proofs were made from is kept: {kept}, {folder}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())

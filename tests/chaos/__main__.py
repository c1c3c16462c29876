"""Chaos on this machine: `python -m tests.chaos --minutes N [--seed S]`.

First every fault point is struck once, by script, and each kind of trouble is met; the rest of the
time goes to random kills under load. `--only cluster` does the like to a server and its workers, as
processes of their own, on PostgreSQL if you say so; `--only points` strikes their fault points.

Prints a line for each scenario, and exits with 1 if a promise was broken. The seed does not replay
a scenario to the microsecond, for processes are scheduled by the system; it repeats the choices.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from random import SystemRandom
from typing import Final

VARIABLE: Final = "AIKI_FAULT"
ROUND_S: Final = 20.0
PARTS: Final = ("scripted", "trouble", "random", "cluster", "points")
USUAL: Final = ("scripted", "trouble", "random")


def _arguments(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="about how long (default: 2)")
    parser.add_argument("--seed", help="repeats the choices of an earlier run")
    parser.add_argument("--every", action="store_true", help="strike points at several passings")
    parser.add_argument("--only", choices=PARTS, action="append", help="these parts only")
    parser.add_argument("--match", default="", help="only scenarios whose name has this in it")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--workers", type=int, default=2, help="of the cluster (default: 2)")
    parser.add_argument("--postgres", action="store_true", help="the cluster keeps runs there")
    parser.add_argument("--redis", action="store_true", help="the cluster's workers pull there")
    parser.add_argument("--in-flight", type=int, default=6, help="the cluster's runs (default: 6)")
    parser.add_argument("--kill-workers", action="store_true", help="SIGKILL for workers, no else")
    parser.add_argument("--parallel", type=int, help="scenarios at a time (default: cores + 1)")
    return parser.parse_args(given)


def main(arguments: Sequence[str]) -> int:
    """Run; return the exit code."""
    # Imported here: fault points are armed or empty from the first import on.
    from . import cluster
    from .kills import random_round, scripted
    from .scenario import Named, run_all, shown
    from .trouble import SCENARIOS

    given = _arguments(arguments)
    seed: str = given.seed or str(SystemRandom().randrange(2**32))
    parts = given.only or USUAL
    until = time.monotonic() + given.minutes * 60

    def scenarios() -> Iterator[Named]:
        if "scripted" in parts:
            yield from scripted(every=given.every)
        if "trouble" in parts:
            yield from SCENARIOS
        number = 0
        while "random" in parts and (left_s := until - time.monotonic()) > 1.0:
            seconds = min(ROUND_S, left_s)
            number += 1
            yield Named(f"random {number}", partial(random_round, seconds=seconds))
        if "points" in parts:
            yield from cluster.scripted(cluster.Load(workers=given.workers))
        if "cluster" in parts:
            left_s = max(5.0, until - time.monotonic())
            backing = {"postgres": given.postgres, "redis": given.redis}
            load = cluster.Load(workers=given.workers, in_flight=given.in_flight)
            yield cluster.rounds(left_s, load, **backing, kill_workers=given.kill_workers)

    root = Path(tempfile.mkdtemp(prefix="chaos-", dir=given.folder))
    root.chmod(0o755)  # a PostgreSQL that root starts runs as somebody else
    print(f"seed {seed}, in {root}", flush=True)
    totals: Counter[str] = Counter()
    failed = 0
    wanted = (one for one in scenarios() if given.match in one.name)
    for result in run_all(wanted, root, seed, parallel=given.parallel):
        print("\n".join(shown(result, root)), flush=True)
        totals.update({"scenarios": 1, **result.counts})
        failed += not result.holds
    print(", ".join(f"{count} {what}" for what, count in totals.items()))
    print(f"{failed} scenarios FAILED (--seed {seed})" if failed else "every promise was kept")
    if not failed:
        shutil.rmtree(root)
    return 1 if failed else 0


if __name__ == "__main__":
    if VARIABLE not in os.environ:
        os.environ[VARIABLE] = ""
        os.execv(sys.executable, [sys.executable, "-m", "tests.chaos", *sys.argv[1:]])
    sys.exit(main(sys.argv[1:]))

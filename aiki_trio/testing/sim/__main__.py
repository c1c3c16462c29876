"""The simulator's command: `python -m aiki_trio.testing.sim --seeds N [--seed S] [--minutes M]`.

It runs random programs on a whole cluster, seed after seed, prints each failure with the command
that shows it again, and ends with 1 if there was any.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from itertools import count
from pathlib import Path

from ._explore import TWICE_EVERY, explore
from ._options import DRAWING
from ._simulation import SimulationFailed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m aiki_trio.testing.sim",
        description="Simulate clusters by seed and hold them to their promises.",
    )
    parser.add_argument("--seeds", type=int, default=None, help="how many seeds (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="the first seed (default: 0)")
    parser.add_argument("--minutes", type=float, default=None, help="begin no seed after so long")
    parser.add_argument(
        "--twice-every", type=int, default=TWICE_EVERY, help="run each so many-th seed twice"
    )
    parser.add_argument("--keep", type=Path, default=None, help="folder for failing seeds, as JSON")
    given = parser.parse_args(arguments)

    def tell(failure: SimulationFailed) -> None:
        print(failure, flush=True)  # noqa: T201  (a command prints)
        if given.keep is not None:
            keep(given.keep, failure)

    found = explore(
        _seeds(given.seed, given.seeds, endless=given.minutes is not None),
        twice_every=given.twice_every,
        on_failure=tell,
        minutes=given.minutes,
    )
    print(found)  # noqa: T201  (a command prints)
    return 1 if found.failures else 0


def _seeds(first: int, number: int | None, *, endless: bool) -> Iterable[int]:
    if number is None and endless:
        return count(first)
    return range(first, first + (100 if number is None else number))


def keep(folder: Path, failure: SimulationFailed) -> None:
    """Write a failing seed down, so that a test can run it from now on."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = {
        "seed": failure.seed,
        "promises": list(failure.promises),
        "problem": failure.problems[0],
        "options": failure.options.as_code(),
        "drawing": DRAWING,
    }
    path = folder / f"seed-{failure.seed}.json"
    path.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())

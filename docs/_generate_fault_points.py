"""Write `docs/reference/fault-points.md` from the registry of fault points.

Run it from the repository after a point was added: `python docs/_generate_fault_points.py`. A test
fails as long as the page is stale.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from aiki_actors.faults import FAULT_POINTS

PAGE: Final = Path(__file__).parent / "reference" / "fault-points.md"

INTRODUCTION: Final = """\
# Fault points

<!-- Written by docs/_generate_fault_points.py from the registry; do not edit it by hand. -->

Places in the code at which a process can be told to die. They are there for the
[kill tests](../how-to/chaos-and-soak.md): without the variable, a point is a call of an empty
function, some 20 ns.

```bash
AIKI_FAULT=task.done:3 python -m examples.embedded  # SIGKILL at the third passing
AIKI_FAULT=commit.done:1:stop python -m examples.embedded
```

The variable is `<point>:<n>[:<action>]`; several of these may stand in it, with commas between.
Each process counts its own passings, from 1. The actions are `kill` (SIGKILL, the default), `stop`
(SIGSTOP), `term` (SIGTERM) and `exit` (the process ends at once, with code 70). A program with a
plan that cannot be read, such as one with a name that is not on this page, does not start.

| point | stands for | what has happened, and what has not |
|---|---|---|
"""

CODES: Final = """
The codes in the second column are those of the plan of kill tests: `W` for what a worker does, `S`
for what a server does.
"""


def page() -> str:
    """Return the page as it must be."""
    rows = [f"| `{point.name}` | {point.codes} | {point.meaning} |\n" for point in FAULT_POINTS]
    return INTRODUCTION + "".join(rows) + CODES


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

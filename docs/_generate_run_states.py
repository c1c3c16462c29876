"""Write `docs/reference/run-states.md` from the engine's own tables.

Run it from the repository after a change to a transition, a status or an entry:
`python docs/_generate_run_states.py`. A test fails as long as the page is stale.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import attrs

from aiki_actors.engine import ENTRY_KINDS, FORMAT, ROWS, Body, Phase, mermaid
from aiki_sdk.protocol import RunStatus

PAGE: Final = Path(__file__).parent / "reference" / "run-states.md"

# The words of the semantics: what a status means to people, and by what a run leaves it.
STATUSES: Final[dict[RunStatus, tuple[str, str]]] = {
    RunStatus.SCHEDULED: ("its start time is not reached", "time → queued · cancel"),
    RunStatus.QUEUED: (
        "ready, and no worker has it",
        "claim → running · cancel · undelivered for too long → stalled",
    ),
    RunStatus.RUNNING: (
        "a worker holds the claim and is doing something",
        "park · an outcome · cancel · claim lost or released → queued",
    ),
    RunStatus.SLEEPING: ("everything waits; a sleep ends first", "a wait is resolved · cancel"),
    RunStatus.AWAITING_EVENT: (
        "everything waits; an event's timeout ends first, or nothing has a time of its own",
        "a wait is resolved · cancel",
    ),
    RunStatus.AWAITING_CHILD: (
        "everything waits; a child's timeout ends first, or only children are waited for",
        "a wait is resolved · cancel",
    ),
    RunStatus.AWAITING_RETRY: (
        "everything waits; the delay before a task's or the run's next attempt ends first",
        "a wait is resolved · cancel",
    ),
    RunStatus.PAUSED: (
        "paused by an operator: waits go on elapsing, events go on arriving, nothing runs",
        "resume → what it would be without the pause · cancel",
    ),
    RunStatus.STALLED: (
        "undeliverable, poison, diverged, or its worker was lost too often; not an end",
        "requeue → queued · cancel",
    ),
    RunStatus.COMPLETED: ("the workflow returned", "nothing; a fork makes a new run"),
    RunStatus.FAILED: (
        "the workflow raised, diverged, hit a limit or ran out of time",
        "retry by an operator → queued; a fork makes a new run",
    ),
    RunStatus.CANCELLED: ("cancelled or terminated", "nothing; a fork makes a new run"),
}

INTRODUCTION: Final = """\
# Run states

<!-- Written by docs/_generate_run_states.py from the engine's tables; do not edit it by hand. -->

A run *is* its journal: a list of entries, each a fact in the past tense. This page lists every
phase a run can be in, every entry that can follow in it, and what people see of it as its status.
It is generated from the table that the engine itself runs on
(`actors/aiki_actors/engine/_transitions.py`), so it cannot be out of date.
"""

PHASES: Final = """\
## Phases

A phase is what the machinery knows. Where several waits are open, the phase is `waiting` for all
of them; the status tells them apart. A pause lies over the phase and is none of its own.
"""

TRANSITIONS: Final = """\
## Transitions

Every row of the table. An entry that has no row for the phase that it meets is illegal: the engine
never produces it, and refuses a journal that holds it.
"""

STATUS: Final = """\
## Status

The status follows from the journal; nothing sets it. `paused` hides what lies under it; a waiting
run shows the wait that ends first, else an event, else a child.
"""

ENTRIES: Final = f"""\
## Entries

The kinds of journal entry, format {FORMAT}. Each has a `seq`, gapless from 1 within its run, and
the time `at` which it was decided. Times and durations are whole microseconds, times since the Unix
epoch, UTC. A kind or a field is never renamed.
"""


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    names = list(header)
    yield f"| {' | '.join(names)} |"
    yield f"|{'---|' * len(names)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


def code(text: object) -> str:
    """Set text as code."""
    return f"`{text}`"


def transition_rows() -> Iterator[list[str]]:
    """Yield one row for each row of the engine's table."""
    for row in ROWS:
        sources = ", ".join(code(source) for source in row.sources)
        target = "stays" if row.target is None else code(row.target)
        yield [code(row.entry.kind), sources, target, row.cause]


def status_rows() -> Iterator[list[str]]:
    """Yield one row for each status."""
    for status in RunStatus:
        meaning, leaves = STATUSES[status]
        yield [code(status), "yes" if status.terminal else "", meaning, leaves]


def describe(text: str) -> str:
    """Put a docstring on one line, without its list of attributes."""
    prose = text.split("Attributes:", maxsplit=1)[0]
    return re.sub(r"\s+", " ", prose).strip()


def type_text(annotation: object) -> str:
    """Name a field's type as its source does, without module names and quotes."""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"[\w.]+\.(?=\w)", "", text)


def field_text(cls: type[Body], field: attrs.Attribute[object]) -> str:
    """Name a field, its type as the source has it, and whether it may be left out."""
    optional = "" if field.default is attrs.NOTHING else " (optional)"
    return f"{code(field.name)}: {code(type_text(cls.__annotations__[field.name]))}{optional}"


def entry_rows() -> Iterator[list[str]]:
    """Yield one row for each kind of entry."""
    for kind, cls in ENTRY_KINDS.items():
        yield [code(kind), describe(inspect.getdoc(cls) or ""), fields_text(cls)]


def fields_text(cls: type[Body]) -> str:
    """List the fields of a kind of entry."""
    assert attrs.has(cls), f"{cls.__name__} is no attrs class"
    return "<br>".join(field_text(cls, field) for field in attrs.fields(cls)) or "none"


def page() -> str:
    """Return the whole page."""
    lines = [
        INTRODUCTION,
        PHASES,
        "```mermaid",
        mermaid().rstrip(),
        "```",
        "",
        "Terminal phases: " + ", ".join(code(phase) for phase in Phase if phase.terminal) + ".",
        "",
        TRANSITIONS,
        *table(("entry", "in", "leads to", "because"), transition_rows()),
        "",
        STATUS,
        *table(("status", "ended", "meaning", "leaves it by"), status_rows()),
        "",
        ENTRIES,
        *table(("kind", "what happened", "fields"), entry_rows()),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

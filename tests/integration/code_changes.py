"""Edits of a workflow's code under a live run, and what each does to it.

The tests apply every edit to a run that waits; the page `docs/how-to/live-with-code-changes.md`
shows the same list, so that what it says is what was tried.
"""

from __future__ import annotations

import difflib
from typing import Final

from attrs import frozen

from aiki_trio.cli._replay import Verdict

HEADER: Final = '''"""A module of workflows."""

from attrs import frozen

from aiki_sdk import Event, Retry, Run, task, workflow

go = Event("go", int)
'''

TASKS: Final = """
@task
async def charge(cents: int) -> str:
    return f"charged {cents}"


@task
async def ship(order: str) -> str:
    return f"shipped {order}"


@task
async def notify(order: str) -> str:
    return f"notified {order}"
"""

WORKFLOW: Final = """
@workflow(name="order", version="1.0.0", events=[go])
async def order(run: Run, cents: int) -> str:
    receipt = await charge(cents)
    parcel = await ship("o-1")
    await run.sleep("rest", seconds=0.01)
    await run.wait(go)
    return f"{receipt}, {parcel}"
"""


@frozen
class Edit:
    """One change of the code, between two deployments.

    Attributes:
        name: what the test is called.
        change: what was changed, in words.
        verdict: what becomes of a live run.
        because: why, in a few words.
        replaced: pieces of the old code, each with what stands there in the new one.
    """

    name: str
    change: str
    verdict: Verdict
    because: str
    replaced: tuple[tuple[str, str], ...]

    @property
    def old(self) -> str:
        """The module before the edit."""
        return f"{HEADER}\n{TASKS}\n{WORKFLOW}"

    @property
    def new(self) -> str:
        """The module after the edit."""
        text = self.old
        for before, after in self.replaced:
            assert text.count(before) == 1, f"edit {self.name}: {before!r} is not there once"
            text = text.replace(before, after)
        return text

    @property
    def diff(self) -> str:
        """The lines that the edit removes and adds."""
        lines = difflib.unified_diff(self.old.splitlines(), self.new.splitlines(), n=0, lineterm="")
        return "\n".join(
            line for line in lines if line[:3] not in {"---", "+++"} and line[:2] != "@@"
        )


CHARGE: Final = "    receipt = await charge(cents)\n"
SHIP: Final = '    parcel = await ship("o-1")\n'
SLEEP: Final = '    await run.sleep("rest", seconds=0.01)\n'
WAIT: Final = "    await run.wait(go)\n"
RETURN: Final = '    return f"{receipt}, {parcel}"\n'
DEFINED: Final = '@workflow(name="order", version="1.0.0", events=[go])\n'

SAFE: Final = (
    Edit(
        "append-a-call",
        "add a call after everything that live runs have recorded",
        Verdict.SAFE,
        "nothing recorded comes after it",
        ((RETURN, '    await notify("o-1")\n' + RETURN),),
    ),
    Edit(
        "swap-calls",
        "put recorded calls of different tasks or inputs into another order",
        Verdict.SAFE,
        "a record is found by task and input, not by its place",
        ((CHARGE + SHIP, SHIP + CHARGE),),
    ),
    Edit(
        "run-side-by-side",
        "let recorded calls run side by side",
        Verdict.SAFE,
        "the same: a record of another branch is taken where there is no other",
        ((CHARGE + SHIP, '    receipt, parcel = await run.gather(charge(cents), ship("o-1"))\n'),),
    ),
    Edit(
        "remove-a-call",
        "remove a recorded call, with no new call after it",
        Verdict.SAFE,
        "its record is left unused",
        ((SHIP, '    parcel = "nothing"\n'),),
    ),
    Edit(
        "change-a-task-body",
        "change what a task does",
        Verdict.SAFE,
        "a recorded result is not computed again",
        (('return f"charged {cents}"', 'return f"took {cents}"'),),
    ),
    Edit(
        "change-a-tasks-retry",
        "change a task's retry or timeout",
        Verdict.SAFE,
        "they are not part of what a call is known by",
        (
            (
                "@task\nasync def charge",
                "@task(retry=Retry.fixed(max_attempts=3, delay=1), timeout=5)\nasync def charge",
            ),
        ),
    ),
    Edit(
        "lengthen-a-sleep",
        "change the length of a sleep",
        Verdict.SAFE,
        "of a longer one the rest is slept, a shorter one is over",
        (("seconds=0.01", "seconds=0.05"),),
    ),
    Edit(
        "add-a-sleep",
        "add a sleep, anywhere",
        Verdict.SAFE,
        "sleeps are not held against the journal",
        ((CHARGE, '    await run.sleep("first", seconds=0.01)\n' + CHARGE),),
    ),
    Edit(
        "remove-a-sleep",
        "remove or rename a sleep",
        Verdict.SAFE,
        "the same",
        ((SLEEP, ""),),
    ),
    Edit(
        "use-a-result-otherwise",
        "use recorded results in another way",
        Verdict.SAFE,
        "code between calls is not recorded",
        ((RETURN, '    return f"{parcel}; {receipt}".upper()\n'),),
    ),
    Edit(
        "rename-variables",
        "rename the workflow's function or variables",
        Verdict.SAFE,
        "the name that counts is the one given to `@workflow`",
        (("async def order(run: Run", "async def process_order(run: Run"),),
    ),
    Edit(
        "add-an-argument-with-a-default",
        "add a parameter with a default to the workflow",
        Verdict.SAFE,
        "live runs get the default",
        (
            (
                "cents: int) -> str:\n    receipt",
                "cents: int, gift: bool = False) -> str:\n    receipt",
            ),
        ),
    ),
    Edit(
        "widen-a-result-type",
        "widen a task's return type",
        Verdict.SAFE,
        "what is recorded still fits",
        (("charge(cents: int) -> str:", "charge(cents: int) -> str | None:"),),
    ),
    Edit(
        "keep-both-versions",
        "give changed code a new version, and keep the old function",
        Verdict.SAFE,
        "a run stays on the version that it was started with",
        (
            (
                DEFINED,
                '@workflow(name="order", version="2.0.0", events=[go])\n'
                "async def newer_order(run: Run, cents: int) -> str:\n"
                '    return await notify("o-1")\n\n\n' + DEFINED,
            ),
        ),
    ),
)

UNSAFE: Final = (
    Edit(
        "insert-a-call",
        "insert a task or child call before recorded ones",
        Verdict.DIVERGES,
        "it would happen after what it was to come before",
        ((CHARGE, '    await notify("o-1")\n' + CHARGE),),
    ),
    Edit(
        "rename-a-task",
        "rename a task",
        Verdict.DIVERGES,
        'its record is under the old name; keep it with `@task(name="charge")`',
        (("def charge(", "def take("), ("await charge(", "await take(")),
    ),
    Edit(
        "change-an-argument",
        "change an argument of a recorded call",
        Verdict.DIVERGES,
        "another input is another call",
        (("await charge(cents)", "await charge(cents + 1)"),),
    ),
    Edit(
        "add-a-task-parameter",
        "add a parameter to a task, even with a default",
        Verdict.DIVERGES,
        "the default is part of the input",
        (("charge(cents: int)", 'charge(cents: int, currency: str = "EUR")'),),
    ),
    Edit(
        "take-another-branch",
        "take another `if` branch than the recorded one",
        Verdict.DIVERGES,
        "other calls than the recorded ones",
        (
            (
                CHARGE,
                '    receipt = await notify("o-1") if cents < 1_000 else await charge(cents)\n',
            ),
        ),
    ),
    Edit(
        "replace-a-call",
        "replace a recorded call by another one",
        Verdict.DIVERGES,
        "removing alone would be safe, but here a new call stands before recorded ones",
        ((CHARGE, '    receipt = await notify("o-1")\n'),),
    ),
    Edit(
        "narrow-a-result-type",
        "change a task's return type so that what is recorded does not fit",
        Verdict.DIVERGES,
        "`RecordedTypeMismatch`; give the task an `upcast`",
        (
            ("charge(cents: int) -> str:", "charge(cents: int) -> int:"),
            ('return f"charged {cents}"', "return cents"),
        ),
    ),
    Edit(
        "replace-the-version",
        "give the workflow another version in place of the old one",
        Verdict.NEEDS_VERSION,
        "nobody can execute the live runs; keep the old function beside it",
        (('version="1.0.0"', 'version="2.0.0"'),),
    ),
    Edit(
        "rename-the-workflow",
        "rename a workflow",
        Verdict.NEEDS_VERSION,
        "the same",
        (('name="order"', 'name="purchase"'),),
    ),
)

EDITS: Final = (*SAFE, *UNSAFE)

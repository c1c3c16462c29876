"""A scenario: processes that serve, faults in between, a last one that finishes, and its report.

Each scenario has a folder of its own and runs in a process of its own, so that several can run at
the same time, and one that breaks down takes nothing with it.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Final, cast

from attrs import asdict, define, field, frozen

from .processes import Child, ChildHangs, fork, wait_until
from .program import Folder, Life, Report, live

FINISH_S: Final = 60.0
SHOWN_MAX: Final = 12


@frozen
class Result:
    """What came of a scenario.

    Attributes:
        name: the scenario.
        violations: what was wrong, a line each.
        notes: what it did.
        counts: what was checked.
        took_s: how long it took.

    """

    name: str
    violations: list[str]
    notes: list[str]
    counts: dict[str, int]
    took_s: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether nothing was wrong."""
        return not self.violations


@define(eq=False)
class Stage:
    """What a scenario works with.

    Attributes:
        folder: its files.
        chance: its source of chance, seeded.
        notes: what it did, for the report.
        problems: what it saw that must not be.

    """

    folder: Folder
    chance: Random
    notes: list[str] = field(factory=lambda: list[str](), init=False)
    problems: list[str] = field(factory=lambda: list[str](), init=False)

    def serve(self, life: Life | None = None) -> Child:
        """Start a process with a runtime and load."""
        return fork(partial(live, "serve", self.folder, life or Life()), "serve")

    def finish(self, life: Life | None = None) -> Report:
        """Run without faults until all is quiet, and check."""
        life = life or Life()
        self.folder.report.unlink(missing_ok=True)
        child = fork(partial(live, "finish", self.folder, life), "finish")
        with child:
            code = child.wait(life.quiet_s + FINISH_S)
        if code or not self.folder.report.exists():
            line = f"the last process ended with code {code}: see {self.folder.log}"
            return Report([line], {}, 0.0)
        return Report(**json.loads(self.folder.report.read_text()))

    def progress(self) -> int:
        """Return a number that grows whenever a client is told something."""
        acknowledged = self.folder.acknowledged
        return acknowledged.stat().st_size if acknowledged.exists() else 0

    def await_progress(self, child: Child, bytes_more: int = 600, within_s: float = 15.0) -> None:
        """Wait until clients were told more."""
        before = self.progress()
        child.until(lambda: self.progress() >= before + bytes_more, within_s, "acknowledge more")

    def logged(self, text: str) -> bool:
        """Tell whether a process has logged something."""
        log = self.folder.log
        return log.exists() and text in log.read_text(errors="replace")

    def expect(self, what: bool, otherwise: str) -> None:
        """Note a problem unless something holds."""
        if not what:
            self.problems.append(otherwise)


Scenario = Callable[[Stage], Report]


@frozen
class Named:
    """A scenario with its name."""

    name: str
    play: Scenario


def run_one(named: Named, folder: Path, seed: str) -> Result:
    """Play a scenario in this process."""
    folder.mkdir(parents=True)
    began = time.monotonic()
    stage = Stage(Folder(folder), Random(f"{seed}/{named.name}"))
    try:
        report = named.play(stage)
    except ChildHangs as error:
        report = Report([f"{error}: see {folder}"], {}, 0.0)
    took_s = time.monotonic() - began
    found = [*stage.problems, *report.violations]
    return Result(named.name, found, stage.notes, report.counts, took_s)


def run_all(
    scenarios: Iterable[Named], root: Path, seed: str, *, parallel: int | None = None
) -> Iterator[Result]:
    """Play scenarios, some at a time; yield each result when it is there.

    The folder of a scenario that holds is removed.
    """
    todo = enumerate(scenarios)
    more = True
    running: list[tuple[Child, Named, Path]] = []
    limit = parallel or (os.cpu_count() or 1) + 1
    try:
        while more or running:
            while more and len(running) < limit:
                number, named = next(todo, (-1, None))
                if named is None:
                    more = False
                    break
                folder = root / f"{number:03}-{named.name.replace(' ', '-').replace(':', '-')}"
                running.append((fork(partial(_play, named, folder, seed), "rig"), named, folder))
            ended = [one for one in running if one[0].poll() is not None]
            if not ended:
                wait_until(lambda: any(one[0].poll() is not None for one in running), 1.0)
            for one in ended:
                running.remove(one)
                yield _collect(*one)
    finally:
        for child, _, _ in running:
            child.kill()


def _play(named: Named, folder: Path, seed: str) -> int:
    result = run_one(named, folder, seed)
    (folder / "result.json").write_text(json.dumps(asdict(result)))
    return 0


def _collect(child: Child, named: Named, folder: Path) -> Result:
    path = folder / "result.json"
    if not path.exists():
        return Result(named.name, [f"the rig broke down with code {child.code}"], [], {})
    result = Result(**cast("dict[str, object]", json.loads(path.read_text())))  # type: ignore[arg-type]
    if result.holds:
        shutil.rmtree(folder)
    return result


def shown(result: Result, root: Path) -> Sequence[str]:
    """Describe a result, a line and what was wrong."""
    word = "ok  " if result.holds else "FAIL"
    counted = ", ".join(f"{count} {what}" for what, count in result.counts.items())
    lines = [f"{word} {result.took_s:5.1f} s  {result.name}: {counted}"]
    lines += [f"           {note}" for note in result.notes]
    lines += [f"         - {line}" for line in result.violations[:SHOWN_MAX]]
    more = len(result.violations) - SHOWN_MAX
    if more > 0:
        lines.append(f"         - and {more} more")
    if not result.holds:
        lines.append(f"           everything of it is kept in {root}")
    return lines

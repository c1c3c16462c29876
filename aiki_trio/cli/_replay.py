"""`aiki replay`: would these runs survive this code? A gate for continuous integration.

Each journal is replayed by the production rules against the workflows of a module; nothing is
executed and no database is written. Journals come from files that `aiki record` wrote, or from the
runs of a database.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Final

from attrs import frozen

from aiki_sdk import (
    AikiError,
    Divergence,
    InvalidRequest,
    JsonValue,
    RecordedTypeMismatch,
    WorkflowRegistry,
)
from aiki_trio.testing import Journal, ReplayReport, export_journal, load_journal, replay
from aiki_trio.testing._replay import recorded_outcome

from ._command import Command
from ._connect import find_run, needed_module, reading
from ._doctor import live_runs
from ._exit import ExitCode
from ._modules import load_workflows

LIVE_MAX: Final = 1_000
"""Live runs that are replayed if none is named."""


class Verdict(StrEnum):
    """What would become of a run under the code."""

    SAFE = "safe"
    DIVERGES = "would diverge"
    NEEDS_VERSION = "needs a version"


@frozen
class Judgement:
    """What became of one journal's replay.

    Attributes:
        journal: whose.
        where: the file or run it came from.
        verdict: what would become of the run.
        report: why it would diverge, or which version it needs; empty if it is safe.
        found: what the replay found, if it went through.
    """

    journal: Journal
    where: str
    verdict: Verdict
    report: str = ""
    found: ReplayReport | None = None

    @property
    def live(self) -> bool:
        """Whether the run had not ended when its journal was taken."""
        return recorded_outcome(self.journal) is None

    def to_json(self) -> JsonValue:
        """Return it for a program."""
        found = self.found
        return {
            "source": self.where,
            "run_id": self.journal.run_id,
            "workflow": self.journal.workflow,
            "version": self.journal.version,
            "live": self.live,
            "verdict": self.verdict.value,
            "report": self.report,
            "consumed": None if found is None else found.consumed,
            "remaining": [] if found is None else list(found.remaining),
            "stopped_at": [] if found is None else list(found.stopped_at),
        }


def judge(journal: Journal, where: str, registry: WorkflowRegistry) -> Judgement:
    """Replay one journal against the workflow of its name and version."""
    workflow = registry.get(journal.workflow, journal.version)
    if workflow is None:
        keys = registry.keys()
        has = [key for key in keys if key.startswith(f"{journal.workflow}@")]
        there_is = f"it has {', '.join(has)}" if has else "it has no version of that workflow"
        report = (
            f"the module lacks {journal.workflow}@{journal.version}; {there_is}. Keep the old "
            "function beside the new one until no run needs it"
        )
        return Judgement(journal, where, Verdict.NEEDS_VERSION, report)
    try:
        found = replay(workflow, journal)
    except (Divergence, RecordedTypeMismatch) as error:
        report = error.message
        if journal.scrubbed:
            report += "\n(The journal is scrubbed: code that decides by values may differ by that.)"
        return Judgement(journal, where, Verdict.DIVERGES, report)
    return Judgement(journal, where, Verdict.SAFE, found=found)


def exit_code_for(judgements: Iterable[Judgement]) -> ExitCode:
    """Return the code of the gate: divergences first, then versions that live runs need."""
    seen = list(judgements)
    if any(one.verdict is Verdict.DIVERGES for one in seen):
        return ExitCode.REFUSED
    if any(one.verdict is Verdict.NEEDS_VERSION and one.live for one in seen):
        return ExitCode.NEEDS_VERSION
    return ExitCode.OK


async def replay_runs(command: Command) -> ExitCode:
    """Replay the journals that were named, or those of the database's live runs."""
    output = command.output
    module = needed_module(command.settings)
    registry = WorkflowRegistry(load_workflows(module, Path.cwd()))
    judgements: list[Judgement] = []
    for where, journal in await _journals(command):
        judgements.append(judge(journal, where, registry))
    if output.json:
        output.document([one.to_json() for one in judgements])
        return exit_code_for(judgements)
    rows = [
        (one.verdict.value, one.journal.workflow, one.journal.version, one.where)
        for one in judgements
    ]
    output.table(("verdict", "workflow", "version", "journal"), rows)
    for one in judgements:
        if one.report:
            output.line(f"\n{one.where}: {output.word(one.verdict.value)}\n{one.report}")
    counts = ", ".join(
        f"{sum(one.verdict is verdict for one in judgements)} {verdict}" for verdict in Verdict
    )
    output.note(f"{len(judgements)} journals: {counts}")
    return exit_code_for(judgements)


async def _journals(command: Command) -> list[tuple[str, Journal]]:
    arguments = command.arguments
    files = [Path(name) for name in arguments.file or ()]
    for name in arguments.folder or ():
        files += _files_in(Path(name))
    found = [(str(path), _loaded(path)) for path in files]
    if arguments.run or not files:
        async with reading(command.settings) as client:
            if arguments.run:
                ids = [(await find_run(client, text)).id for text in arguments.run]
            else:
                runs = await live_runs(client, LIVE_MAX + 1)
                ids = [run.id for run in runs[:LIVE_MAX]]
                if len(runs) > LIVE_MAX:
                    command.output.note(f"only the newest {LIVE_MAX} live runs are replayed")
            found += [(each, await export_journal(await client.get(each))) for each in ids]
    return found


def _files_in(folder: Path) -> list[Path]:
    """List the journals of a folder; an empty gate would let everything through.

    Raises:
        InvalidRequest: there is no such folder, or nothing in it.
    """
    files = sorted(folder.rglob("*.json")) if folder.is_dir() else []
    if not files:
        message = f"folder {str(folder)!r} holds no journal; `aiki record --out` writes them"
        raise InvalidRequest(message)
    return files


def _loaded(path: Path) -> Journal:
    try:
        return load_journal(path)
    except AikiError as error:
        message = f"{path}: {error.message}"
        raise InvalidRequest(message) from error

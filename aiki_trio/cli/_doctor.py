"""`aiki doctor`: is everything here that runs need, and does any run need somebody?

Each check is a function that returns findings; none changes anything, and one that fails does not
keep the others from being made.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Literal

import trio
from attrs import define, frozen

from aiki_actors.storage import SqliteReader, is_owned, open_sqlite_reader
from aiki_sdk import (
    AikiError,
    AnyWorkflow,
    Client,
    NotFound,
    RunStatus,
    RunSummary,
    SystemClock,
    WorkflowRegistry,
)

from ._command import Command
from ._connect import asserts_are_on, own_workflows
from ._control_port import is_served
from ._control_server import control_path
from ._exit import ExitCode
from ._output import shown_span
from ._reader_port import ReaderPort
from ._settings import CliSettings

PYTHON_MIN: Final = (3, 11)
FREE_FAULT: Final = 100 * 1024 * 1024
"""Bytes free on the disk below which the database is about to be unable to grow."""

FREE_WARNING: Final = 1024 * 1024 * 1024
CHECKED_BYTES_MAX: Final = 4 * 1024**3
"""A larger file is not read through without `--thorough`: it would take minutes."""

EARLIEST: Final = datetime(2025, 1, 1, tzinfo=UTC)
"""Before this release was written: a clock that says so is wrong."""

LIVE_MAX: Final = 2_000
"""Live runs whose versions are looked at."""

SHOWN_MAX: Final = 5

Verdict = Literal["ok", "warning", "fault"]


@frozen
class Finding:
    """What one check found."""

    check: str
    verdict: Verdict
    message: str


@define(eq=False)
class Examination:
    """What is examined: the settings, and the database if it can be read."""

    settings: CliSettings
    thorough: bool
    reader: SqliteReader | None = None

    @property
    def path(self) -> Path:
        """The database's file."""
        return self.settings.database_path


async def doctor(command: Command) -> ExitCode:
    """Make every check and print what it found; a fault leads to exit code 1."""
    examination = Examination(command.settings, command.arguments.thorough)
    findings = [check_python(), check_trio(), check_asserts(), *check_module(command.settings)]
    findings += await check_database(examination)
    output = command.output
    if output.json:
        output.document(
            [{"check": f.check, "verdict": f.verdict, "message": f.message} for f in findings]
        )
    else:
        rows = [(finding.verdict, finding.check, finding.message) for finding in findings]
        output.table(("verdict", "check", "finding"), rows)
    faulty = any(finding.verdict == "fault" for finding in findings)
    return ExitCode.REFUSED if faulty else ExitCode.OK


# --- The program ----------------------------------------------------------------------------------


def check_python() -> Finding:
    """The interpreter is one that this release supports."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < PYTHON_MIN:
        return Finding("python", "fault", f"{version} is too old; use 3.11 or newer")
    return Finding("python", "ok", f"{version} at {sys.executable}")


def check_trio() -> Finding:
    """Trio is of the series that the test kit is made for."""
    series = ".".join(trio.__version__.split(".")[:2])
    if series != "0.35":
        message = f"{trio.__version__} is untested here; install trio>=0.35,<0.36"
        return Finding("trio", "warning", message)
    return Finding("trio", "ok", trio.__version__)


def check_asserts() -> Finding:
    """Python runs with its asserts."""
    if asserts_are_on():
        return Finding("asserts", "ok", "on")
    message = "off (python -O or PYTHONOPTIMIZE): they guard every run's state; turn them on"
    return Finding("asserts", "fault", message)


def check_module(settings: CliSettings) -> list[Finding]:
    """The module, if one is set, can be imported and has workflows."""
    if settings.module is None:
        return []
    try:
        workflows = own_workflows(settings)
    except AikiError as error:
        return [Finding("module", "fault", error.message.partition("\n")[0])]
    return [Finding("module", "ok", ", ".join(workflow.key for workflow in workflows))]


# --- The database ---------------------------------------------------------------------------------


async def check_database(examination: Examination) -> list[Finding]:
    """The database can be read, has room, is whole; its runs are served."""
    path = examination.path
    if not path.exists():
        message = f"{path} does not exist yet; the first runtime creates it"
        return [Finding("database", "warning", message), check_folder(path), check_disk(path)]
    findings: list[Finding] = []
    try:
        async with open_sqlite_reader(path) as reader:
            examination.reader = reader
            findings.append(await check_owner(path))
            for check in _DATABASE_CHECKS:
                findings += await _made(check, examination)
    except (AikiError, NotFound) as error:
        findings.append(Finding("database", "fault", error.message))
    return [*findings, check_folder(path), check_disk(path), check_synchronous(examination)]


async def _made(
    check: Callable[[Examination], Awaitable[list[Finding]]], examination: Examination
) -> list[Finding]:
    try:
        return await check(examination)
    except AikiError as error:
        return [Finding(check.__name__.removeprefix("check_"), "fault", error.message)]


async def check_owner(path: Path) -> Finding:
    """Whether a runtime has the database open, and takes commands."""
    if not is_owned(path):
        return Finding("runtime", "ok", "none has the database open")
    if await is_served(control_path(path)):
        return Finding("runtime", "ok", "one has the database open and takes commands")
    message = "one has the database open; it takes no commands from other processes"
    return Finding("runtime", "ok", message)


async def check_size(examination: Examination) -> list[Finding]:
    """How large the file and its log are."""
    assert examination.reader is not None, "the caller opened the database"
    size = await examination.reader.size_bytes()
    log = examination.path.with_name(f"{examination.path.name}-wal")
    log_bytes = log.stat().st_size if log.exists() else 0
    message = f"{shown_bytes(size)}, log {shown_bytes(log_bytes)}"
    if log_bytes > max(size, 256 * 1024 * 1024):
        return [Finding("size", "warning", f"{message}: the log is not folded in; restart")]
    return [Finding("size", "ok", message)]


async def check_integrity(examination: Examination) -> list[Finding]:
    """SQLite's quick check of every page."""
    reader = examination.reader
    assert reader is not None, "the caller opened the database"
    if not examination.thorough and await reader.size_bytes() > CHECKED_BYTES_MAX:
        limit = shown_bytes(CHECKED_BYTES_MAX)
        return [Finding("integrity", "warning", f"larger than {limit}: pass --thorough")]
    faults = await reader.faults()
    if faults:
        message = f"{'; '.join(faults[:SHOWN_MAX])}: keep a copy and restore a backup"
        return [Finding("integrity", "fault", message)]
    return [Finding("integrity", "ok", "every page is sound")]


def check_synchronous(examination: Examination) -> Finding:
    """What a power cut would take."""
    if examination.settings.synchronous == "full":
        return Finding("synchronous", "ok", "full: acknowledged writes survive a power cut")
    message = "normal: a power cut may take the last acknowledged writes"
    return Finding("synchronous", "warning", message)


def check_folder(path: Path) -> Finding:
    """This user may write where the database is."""
    folder = path.absolute().parent
    if not folder.is_dir():
        return Finding("folder", "fault", f"{folder} does not exist; create it")
    if not os.access(folder, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        return Finding("folder", "fault", f"{path} cannot be written by this user")
    return Finding("folder", "ok", f"{folder} can be written to")


def check_disk(path: Path) -> Finding:
    """There is room for the database to grow."""
    folder = path.absolute().parent
    if not folder.is_dir():
        return Finding("disk", "warning", "unknown, for the folder does not exist")
    free = shutil.disk_usage(folder).free
    message = f"{shown_bytes(free)} free"
    if free < FREE_FAULT:
        return Finding("disk", "fault", f"{message}; make room, or writes will be refused")
    return Finding("disk", "warning" if free < FREE_WARNING else "ok", message)


def shown_bytes(size: int) -> str:
    """Write a size by the largest unit that gives a whole number or more."""
    for unit, factor in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"


# --- The runs -------------------------------------------------------------------------------------


async def check_clock(examination: Examination) -> list[Finding]:
    """The clock is not behind what the database has recorded."""
    now = SystemClock().now()
    if now < EARLIEST:
        return [Finding("clock", "fault", f"it is {now:%Y-%m-%d} by this machine: set its clock")]
    page = await _client(examination).list(limit=1)
    newest = page.runs[0].created_at if page.runs else now
    if newest > now + timedelta(seconds=5):
        ahead = shown_span(newest - now)
        message = f"the newest run was created {ahead} from now: the clock was set back"
        return [Finding("clock", "fault", message)]
    return [Finding("clock", "ok", f"{now:%Y-%m-%d %H:%M:%S} UTC")]


async def check_stalled(examination: Examination) -> list[Finding]:
    """No run waits for an operator."""
    client = _client(examination)
    count = await client.count(status=RunStatus.STALLED)
    if not count:
        return [Finding("stalled", "ok", "no run is stalled")]
    page = await client.list(status=RunStatus.STALLED, limit=SHOWN_MAX)
    message = f"{count} stalled: {_ids(list(page.runs))}; `aiki explain` says why"
    return [Finding("stalled", "warning", message)]


async def check_undeliverable(examination: Examination) -> list[Finding]:
    """The module has the workflow and version of every live run."""
    workflows = own_workflows(examination.settings)
    if not workflows:
        return [Finding("versions", "ok", "not looked at: pass --module to compare live runs")]
    live = await live_runs(_client(examination), LIVE_MAX)
    lacking = undeliverable(live, workflows)
    if not lacking:
        return [Finding("versions", "ok", f"{len(live)} live runs have their version")]
    keys = sorted({f"{run.workflow}@{run.version}" for run in lacking})
    message = (
        f"{len(lacking)} live runs need {', '.join(keys)}, which the module lacks: {_ids(lacking)}"
    )
    return [Finding("versions", "fault", message)]


async def live_runs(client: Client, limit: int) -> list[RunSummary]:
    """Return runs that have not ended, the newest first, at most `limit`."""
    live = [status for status in RunStatus if not status.terminal]
    found: list[RunSummary] = []
    async for run in client.list(status=live, limit=min(limit, 500)):
        if len(found) == limit:
            break
        found.append(run)
    return found


def undeliverable(runs: list[RunSummary], workflows: tuple[AnyWorkflow, ...]) -> list[RunSummary]:
    """Return the runs that none of the workflows is for."""
    registry = WorkflowRegistry(workflows)
    return [run for run in runs if registry.get(run.workflow, run.version) is None]


def _ids(runs: list[RunSummary]) -> str:
    shown = ", ".join(run.id for run in runs[:SHOWN_MAX])
    return f"{shown}, …" if len(runs) > SHOWN_MAX else shown


def _client(examination: Examination) -> Client:
    assert examination.reader is not None, "the caller opened the database"
    return Client(ReaderPort(examination.reader, examination.settings.namespace))


_DATABASE_CHECKS: Final[tuple[Callable[[Examination], Awaitable[list[Finding]]], ...]] = (
    check_size,
    check_integrity,
    check_clock,
    check_stalled,
    check_undeliverable,
)

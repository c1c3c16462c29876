"""`aiki record`: the journals of some runs as files, to replay other code against.

A sample is spread: of every workflow, version and status in turn, the newest first. So a small one
still holds a run of each kind that there is. It depends on the runs alone; recording again from the
same database gives the same files.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterable
from itertools import chain, zip_longest
from pathlib import Path
from typing import Final, cast

from aiki_sdk import Client, InvalidRequest, JsonValue, RunStatus, RunSummary
from aiki_sdk.client import RunFilters
from aiki_trio.testing import Journal, Scrub, export_journal

from ._arguments import BUILT_IN_SCRUB
from ._command import Command
from ._connect import find_run, reading
from ._exit import ExitCode
from ._modules import find_module

SCANNED_MAX: Final = 2_000
"""Runs of each status that a sample is taken from."""

_DIGITS: Final = re.compile(r"\d")
_LETTERS: Final = re.compile(r"[^\W\d_]")
_TIME: Final = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}.*)?", re.ASCII)


async def record(command: Command) -> ExitCode:
    """Write the journals of a sample of runs, or of the runs that were named."""
    arguments, output = command.arguments, command.output
    folder = _made_folder(arguments.out)
    scrub = None if arguments.scrub is None else scrubber(arguments.scrub, Path.cwd())
    written: list[JsonValue] = []
    rows: list[tuple[str, str, str, str]] = []
    async with reading(command.settings) as client:
        for run_id in await _chosen(client, command):
            journal = await export_journal(await client.get(run_id), scrub=scrub)
            path = folder / file_name(journal)
            journal.save(path)
            rows.append((str(path), journal.workflow, journal.version, str(len(journal.entries))))
            written.append({"file": str(path), "run_id": run_id, "workflow": journal.workflow})
    if output.json:
        output.document(written)
    else:
        output.table(("file", "workflow", "version", "entries"), rows)
        output.note(f"{len(rows)} journals in {folder}")
    return ExitCode.OK if rows else ExitCode.NOT_FOUND


def _made_folder(text: str) -> Path:
    folder = Path(text)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"--out {text!r} is not possible: {error.strerror}; name a folder"
        raise InvalidRequest(message) from error
    return folder


async def _chosen(client: Client, command: Command) -> list[str]:
    arguments = command.arguments
    if arguments.run:
        return [(await find_run(client, text)).id for text in arguments.run]
    wanted = [RunStatus(word) for word in arguments.status or RunStatus]
    found: list[RunSummary] = []
    for status in wanted:
        filters: RunFilters = {"status": status, "workflow": arguments.workflow}
        scanned = 0
        async for run in client.list(limit=500, **filters):
            found.append(run)
            scanned += 1
            if scanned == SCANNED_MAX:
                break
    return [run.id for run in spread(found, arguments.sample)]


def spread(runs: Iterable[RunSummary], count: int) -> list[RunSummary]:
    """Choose runs so that each workflow, version and status has its turn."""
    groups: dict[tuple[str, str, str], list[RunSummary]] = {}
    for run in runs:
        groups.setdefault((run.workflow, run.version, run.status.value), []).append(run)
    in_turn = zip_longest(*(groups[key] for key in sorted(groups)))
    return [run for run in chain.from_iterable(in_turn) if run is not None][:count]


def file_name(journal: Journal) -> str:
    """Return the name of a journal's file."""
    return f"{journal.workflow}-{journal.version}-{journal.run_id}.json"


# --- Scrubbing ------------------------------------------------------------------------------------


def scrubber(text: str, folder: Path) -> Scrub:
    """Return what replaces payloads: the built-in way, or a function `MODULE:NAME`.

    Raises:
        InvalidRequest: there is no such function.
    """
    if text == BUILT_IN_SCRUB:
        return scrubbed
    module_text, _, name = text.rpartition(":")
    module = find_module(module_text, folder)
    if str(module.folder) not in sys.path:
        sys.path.insert(0, str(module.folder))
    try:
        function: object = getattr(importlib.import_module(module.name), name)
    except (ImportError, AttributeError) as error:
        message = f"--scrub {text!r} is not valid: {error}; pass MODULE:FUNCTION"
        raise InvalidRequest(message) from error
    if not callable(function):
        message = f"--scrub {text!r} is not valid: it is no function"
        raise InvalidRequest(message)
    return cast("Callable[[str, JsonValue], JsonValue]", function)


def scrubbed(place: str, value: JsonValue) -> JsonValue:
    """Replace every text and number of a payload; keep its form, its keys, booleans and nulls.

    Texts keep their length and look (letters become `x`, digits `0`), times become 2000-01-01, and
    numbers 1, or 0 if they are. So most types still fit; values that code decides by do not.
    """
    match value:
        case dict():
            return {key: scrubbed(place, member) for key, member in value.items()}
        case list():
            return [scrubbed(place, item) for item in value]
        case str():
            return _scrubbed_text(value)
        case bool() | None:
            return value
        case int() | float():
            return type(value)(bool(value))
        case _:
            raise AssertionError(f"{place}: {value!r} is no JSON")


def _scrubbed_text(text: str) -> str:
    if _TIME.fullmatch(text):
        return "2000-01-01" if len(text) == 10 else "2000-01-01T00:00:00+00:00"
    return _LETTERS.sub("x", _DIGITS.sub("0", text))

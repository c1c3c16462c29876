"""Journals as files: what a run did, taken from any system, to replay today's code against.

The file is JSON: `{"format", "run_id", "workflow", "version", "scrubbed", "entries"}`, the entries
as `aiki runs history` and `handle.history()` show them. `format` is the journal's own; a newer one
is refused rather than misread.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final, cast

from attrs import frozen

from aiki_actors.engine import ENTRY_KINDS, FORMAT, Entry, RunCreated
from aiki_actors.storage import entry_to_json, micros_from_iso, micros_of
from aiki_actors.storage._codec import decode_entry
from aiki_sdk import AikiError, InvalidRequest, JournalVersionError, JsonValue, RunHandle, dumps

Scrub = Callable[[str, JsonValue], JsonValue]
"""Takes what a payload is (`input`, `task:charge-card output`) and its value; returns another."""

_NOT_PAYLOADS: Final = frozenset({"retry"})


@frozen
class Journal:
    """The journal of one run.

    Attributes:
        run_id: the run.
        workflow: its workflow's name.
        version: the version of the workflow that it was started with.
        entries: all of it, from seq 1.
        scrubbed: values were replaced, so that hashes of inputs mean nothing any more.

    """

    run_id: str
    workflow: str
    version: str
    entries: tuple[Entry, ...]
    scrubbed: bool = False

    @property
    def created(self) -> RunCreated:
        """What the run was started with."""
        body = self.entries[0].body
        assert isinstance(body, RunCreated), "checked where a journal is made"
        return body

    def to_json(self) -> dict[str, JsonValue]:
        """Return the journal as its file holds it."""
        return {
            "format": FORMAT,
            "run_id": self.run_id,
            "workflow": self.workflow,
            "version": self.version,
            "scrubbed": self.scrubbed,
            "entries": [entry_to_json(entry) for entry in self.entries],
        }

    def save(self, path: Path | str) -> None:
        """Write the file; readable, one line per value, so that changes can be reviewed."""
        Path(path).write_text(
            json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )


async def export_journal(
    handle: RunHandle[Any], path: Path | str | None = None, *, scrub: Scrub | None = None
) -> Journal:
    """Take the journal of a run from whatever system its handle is of.

    Args:
        handle: the run.
        path: where to save it; None: nowhere.
        scrub: replaces every payload, for journals that hold what must not be in a repository. It
            has to keep types. A scrubbed journal is replayed by the names of calls alone.

    Raises:
        NotFound: there is no such run.
        JournalVersionError: a newer release wrote the journal.
    """
    entries: list[JsonValue] = [
        {
            "seq": entry.seq,
            "at": entry.at.isoformat(),
            "kind": entry.kind,
            "body": _scrubbed(entry.kind, dict(entry.body), scrub),
        }
        for entry in await handle.history()
    ]
    info = await handle.info(follow=False)
    journal = _made(
        {
            "format": FORMAT,
            "run_id": info.id,
            "workflow": info.workflow,
            "version": info.version,
            "scrubbed": scrub is not None,
            "entries": entries,
        },
        f"the history of run {info.id}",
    )
    if path is not None:
        journal.save(path)
    return journal


def load_journal(path: Path | str) -> Journal:
    """Read a journal from its file.

    Raises:
        InvalidRequest: the file does not exist, or holds no journal.
        JournalVersionError: a newer release wrote it.
    """
    try:
        document: object = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        message = f"journal {str(path)!r} cannot be read: {error}"
        raise InvalidRequest(message) from error
    if not isinstance(document, dict):
        message = f"journal {str(path)!r} is not valid: it holds {type(document).__name__}"
        raise InvalidRequest(message)
    return _made(cast("dict[str, JsonValue]", document), f"journal {str(path)!r}")


def _made(document: Mapping[str, JsonValue], what: str) -> Journal:
    """Make a journal of its JSON form; `what` names it in errors."""
    form = document.get("format")
    if isinstance(form, int) and form > FORMAT:
        message = f"{what} has format {form}; this release reads formats up to {FORMAT}: upgrade it"
        raise JournalVersionError(message)
    try:
        run_id = cast("str", document["run_id"])
        entries = tuple(
            decode_entry(
                run_id,
                cast("int", row["seq"]),
                _micros(cast("str", row["at"])),
                cast("str", row["kind"]),
                cast("int", form),
                dumps(row["body"]),
            )
            for row in cast("list[dict[str, JsonValue]]", document["entries"])
        )
        journal = Journal(
            run_id,
            cast("str", document["workflow"]),
            cast("str", document["version"]),
            entries,
            document.get("scrubbed") is True,
        )
    except AikiError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        message = f"{what} is not valid: {type(error).__name__} {error}; export it again"
        raise InvalidRequest(message) from error
    _check(journal, what)
    return journal


def _check(journal: Journal, what: str) -> None:
    if not journal.entries or not isinstance(journal.entries[0].body, RunCreated):
        message = f"{what} is not valid: it does not begin with run-created; export it again"
        raise InvalidRequest(message)
    for seq, entry in enumerate(journal.entries, start=1):
        if entry.seq != seq:
            message = f"{what} is not valid: entry {entry.seq} stands where {seq} belongs"
            raise InvalidRequest(message)


def _micros(text: str) -> int:
    if text.endswith("Z"):
        return micros_from_iso(text)
    return micros_of(datetime.fromisoformat(text))


def _scrubbed(kind: str, body: dict[str, JsonValue], scrub: Scrub | None) -> dict[str, JsonValue]:
    """Replace the payloads of one entry."""
    cls = ENTRY_KINDS.get(kind)
    if scrub is None or cls is None:
        return body
    call = body.get("call")
    address = call.get("address") if isinstance(call, dict) else None
    place = ":".join(str(address).split(":")[:2]) + " " if isinstance(address, str) else ""
    if not place and isinstance(body.get("name"), str):
        place = f"event:{body['name']} "
    for name, annotation in cls.__annotations__.items():
        if annotation == "JsonValue" and name not in _NOT_PAYLOADS and name in body:
            body[name] = scrub(f"{place}{name}", body[name])
    error = body.get("error")
    if isinstance(error, dict) and "message" in error:
        body["error"] = {**error, "message": scrub(f"{place}error", error["message"])}
    spec = body.get("spec")
    if isinstance(spec, dict) and "input" in spec:
        body["spec"] = {**spec, "input": scrub(f"{place}input", spec["input"])}
    return body

"""A message of a stream: "this run may be ready, look". The database decides whether it is.

Fields, all text: `v` the version of the message (1), `run` the run's id, `at` when the run became
ready, in microseconds since 1970. A reader passes over fields that it does not know.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from attrs import evolve, frozen

from aiki_actors.storage import ReadyRun

VERSION: Final = "1"
RUN_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,100}")
"""What a run's id can look like; what does not was not written by a server."""


@frozen
class Message:
    """One delivery of one message.

    Attributes:
        stream: where it stands.
        id: its id there.
        run_id: the run that may be ready.
        ready_at: since when, in microseconds since 1970.
        deliveries: how often it was handed to a consumer so far, this time included.

    """

    stream: str
    id: str
    run_id: str
    ready_at: int
    deliveries: int = 1

    def delivered(self, deliveries: int) -> Message:
        """Return it with another number of deliveries."""
        return evolve(self, deliveries=deliveries)


def encode(run: ReadyRun) -> tuple[str, ...]:
    """Return the fields of the message for a run, names and values in turn."""
    return ("v", VERSION, "run", run.run_id, "at", str(run.ready_at))


def decode(stream: str, message_id: str, fields: Mapping[bytes, bytes]) -> Message | None:
    """Read a message; None if no server of ours, or only a later one, can have written it."""
    if fields.get(b"v") != VERSION.encode():
        return None
    try:
        run_id = fields[b"run"].decode()
        ready_at = int(fields[b"at"])
    except (KeyError, ValueError):
        return None
    if RUN_ID.fullmatch(run_id) is None:
        return None
    return Message(stream, message_id, run_id, ready_at)

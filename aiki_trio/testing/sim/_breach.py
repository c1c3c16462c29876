"""How an oracle says that a promise is broken, and what it keeps of an open wait."""

from __future__ import annotations

from attrs import define


class Broken(Exception):
    """A promise that an entry breaks: which one, and how."""

    def __init__(self, promise: str, what: str) -> None:
        super().__init__(f"{promise}: {what}")
        self.promise = promise
        self.what = what


@define(eq=False)
class OpenWait:
    """A wait as the journal has it: its kind, what it waits for, when it is due."""

    kind: str
    name: str
    due_at: int | None
    since: int = 0
